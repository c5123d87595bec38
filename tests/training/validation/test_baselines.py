"""Training statistics: against sklearn and numpy, and their way through checkpoints."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from sklearn.linear_model import Ridge
from torch import Tensor
from torch.nn.functional import normalize

from lightning_ss2a.errors import InputError
from lightning_ss2a.models.ridge import GCV_PENALTIES
from lightning_ss2a.training import ManifoldModule
from lightning_ss2a.training.validation.baselines import (
    PRIOR_SAMPLES,
    TrainingStatistics,
    fit_training_statistics,
    training_statistics,
)
from tests.manifold_examples import (
    AUDIO_WIDTH,
    VISUAL_WIDTH,
    Recorder,
    largest_difference,
    make_data,
    make_module,
    make_trainer,
    parameters_of,
    write_learnable_pairs,
)


def make_rows(count: int, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    cause = torch.randn(count, 4, generator=generator)
    rows = {}
    for name, width in (("visual", VISUAL_WIDTH), ("audio", AUDIO_WIDTH)):
        image = cause @ torch.randn(4, width, generator=generator) + 0.5
        rows[name] = image + 0.5 * torch.randn(count, width, generator=generator)
    return rows | {"index": torch.arange(count)}


def batches_of(rows: dict[str, Tensor], sizes: list[int]) -> list[dict[str, Tensor]]:
    assert sum(sizes) == len(rows["audio"])
    pieces = {name: values.split(sizes) for name, values in rows.items()}
    return [{name: pieces[name][i] for name in pieces} for i in range(len(sizes))]


def unit(rows: Tensor) -> np.ndarray:
    values = rows.double().numpy()
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def best_ridge(x: np.ndarray, y: np.ndarray) -> Ridge:
    """sklearn's ridge with the penalty that generalised cross-validation chooses, by the n x n hat matrix."""
    centred, count = x - x.mean(0), len(x)
    variance = (centred**2).sum() / x.shape[1]

    def score(penalty: float) -> float:
        hat = centred @ np.linalg.solve(centred.T @ centred + penalty * variance * np.eye(x.shape[1]), centred.T)
        hat += 1 / count
        return float(((y - hat @ y) ** 2).sum() / (count - np.trace(hat)) ** 2)

    penalty = min(GCV_PENALTIES.tolist(), key=score)
    return Ridge(alpha=penalty * variance).fit(x, y)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_statistics_are_those_of_sklearn_and_numpy(seed: int):
    rows, others = make_rows(60, seed), make_rows(9, seed + 100)
    found = fit_training_statistics(batches_of(rows, [25, 0, 30, 5]))
    visual, audio = unit(rows["visual"]), unit(rows["audio"])
    np.testing.assert_allclose(found.mean_audio, audio.mean(0), atol=1e-6)
    assert float(found.audio_norm) == pytest.approx(float(rows["audio"].norm(dim=1).mean()), rel=1e-6)
    to_audio, to_visual = best_ridge(visual, audio), best_ridge(audio, visual)
    np.testing.assert_allclose(
        found.predict_audio(normalize(others["visual"])), to_audio.predict(unit(others["visual"])), atol=1e-5
    )
    np.testing.assert_allclose(
        found.translate_audio(others["audio"]), to_visual.predict(unit(others["audio"])), atol=1e-5
    )
    assert {value.dtype for value in found.state_dict().values()} == {torch.float32}


def test_norms_of_the_inputs_do_not_matter_to_the_maps():
    rows, other = make_rows(40), make_rows(5, 1)
    scales = torch.linspace(0.1, 9, 40)[:, None]
    scaled = rows | {name: rows[name] * scales for name in ("visual", "audio")}
    first, second = (fit_training_statistics(batches_of(each, [40])) for each in (rows, scaled))
    features = normalize(other["visual"])
    torch.testing.assert_close(first.predict_audio(features), second.predict_audio(features))


@pytest.mark.parametrize("count", [1, 3, 511, 512, 513, 1024, 1025, 5000])
@pytest.mark.parametrize("size", [7, 1024])
def test_samples_are_spread_evenly_over_the_split(count: int, size: int):
    """However the rows come in batches."""
    numbers = torch.arange(count, dtype=torch.float32)
    rows = {"audio": numbers[:, None].expand(-1, AUDIO_WIDTH) + 1, "visual": torch.ones(count, VISUAL_WIDTH)}
    rows["index"] = torch.arange(count)
    sizes = [size] * (count // size) + [count % size]
    found = fit_training_statistics(batches_of(rows, sizes)).audio_samples
    drawn = found[:, 0] - 1
    assert len(found) == min(count, PRIOR_SAMPLES)
    assert drawn[0] == 0
    gaps = drawn.diff()
    if len(gaps):
        assert gaps.min() > 0
        even = count / len(found)
        assert gaps.max() <= 2 * max(1, even)
        assert drawn[-1] >= count - 1 - 2 * even


def test_samples_do_not_keep_the_batches_alive():
    rows = make_rows(4096)
    found = fit_training_statistics(batches_of(rows, [1024] * 4))
    assert found.audio_samples.untyped_storage().nbytes() == found.audio_samples.numel() * 4


@pytest.mark.parametrize("batches", [[], [make_rows(0)]], ids=["no batch", "an empty batch"])
def test_no_rows(batches: list):
    with pytest.raises(InputError, match="the training split has no rows"):
        fit_training_statistics(batches)


def test_identical_rows_give_their_mean():
    row = {name: make_rows(1)[name].expand(20, *make_rows(1)[name].shape[1:]) for name in ("visual", "audio", "index")}
    found = fit_training_statistics(batches_of(row, [20]))
    np.testing.assert_allclose(
        found.predict_audio(make_rows(3, 1)["visual"]), np.repeat(unit(row["audio"])[:1], 3, 0), atol=1e-6
    )


# -------------------------------------------------------------------- translator


def save_translator(path: Path, **tensors: Tensor) -> str:
    safetensors.torch.save_file(tensors, path)
    return str(path)


def test_translator_of_a_file(tmp_path: Path):
    weight, bias = torch.randn(VISUAL_WIDTH, AUDIO_WIDTH, dtype=torch.float64), torch.randn(VISUAL_WIDTH)
    statistics = fit_training_statistics([make_rows(30)])
    changed = statistics.with_translator(save_translator(tmp_path / "t.safetensors", weight=weight, bias=bias))
    audio = make_rows(4)["audio"]
    expected = unit(audio) @ weight.numpy().T + bias.numpy()
    np.testing.assert_allclose(changed.translate_audio(audio), expected, atol=1e-5)
    assert torch.equal(changed.predict_audio(make_rows(4)["visual"]), statistics.predict_audio(make_rows(4)["visual"]))


def test_bad_translators_are_named(tmp_path: Path):
    statistics = fit_training_statistics([make_rows(30)])
    weight, bias = torch.zeros(VISUAL_WIDTH, AUDIO_WIDTH), torch.zeros(VISUAL_WIDTH)
    missing = str(tmp_path / "missing.safetensors")
    with pytest.raises(InputError, match=r"missing.safetensors: no such translator"):
        statistics.with_translator(missing)
    turned = save_translator(tmp_path / "turned", weight=weight.T.contiguous(), bias=bias)
    with pytest.raises(InputError, match=r"turned: field 'weight' must have shape \(10, 8\), found \(8, 10\)"):
        statistics.with_translator(turned)
    with pytest.raises(InputError, match=r"half: field 'bias' must have shape \(10,\), found nothing"):
        statistics.with_translator(save_translator(tmp_path / "half", weight=weight))
    infinite = save_translator(tmp_path / "infinite", weight=weight + torch.inf, bias=bias)
    with pytest.raises(InputError, match=r"infinite: field 'weight' holds NaN or infinite numbers"):
        statistics.with_translator(infinite)
    (tmp_path / "text").write_text("no tensors here")
    with pytest.raises(InputError, match=r"text: not a safetensors file"):
        statistics.with_translator(str(tmp_path / "text"))


def test_module_scores_with_the_translator(tmp_path: Path):
    """A translator that sends everything to one visual direction has the cosine with that direction as its score."""
    dataset = write_learnable_pairs(tmp_path / "pairs")
    direction = torch.randn(VISUAL_WIDTH)
    path = save_translator(tmp_path / "t", weight=torch.zeros(VISUAL_WIDTH, AUDIO_WIDTH), bias=direction)
    recorder = Recorder()
    module = make_module(translator_checkpoint=path)
    make_trainer(tmp_path, callbacks=[recorder], max_epochs=1).fit(module, datamodule=make_data(dataset))
    visual = torch.cat([batch["visual"] for batch in make_data(dataset).val_dataloader()])
    expected = 100 * float(torch.cosine_similarity(visual, direction[None]).mean())
    scores = [value for name, value in recorder.validation[-1].items() if "clip_score" in name]
    assert scores == pytest.approx([expected] * 5, rel=1e-5)
    with pytest.raises(InputError, match="no such translator"):
        make_trainer(tmp_path).fit(make_module(translator_checkpoint="nowhere"), datamodule=make_data(dataset))


# -------------------------------------------------------------------- checkpoints


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ManifoldModule]:
    folder = tmp_path_factory.mktemp("trained")
    trainer, module = make_trainer(folder), make_module()
    trainer.fit(module, datamodule=make_data(write_learnable_pairs(folder / "pairs")))
    trainer.save_checkpoint(folder / "end.ckpt")
    return folder, module


def test_statistics_of_the_module_are_of_the_rows_with_views_averaged(trained: tuple[Path, ManifoldModule]):
    folder, module = trained
    data = make_data(str(folder / "pairs"))
    rows, expected = list(data.training_rows_loader()), training_statistics(data, module.measuring.top_n)
    assert sum(len(batch["audio"]) for batch in rows) == 53
    assert largest_difference(module.statistics.state_dict(), expected.state_dict()) == 0
    audio = torch.cat([batch["audio"] for batch in rows])
    np.testing.assert_allclose(module.statistics.mean_audio, unit(audio).mean(0), atol=1e-6)


def test_a_checkpoint_loads_without_config_and_without_unpickling(trained: tuple[Path, ManifoldModule]):
    folder, module = trained
    checkpoint = torch.load(folder / "end.ckpt", weights_only=True)
    assert checkpoint["hyper_parameters"]["visual_width"] == VISUAL_WIDTH
    assert checkpoint["hyper_parameters"]["manifold"]["projector_widths"] == [16, 16]
    assert {value.device.type for value in checkpoint["training_statistics"].values()} == {"cpu"}
    loaded = ManifoldModule.load_from_checkpoint(folder / "end.ckpt", weights_only=True)
    assert dict(loaded.hparams) == dict(module.hparams)
    assert largest_difference(parameters_of(loaded.manifold), parameters_of(module.manifold)) == 0
    assert largest_difference(loaded.statistics.state_dict(), module.statistics.state_dict()) == 0
    visual = make_rows(3)["visual"]
    with torch.no_grad():
        expected = module.eval().manifold.project_visual(visual).mean
        assert torch.equal(loaded.eval().manifold.project_visual(visual).mean, expected)


@pytest.mark.parametrize("stage", ["validate", "test"])
@pytest.mark.parametrize("by_path", [True, False])
def test_measuring_other_data_needs_no_training_rows(trained, tmp_path: Path, stage: str, by_path: bool):
    folder, module = trained
    rows = {"test": 17, "validation": 17}
    data = make_data(write_learnable_pairs(tmp_path / "other", rows, seed=5))
    recorder, checkpoint = Recorder(), folder / "end.ckpt"
    fresh = make_module(seed=9) if by_path else ManifoldModule.load_from_checkpoint(checkpoint, weights_only=True)
    trainer = make_trainer(tmp_path, callbacks=[recorder])
    options = {"ckpt_path": checkpoint, "weights_only": True} if by_path else {}
    getattr(trainer, stage)(fresh, datamodule=data, verbose=False, **options)
    values = recorder.validation[-1]
    prefix = {"validate": "val", "test": "test"}[stage]
    loader = data.val_dataloader() if stage == "validate" else data.test_dataloader()
    audio = torch.cat([batch["audio"] for batch in loader])
    expected = float((torch.from_numpy(unit(audio)) @ unit(module.statistics.mean_audio[None])[0]).mean())
    assert values[f"{prefix}/reconstruction_cosine_baseline/mean_audio"] == pytest.approx(expected, abs=1e-6)


def test_baselines_of_the_test_split_are_not_those_of_validation(tmp_path: Path):
    """The same module is fitted, then tested on another split, then fitted on other data."""
    dataset = write_learnable_pairs(tmp_path / "pairs", {"train": 53, "validation": 23, "test": 31})
    module, recorder = make_module(), Recorder()
    trainer = make_trainer(tmp_path, callbacks=[recorder], max_epochs=1)
    trainer.fit(module, datamodule=make_data(dataset))
    trainer.test(module, datamodule=make_data(dataset), verbose=False)
    alone = Recorder()
    trainer = make_trainer(tmp_path, callbacks=[alone])
    trainer.test(make_module(), datamodule=make_data(dataset), verbose=False)
    baseline = {name: value for name, value in alone.validation[-1].items() if "_baseline/" in name}
    assert baseline == {name: recorder.validation[-1][name] for name in baseline}
    assert baseline["test/median_rank/visual_to_audio_baseline/chance"] == 16.0
    other = write_learnable_pairs(tmp_path / "other", seed=3)
    make_trainer(tmp_path, max_epochs=1).fit(module, datamodule=make_data(other))
    expected = training_statistics(make_data(other), module.measuring.top_n)
    assert largest_difference(module.statistics.state_dict(), expected.state_dict()) == 0


def test_statistics_move_and_come_back():
    statistics = fit_training_statistics([make_rows(30)])
    again = TrainingStatistics(**statistics.to(torch.device("cpu")).state_dict())
    assert largest_difference(again.state_dict(), statistics.state_dict()) == 0


def test_a_linear_translator_is_no_part_of_the_state(tmp_path: Path):
    """A checkpoint of a run that had one gives the ridge regression again to a run that has none."""
    statistics = fit_training_statistics([make_rows(30)])
    weight, bias = torch.randn(VISUAL_WIDTH, AUDIO_WIDTH), torch.randn(VISUAL_WIDTH)
    changed = statistics.with_translator(save_translator(tmp_path / "t.safetensors", weight=weight, bias=bias))
    audio = make_rows(4)["audio"]
    again = TrainingStatistics(**changed.state_dict())
    assert not torch.equal(changed.translate_audio(audio), statistics.translate_audio(audio))
    assert torch.equal(again.translate_audio(audio), statistics.translate_audio(audio))
