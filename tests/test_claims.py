"""What docs/claims.md is measured with: its pure parts, and the configs that it names."""

import csv

import numpy as np
import pytest
import torch

from benchmarks.claims.chain import BASE, DEMO, Place, recipe, varied
from benchmarks.claims.hearing import ADDED, held_out
from benchmarks.claims.measures import (
    area_under_curve,
    class_linkage,
    modality_accuracy,
    precision_and_recall,
)
from benchmarks.claims.runs import CONFIGS
from benchmarks.claims.tables import fill_page, markdown_table, mean_and_spread
from benchmarks.claims.temporal import quarters, shuffled
from benchmarks.claims.video_rows import (
    DECAY,
    TARGETS,
    mixed_audio,
    oracle_frames,
    rewrite,
    source_weights,
    sources_of,
)
from lightning_ss2a.cli.lightning import build_cli
from lightning_ss2a.cli.ss2a import run as ss2a
from lightning_ss2a.data import ShardDataset
from lightning_ss2a.data.simulation.truth import read_truth


def test_class_linkage_is_the_mean_cosine_of_rows():
    x, y = torch.randn(2, 20, 6, generator=torch.Generator().manual_seed(0))
    classes = torch.arange(20) % 3
    linkage = class_linkage(x, y, classes, num_classes=4)
    cosine = torch.cosine_similarity(x[:, None], y[None], dim=2)
    expected = cosine[classes == 0][:, classes == 2].mean()
    assert linkage[0, 2] == pytest.approx(float(expected), abs=1e-6)
    assert np.isnan(linkage[3]).all()


def test_modality_accuracy_is_chance_for_one_distribution_and_full_for_two():
    x, y = torch.randn(2, 200, 8, generator=torch.Generator().manual_seed(0))
    assert abs(modality_accuracy(x, y) - 0.5) < 0.1
    assert modality_accuracy(x + 2, y - 2) == 1


def test_precision_recall_and_area():
    dropped, mismatched = np.array([1, 1, 0, 0], bool), np.array([1, 0, 1, 0], bool)
    assert precision_and_recall(dropped, mismatched) == {"dropped": 0.5, "precision": 0.5, "recall": 0.5}
    assert precision_and_recall(~dropped & dropped, mismatched & ~mismatched) == {"dropped": 0.0}
    assert area_under_curve(np.array([3.0, 2.0]), np.array([1.0, 2.0])) == 0.875


def test_tables():
    assert mean_and_spread([1.0, 2.0, 3.0], 2) == "2.00 ± 1.00"
    assert (mean_and_spread([1.0]), mean_and_spread([])) == ("1.000", "")
    assert markdown_table(["a", "b"], [["x", "1"]]) == "| a | b |\n| --- | ---: |\n| x | 1 |"
    with pytest.raises(ValueError, match="has 1 cells, the header has 2"):
        markdown_table(["a", "b"], [["x"]])


def test_page_is_filled_between_its_marks(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- gap -->\nold\n<!-- /gap -->\nafter\n")
    fill_page(page, {"gap": "new\ntable"})
    assert page.read_text() == "before\n<!-- gap -->\nnew\ntable\n<!-- /gap -->\nafter\n"
    with pytest.raises(ValueError, match="<!-- depth -->"):
        fill_page(page, {"depth": "x"})


PAIRS = {"claims_world": "claims_data", "claims_teacher": "claims_teacher_data"}


@pytest.mark.parametrize("config", PAIRS)
def test_configs_and_their_data_go_together(config, tmp_path):
    splits = "--splits={train: 300, small: 300, large: 300, validation: 64}"
    data = CONFIGS / "sweeps" / f"{PAIRS[config]}.yaml"
    ss2a(["shards", "simulate", "-c", str(data), str(tmp_path / "world"), splits])
    arguments = ["-c", str(CONFIGS / "sweeps" / f"{config}.yaml"), f"--data.datasets={tmp_path / 'world'}"]
    cli = build_cli([*arguments, f"--trainer.logger.save_dir={tmp_path}"], run=False)
    cli.datamodule.setup("fit")
    assert cli.model.hparams.visual_width == cli.datamodule.manifest.fields["visual"].width


def test_what_counts_in_the_targets_of_videos():
    gains, starts, stops = np.array([[0.5, 0.5, 0.0]]), np.array([[5.0, 0.0, 0.0]]), np.array([[10.0, 5.0, 0.0]])
    whole, decaying, first = (source_weights(target, gains, starts, stops, 10.0) for target in TARGETS)
    np.testing.assert_allclose(whole, [[0.25, 0.25, 0]])
    assert decaying[0, 1] / decaying[0, 0] == pytest.approx(np.exp(5 / DECAY))  # 5 seconds later counts that much less
    np.testing.assert_allclose(first, [[0, 0.5, 0]])
    assert decaying.sum() == pytest.approx(whole.sum())
    with pytest.raises(ValueError, match="target must be one of whole, decaying, first"):
        source_weights("last", gains, starts, stops, 10.0)


SMALL_WORLD = ("--num_classes=12", "--mismatch={annotated: 0, curated: 0, translated: 0}", "--world.video_sources=3")
WIDTHS = ("--world.visual.width=40", "--world.audio.width=40", "--world.mixture_noise=0")


def test_sources_drawn_again_are_those_of_the_videos(tmp_path):
    ss2a(["shards", "simulate", str(tmp_path), "--kind=videos", "--splits={train: 40}", *SMALL_WORLD, *WIDTHS])
    sources, truth = sources_of(str(tmp_path), "train"), read_truth(tmp_path, "train")
    rows, times = ShardDataset(str(tmp_path), "train").columns(), (truth["starts"], truth["stops"])
    weights = source_weights("whole", sources.gains, *times, 10.0)
    np.testing.assert_allclose(mixed_audio(weights, sources.audio, 0.0, 0), rows["audio"].numpy(), atol=1e-3)
    frames = oracle_frames(sources, *times, rows["timestamps"].numpy(), np.ones(40))
    one = sources.filled.sum(1) == 1
    active = (times[0][one, :1] <= rows["timestamps"].numpy()[one]) & (
        rows["timestamps"].numpy()[one] < times[1][one, :1]
    )
    expected = np.where(active[:, :, None], sources.audio[one][:, :1], 40**-0.5)
    np.testing.assert_allclose(frames[one], expected, atol=1e-6)


def test_a_data_set_is_written_again_with_other_values(tmp_path):
    source, output = str(tmp_path / "source"), str(tmp_path / "output")
    ss2a(["shards", "simulate", source, "--kind=videos", "--splits={train: 5, validation: 3}", *SMALL_WORLD, *WIDTHS])
    audio = np.eye(40, dtype=np.float32)[:5]
    rewrite(source, output, {"train": {"audio": audio}})
    before, after = (ShardDataset(data, "train").columns() for data in (source, output))
    np.testing.assert_array_equal(after["audio"].numpy(), audio)
    assert torch.equal(after["frames"], before["frames"])
    assert after["key"] == before["key"]
    assert len(ShardDataset(output, "validation")) == 3


def test_shuffled_timestamps_are_those_of_each_video_in_another_order():
    times = torch.arange(20.0).view(2, 10)
    other = shuffled({"timestamps": times})
    assert torch.equal(other.sort(1).values, times)
    assert not torch.equal(other, times)


def test_mean_frame_of_each_quarter():
    frames = torch.eye(4).repeat_interleave(2, dim=0)[None] * 3
    assert torch.equal(quarters(frames), torch.eye(4).flatten()[None])


def test_no_added_source_is_in_the_scene(tmp_path):
    scenes, pairs = tmp_path / "scenes", tmp_path / "pairs"
    for kind, output in (("scenes", scenes), ("pairs", pairs)):
        world = ("--world.scene_sources=3", "--splits={validation: 60}", *SMALL_WORLD, *WIDTHS)
        ss2a(["shards", "simulate", str(output), f"--kind={kind}", *world])
    rows, single, added = held_out(Place("simulated", 0), str(scenes), str(pairs))
    assert added.shape == (60, ADDED)
    assert not (single["class_index"][added][:, :, None] == rows["classes"][:, None]).any()


def test_no_source_added_on_the_demo_is_in_the_scene():
    rows, single, added = held_out(Place("demo", 0, 1), *(str(CONFIGS.parent / DEMO[k]) for k in ("scenes", "pairs")))
    with open(CONFIGS.parent / DEMO["scenes"] / "compositions.csv", newline="") as opened:
        there = {(row["key"], row["pair"]) for row in csv.DictReader(opened)}
    assert not any(
        (key, single["key"][pair]) in there for key, pairs in zip(rows["key"], added, strict=True) for pair in pairs
    )
    assert not single["pair_origin"][added].any()


def test_recipe_of_a_chain_is_what_counts_of_its_stages():
    stage = BASE["demo"]["remixer"]
    assert recipe({"x": stage}) == recipe({"x": stage})
    assert recipe({"x": stage}) != recipe({"x": varied(stage, "--model.kl_weight=1")})
    assert recipe({"x": stage}) != recipe({"x": stage}, 1)
