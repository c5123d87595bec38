"""Defines the label head: a linear layer on audio embeddings in place of an audio tagger, where no waveform is left."""

import json
from dataclasses import dataclass, replace

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from lightning_ss2a.errors import ShardError


@dataclass(frozen=True)
class LabelHead:
    """Scores the labels of an audio embedding: ``audio @ weight.T + bias``.

    Attributes:
        weight: [labels, width], float32.
        bias: [labels], float32.
        labels: names of the labels.
    """

    weight: Tensor
    bias: Tensor
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        rows, bias, names = self.weight.shape[:1], self.bias.shape, len(self.labels)
        if self.weight.ndim != 2 or bias != rows or names != len(self.weight):
            raise ShardError(
                f"label head: weight {list(self.weight.shape)}, bias {list(bias)} and {names} labels do not go "
                "together; it needs weight [labels, width] and bias [labels]"
            )
        if not (self.weight.isfinite().all() and self.bias.isfinite().all()):
            raise ShardError("label head: weight or bias holds NaN or infinite numbers")

    @property
    def width(self) -> int:
        """Width of the audio embeddings that it scores."""
        return self.weight.shape[1]

    def to(self, device: torch.device) -> "LabelHead":
        """Moves the head to a device."""
        return replace(self, weight=self.weight.to(device), bias=self.bias.to(device))

    def scores(self, audio: Tensor) -> Tensor:
        """Computes the logits of all labels: [..., width] to [..., labels], float32."""
        weight, bias = self.weight.to(audio.device), self.bias.to(audio.device)
        return torch.nn.functional.linear(audio.float(), weight, bias)

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> "LabelHead":
        """Reads a safetensors file: tensors ``weight`` and ``bias``, metadata ``labels`` (a JSON list).

        Args:
            data: the file.
            where: start of error messages: its name.

        Raises:
            ShardError: they are not a label head.
        """
        try:
            tensors = safetensors.torch.load(data)
            labels = json.loads(_metadata(data)["labels"])
            if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
                raise ValueError("labels are not a list of names")
            return cls(tensors["weight"].float(), tensors["bias"].float(), tuple(labels))
        except ShardError as error:
            raise ShardError(f"{where}: {error}") from None
        except (safetensors.SafetensorError, KeyError, ValueError, TypeError, RecursionError) as error:
            raise ShardError(
                f"{where}: not a label head ({error}); it needs weight, bias and the metadata labels"
            ) from error

    def to_bytes(self) -> bytes:
        """Makes the safetensors file."""
        tensors = {"weight": self.weight.float().contiguous(), "bias": self.bias.float().contiguous()}
        return safetensors.torch.save(tensors, metadata={"labels": json.dumps(list(self.labels))})


def _metadata(data: bytes) -> dict[str, str]:
    # The library reads metadata from files only; the header is a length (8 bytes) and JSON.
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length])["__metadata__"]
