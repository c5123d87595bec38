"""Other truths of simulated videos, and what is measured of aggregators."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_ss2a.analysis.interventions import VideoTruth, WithoutPositions
from lightning_ss2a.analysis.interventions.temporal import (
    DECAY_SECONDS,
    TARGETS,
    mixed_audio,
    oracle_frames,
    source_weights,
)
from lightning_ss2a.analysis.probes import QuarterRidge, ScoresBySourceCount, ShuffledTimestamps
from lightning_ss2a.analysis.probes.temporal import quarter_means, shuffle_timestamps, source_counts
from lightning_ss2a.analysis.simulated_sources import draw_sources_again
from lightning_ss2a.cli.ss2a import run as ss2a
from lightning_ss2a.data import ShardDataset
from lightning_ss2a.data.simulation.truth import read_truth
from lightning_ss2a.errors import InputError
from lightning_ss2a.training import TemporalAggregationModule
from tests.manifold_examples import in_groups, make_data, make_trainer
from tests.scene_examples import SMALL_ATTENTION

WORLD = ("--num_classes=12", "--mismatch={annotated: 0, curated: 0, translated: 0}", "--world.video_sources=3")
SMALL = in_groups(TemporalAggregationModule, SMALL_ATTENTION | {"top_n": 4})
WIDTHS = ("--world.visual.width=40", "--world.audio.width=40", "--world.mixture_noise=0")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("world") / "videos")
    ss2a(["shards", "simulate", folder, "--kind=videos", "--splits={train: 40, validation: 20}", *WORLD, *WIDTHS])
    return folder


def test_what_counts_in_the_targets_of_videos():
    gains, starts, stops = np.array([[0.5, 0.5, 0.0]]), np.array([[5.0, 0.0, 0.0]]), np.array([[10.0, 5.0, 0.0]])
    whole, decaying, first = (source_weights(target, gains, starts, stops, 10.0) for target in TARGETS)
    np.testing.assert_allclose(whole, [[0.25, 0.25, 0]])
    # 5 seconds later counts that much less
    assert decaying[0, 1] / decaying[0, 0] == pytest.approx(np.exp(5 / DECAY_SECONDS))
    np.testing.assert_allclose(first, [[0, 0.5, 0]])
    assert decaying.sum() == pytest.approx(whole.sum())
    with pytest.raises(InputError, match=r"VideoTruth.target must be one of whole, decaying, first, found 'last'"):
        VideoTruth("videos", "last")  # type: ignore[arg-type]  # what is refused


def test_sources_drawn_again_are_those_of_the_videos(videos: str):
    sources, truth = draw_sources_again(videos, "train"), read_truth(videos, "train")
    rows, times = ShardDataset(videos, "train").columns(), (truth["starts"], truth["stops"])
    weights = source_weights("whole", sources.gains, *times, 10.0)
    np.testing.assert_allclose(mixed_audio(weights, sources.audio, 0.0, 0), rows["audio"].numpy(), atol=1e-3)
    frames = oracle_frames(sources, *times, rows["timestamps"].numpy(), np.ones(40))
    one = sources.filled.sum(1) == 1
    times_of_one = rows["timestamps"].numpy()[one]
    active = (times[0][one, :1] <= times_of_one) & (times_of_one < times[1][one, :1])
    expected = np.where(active[:, :, None], sources.audio[one][:, :1], 40**-0.5)
    np.testing.assert_allclose(frames[one], expected, atol=1e-6)


def test_sources_of_mismatched_rows_are_refused(tmp_path: Path):
    ss2a(["shards", "simulate", str(tmp_path), "--kind=videos", "--splits={train: 40}", *WORLD[:1], *WORLD[2:]])
    with pytest.raises(InputError, match=r"the sources of split train cannot be drawn again"):
        draw_sources_again(str(tmp_path), "train")


def test_training_and_baselines_see_the_other_truth(videos: str, tmp_path: Path):
    """Frames of the data set's own audio width stand in for generated ones."""
    module = TemporalAggregationModule(40, **SMALL)
    module.check_data = lambda data: None  # its frames are pictures
    probes = [ShuffledTimestamps(), QuarterRidge(), ScoresBySourceCount(videos)]
    truth = VideoTruth(videos, "first", oracle_frames=True)
    trainer = make_trainer(tmp_path, max_epochs=1, callbacks=[truth, *probes])
    data = make_data(videos)
    trainer.fit(module, datamodule=data)
    sources, times = draw_sources_again(videos, "train"), read_truth(videos, "train")
    weights = source_weights("first", sources.gains, times["starts"], times["stops"], 10.0)
    audio = torch.from_numpy(mixed_audio(weights, sources.audio, 0.0, 0)).half().float()
    expected = torch.nn.functional.normalize(audio.double(), dim=1).mean(0).float()
    torch.testing.assert_close(module.statistics.mean_audio, expected, atol=1e-4, rtol=1e-4)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert {"val/ssms/shuffled_timestamps", "val/ssms_baseline/quarter_ridge"} <= logged.keys()
    counts = list(source_counts(videos, "validation").values())
    by_count = [counts.count(n) / 20 * logged[f"val/ssms/sources_{n}"] for n in set(counts)]
    assert sum(by_count) == pytest.approx(logged["val/ssms"], abs=1e-5)
    baseline = [counts.count(n) / 20 * logged[f"val/ssms/sources_{n}_baseline/ridge"] for n in set(counts)]
    assert sum(baseline) == pytest.approx(logged["val/ssms_baseline/ridge"], abs=1e-5)


def test_without_positions_timestamps_change_nothing(videos: str, tmp_path: Path):
    module = TemporalAggregationModule(
        40, **in_groups(TemporalAggregationModule, SMALL_ATTENTION | {"top_n": 4})
    ).eval()
    frames, times = torch.randn(2, 64, 40), torch.rand(2, 64)
    before = module.aggregator(frames, times).mean, module.aggregator(frames, times.flip(1)).mean
    assert not torch.allclose(*before, atol=1e-5)
    callback, trainer = WithoutPositions(), make_trainer(tmp_path)
    callback.setup(trainer, module, "fit")
    after = module.aggregator(frames, times).mean, module.aggregator(frames, times.flip(1)).mean
    assert torch.equal(*after)
    callback.teardown(trainer, module, "fit")
    assert torch.equal(module.aggregator(frames, times).mean, before[0])


def test_an_aggregation_that_encodes_no_time_has_none_to_leave_out(tmp_path: Path):
    module = TemporalAggregationModule(40, "linear")
    with pytest.raises(InputError, match=r"^WithoutPositions: model.flavour=linear encodes no time; use attention$"):
        WithoutPositions().setup(make_trainer(tmp_path), module, "fit")


def test_validation_alone_sees_the_other_truth(videos: str, tmp_path: Path):
    """As the run did that made the checkpoint."""
    module, data = TemporalAggregationModule(40, **SMALL), make_data(videos)
    module.check_data = lambda data: None  # its frames are pictures
    trainer = make_trainer(tmp_path, max_epochs=1, callbacks=[VideoTruth(videos, "first")])
    trainer.fit(module, datamodule=data)
    fitted = float(trainer.callback_metrics["val/ssms"])
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    again = make_trainer(tmp_path, callbacks=[VideoTruth(videos, "first")])
    again.validate(module, data, tmp_path / "last.ckpt", weights_only=True, verbose=False)
    assert float(again.callback_metrics["val/ssms"]) == fitted


def test_shuffled_timestamps_are_those_of_each_video_in_another_order():
    times = torch.arange(20.0).view(2, 10)
    other = shuffle_timestamps(times)
    assert torch.equal(other.sort(1).values, times)
    assert not torch.equal(other, times)


def test_mean_frame_of_each_quarter():
    frames = torch.eye(4).repeat_interleave(2, dim=0)[None] * 3
    assert torch.equal(quarter_means(frames), torch.eye(4).flatten()[None])


def test_sources_of_composed_videos_are_counted():
    counts = source_counts("shards/demo_videos", "fold0")
    assert set(counts.values()) == {1, 2, 3}
