from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_ss2a.errors import InputError
from lightning_ss2a.perception import CLAPAudioEncoder, CLAPSoundPrior, CLAPTextEncoder
from lightning_ss2a.perception.encoders.protocols import TextToAudioPrior
from tests.perception.encoders import test_clap

# The tiny CLAP of its encoders' tests, in LAION's layout.
network, tokenizer_folder, laion_file = test_clap.network, test_clap.tokenizer_folder, test_clap.laion_file


def prior_of(texts: Path, sounds: Path, tokenizer: Path) -> CLAPSoundPrior:
    return CLAPSoundPrior(CLAPTextEncoder(str(texts), tokenizer=str(tokenizer)), CLAPAudioEncoder(str(sounds)))


def test_a_text_is_what_the_text_tower_makes_of_it(network: Any, laion_file: Path, tokenizer_folder: Path):
    prior = prior_of(laion_file, laion_file, tokenizer_folder)
    texts = ["rain on a tin roof", "a dog barks"]
    own = CLAPTextEncoder(str(laion_file), tokenizer=str(tokenizer_folder)).encode(texts)
    torch.testing.assert_close(prior.predict(texts), own)
    assert prior.predict([]).shape == (0, prior.width)
    assert isinstance(prior, TextToAudioPrior)
    assert prior.audio_encoder_identity == CLAPAudioEncoder(str(laion_file)).identity
    assert prior.audio_encoder_identity in prior.identity
    assert prior.describe().weights.present


def test_towers_of_different_files_are_refused(laion_file: Path, tokenizer_folder: Path, tmp_path: Path):
    other = tmp_path / "other.pt"
    other.write_bytes(laion_file.read_bytes())
    with pytest.raises(InputError, match=r"sound_prior: its text_encoder is .* name the same path or repository"):
        prior_of(laion_file, other, tokenizer_folder).predict(["rain"])
