import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from lightning_ss2a.errors import InputError
from lightning_ss2a.evaluation.encoders.beats import BEATs, import_speechbrain_beats
from lightning_ss2a.evaluation.protocols import LabellingEncoder
from tests.evaluation.encoders.waveforms import (
    SOUNDS,
    assert_an_encoder_of_waveforms,
    assert_says_what_is_missing,
    chirp,
    noise,
    randomise,
)

if find_spec("speechbrain") is None:
    pytest.skip("speechbrain is not installed", allow_module_level=True)
beats = import_speechbrain_beats()

LABELS = ["/m/09x0r", "/m/05zppz", "/m/02zsn"]
CFG = {
    **vars(beats.BEATsConfig()),
    **{"encoder_layers": 2, "encoder_embed_dim": 32, "encoder_ffn_embed_dim": 64, "encoder_attention_heads": 4},
    **{"embed_dim": 24, "input_patch_size": 16, "conv_pos": 16, "conv_pos_groups": 4, "deep_norm": True},
    **{"relative_position_embedding": True, "num_buckets": 32, "max_distance": 80, "gru_rel_pos": True},
    **{"finetuned_model": True, "predictor_class": len(LABELS)},
}
"""A small network with all that the published configurations switch on."""


def write(file: Path, **changes: Any) -> Path:
    content = {"cfg": CFG, "label_dict": dict(enumerate(LABELS)), **changes}
    config = beats.BEATsConfig(content["cfg"])
    with mock.patch.object(beats, "BEATsConfig", return_value=config):  # it takes one from a file only
        network = beats.BEATs()
    torch.save({"model": randomise(network).state_dict(), **content}, file)
    return file


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("beats") / BEATs.file)


@pytest.fixture(scope="module")
def encoder(file: Path) -> BEATs:
    return BEATs(str(file), seconds=2.0, batch_size=2)


def test_all_modules_can_be_looked_at_once_speechbrain_is_there():
    """hypothesis does so; a stand-in of speechbrain's would raise an ImportError."""
    assert not [name for name, module in list(sys.modules.items()) if getattr(module, "__file__", "") == "nowhere"]


def test_it_is_an_encoder_of_waveforms(encoder: BEATs, file: Path):
    assert isinstance(encoder, LabellingEncoder)
    assert_an_encoder_of_waveforms(encoder, file)
    assert encoder.width == 32


def test_it_says_what_is_missing(file: Path, tmp_path: Path):
    assert_says_what_is_missing(BEATs, tmp_path)
    pretrained = write(tmp_path / "pretrained.pt", cfg={**CFG, "finetuned_model": False}, label_dict=None)
    with pytest.raises(InputError, match="names no classes; take a checkpoint that was fine-tuned"):
        BEATs(str(pretrained)).load()
    with pytest.raises(InputError, match="names 2 classes, which are not those of its last layer"):
        BEATs(str(write(tmp_path / "fewer.pt", label_dict={0: "a", 1: "b"}))).load()
    with pytest.raises(InputError, match="label_dict has no class 0"):
        BEATs(str(write(tmp_path / "gap.pt", label_dict={1: "a", 2: "b", 3: "c"}))).load()
    with pytest.raises(InputError, match=r"not a BEATs .*Missing key"):
        BEATs(str(write(tmp_path / "empty.pt", model={}))).load()
    with pytest.raises(InputError, match=r"seconds is 0\.1, peak 0\.5"):
        BEATs(str(file), seconds=0.1)


def test_the_paper_hears_ten_seconds_at_half_the_peak(file: Path):
    """As speechbrain's module hears a sound that was prepared by hand: mean 0, peak 0.5, 163,840 samples."""
    original = beats.BEATs(str(file))
    published = BEATs(str(file))
    # Noise everywhere: in a band without sound the logarithm hears rounding.
    for sound in (noise(1.7) + 0.1, chirp(12.0) + noise(12.0, peak=0.05)):
        sound = sound.astype(np.float32)
        level = sound - sound.mean()
        level = level / np.abs(level).max() * 0.5
        prepared = np.pad(level[:163_840], (0, max(0, 163_840 - len(level))))
        patches, probabilities, _ = original(torch.from_numpy(prepared)[None], torch.ones(1))
        assert patches.shape == (1, 1022 // 16 * 8, 32)  # 10 ms frames by 16, 128 bands by 16
        embeddings, logits = published.embed_and_label([sound])
        difference = float((embeddings - patches.mean(dim=1)).abs().max() / patches.mean(dim=1).abs().max())
        print(f"BEATs: {difference:.1e}, probabilities {float((logits.sigmoid() - probabilities).abs().max()):.1e}")
        torch.testing.assert_close(embeddings, patches.mean(dim=1), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(logits.sigmoid(), probabilities, rtol=1e-4, atol=1e-5)


def test_a_level_may_be_kept(file: Path):
    kept = BEATs(str(file), seconds=2.0, peak=None)
    assert kept.identity.endswith("+as-loud-2s-v1")
    assert BEATs(str(file)).identity.endswith("+peak0.5-10.24s-v1")
    louder, quieter = kept.embed([SOUNDS[0]]), kept.embed([SOUNDS[0] * 0.1])
    assert (louder - quieter).abs().max() > 1e-3
    usual = BEATs(str(file), seconds=2.0)
    torch.testing.assert_close(usual.embed([SOUNDS[0]]), usual.embed([SOUNDS[0] * 0.1]), rtol=1e-3, atol=1e-3)


def test_its_labels_are_the_checkpoints_or_audiosets(encoder: BEATs, file: Path, tmp_path: Path):
    assert encoder.labels == tuple(LABELS)
    names = tmp_path / "class_labels_indices.csv"
    rows = ["0,/m/02zsn,Female", "1,/m/05zppz,Male", "2,/m/09x0r,Speech"]
    names.write_text("\n".join(["index,mid,display_name", *rows]))
    assert BEATs(str(file), labels=str(names)).labels == ("Speech", "Male", "Female")
    names.write_text("\n".join(["index,mid,display_name", *rows[:2]]))
    with pytest.raises(InputError, match="lacks /m/09x0r, one of 1 classes"):
        _ = BEATs(str(file), labels=str(names)).labels
