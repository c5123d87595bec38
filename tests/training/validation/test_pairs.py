"""The numbers of a validation epoch against numpy; baselines; batches of any size."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_ss2a.data import LabelHead
from lightning_ss2a.metric_names import OWN
from lightning_ss2a.training.validation.baselines import TrainingStatistics, fit_training_statistics
from lightning_ss2a.training.validation.container import EpochMetrics
from lightning_ss2a.training.validation.pairs import (
    AlignmentMetrics,
    PairPrediction,
    pair_baselines,
    pair_metrics,
)
from lightning_ss2a.training.validation.predicted_audio import PredictedAudioMetrics
from lightning_ss2a.training.validation.targets import Targets, targets_of
from tests.manifold_examples import Recorder, make_data, make_module, make_trainer, write_learnable_pairs

VISUAL_WIDTH, AUDIO_WIDTH, WIDTH, LABELS, CLASSES, TOP_N = 7, 6, 5, 13, 4, 3
SIZES = [[21], [8, 8, 5], [0, 20, 0, 1], [1] * 21]


class Example:
    """Random rows with everything that validation needs."""

    baselines = staticmethod(pair_baselines)

    def __init__(self, rows: int = 21, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        self.head = LabelHead(normal(LABELS, AUDIO_WIDTH), normal(LABELS), tuple(map(str, range(LABELS))))
        self.statistics: TrainingStatistics = fit_training_statistics(
            [
                {
                    "visual": normal(30, VISUAL_WIDTH) + 0.5,
                    "audio": 2 * normal(30, AUDIO_WIDTH) + 0.5,
                    "index": torch.arange(30),
                }
            ]
        )
        self.batch = {
            "visual": normal(rows, VISUAL_WIDTH) + 0.5,
            "audio": 2 * normal(rows, AUDIO_WIDTH) + 0.5,
            "class_index": torch.randint(CLASSES - 1, (rows,), generator=generator),  # the last class has no row
            "index": torch.arange(rows),
        }
        self.visual_embedding, self.audio_embedding = normal(rows, WIDTH), normal(rows, WIDTH) + 0.3
        self.predicted = self.batch["audio"] + 3 * normal(rows, AUDIO_WIDTH)

    @property
    def targets(self) -> Targets:
        return targets_of(self.batch)

    def update(self, validation: EpochMetrics, sizes: list[int], order: Tensor | None = None) -> None:
        order = torch.arange(len(self.predicted)) if order is None else order
        for part in order.split(sizes):
            targets = targets_of({name: values[part] for name, values in self.batch.items()})
            own = PairPrediction(self.predicted[part], self.visual_embedding[part], self.audio_embedding[part])
            validation.update(targets, {OWN: own}, self.baselines, self.statistics, self.head)


def as_unit(rows: Tensor) -> np.ndarray:
    values = rows.double().numpy()
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def predicted_by_numpy(example: Example, predicted: Tensor) -> dict[str, float]:
    """SSMS, CLIP score and reconstruction cosine, row by row."""
    weight, bias = example.head.weight.double().numpy(), example.head.bias.double().numpy()
    statistics = {name: value.double().numpy() for name, value in example.statistics.state_dict().items()}
    scores, cosines, f1s = [], [], []
    rows = zip(
        as_unit(predicted), example.batch["audio"].double().numpy(), as_unit(example.batch["visual"]), strict=True
    )
    for direction, true, visual in rows:
        labels = [
            set(np.argsort(-(weight @ audio + bias))[:TOP_N]) for audio in (direction * statistics["audio_norm"], true)
        ]
        precision = recall = len(labels[0] & labels[1]) / TOP_N
        f1s.append(0.0 if precision == 0 else 2 * precision * recall / (precision + recall))
        cosines.append(direction @ true / np.linalg.norm(true))
        translated = statistics["audio_to_visual_weight"] @ direction + statistics["audio_to_visual_bias"]
        scores.append(translated @ visual / np.linalg.norm(translated))
    return {
        "ssms": 10 * float(np.mean(f1s)),
        "clip_score": 100 * float(np.mean(scores)),
        "reconstruction_cosine": float(np.mean(cosines)),
        "by_class": [
            10
            * float(
                np.mean(
                    [f1 for f1, c in zip(f1s, example.batch["class_index"].tolist(), strict=True) if c == k] or [np.nan]
                )
            )
            for k in range(CLASSES)
        ],
    }


def alignment_by_numpy(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """Retrieval both ways by sorting each row, and the modality gap."""
    similarity = first @ second.T
    values = {}
    for direction, matrix in (("visual_to_audio", similarity), ("audio_to_visual", similarity.T)):
        ranks = np.array([1 + list(np.argsort(-row)).index(i) for i, row in enumerate(matrix)])
        values |= {f"recall@{k}/{direction}": float(np.mean(ranks <= k)) for k in (1, 5, 10)}
        values[f"median_rank/{direction}"] = float(np.median(ranks))
    return values | {"modality_gap": float(np.linalg.norm(first.mean(0) - second.mean(0)))}


def assert_close(found: dict[str, Tensor], expected: dict[str, float]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(value, rel=1e-5, abs=1e-6), name


@pytest.mark.parametrize("seed", range(4))
def test_predicted_audio_metrics_equal_numpy(seed: int):
    example = Example(seed=seed)
    expected = predicted_by_numpy(example, example.predicted)
    by_class = expected.pop("by_class")
    metrics = PredictedAudioMetrics(TOP_N, CLASSES, with_ssms=True)
    metrics.update(example.predicted, example.targets, example.statistics, example.head, example.batch["class_index"])
    assert_close(metrics.compute(), expected)
    assert metrics.ssms.per_class().tolist() == pytest.approx(by_class, nan_ok=True)
    assert np.isnan(by_class[-1])


def test_length_of_a_prediction_does_not_matter_but_that_of_the_training_audio_does():
    example = Example()
    values = []
    for scale, norm in ((1.0, 1.0), (9.0, 1.0), (1.0, 0.01)):
        state = example.statistics.state_dict()
        statistics = TrainingStatistics(**{**state, "audio_norm": norm * state["audio_norm"]})
        metrics = PredictedAudioMetrics(TOP_N, None, with_ssms=True)
        metrics.update(scale * example.predicted, example.targets, statistics, example.head)
        values.append({name: float(value) for name, value in metrics.compute().items()})
    assert values[0] == pytest.approx(values[1])
    assert values[0]["ssms"] != pytest.approx(values[2]["ssms"])


@pytest.mark.parametrize("seed", range(4))
def test_alignment_metrics_equal_numpy(seed: int):
    example = Example(seed=seed)
    metrics = AlignmentMetrics()
    metrics.update(example.visual_embedding, example.audio_embedding, example.batch["index"])
    expected = alignment_by_numpy(as_unit(example.visual_embedding), as_unit(example.audio_embedding))
    assert_close(metrics.compute(), expected)


def baselines_by_numpy(example: Example) -> dict[str, dict[str, float]]:
    statistics, rows = example.statistics, len(example.predicted)
    weight, bias = statistics.features_to_audio_weight.numpy(), statistics.features_to_audio_bias.numpy()
    ridge = as_unit(example.batch["visual"]) @ weight.T + bias
    predictions = {
        "chance": torch.stack([statistics.audio_samples[i % len(statistics.audio_samples)] for i in range(rows)]),
        "mean_audio": statistics.mean_audio.repeat(rows, 1),
        "ridge": torch.from_numpy(ridge),
        "ridge_ssms": torch.from_numpy(ridge),  # these statistics hold one regression
    }
    expected: dict[str, dict[str, float]] = {}
    for baseline, predicted in predictions.items():
        values = predicted_by_numpy(example, predicted)
        for name in ("ssms", "clip_score", "reconstruction_cosine"):
            expected.setdefault(name, {})[baseline] = values[name]
    mean, audio = statistics.mean_audio.numpy(), as_unit(example.batch["audio"])
    retrieved = alignment_by_numpy(as_unit(torch.from_numpy(ridge - mean)), as_unit(torch.from_numpy(audio - mean)))
    expected |= {name: {"ridge": value, "ridge_ssms": value} for name, value in retrieved.items()}
    gap = alignment_by_numpy(as_unit(torch.from_numpy(ridge)), audio)["modality_gap"]
    expected["modality_gap"] = {"ridge": gap, "ridge_ssms": gap}
    for direction in ("visual_to_audio", "audio_to_visual"):
        for k in (1, 5, 10):
            expected[f"recall@{k}/{direction}"]["chance"] = min(1.0, k / rows)
        expected[f"median_rank/{direction}"]["chance"] = (1 + rows) / 2
    return expected


@pytest.mark.parametrize(("rows", "seed"), [(21, 0), (40, 1), (3, 2)])
def test_baselines_equal_numpy(rows: int, seed: int):
    example = Example(rows, seed)
    validation = pair_metrics(TOP_N, CLASSES, True)
    example.update(validation, [rows])
    expected = {f"{m}_baseline/{n}": x for m, values in baselines_by_numpy(example).items() for n, x in values.items()}
    assert_close({name: value for name, value in validation.compute().items() if "_baseline/" in name}, expected)


def test_chance_of_retrieval_is_what_random_embeddings_reach():
    """The stated baseline against an experiment."""
    rows, generator, found = 21, torch.Generator().manual_seed(0), []
    for _ in range(300):
        metrics = AlignmentMetrics()
        embeddings = [torch.randn(rows, 64, generator=generator) for _ in range(2)]
        metrics.update(*embeddings, torch.arange(rows))
        found.append({name: float(value) for name, value in metrics.compute().items()})
    for k in (1, 5, 10):
        assert np.mean([values[f"recall@{k}/visual_to_audio"] for values in found]) == pytest.approx(k / rows, abs=0.03)
    assert np.mean([values["median_rank/visual_to_audio"] for values in found]) == pytest.approx(11, abs=0.5)


# -------------------------------------------------------------------- a whole epoch


def values_of(validation: EpochMetrics) -> dict[str, float]:
    return {name: float(value) for name, value in validation.compute().items()}


@pytest.mark.parametrize("sizes", SIZES)
def test_an_epoch_is_the_same_in_any_batches_and_order(sizes: list[int]):
    example = Example()
    expected, found = pair_metrics(TOP_N, CLASSES, True), pair_metrics(TOP_N, CLASSES, True)
    example.update(expected, [21])
    example.update(found, sizes, torch.randperm(21, generator=torch.Generator().manual_seed(1)))
    assert values_of(found) == values_of(expected)
    torch.testing.assert_close(found.ssms_by_group, expected.ssms_by_group, rtol=0, atol=0, equal_nan=True)
    assert found.ssms_by_group.keys() == {OWN}


def test_an_epoch_has_all_values_with_their_baselines_beside_them():
    example = Example()
    validation = pair_metrics(TOP_N, CLASSES, True)
    example.update(validation, [21])
    found = values_of(validation)
    expected = predicted_by_numpy(example, example.predicted)
    expected.pop("by_class")
    expected |= alignment_by_numpy(as_unit(example.visual_embedding), as_unit(example.audio_embedding))
    for name, baselines in baselines_by_numpy(example).items():
        expected |= {f"{name}_baseline/{baseline}": value for baseline, value in baselines.items()}
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_baselines_are_measured_once_and_again_when_asked(monkeypatch: pytest.MonkeyPatch):
    calls = []

    def counted(*args: Any) -> dict[str, PairPrediction]:
        calls.append(1)
        return pair_baselines(*args)

    monkeypatch.setattr(Example, "baselines", staticmethod(counted))
    validation, epochs = pair_metrics(TOP_N, CLASSES, True), []
    for epoch in range(3):
        example = Example(seed=epoch)
        example.update(validation, [8, 8, 5])
        epochs.append(values_of(validation))
        validation.reset()
    assert len(calls) == 3
    baselines = [{name: value for name, value in epoch.items() if "_baseline/" in name} for epoch in epochs]
    assert baselines[0] == baselines[1] == baselines[2]
    assert epochs[0]["ssms"] != epochs[1]["ssms"]
    validation.reset(baselines=True)
    Example(seed=2).update(validation, [21])
    fresh = pair_metrics(TOP_N, CLASSES, True)
    Example(seed=2).update(fresh, [21])
    assert values_of(validation) == values_of(fresh)
    assert len(calls) == 5


def test_without_a_label_head_there_is_no_ssms_and_all_else_is_the_same():
    example = Example()
    values = []
    for with_ssms in (True, False):
        validation = pair_metrics(TOP_N, CLASSES if with_ssms else None, with_ssms)
        example.head = example.head if with_ssms else None
        example.update(validation, [21])
        values.append(values_of(validation))
    assert validation.ssms_by_group == {}
    assert values[1] == {name: value for name, value in values[0].items() if not name.startswith("ssms")}


def test_nothing_of_it_goes_into_a_checkpoint():
    validation = pair_metrics(TOP_N, CLASSES, True)
    Example().update(validation, [21])
    assert dict(validation.state_dict()) == {}
    assert list(validation.parameters()) == []


# -------------------------------------------------------------------- through the trainer


@pytest.mark.parametrize("evaluation_batch_size", [5, 23, 2])
def test_module_measures_the_means_of_its_gaussians(tmp_path: Path, evaluation_batch_size: int):
    dataset = write_learnable_pairs(tmp_path / "pairs")
    recorder, module = Recorder(), make_module()
    trainer = make_trainer(tmp_path, callbacks=[recorder])
    trainer.validate(module, datamodule=make_data(dataset, evaluation_batch_size=evaluation_batch_size), verbose=False)
    (batch,) = make_data(dataset, evaluation_batch_size=99).val_dataloader()
    with torch.no_grad():
        manifold = module.eval().manifold
        visual, audio = manifold.project_visual(batch["visual"]).mean, manifold.project_audio(batch["audio"]).mean
        predicted = manifold.reconstruct_audio(visual).mean
    expected = alignment_by_numpy(as_unit(visual), as_unit(audio))
    cosines = (as_unit(predicted) * as_unit(batch["audio"])).sum(1)
    expected["reconstruction_cosine"] = float(cosines.mean())
    found = recorder.validation[-1]
    assert {name: found[f"val/{name}"] for name in expected} == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_the_sanity_check_leaves_no_baselines_of_two_batches(tmp_path: Path):
    dataset = write_learnable_pairs(tmp_path / "pairs")
    values = []
    for sanity_batches in (0, 2):
        recorder = Recorder()
        trainer = make_trainer(tmp_path, callbacks=[recorder], max_epochs=1, num_sanity_val_steps=sanity_batches)
        trainer.fit(make_module(), datamodule=make_data(dataset))
        values.append(recorder.validation)
    assert values[0] == values[1]
    assert values[0][0]["val/recall@1/visual_to_audio_baseline/chance"] == pytest.approx(1 / 23)


def test_statistics_and_head_go_to_the_device_once_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    moved = []
    for owner in (TrainingStatistics, LabelHead):
        original = owner.to

        def counted(self, device, original=original):
            moved.append(type(self).__name__)
            return original(self, device)

        monkeypatch.setattr(owner, "to", counted)
    dataset = write_learnable_pairs(tmp_path / "pairs")
    make_trainer(tmp_path, max_epochs=3).fit(make_module(), datamodule=make_data(dataset))
    assert sorted(moved) == ["LabelHead", "TrainingStatistics"]
