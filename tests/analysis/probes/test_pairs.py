"""Bounds of what a manifold could predict."""

from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import multivariate_normal

from lightning_ss2a.analysis.probes import PairBounds
from lightning_ss2a.analysis.probes.pairs import posterior_mean
from lightning_ss2a.cli.ss2a import run as ss2a
from lightning_ss2a.data.simulation.world import ModalitySpec, World, WorldSpec
from lightning_ss2a.errors import InputError
from tests.manifold_examples import AUDIO_WIDTH, VISUAL_WIDTH, make_data, make_module, make_trainer


def test_posterior_mean_is_that_of_joint_gaussians():
    spec = WorldSpec(ModalitySpec(7, 0.4, 0.2, 0.2), ModalitySpec(6, 0.5, 0.2, 0.1), instance_width=3)
    world, seen = World(spec, num_classes=4, seed=1), np.random.default_rng(0).normal(size=(9, 7)) / 2
    eye, ear, k = world.visual, world.audio, spec.instance_width
    covariance = eye.instance.T @ eye.instance / k + np.eye(7) * eye.noise**2
    crossed = ear.instance.T @ eye.instance / k
    densities = [multivariate_normal(mean, covariance).logpdf(seen) for mean in eye.class_means]
    weights = softmax(np.stack(densities, 1) + np.log(world.frequency), axis=1)
    expected = np.zeros((9, 6))
    for c in range(4):
        heard = ear.class_means[c] + (seen - eye.class_means[c]) @ np.linalg.inv(covariance) @ crossed.T
        expected += weights[:, [c]] * heard
    np.testing.assert_allclose(posterior_mean(world, seen), expected, atol=1e-6)


def test_a_world_whose_pictures_tell_loudness_has_no_known_best_guess(tmp_path: Path):
    folder = str(tmp_path / "pairs")
    ss2a(["shards", "simulate", folder, "--splits={train: 20, validation: 20}", "--world.loudness_share=0.05"])
    with pytest.raises(InputError, match=r"^PairBounds: the best guess is not known where pictures tell loudness"):
        make_trainer(tmp_path, max_epochs=1, callbacks=[PairBounds()]).fit(make_module(), datamodule=make_data(folder))


def test_the_best_guess_passes_the_network_which_passes_ridge(tmp_path: Path):
    widths = {"visual": VISUAL_WIDTH, "audio": AUDIO_WIDTH}
    shares = [
        f"--world.{m}={{width: {w}, cone: 0.4, class_share: 0.3, instance_share: 0.2}}" for m, w in widths.items()
    ]
    mismatch = "--mismatch={annotated: 0, curated: 0, translated: 0}"
    sizes = ["--splits={validation: 200, train: 2000}", "--num_classes=12", "--world.instance_width=4"]
    ss2a(["shards", "simulate", str(tmp_path / "pairs"), "--kind=pairs", mismatch, *shares, *sizes])
    trainer = make_trainer(tmp_path, max_epochs=1, callbacks=[PairBounds(hidden_width=64, steps=400)])
    trainer.fit(make_module(), datamodule=make_data(str(tmp_path / "pairs")))
    cosine = {
        name: float(trainer.callback_metrics[f"val/reconstruction_cosine_baseline/{name}"])
        for name in ("posterior_mean", "mlp", "ridge", "mean_audio")
    }
    assert list(cosine.values()) == sorted(cosine.values(), reverse=True)
    recall = [
        float(trainer.callback_metrics[f"val/recall@1/visual_to_audio_baseline/{name}"])
        for name in ("posterior_mean", "ridge")
    ]
    assert recall[0] >= recall[1] > 1 / 200
