"""Sources that are heard: trained with, and added to held-out scenes."""

import csv
from pathlib import Path

import pytest
import torch

from lightning_ss2a.analysis.interventions import HeardSources
from lightning_ss2a.analysis.interventions.hearing import half_heard
from lightning_ss2a.analysis.probes import SourceSensitivity, TranslatorAgreement
from lightning_ss2a.analysis.probes.hearing import sensitivities, sources_to_add
from lightning_ss2a.cli.ss2a import run as ss2a
from lightning_ss2a.data import ShardDataset
from lightning_ss2a.models import DiagonalGaussian
from lightning_ss2a.models.audio_to_visual import AudioToVisualOptions
from lightning_ss2a.models.manifold import ManifoldOptions
from lightning_ss2a.models.source_slots import SourceSlots
from lightning_ss2a.training import AudioToVisualModule, ManifoldModule, RemixerModule
from tests.manifold_examples import in_groups, make_data, make_trainer
from tests.scene_examples import SMALL_ATTENTION, TRAINING

WORLD = ("--num_classes=12", "--mismatch={annotated: 0, curated: 0, translated: 0}", "--world.scene_sources=3")
SIZES = ("--world.visual.width=40", "--world.audio.width=40", "--splits={train: 60, validation: 60}")


def test_no_added_source_is_of_a_class_of_the_scene(tmp_path: Path):
    for kind in ("scenes", "pairs"):
        ss2a(["shards", "simulate", str(tmp_path / kind), f"--kind={kind}", *WORLD, *SIZES])
    scenes, pairs = (ShardDataset(str(tmp_path / kind), "validation").columns() for kind in ("scenes", "pairs"))
    allowed = sources_to_add(scenes, pairs, tmp_path / "compositions.csv")
    same = (pairs["class_index"][None, :, None] == scenes["classes"][:, None]).any(2)
    assert torch.equal(allowed, ~same)


def test_no_source_added_on_the_demo_is_in_the_scene():
    scenes, pairs = (ShardDataset(f"shards/{name}", "fold1").columns() for name in ("demo_scenes", "demo"))
    file = Path("shards/demo_scenes/compositions.csv")
    allowed = sources_to_add(scenes, pairs, file)
    with open(file, newline="") as opened:
        there = {(row["key"], row["pair"]) for row in csv.DictReader(opened)}
    chosen = allowed.nonzero().tolist()
    assert chosen
    assert not any((scenes["key"][scene], pairs["key"][pair]) in there for scene, pair in chosen)
    assert not pairs["pair_origin"][allowed.any(0)].any()


def slots(value: float, first: int) -> SourceSlots:
    shape = (4, first + 50)
    gaussian = DiagonalGaussian(torch.full((*shape, 2), value), torch.full((*shape, 2), value))
    return SourceSlots(gaussian, torch.full((*shape, 3), value), torch.ones(shape, dtype=torch.bool), torch.ones(shape))


def test_half_of_the_sources_are_heard_and_the_global_embedding_is_seen():
    torch.manual_seed(0)
    mixed = half_heard(slots(0.0, first=1), slots(1.0, first=0))
    assert not mixed.visual[:, 0].any()
    heard = mixed.visual[:, 1:, 0]
    assert 0.35 < heard.mean() < 0.65
    assert torch.equal(mixed.cmss.mean[:, 1:, 0], heard)
    assert torch.equal(mixed.cmss.log_variance[:, 1:, 1], heard)


def test_a_remixer_that_hears_is_trained_and_measured(tmp_path: Path):
    """From data to the numbers, on small modules."""
    for kind in ("scenes", "pairs"):
        ss2a(["shards", "simulate", str(tmp_path / kind), f"--kind={kind}", *WORLD, *SIZES])
    scenes, pairs = (make_data(str(tmp_path / kind)) for kind in ("scenes", "pairs"))
    checkpoints = {
        "manifold": ManifoldModule(40, 40, ManifoldOptions(12, (16, 16), (16, 16, 12))),
        "translator": AudioToVisualModule(40, 40, AudioToVisualOptions((16,))),
    }
    for name, module in checkpoints.items():
        trainer = make_trainer(tmp_path, max_epochs=1)
        trainer.fit(module, datamodule=pairs)
        trainer.save_checkpoint(tmp_path / f"{name}.ckpt")
    translator = str(tmp_path / "translator.ckpt")
    callbacks = [
        HeardSources(translator),
        SourceSensitivity(str(tmp_path / "pairs"), translator, added=2),
        TranslatorAgreement(translator),
    ]
    module = RemixerModule(
        40, 40, str(tmp_path / "manifold.ckpt"), **in_groups(RemixerModule, SMALL_ATTENTION | TRAINING)
    )
    trainer = make_trainer(tmp_path, max_epochs=1, callbacks=callbacks)
    trainer.fit(module, datamodule=scenes)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert module.change_training_slots is None  # it sees again
    seen = logged["val/sensitivity/seen"]
    assert logged["val/sensitivity_to_seen/heard"] == pytest.approx(logged["val/sensitivity/heard"] / seen, rel=1e-4)
    assert logged["val/clip_score_by/scenes_ridge"] == pytest.approx(logged["val/clip_score"], abs=1e-3)
    name = "val/clip_score_by/scenes_ridge_baseline/mean_audio"
    assert logged[name] == pytest.approx(logged["val/clip_score_baseline/mean_audio"], abs=1e-3)
    assert -1 <= logged["val/clip_score_rank/translator"] <= 1

    module.eval()  # a source that is added to a scene, by hand
    rows, pair_rows = (ShardDataset(str(tmp_path / kind), "validation").columns() for kind in ("scenes", "pairs"))
    added = torch.zeros(60, 1, dtype=torch.long)
    judge = AudioToVisualModule.load_from_checkpoint(translator, weights_only=True).eval()
    found = sensitivities(module, rows, pair_rows, added, judge)
    with torch.no_grad():
        more = {**rows, "sources": torch.cat([rows["sources"], pair_rows["visual"][added]], 1)}
        more["valid"] = torch.cat([rows["valid"], torch.ones(60, 1, dtype=torch.bool)], 1)
        before, after = (module.remixer(*module.slots(scene).tokens()).mean for scene in (rows, more))
    own = pair_rows["audio"][added[:, 0]]
    moved = torch.cosine_similarity(after, own) - torch.cosine_similarity(before, own)
    assert found["sensitivity/seen"] == pytest.approx(float(moved.mean()), abs=1e-5)
