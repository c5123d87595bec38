"""RemixerModule's numbers against direct calls, scene by scene."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_ss2a.data import ShardDataset
from lightning_ss2a.models import CycleMixOptions, cycle_mix
from lightning_ss2a.training import RemixerModule
from tests.manifold_examples import Recorder, make_data, make_trainer
from tests.scene_examples import make_remixer, save_manifold, write_learnable_scenes

TOP_N = 4


@pytest.fixture(scope="module")
def manifold(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_manifold(tmp_path_factory.mktemp("manifold") / "manifold.ckpt")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_learnable_scenes(tmp_path_factory.mktemp("scenes"))


def validated(module: RemixerModule, dataset: str, folder: Path, **data: Any) -> dict[str, float]:
    """The numbers after an epoch of training, by ``validate``."""
    make_trainer(folder, max_epochs=1, limit_val_batches=0).fit(module, datamodule=make_data(dataset))
    recorder = Recorder()
    trainer = make_trainer(folder, callbacks=[recorder])
    trainer.validate(module, datamodule=make_data(dataset, **data), verbose=False)
    module.eval()
    return recorder.validation[0]


def unit(row: Any) -> np.ndarray:
    row = np.asarray(row, np.float64)
    return row / np.linalg.norm(row)


@torch.no_grad()
def predict_scene(module: RemixerModule, scene: dict[str, Any], row: int) -> dict[str, np.ndarray]:
    """Each way to predict a scene's audio, from the networks alone."""
    manifold, remixer, options = module.manifold.eval(), module.remixer.eval(), module.cycle_mix
    sources = scene["sources"][row][scene["valid"][row]]
    visual = torch.cat([scene["global_visual"][row : row + 1], sources]) if module.use_global else sources
    e = manifold.project_visual(visual).mean
    tokens = e[None], visual[None], torch.ones(1, len(visual), dtype=torch.bool)
    weights = torch.ones(1, len(visual))
    weights[0, : len(visual) - len(sources)] = 0

    def mix(options: CycleMixOptions, seed: int = 0) -> np.ndarray:
        arguments = {"options": options, "seed": seed, "slot_weights": weights}
        return unit(cycle_mix(remixer, manifold, *tokens, [scene["key"][row]], **arguments).embedding[0])

    once = replace(options, iterations=1, samples=1)
    heard = manifold.reconstruct_audio(manifold.project_visual(sources).mean).mean
    of_all = manifold.reconstruct_audio(manifold.project_visual(scene["global_visual"][row]).mean).mean
    return {
        "": unit(remixer(*tokens).mean[0]),
        "/draw": mix(once),
        "second draw": mix(once, seed=1),
        "/cycle_mix": mix(options),
        "_baseline/source_mean": np.mean([unit(audio) for audio in heard], axis=0),
        "_baseline/global": unit(of_all),
    }


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "options",
    [{}, {"use_global": False, "score": "min"}, {"feedback": "replace", "score": "std"}],
)
def test_numbers_are_those_of_direct_calls(manifold: str, dataset: str, tmp_path: Path, seed: int, options: dict):
    module = make_remixer(manifold, seed, validate_cycle_mix=True, learning_rate=1e-2, top_n=TOP_N, **options)
    values = validated(module, dataset, tmp_path)
    scenes = ShardDataset(dataset, "validation").columns()
    statistics = {name: value.double().numpy() for name, value in module.statistics.state_dict().items()}
    head = make_data(dataset).label_head
    cosines, f1s, scores, alike = {}, {}, {}, []
    for row in range(23):
        predictions = predict_scene(module, scenes, row)
        alike.append(predictions["/draw"] @ predictions.pop("second draw"))
        true, valid = scenes["audio"][row], scenes["valid"][row]
        for name, predicted in predictions.items():
            cosines.setdefault(name, []).append(unit(predicted) @ unit(true))
            heard = torch.from_numpy(unit(predicted) * statistics["audio_norm"]).float()
            labels = [set(head.scores(audio).argsort(descending=True)[:TOP_N].tolist()) for audio in (heard, true)]
            f1s.setdefault(name, []).append(len(labels[0] & labels[1]) / TOP_N)
            seen = statistics["audio_to_visual_weight"] @ unit(predicted) + statistics["audio_to_visual_bias"]
            scores.setdefault(name, []).append(np.mean([unit(v) @ unit(seen) for v in scenes["sources"][row][valid]]))
    for name in cosines:
        assert values[f"val/reconstruction_cosine{name}"] == pytest.approx(np.mean(cosines[name]), abs=1e-5), name
        assert values[f"val/clip_score{name}"] == pytest.approx(100 * np.mean(scores[name]), abs=1e-3), name
        assert values[f"val/ssms{name}"] == pytest.approx(10 * np.mean(f1s[name]), abs=1e-5), name
    assert values["val/draw_cosine"] == pytest.approx(np.mean(alike), abs=1e-5)
    assert 0 < values["val/draw_cosine"] < 0.999
    counts = scenes["valid"].sum(1).numpy()
    for part, rows in {"single": counts == 1, "several": counts > 1}.items():
        for name in ("", "/draw", "/cycle_mix"):
            expected = 10 * np.mean(np.array(f1s[name])[rows])
            assert values[f"val/ssms/{part}{name}"] == pytest.approx(expected, abs=1e-5)
            cosine = np.mean(np.array(cosines[name])[rows])
            assert values[f"val/reconstruction_cosine/{part}{name}"] == pytest.approx(cosine, abs=1e-5)
    for count in (1, 2, 3):
        expected = 10 * np.mean(np.array(f1s[""])[counts == count])
        assert values[f"val/ssms/sources_{count}"] == pytest.approx(expected, abs=1e-5)


def test_the_size_of_batches_does_not_matter(manifold: str, dataset: str, tmp_path: Path):
    """Draws belong to a scene; its padding does not matter."""
    runs = []
    for size in (1, 5, 23):
        module = make_remixer(manifold, validate_cycle_mix=True)
        runs.append(validated(module, dataset, tmp_path, evaluation_batch_size=size))
    assert runs[1] == pytest.approx(runs[0], rel=1e-5, abs=1e-6)
    assert runs[2] == pytest.approx(runs[0], rel=1e-5, abs=1e-6)


def test_cycle_mix_is_measured_when_asked_only(manifold: str, dataset: str, tmp_path: Path):
    names = validated(make_remixer(manifold), dataset, tmp_path).keys()
    assert [name for name in names if "cycle_mix" in name] == []
    assert {"val/ssms/draw", "val/draw_cosine", "val/ssms_baseline/source_mean", "val/ssms_baseline/ridge"} <= names


@pytest.mark.parametrize("validate_cycle_mix", [False, True])
def test_a_measured_batch_gives_what_figures_show(
    manifold: str, dataset: str, tmp_path: Path, validate_cycle_mix: bool
):
    module = make_remixer(manifold, validate_cycle_mix=validate_cycle_mix)
    validated(module, dataset, tmp_path)
    batch = next(iter(ShardDataset(dataset, "validation", 6)))
    with torch.inference_mode():
        shown = module.measure(batch)
    assert shown.keys() == {"attention", "history"} if validate_cycle_mix else {"attention"}
    valid = torch.cat([torch.ones(6, 1, dtype=torch.bool), batch["valid"]], dim=1)
    assert shown["attention"].shape == valid.shape
    assert (shown["attention"] > 0).equal(valid)
    assert float(shown["attention"].sum(1).max()) < 1
    if validate_cycle_mix:
        assert shown["history"].shape == (6, 3)
        assert (shown["history"].diff(dim=1) >= 0).all()
    empty = {n: x[:0] for n, x in batch.items()}
    assert module.measure(empty) == {}
