from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_ss2a.errors import InputError
from lightning_ss2a.evaluation.encoders.vggish import VGGish, VGGishNetwork
from lightning_ss2a.evaluation.folders import Item
from lightning_ss2a.evaluation.measures import FAD, Evidence, Rows
from lightning_ss2a.evaluation.scoring import Bootstrap, Scorer
from tests.evaluation.encoders.waveforms import (
    SOUNDS,
    assert_an_encoder_of_waveforms,
    assert_says_what_is_missing,
    chirp,
    noise,
    randomise,
)

SHAPES = {
    "features.0": (64, 1, 3, 3), "features.3": (128, 64, 3, 3), "features.6": (256, 128, 3, 3),
    "features.8": (256, 256, 3, 3), "features.11": (512, 256, 3, 3), "features.13": (512, 512, 3, 3),
    "embeddings.0": (4096, 12288), "embeddings.2": (4096, 4096), "embeddings.4": (128, 4096),
}  # fmt: skip
"""Of the weights in ``vggish-10086976.pth``."""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The true size: it is read off nowhere."""
    file = tmp_path_factory.mktemp("vggish") / VGGish.file
    torch.save(randomise(VGGishNetwork()).state_dict(), file)
    return file


@pytest.fixture(scope="module")
def encoder(file: Path) -> VGGish:
    return VGGish(str(file), batch_size=3)


def test_a_file_of_torchvggish_is_what_it_reads(file: Path):
    state = torch.load(file, weights_only=True)
    assert {name: tuple(value.shape) for name, value in state.items() if value.ndim > 1} == {
        f"{name}.weight": shape for name, shape in SHAPES.items()
    }
    assert {name for name, value in state.items() if value.ndim == 1} == {f"{name}.bias" for name in SHAPES}


def test_it_is_an_encoder_of_waveforms(encoder: VGGish, file: Path):
    assert_an_encoder_of_waveforms(encoder, file)


def test_it_says_what_is_missing(tmp_path: Path):
    assert_says_what_is_missing(VGGish, tmp_path)


def test_the_original_package_computes_the_same(encoder: VGGish, file: Path):
    """torchvggish with what frechet-audio-distance changes in it: no PCA, and the last activation taken away."""
    vggish = pytest.importorskip("torchvggish")
    original = vggish.VGG(vggish.make_layers(), postprocess=False).eval()
    original.load_state_dict(torch.load(file, weights_only=True))
    original.embeddings = original.embeddings[:-1]
    for sound in (noise(2.9), chirp(3.5), chirp(0.975), np.zeros(32_000, np.float32)):
        with torch.inference_mode():
            wanted = original(vggish.waveform_to_examples(sound, 16_000))
        (found,) = encoder.embed_frames([sound])
        difference = float((found - wanted).abs().max() / wanted.abs().max())
        print(f"VGGish against torchvggish, {len(sound)} samples: {difference:.1e} of the largest number")
        assert difference < 5e-5  # the original's spectrogram is in float64


def test_a_sound_is_the_mean_of_its_patches_of_96_frames(encoder: VGGish):
    frames = encoder.embed_frames(SOUNDS)
    # 1.3 s and the second of silence hold one patch, 2.2 s two; 0.4 s is followed by silence.
    assert [len(each) for each in frames] == [1, 2, 1, 2, 1]
    torch.testing.assert_close(encoder.embed(SOUNDS)[1], (frames[1][0] + frames[1][1]) / 2)
    (padded,) = encoder.embed_frames([np.pad(SOUNDS[2], (0, 10_000))])
    torch.testing.assert_close(frames[2], padded, rtol=1e-3, atol=1e-4 * float(padded.abs().max()))


def test_v_fad_is_what_frechet_audio_distance_computes_of_all_frames(encoder: VGGish, tmp_path: Path):
    sounds = {"a": [noise(2.9), chirp(3.5), chirp(1.0)], "r": [chirp(2.9), noise(3.5), noise(1.0)]}
    items = [Item(str(number)) for number in range(3)]
    rows = {}
    for side, waveforms in sounds.items():
        found = [frames.numpy() for frames in encoder.embed_frames(waveforms)]
        owners = torch.arange(3).repeat_interleave(torch.tensor([len(frames) for frames in found]))
        rows[side] = Rows(torch.ones(3) > 0, torch.from_numpy(np.concatenate(found)), owners=owners)
    evidence = {"a": Evidence({"vggish frames": rows["a"]}, {"vggish frames": rows["r"]})}
    (score,), _ = Scorer(items, evidence, Bootstrap(0, 0)).score("V-FAD", FAD("vggish", frames=True))
    package = pytest.importorskip("frechet_audio_distance")
    original = package.FrechetAudioDistance.__new__(package.FrechetAudioDistance)
    original.verbose = False
    sets = [original.calculate_embd_statistics([*rows[side].embeddings.numpy()]) for side in ("a", "r")]
    wanted = original.calculate_frechet_distance(*sets[0], *sets[1])
    assert score.value == pytest.approx(float(wanted), rel=1e-4)


def test_an_empty_sound_is_an_error(encoder: VGGish):
    with pytest.raises(InputError, match="the sound is empty"):
        encoder.embed([np.zeros(0, np.float32)])
