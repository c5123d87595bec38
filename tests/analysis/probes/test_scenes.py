"""What predicts the audio of scenes beside a Remixer."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lightning_ss2a.analysis.probes import CycleMixScore, MeanOfSamples, TruthBound
from lightning_ss2a.cli.ss2a import run as ss2a
from lightning_ss2a.data import ShardDataset
from lightning_ss2a.data.simulation.world import ModalitySpec, World, WorldSpec
from tests.manifold_examples import AUDIO_WIDTH, VISUAL_WIDTH, make_data, make_trainer
from tests.scene_examples import make_mapper, make_remixer, save_manifold, write_learnable_scenes


def test_best_guess_is_the_truth_where_nothing_is_hidden(tmp_path: Path):
    clear = [
        f"--world.{m}={{width: 40, cone: 0.5, class_share: 0.3, instance_share: 0.2}}" for m in ("visual", "audio")
    ]
    other = ["--world.mixture_noise=0", "--world.scene_sources=3", "--world.instance_width=4", "--dtype=float32"]
    mismatch = "--mismatch={annotated: 0, curated: 0, translated: 0}"
    arguments = ["--kind=scenes", "--splits={validation: 50}", "--num_classes=12", mismatch, *clear, *other]
    ss2a(["shards", "simulate", str(tmp_path), *arguments])
    rows, bound = ShardDataset(str(tmp_path), "validation").columns(), TruthBound()
    bound.setup(SimpleNamespace(datamodule=make_data(str(tmp_path)), world_size=1), make_mapper(), "fit")
    with_gains, without = (
        torch.cosine_similarity(bound.guess(np.arange(50), rows["sources"].numpy(), use), rows["audio"])
        for use in ("known", "equal")
    )
    assert with_gains.min() > 0.95
    assert with_gains.mean() > without.mean()


def test_sources_that_look_loud_count_more_in_the_best_guess(tmp_path: Path):
    widths = {"visual": VISUAL_WIDTH, "audio": AUDIO_WIDTH}
    world = [f"--world.{m}={{width: {w}, cone: 0.4, class_share: 0.3, instance_share: 0.2}}" for m, w in widths.items()]
    world += ["--world.instance_width=4", "--dtype=float32"]
    mismatch = "--mismatch={annotated: 0, curated: 0, translated: 0}"
    arguments = ["--kind=scenes", "--splits={train: 50, validation: 200}", "--num_classes=12", mismatch, *world]
    ss2a(["shards", "simulate", str(tmp_path / "scenes"), *arguments, "--world.loudness_share=0.05"])
    trainer = make_trainer(tmp_path, max_epochs=1, callbacks=[TruthBound()])
    trainer.fit(make_mapper(), datamodule=make_data(str(tmp_path / "scenes")))
    single, several = (
        [float(trainer.callback_metrics[f"val/reconstruction_cosine/{part}_baseline/{name}"]) for name in GUESSES]
        for part in ("single", "several")
    )
    assert single == pytest.approx([single[0]] * 3)
    assert several[0] + 0.02 < several[1] < several[2]


GUESSES = ("classes_known", "gains_seen", "gains_known")


def test_loudness_is_not_taken_for_an_instance():
    spec = WorldSpec(ModalitySpec(20, 0.4, 0.3, 0.1), ModalitySpec(12, 0.4, 0.3, 0.1), instance_width=3)
    bound = TruthBound()
    bound.world = world = World(replace(spec, loudness_share=0.1), 6, 0)
    random = np.random.default_rng(0)
    z, loudness = random.normal(size=(50, 3)) / 3**0.5, random.normal(size=50)
    noise = random.normal(size=(50, 20)) * world.visual.noise
    rest = z @ world.visual.instance + loudness[:, None] * world.visual.loudness + noise
    found, told = bound._seen(rest)
    # By hand: the posterior mean of z and l together, of l with next to no prior.
    maps = np.concatenate([world.visual.instance, world.visual.loudness[None]])
    prior = np.diag([3.0] * 3 + [1e-9]) * world.visual.noise**2
    expected = rest @ maps.T @ np.linalg.inv(maps @ maps.T + prior)
    np.testing.assert_allclose(found, expected[:, :3], atol=1e-5)
    np.testing.assert_allclose(told, expected[:, 3], atol=1e-4)
    assert np.corrcoef(told, loudness)[0, 1] > 0.9


def test_probes_of_predictions_score_as_the_module_does(tmp_path: Path):
    scenes = write_learnable_scenes(tmp_path / "scenes")
    mapper = make_mapper()
    trainer = make_trainer(tmp_path, max_epochs=1, callbacks=[MeanOfSamples(samples=1)])
    trainer.fit(mapper, datamodule=make_data(scenes))
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    for name in ("ssms", "ssms/single", "ssms/several", "reconstruction_cosine"):
        assert logged[f"val/{name}/mean_of_samples"] == pytest.approx(logged[f"val/{name}"], abs=1e-5)


def test_score_of_cycle_mix_is_the_mean_of_the_best(tmp_path: Path):
    scenes, manifold = write_learnable_scenes(tmp_path / "scenes"), save_manifold(tmp_path / "manifold.ckpt")
    module, data = make_remixer(manifold, validate_cycle_mix=True), make_data(scenes, evaluation_batch_size=23)
    trainer = make_trainer(tmp_path, max_epochs=1, callbacks=[CycleMixScore()])
    trainer.fit(module, datamodule=data)
    module.eval()
    [batch] = list(data.val_dataloader())
    with torch.no_grad():
        expected = module.mix_in_cycles(batch, module.slots(batch)).score.mean()
    assert float(trainer.callback_metrics["val/score/cycle_mix"]) == pytest.approx(float(expected), abs=1e-5)
