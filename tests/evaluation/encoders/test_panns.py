from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_ss2a.errors import InputError
from lightning_ss2a.evaluation.encoders.panns import Cnn14Network, PANNs
from lightning_ss2a.evaluation.protocols import LabellingEncoder
from tests.evaluation.encoders.waveforms import (
    SOUNDS,
    assert_an_encoder_of_waveforms,
    assert_says_what_is_missing,
    chirp,
    noise,
    randomise,
)

librosa_mel = pytest.importorskip("librosa.filters").mel


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The true size, as PANNs' training script writes it: beside the weights, what it goes on with."""
    network = randomise(Cnn14Network())
    network.logmel_extractor.melW.data = torch.from_numpy(
        librosa_mel(sr=16_000, n_fft=512, n_mels=64, fmin=50, fmax=8000).T.copy()
    )
    network.bn0.running_mean.fill_(-40)
    network.bn0.running_var.fill_(400)
    fourier = {f"spectrogram_extractor.stft.conv_{part}.weight": torch.zeros(257, 1, 512) for part in ("real", "imag")}
    file = tmp_path_factory.mktemp("panns") / PANNs.file
    sampler = {"indexes": np.arange(5), "pointer": 3}
    torch.save({"iteration": 7, "model": {**fourier, **network.state_dict()}, "sampler": sampler}, file)
    return file


@pytest.fixture(scope="module")
def encoder(file: Path) -> PANNs:
    return PANNs(str(file), batch_size=2)


def test_it_is_an_encoder_of_waveforms(encoder: PANNs, file: Path):
    assert isinstance(encoder, LabellingEncoder)
    assert_an_encoder_of_waveforms(encoder, file)


def test_it_says_what_is_missing(tmp_path: Path):
    assert_says_what_is_missing(PANNs, tmp_path)


@pytest.mark.slow  # laion_clap takes half a minute to import
def test_the_original_network_computes_the_same(encoder: PANNs, file: Path):
    """PANNs' own Cnn14, of which laion_clap has a copy; it makes its spectrogram by convolutions."""
    pann_model = pytest.importorskip("laion_clap.clap_module.pann_model")
    original = pann_model.Cnn14(16_000, 512, 160, 64, 50, 8000, 527).eval()
    state = torch.load(file, weights_only=False)["model"]
    fourier = {name: value for name, value in original.state_dict().items() if name.startswith("spectrogram_")}
    torch.testing.assert_close(
        original.state_dict()["logmel_extractor.melW"], state["logmel_extractor.melW"]
    )  # the file's is the one that the original computes
    original.load_state_dict({**state, **fourier})
    for sound in (noise(2.9), chirp(3.5), np.zeros(32_000, np.float32)):
        with torch.inference_mode():
            wanted = original({"waveform": torch.from_numpy(sound)[None]})
        embeddings, logits = encoder.embed_and_label([sound])
        difference = float((embeddings - wanted["embedding"]).abs().max() / wanted["embedding"].abs().max())
        probabilities = float((logits.sigmoid() - wanted["clipwise_output"]).abs().max())
        print(f"PANNs, {len(sound)} samples: {difference:.1e} of the largest number, probabilities {probabilities:.1e}")
        assert difference < 1e-4
        assert probabilities < 1e-4


def test_it_tells_classes(encoder: PANNs, file: Path, tmp_path: Path):
    embeddings, logits = encoder.embed_and_label(SOUNDS[2:3])
    assert embeddings.equal(encoder.embed(SOUNDS[2:3]))
    assert logits.shape == (1, 527)
    assert encoder.labels[:2] == ("0", "1")
    names = tmp_path / "class_labels_indices.csv"
    names.write_text("index,mid,display_name\n" + "".join(f"{i},/m/{i},Class {i}\n" for i in range(527)))
    assert PANNs(str(file), labels=str(names)).labels[526] == "Class 526"
    names.write_text("index,mid,display_name\n0,/m/0,Speech\n")
    with pytest.raises(InputError, match="names 1 classes, PANNs needs AudioSet's 527"):
        _ = PANNs(str(file), labels=str(names)).labels
    names.write_text("index,name\n0,Speech\n")
    with pytest.raises(InputError, match="needs the columns mid and display_name"):
        _ = PANNs(str(file), labels=str(names)).labels
    names.write_text("index,mid,display_name\n0,/m/0,Speech\n1,/m/1,Speech\n")
    with pytest.raises(InputError, match="names a class twice"):
        _ = PANNs(str(file), labels=str(names)).labels


def test_a_network_of_another_rate_is_refused(tmp_path: Path):
    state = Cnn14Network().state_dict()
    state["logmel_extractor.melW"] = torch.zeros(513, 64)
    torch.save({"model": state}, tmp_path / "Cnn14_mAP=0.431.pth")
    with pytest.raises(InputError, match=r"not a Cnn14_16k: has logmel_extractor\.melW of shape \[513, 64\]"):
        PANNs(str(tmp_path / "Cnn14_mAP=0.431.pth")).load()


def test_a_very_short_sound_is_followed_by_silence(encoder: PANNs):
    short = noise(0.1)
    padded = np.pad(short, (0, 5120 - len(short)))
    torch.testing.assert_close(encoder.embed([short]), encoder.embed([padded]))
