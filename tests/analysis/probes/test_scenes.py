"""What predicts the audio of scenes beside a Remixer."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lightning_ss2a.analysis.probes import CycleMixScore, MeanOfSamples, TruthBound
from lightning_ss2a.cli.ss2a import run as ss2a
from lightning_ss2a.data import ShardDataset
from tests.manifold_examples import make_data, make_trainer
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
        for use in (True, False)
    )
    assert with_gains.min() > 0.95
    assert with_gains.mean() > without.mean()


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
