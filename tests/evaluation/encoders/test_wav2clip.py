from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_ss2a.errors import InputError
from lightning_ss2a.evaluation.encoders.wav2clip import (
    Wav2CLIP,
    Wav2CLIPImages,
    Wav2CLIPNetwork,
    standardised_spectrogram,
)
from tests.evaluation.encoders.waveforms import (
    assert_an_encoder_of_waveforms,
    assert_says_what_is_missing,
    chirp,
    noise,
    randomise,
)

pytest.importorskip("torchvision")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The true size, with the window of the original's spectrogram and a weight of another half."""
    network = randomise(Wav2CLIPNetwork())
    more = {"audio_encoder.spectrogram.window": torch.hann_window(512), "image_transform.x": torch.zeros(2)}
    file = tmp_path_factory.mktemp("wav2clip") / Wav2CLIP.file
    torch.save({**network.state_dict(), **more}, file)
    return file


@pytest.fixture(scope="module")
def encoder(file: Path) -> Wav2CLIP:
    return Wav2CLIP(str(file), seconds=1.5, batch_size=3)


def test_it_is_an_encoder_of_waveforms(encoder: Wav2CLIP, file: Path):
    assert_an_encoder_of_waveforms(encoder, file)


def test_it_says_what_is_missing(tmp_path: Path):
    assert_says_what_is_missing(Wav2CLIP, tmp_path)
    with pytest.raises(InputError, match="seconds is 0, needs at least"):
        Wav2CLIP(seconds=0)


def test_the_original_package_computes_the_same(file: Path):
    wav2clip = pytest.importorskip("wav2clip")
    from wav2clip.model.encoder import ResNetExtractor

    original = ResNetExtractor(torch.load(file, weights_only=True), scenario="frozen", transform=True)
    for sound in (noise(1.7), chirp(12.0)):
        prepared = np.pad(sound[:163_840], (0, max(0, 163_840 - len(sound))))
        wanted = wav2clip.embed_audio(prepared, original)
        found = Wav2CLIP(str(file)).embed([sound]).numpy()
        difference = np.abs(found - wanted).max() / np.abs(wanted).max()
        print(f"Wav2CLIP: {difference:.1e} of the largest number")
        assert difference < 1e-5


def test_a_spectrogram_is_standardised_by_itself():
    spectrograms = standardised_spectrogram(torch.from_numpy(np.stack([noise(1.0), 0.01 * chirp(1.0)])))
    assert spectrograms.shape == (2, 257, 1 + 16_000 // 353)
    torch.testing.assert_close(spectrograms.mean(dim=(1, 2)), torch.zeros(2), rtol=0, atol=1e-5)
    torch.testing.assert_close(spectrograms.std(dim=(1, 2)), torch.ones(2))


def test_its_pictures_are_those_of_the_smaller_clip():
    pytest.importorskip("open_clip")
    images = Wav2CLIPImages(path="nowhere")
    assert images.width == Wav2CLIP.width == 512
    assert images.describe().model == "open_clip/ViT-B-32-quickgelu"
