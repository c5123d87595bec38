from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_ss2a.errors import InputError
from lightning_ss2a.evaluation.encoders.onset_sync import OnsetSync, motion_energy, offset_scores, onset_strength
from lightning_ss2a.evaluation.protocols import SyncEstimator
from lightning_ss2a.metrics.functional import weighted_mean_absolute_offset
from tests.evaluation.encoders.moving_square import JUMPS, RATE, clicks, jumping_square
from tests.evaluation.encoders.waveforms import noise

pytest.importorskip("av")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return jumping_square(tmp_path_factory.mktemp("square") / "square.mp4")


def test_known_offsets_are_found_within_a_class(video: Path):
    estimator = OnsetSync()
    assert isinstance(estimator, SyncEstimator)
    assert "PyAV" in estimator.identity
    early = np.array([-2.0, -1.5, -0.6, -0.2, 0.0, 0.07, 0.4, 1.0, 1.7, 2.0])
    logits = estimator.offset_logits([clicks(offset) for offset in early], [video] * len(early))
    assert logits.shape == (len(early), 1, 21)
    found = torch.tensor(estimator.offsets)[logits[:, 0].argmax(dim=1)].numpy()
    print(np.round(found - early, 2))
    assert np.abs(found - early).max() <= 0.2 + 1e-6
    seconds = weighted_mean_absolute_offset(logits[:, 0], reduction="none").numpy()
    assert np.abs(seconds - np.abs(early)).max() <= 0.2


@pytest.mark.parametrize("early", [-1.5, 0.0, 0.6, 2.0])
def test_clicks_are_found_in_noise(early: float, video: Path):
    sound = clicks(early) + noise(8.0, peak=0.1)
    logits = OnsetSync().offset_logits([sound], [video])[0, 0]
    assert abs(float(torch.tensor(OnsetSync.offsets)[logits.argmax()]) - early) <= 0.2 + 1e-6


def test_a_pair_does_not_depend_on_the_others(video: Path):
    estimator, sounds = OnsetSync(), [clicks(0.4), clicks(-1.0)[: 5 * RATE]]
    together = estimator.offset_logits(sounds, [video, video])
    assert together.equal(torch.cat([estimator.offset_logits([sound], [video]) for sound in sounds]))
    assert estimator.offset_logits([], []).shape == (0, 1, 21)


@pytest.mark.parametrize("frame_rate", [12.5, 23.976, 30.0])
def test_the_rate_of_the_frames_does_not_matter(frame_rate: float, tmp_path: Path):
    video = jumping_square(tmp_path / "square.mp4", frame_rate)
    logits = OnsetSync().offset_logits([clicks(0.6)], [video])[0, 0]
    assert abs(float(torch.tensor(OnsetSync.offsets)[logits.argmax()]) - 0.6) <= 0.2 + 1e-6


def test_silence_and_still_pictures_tell_nothing(video: Path):
    silent = OnsetSync().offset_logits([np.zeros(8 * RATE, np.float32)], [video])
    assert silent.equal(torch.zeros(1, 1, 21))
    still = motion_energy(np.full((200, 8, 8, 3), 7, np.uint8))
    assert offset_scores(torch.rand(200), still).equal(torch.zeros(21))


def test_a_sound_of_other_moments_is_less_sure(video: Path):
    others = clicks(0.0, jumps=np.random.default_rng(3).uniform(0, 7.9, len(JUMPS)).tolist())
    logits = OnsetSync().offset_logits([clicks(0.0), others], [video, video])[:, 0]
    assert logits[0].max() > 2 * logits[1].max()


def test_curves_stand_for_the_moments_they_say():
    """A click at 2 s rises around frame 50; a picture that changes with its frame 10 moves at frame 10."""
    onsets = onset_strength(torch.from_numpy(clicks(0.0, jumps=[2.0])))
    assert len(onsets) == 200
    assert int(onsets.argmax()) == 50
    assert onset_strength(torch.ones(100)).numel() == 0
    assert onset_strength(torch.ones(RATE)).max() < 0.1  # a sound that begins before its clip has no onset there
    frames = np.zeros((20, 4, 4, 3), np.uint8)
    frames[10:] = 90
    assert motion_energy(frames).tolist() == [0.0] * 10 + [90.0] + [0.0] * 9


def test_scores_are_correlations_by_numpy():
    generator = np.random.default_rng(0)
    onsets, motion = generator.random((2, 100)).astype(np.float32)

    def score(shift: int) -> float:
        pairs = [(onsets[i], motion[i + shift]) for i in range(100) if 0 <= i + shift < 100]
        return float(np.corrcoef(*zip(*pairs, strict=True))[0, 1] * len(pairs) ** 0.5)

    wanted = [max(score(5 * number + within) for within in range(-2, 3)) for number in range(-10, 11)]
    found = offset_scores(torch.from_numpy(onsets), torch.from_numpy(motion))
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-4, atol=1e-4)


def test_what_is_too_short_is_named(video: Path, tmp_path: Path):
    with pytest.raises(InputError, match=r"square\.mp4: 2 s of picture and sound, needs 3 s"):
        OnsetSync().offset_logits([clicks(0.0)[: 2 * RATE]], [video])
    short = jumping_square(tmp_path / "short.mp4", seconds=1.0)
    with pytest.raises(InputError, match=r"short\.mp4: 1 s of picture and sound, needs 3 s"):
        OnsetSync().offset_logits([clicks(0.0)], [short])
    with pytest.raises(InputError, match=r"none\.mp4"):
        OnsetSync().offset_logits([clicks(0.0)], [tmp_path / "none.mp4"])
