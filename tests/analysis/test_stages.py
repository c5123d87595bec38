"""Every callback of analysis on every stage: it runs on its own, and is refused in one line on the others."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback

from lightning_ss2a.analysis import interventions, probes
from lightning_ss2a.callbacks import EMATeacher, PairFilter
from lightning_ss2a.cli.ss2a import run as ss2a
from lightning_ss2a.errors import InputError
from lightning_ss2a.training import (
    AudioToVisualModule,
    ManifoldModule,
    RemixerModule,
    TemporalAggregationModule,
    V2AMapperModule,
)
from lightning_ss2a.training.base import MeasuredModule
from tests.manifold_examples import in_groups, make_data, make_trainer
from tests.scene_examples import SMALL_ATTENTION

DATA = {
    ManifoldModule: "pairs",
    RemixerModule: "scenes",
    TemporalAggregationModule: "videos",
    AudioToVisualModule: "pairs",
    V2AMapperModule: "scenes",
}
SIZES = {
    ManifoldModule: {"width": 12, "projector_widths": (16,), "reconstructor_widths": (16,), "top_n": 4},
    RemixerModule: SMALL_ATTENTION | {"validate_cycle_mix": True, "iterations": 1, "samples": 2, "top_n": 4},
    TemporalAggregationModule: SMALL_ATTENTION | {"top_n": 4},
    AudioToVisualModule: {"hidden_widths": (16,)},
    V2AMapperModule: {"hidden_widths": (16,), "num_layers": 1, "num_heads": 2, "head_width": 8, "sample_steps": 2}
    | {"top_n": 4},
}
EVERY_STAGE = [interventions.TrainingRows]
"""Callbacks that ask nothing of a module."""
CALLBACKS = [getattr(package, name) for package in (interventions, probes) for name in package.__all__]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulated data of all kinds, and checkpoints of what other stages need."""
    folder = tmp_path_factory.mktemp("stages")
    for kind in ("pairs", "scenes", "videos"):
        simulate(folder / kind, kind)
    for module in (ManifoldModule, AudioToVisualModule):
        trainer = make_trainer(folder, max_steps=1)
        trainer.fit(make_module(module, folder), datamodule=data_for(module, folder))
        trainer.save_checkpoint(folder / f"{module.__name__}.ckpt")
    return folder


def simulate(folder: Path, kind: str) -> None:
    options = ["--splits={train: 20, validation: 20}", "--num_classes=12", "--world.scene_sources=2"]
    options += ["--mismatch={annotated: 0, curated: 0, translated: 0}", "--world.video_sources=2"]
    ss2a(
        [
            "shards",
            "simulate",
            str(folder),
            f"--kind={kind}",
            *options,
            "--world.visual.width=40",
            "--world.audio.width=40",
        ]
    )


def data_for(module: type[MeasuredModule], folder: Path) -> Any:
    return make_data(str(folder / DATA[module]))


def make_module(module: type[MeasuredModule], folder: Path) -> MeasuredModule:
    widths = {"audio_width": 40} | ({"visual_width": 40} if module is not TemporalAggregationModule else {})
    if module is RemixerModule:
        widths["manifold_checkpoint"] = str(folder / "ManifoldModule.ckpt")
    made = module(**widths, **in_groups(module, SIZES[module]))
    if module is TemporalAggregationModule:
        made.check_data = lambda data: None  # its frames are pictures
    return made


def make_callback(callback: type[Callback], folder: Path) -> Callback:
    translator = {"translator_checkpoint": str(folder / "AudioToVisualModule.ckpt")}
    options = {
        interventions.HeardSources: translator,
        interventions.TrainingRows: {"rows": "matched"},
        interventions.VideoTruth: {"videos": str(folder / "videos"), "target": "first", "oracle_frames": True},
        probes.ScoresBySourceCount: {"videos": str(folder / "videos")},
        probes.SourceSensitivity: {"pairs": str(folder / "pairs")} | translator,
        probes.TranslatorAgreement: translator,
    }
    return callback(**options.get(callback, {}))


@pytest.mark.parametrize("module", DATA)
@pytest.mark.parametrize("callback", CALLBACKS)
def test_it_runs_on_its_stage_and_is_refused_in_one_line_on_others(
    callback: Callable[..., Callback], module: type[MeasuredModule], folder: Path
):
    trainer = make_trainer(folder, max_epochs=1, limit_train_batches=1, callbacks=[make_callback(callback, folder)])
    made, data = make_module(module, folder), data_for(module, folder)
    stages = list(DATA) if callback in EVERY_STAGE else callback.stages
    if module in stages:
        trainer.fit(made, datamodule=data)
        assert trainer.global_step == 1
    else:
        needed = " or ".join(stage.__name__ for stage in stages)
        with pytest.raises(InputError) as refused:
            trainer.fit(made, datamodule=data)
        assert str(refused.value) == f"{callback.__name__}: does not go with {module.__name__}; use it with {needed}"


def test_cycle_mix_is_not_scored_where_none_is_measured(folder: Path):
    module = make_module(RemixerModule, folder)
    module.validate_cycle_mix = False
    trainer = make_trainer(folder, callbacks=[probes.CycleMixScore()])
    with pytest.raises(InputError, match=r"^CycleMixScore: .*; set model.validate_cycle_mix to true$"):
        trainer.fit(module, datamodule=data_for(RemixerModule, folder))


def test_the_truth_of_pairs_bounds_no_scenes(folder: Path):
    trainer = make_trainer(folder, callbacks=[probes.TruthBound()])
    with pytest.raises(InputError, match=r"a data set of kind pairs; TruthBound needs scenes$"):
        trainer.fit(make_module(V2AMapperModule, folder), datamodule=data_for(ManifoldModule, folder))


def test_another_checkpoint_than_a_translator_is_refused_before_training(folder: Path):
    probe = probes.TranslatorAgreement(str(folder / "ManifoldModule.ckpt"))
    with pytest.raises(InputError, match=r"^TranslatorAgreement.translator_checkpoint .* translator"):
        make_trainer(folder, callbacks=[probe]).fit(
            make_module(RemixerModule, folder), datamodule=data_for(RemixerModule, folder)
        )


def test_a_filter_is_judged_after_it(folder: Path):
    trainer = make_trainer(folder, callbacks=[EMATeacher(), probes.FilterQuality(), PairFilter()])
    with pytest.raises(InputError, match=r"^FilterQuality is listed before PairFilter; list it after"):
        trainer.fit(make_module(ManifoldModule, folder), datamodule=data_for(ManifoldModule, folder))
