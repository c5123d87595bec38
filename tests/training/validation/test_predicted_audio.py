"""The numbers of a stage that predicts audio, against numpy, row by row; batches of any size."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_ss2a.data import LabelHead
from lightning_ss2a.training.validation.baselines import fit_training_statistics
from lightning_ss2a.training.validation.container import EpochMetrics
from lightning_ss2a.training.validation.predicted_audio import audio_metrics
from lightning_ss2a.training.validation.targets import Targets, targets_of

VISUAL, AUDIO, LABELS, TOP_N, ROWS = 7, 6, 13, 3, 21
SIZES = [[21], [8, 8, 5], [0, 20, 0, 1], [1] * 21]
VARIANTS, BASELINES = ("draw", "other"), ("chance", "mine")
PARTS = {"single": False, "several": True}
NAMES = {"prediction": "", "draw": "/draw", "other": "/other", "chance": "_baseline/chance", "mine": "_baseline/mine"}


class Example:
    """Scenes of 1 to 6 sources, with everything that validation needs."""

    def __init__(self, seed: int = 0, counts: Sequence[int] | None = None) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.head = LabelHead(self.normal(LABELS, AUDIO), self.normal(LABELS), tuple(map(str, range(LABELS))))
        fitted = fit_training_statistics([self.scenes([1, 2, 3] * 10)])
        # A ridge would see that these embeddings have nothing in common, and translate all audio alike.
        self.statistics = replace(fitted, audio_to_visual_weight=self.normal(VISUAL, AUDIO))
        drawn = torch.randint(1, 7, (ROWS,), generator=self.generator).tolist()
        self.counts = drawn if counts is None else list(counts)
        self.batch = self.scenes(self.counts)
        self.predictions = {name: self.normal(ROWS, AUDIO) + self.batch["audio"] for name in NAMES}

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def scenes(self, counts: Sequence[int]) -> dict[str, Tensor]:
        rows, longest = len(counts), max(counts)
        return {
            "sources": self.normal(rows, longest, VISUAL) + 0.5,
            "valid": torch.arange(longest) < torch.tensor(counts)[:, None],
            "global_visual": self.normal(rows, VISUAL) + 0.5,
            "audio": 2 * self.normal(rows, AUDIO) + 0.5,
            "index": torch.arange(rows),
        }

    def targets(self, rows: Tensor | slice = slice(None)) -> Targets:
        return targets_of({name: values[rows] for name, values in self.batch.items()})

    def validation(self, with_ssms: bool = True, with_clip_score: bool = True) -> EpochMetrics:
        return audio_metrics(TOP_N, with_ssms, with_clip_score, VARIANTS, BASELINES)

    def update(self, validation: EpochMetrics, sizes: Sequence[int] = (ROWS,), order=None, head=None) -> None:
        for part in (torch.arange(ROWS) if order is None else order).split(list(sizes)):
            named = {name: values[part] for name, values in self.predictions.items()}
            own = {name: named[name] for name in ("prediction", *VARIANTS)}
            baselines = {name: named[name] for name in BASELINES}
            validation.update(
                self.targets(part), own, lambda *_, baselines=baselines: baselines, self.statistics, head or self.head
            )


def by_numpy(example: Example, predicted: Tensor) -> dict[str, float | list[float]]:
    """SSMS, by number of sources too, CLIP score and reconstruction cosine, row by row."""
    weight, bias = example.head.weight.double().numpy(), example.head.bias.double().numpy()
    statistics = {name: value.double().numpy() for name, value in example.statistics.state_dict().items()}
    f1s, scores, cosines = [], [], []
    for row, count in enumerate(example.counts):
        direction = predicted[row].double().numpy()
        direction = direction / np.linalg.norm(direction)
        true = example.batch["audio"][row].double().numpy()
        labels = [
            set(np.argsort(-(weight @ audio + bias))[:TOP_N]) for audio in (direction * statistics["audio_norm"], true)
        ]
        f1s.append(len(labels[0] & labels[1]) / TOP_N)
        translated = statistics["audio_to_visual_weight"] @ direction + statistics["audio_to_visual_bias"]
        sources = example.batch["sources"][row, :count].double().numpy()
        lengths = np.linalg.norm(sources, axis=1) * np.linalg.norm(translated)
        scores.append(np.mean(sources @ translated / lengths))
        cosines.append(direction @ true / np.linalg.norm(true))
    groups = [[f1 for f1, count in zip(f1s, example.counts, strict=True) if min(count, 5) == n] for n in range(1, 6)]
    numbers = {"ssms": (10, f1s), "reconstruction_cosine": (1, cosines)}
    kinds = [(n, [r for r, c in enumerate(example.counts) if (c > 1) == several]) for n, several in PARTS.items()]
    parts = {
        f"{metric}/{name}": scale * float(np.mean([values[row] for row in rows]))
        for name, rows in kinds
        for metric, (scale, values) in numbers.items()
        if all(rows for _, rows in kinds)
    }
    return parts | {
        "ssms": 10 * float(np.mean(f1s)),
        "clip_score": 100 * float(np.mean(scores)),
        "reconstruction_cosine": float(np.mean(cosines)),
        "by_sources": [10 * float(np.mean(group)) if group else float("nan") for group in groups],
    }


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_values_are_those_of_numpy(seed: int):
    example = Example(seed)
    validation = example.validation()
    example.update(validation)
    values = validation.compute()
    for name, suffix in NAMES.items():
        expected = by_numpy(example, example.predictions[name])
        groups = expected.pop("by_sources")
        for metric, value in expected.items():
            assert values[metric + suffix].item() == pytest.approx(value, rel=1e-5, abs=1e-5), metric + suffix
        assert validation.ssms_by_group[name].tolist() == pytest.approx(groups, nan_ok=True, rel=1e-6)
        if name == "prediction":
            names = [*(f"sources_{n}" for n in range(1, 5)), "sources_5_or_more"]
            there = {f"ssms/{n}": x for n, x in zip(names, groups, strict=True) if x == x}
            assert {n: x.item() for n, x in values.items() if "ssms/sources" in n} == pytest.approx(there, rel=1e-6)
    assert len(values) == len(expected) * len(NAMES) + len(there)


@pytest.mark.parametrize(("counts", "parts"), [([1] * ROWS, 0), ([3] * ROWS, 0), ([1] * 20 + [2], 4)])
def test_one_and_several_sources_stand_apart_where_there_are_both(counts: list[int], parts: int):
    example = Example(counts=counts)
    validation = example.validation()
    example.update(validation)
    values = validation.compute()
    found = [name for name in values if "/single" in name or "/several" in name]
    assert len(found) == parts * len(NAMES)
    if parts:
        predicted, true = (x[20:].double() for x in (example.predictions["draw"], example.batch["audio"]))
        cosine = torch.cosine_similarity(predicted, true).item()
        assert values["reconstruction_cosine/several/draw"].item() == pytest.approx(cosine, abs=1e-6)


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 6))])
def test_any_split_into_batches_and_any_order_give_the_same_bits(seed: int):
    example = Example(seed)
    expected = example.validation()
    example.update(expected)
    expected_values = expected.compute()
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(seed))
    for sizes in SIZES:
        for shuffled in (None, order):
            validation = example.validation()
            example.update(validation, sizes, shuffled)
            values = validation.compute()
            assert values.keys() == expected_values.keys()
            assert [name for name in values if not torch.equal(values[name], expected_values[name])] == []
            for name, groups in validation.ssms_by_group.items():
                assert torch.equal(groups.nan_to_num(-1), expected.ssms_by_group[name].nan_to_num(-1))


def test_baselines_are_measured_once_and_again_when_asked():
    example = Example()
    validation = example.validation()
    asked = []

    def epoch(baselines: dict[str, Tensor]) -> dict[str, Tensor]:
        def ask(*_: object) -> dict[str, Tensor]:
            asked.append(1)
            return baselines

        own = {name: example.predictions[name] for name in ("prediction", *VARIANTS)}
        validation.update(example.targets(), own, ask, example.statistics, example.head)
        return validation.compute()

    true, wrong = (dict.fromkeys(BASELINES, sign * example.batch["audio"]) for sign in (1, -1))
    first = epoch(true)
    assert first["reconstruction_cosine_baseline/mine"] == 1
    validation.reset()
    second = epoch(wrong)  # not even looked at
    assert second.keys() == first.keys()
    assert all(torch.equal(second[name], first[name]) for name in first)
    assert len(asked) == 1
    validation.reset(baselines=True)
    third = epoch(wrong)
    assert len(asked) == 2
    assert third["reconstruction_cosine_baseline/mine"] == -1
    assert torch.equal(third["ssms"], first["ssms"])
    assert validation.ssms_by_group.keys() == NAMES.keys()


def test_an_epoch_is_forgotten():
    example, other = Example(0), Example(1)
    validation = example.validation()
    other.update(validation)
    validation.compute()
    validation.reset(baselines=True)
    example.update(validation)
    expected = example.validation()
    example.update(expected)
    values, expected_values = validation.compute(), expected.compute()
    assert all(torch.equal(values[name], expected_values[name]) for name in expected_values)


def test_nothing_goes_into_the_checkpoint():
    example = Example()
    validation = example.validation()
    example.update(validation)
    validation.compute()
    assert validation.state_dict() == {}
    assert list(validation.parameters()) == []


@pytest.mark.parametrize(("with_ssms", "with_clip_score"), [(False, True), (True, False), (False, False)])
def test_numbers_that_the_data_cannot_give_are_left_out(with_ssms: bool, with_clip_score: bool):
    example = Example()
    validation = example.validation(with_ssms, with_clip_score)
    example.update(validation)
    values = validation.compute()
    for metric, there in (("ssms", with_ssms), ("clip_score", with_clip_score), ("reconstruction_cosine", True)):
        assert {name for name in NAMES if metric + NAMES[name] in values} == (set(NAMES) if there else set())
    assert bool(validation.ssms_by_group) == with_ssms
    assert all(value.isfinite() for value in values.values())


def test_rows_that_all_show_as_many_things_have_no_breakdown():
    example = Example(counts=[2] * ROWS)
    validation = example.validation()
    example.update(validation)
    assert [name for name in validation.compute() if "sources" in name] == []


def test_under_autocast_the_closed_form_maps_stay_in_float32():
    """A number of bf16-mixed training is comparable with one of float32 training."""
    example = Example()
    plain, mixed = example.validation(), example.validation()
    example.update(plain)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        example.update(mixed)
        ridge = example.statistics.predict_audio(example.targets().features)
    torch.testing.assert_close(ridge, example.statistics.predict_audio(example.targets().features), rtol=0, atol=0)
    expected = plain.compute()
    assert [name for name, value in mixed.compute().items() if not torch.equal(value, expected[name])] == []
