"""A random CLAP at the only sizes that laion_clap knows: by its package and by transformers it must be the same."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.encoders.clap import (
    CLAPAudioEncoder,
    CLAPTextEncoder,
    LaionCLAPAudioEncoder,
    LaionCLAPTextEncoder,
)
from tests.perception.encoders.clap_files import laion_clap, sounds, write_laion, write_tokenizer
from tests.perception.prepared_elsewhere import assert_sounds_may_be_prepared_elsewhere

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*timm.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*meshgrid.*"),
]


@pytest.mark.slow
def test_laions_package_gives_what_transformers_gives(tmp_path: Path):
    write_tokenizer(tmp_path)
    file = str(write_laion(laion_clap(tiny=False), tmp_path / "630k-audioset-best.pt"))
    audio, laions_audio = CLAPAudioEncoder(file), LaionCLAPAudioEncoder(file)
    torch.testing.assert_close(laions_audio.encode(sounds()), audio.encode(sounds()), rtol=1e-4, atol=1e-5)
    assert laions_audio.identity == audio.identity.replace("transformers", "laion_clap")
    assert_sounds_may_be_prepared_elsewhere(laions_audio, sounds())
    texts, tokenizer = ["rain", "a dog barks", ""], str(tmp_path)
    text, laions_text = CLAPTextEncoder(file, tokenizer=tokenizer), LaionCLAPTextEncoder(file, tokenizer=tokenizer)
    torch.testing.assert_close(laions_text.encode(texts), text.encode(texts), rtol=1e-4, atol=1e-5)


def test_an_unknown_size_is_refused(tmp_path: Path):
    file = write_laion(laion_clap(tiny=True), tmp_path / "small.pt")
    with pytest.raises(InputError, match="laion_clap knows no HTSAT of width 16"):
        LaionCLAPAudioEncoder(str(file)).encode([np.ones(10, np.float32)])


def test_both_of_its_files_are_looked_for():
    assert LaionCLAPAudioEncoder().describe().weights.names == ("630k-audioset-best.pt",)
    assert LaionCLAPTextEncoder().describe().weights.names == ("630k-audioset-best.pt", "tokenizer.json")
