"""Every stage of docs/training.md one after the other on the real demo, from an empty folder; fewer epochs."""

import re
from pathlib import Path

import pytest
import torch

from lightning_ss2a.data import Manifest
from tests.integration.test_commands import ROOT, run_line, table

PAGE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
LINES = [line.partition("  #")[0].strip() for line in PAGE.splitlines()]
STAGES = ("remixer", "temporal_aggregation", "audio_to_visual", "v2a_mapper")
TWO_EPOCHS = "--trainer.max_epochs 2 --trainer.check_val_every_n_epoch 2"
SHORT = {
    "manifold": f"{TWO_EPOCHS} --trainer.callbacks.EMATeacher.teacher_epochs 1",
    "remixer": f"{TWO_EPOCHS} --model.cycle_mix.iterations 4 --model.cycle_mix.samples 4",
    "temporal_aggregation": TWO_EPOCHS,
    "audio_to_visual": TWO_EPOCHS,
    "v2a_mapper": f"{TWO_EPOCHS} --model.diffusion.sample_steps 2",
}


def page_line(start: str) -> str:
    """The one line of the page that starts so."""
    found = [line for line in LINES if line.startswith(start)]
    assert found, f"docs/training.md has no line {start!r}"
    return found[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh clone, as far as training sees it."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("shards", "configs"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.fixture(scope="module")
def printed(folder: Path) -> dict[str, str]:
    """What each command printed, by config; all of them, in the order in which the page has them."""
    printed = {"manifold": run_line(f"lightning fit -c configs/manifold.yaml {SHORT['manifold']}", folder)}
    for stage in STAGES:
        if stage == "temporal_aggregation":
            printed["frames"] = run_line(page_line("ss2a shards frames shards/demo_videos"), folder)
        line = page_line(f"lightning fit -c configs/{stage}.yaml")
        printed[stage] = run_line(f"{line} {SHORT[stage]}", folder)
    return printed


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_trains_measures_and_leaves_a_checkpoint(folder: Path, printed: dict[str, str], stage: str):
    rows = table(printed[stage])
    assert ("translation_cosine" if stage == "audio_to_visual" else "ssms") in rows
    run = folder / "runs" / stage / "version_0"
    assert {file.name for file in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    state = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert all(value.isfinite().all() for value in state.values())


def test_the_remixer_needs_no_manifold_file_any_more_and_measures_the_same(folder: Path, printed: dict[str, str]):
    (manifold,) = (folder / "runs" / "manifold").glob("version_0/checkpoints/best.ckpt")
    hidden = manifold.rename(manifold.with_name("hidden.ckpt"))
    try:
        (line,) = [line for line in printed["remixer"].splitlines() if "lightning test " in line]
        rows = table(run_line(line[line.index("lightning") :], folder))
    finally:
        hidden.rename(manifold)
    best = table(printed["remixer"])
    assert rows["ssms"][0] == best["ssms"][1]
    assert {"ssms/cycle_mix", "ssms/draw", "ssms/sources_4", "draw_cosine"} <= rows.keys()


def test_generated_frames_are_videos_of_audio_embeddings(folder: Path, printed: dict[str, str]):
    output = re.search(r"^(\S+): 100 videos of generated audio embeddings", printed["frames"], re.MULTILINE)[1]
    manifest, source = Manifest.load(folder / output), Manifest.load(ROOT / "shards" / "demo_videos")
    assert manifest.folds == source.folds
    assert manifest.fields["frames"].role == "audio"
    assert manifest.fields["audio"] == source.fields["audio"]
    assert run_line(f"ss2a shards validate {output}", folder).strip().endswith("good")


def test_the_pages_python_mixes_sources_of_two_modalities(
    folder: Path, printed: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    code = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1]
    monkeypatch.chdir(folder)
    names: dict[str, torch.Tensor] = {}
    exec(code, names)
    assert names["mixed"].shape == (1, 1024)
    assert float(names["mixed"].norm()) == pytest.approx(1, abs=1e-5)
    assert names["slots"].visual[0, 2].norm() > 0  # what is heard has a look too, by the translator


@pytest.mark.slow
def test_a_stage_can_be_trained_again_by_its_saved_config(folder: Path, printed: dict[str, str]):
    again = run_line(f"lightning fit -c runs/audio_to_visual/version_0/config.yaml {SHORT['audio_to_visual']}", folder)
    assert table(again)["translation_cosine"] == table(printed["audio_to_visual"])["translation_cosine"]


@pytest.mark.slow
def test_the_translator_serves_as_clip_score(folder: Path, printed: dict[str, str]):
    translator = "--model.measuring.translator_checkpoint runs/audio_to_visual/version_0/checkpoints/best.ckpt"
    (line,) = [line for line in printed["v2a_mapper"].splitlines() if "lightning test " in line]
    rows, before = (table(run_line(f"{line[line.index('lightning') :]} {o}", folder)) for o in (translator, ""))
    assert rows["reconstruction_cosine"][0] == before["reconstruction_cosine"][0]
    assert rows["clip_score"][0] != before["clip_score"][0]
