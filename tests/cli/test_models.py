"""`ss2a models list`: which models there are, and whether their files are."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from lightning_ss2a.cli.models import shipped_stacks
from lightning_ss2a.cli.ss2a import main
from lightning_ss2a.perception.detectors.protocols import Detections
from lightning_ss2a.perception.weights import ModelCard, find_weights


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(["models", "list", "--width=400", *arguments])
    assert not exit_.value.code
    return capsys.readouterr().out


def row_of(text: str, part: str) -> list[str]:
    return rows_of(text, part)[0]


def rows_of(text: str, part: str) -> list[list[str]]:
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines()]
    return [row for row in rows if len(row) > 1 and row[1] == part]


def test_all_shipped_stacks_are_listed_if_none_is_named(capsys: pytest.CaptureFixture[str]):
    text = listed(capsys)
    assert {Path(file).stem for file in shipped_stacks()} >= {"lite", "open", "paper", "audioldm"}
    assert not rows_of(text, "prior.text_encoder"), "it is the stack's own"
    stack, part, model, licence, _, there, sha256 = row_of(text, "image_encoder")
    assert (stack, part, model, licence, there) == (
        "lite",
        "image_encoder",
        "efficientnet-lite0-imagenet",
        "Apache-2.0",
        "yes",
    )
    assert len(sha256) == 12
    assert "efficientnet-lite0-imagenet (image_encoder): knows ImageNet's 1000 classes" in text


def test_the_open_stack_has_no_part_whose_licence_binds_its_user(capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("huggingface_hub")
    stacks = {Path(file).stem: file for file in shipped_stacks()}
    parts = ("image_encoder", "audio_encoder", "detector", "text_encoder", "prior")
    paper, free = listed(capsys, "-c", stacks["paper"]), listed(capsys, "-c", stacks["open"])
    assert [row_of(paper, part)[2] for part in parts] == [
        "open_clip/ViT-L-14-quickgelu",
        "transformers/CLAP",
        "ultralytics/YOLO",
        "open_clip/ViT-L-14-quickgelu",
        "diffusers/PriorTransformer",
    ]
    assert row_of(paper, "detector")[3].startswith("AGPL-3.0")
    assert row_of(paper, "audio_encoder")[4] == "audioldm-s-full-v2.ckpt"
    assert "AGPL" not in free
    assert row_of(free, "audio_encoder")[4] == "hub laion/clap-htsat-unfused"


def test_the_generator_is_listed_with_the_licence_that_binds_its_user(capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("huggingface_hub")
    stacks = {Path(file).stem: file for file in shipped_stacks()}
    assert row_of(listed(capsys, "-c", stacks["audioldm"]), "generator")[2:6] == [
        "diffusers/AudioLDM",
        "CC-BY-NC-SA-4.0",
        "audioldm-s-full-v2.ckpt",
        "no",
    ]


def test_encoders_of_evaluation_are_listed_with_the_file_that_each_needs(capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("huggingface_hub")
    stacks = {Path(file).stem: file for file in shipped_stacks()}
    text = listed(capsys, "-c", stacks["published"])
    wanted = {
        "encoders.vggish": ["vggish", "Apache-2.0 (torchvggish)", "vggish-10086976.pth"],
        "encoders.beats": [
            "speechbrain/BEATs",
            "MIT (BEATs), Apache-2.0 (speechbrain)",
            "BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2.pt",
        ],
        "encoders.wav2clip": ["wav2clip", "MIT", "Wav2CLIP.pt"],
        "sync": ["synchformer-export", "MIT", "synchformer.pt"],
    }
    assert {part: row_of(text, part)[2:5] for part in wanted} == wanted
    assert row_of(text, "encoders.clap.encoder")[2] == "transformers/CLAP"
    assert row_of(text, "encoders.panns")[5] == "no"
    assert "VGGish.path must name the file" in text


def test_what_is_missing_is_told_and_stops_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "there.bin").write_bytes(b"weights")
    (tmp_path / "stack.yaml").write_text(f"""
image_encoder:
  class_path: tests.cli.test_models.Model
  init_args: {{part: image encoder, path: {tmp_path / "there.bin"}}}
detector:
  class_path: tests.cli.test_models.Finder
  init_args: {{part: detector, path: {tmp_path / "gone.bin"}}}
audio_encoder: {{class_path: lightning_ss2a.perception.NoSuchEncoder}}
image_views: 8
""")
    text = listed(capsys, "-c", str(tmp_path / "stack.yaml"))
    assert row_of(text, "image_encoder")[2:] == [
        "model",
        "MIT",
        str(tmp_path / "there.bin"),
        "yes",
        hashlib.sha256(b"weights").hexdigest()[:12],
    ]
    assert row_of(text, "detector")[5:] == ["no", ""]
    assert "gone.bin does not exist; detector.path must name" in text
    assert row_of(text, "audio_encoder")[5] == "no"
    assert "has no attribute 'NoSuchEncoder'" in text


def test_a_file_that_is_no_stack_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as exit_:
        main(["models", "list", "-c", str(tmp_path / "no.yaml")])
    assert exit_.value.code == 2
    assert "no.yaml" in capsys.readouterr().err


class Model:
    """An encoder that does nothing but say where its file is."""

    identity, width = "model", 3

    def __init__(self, part: str, path: str) -> None:
        self.part, self.path = part, path

    def describe(self) -> ModelCard:
        return ModelCard(self.part, "model", "MIT", find_weights(self.part, self.path, "", ["weights.bin"]), "a note")

    def encode(self, images: Sequence[np.ndarray]) -> Tensor:
        raise NotImplementedError


class Finder(Model):
    labels: tuple[str, ...] = ()

    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        raise NotImplementedError
