"""What one pass over the training split tells: the mean embeddings and the closed-form maps behind every floor."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import normalize

from lightning_ss2a.errors import InputError
from lightning_ss2a.metrics.functional.ridge import CrossMoments, ridge_regression

PRIOR_SAMPLES = 512


@dataclass
class TrainingStatistics:
    """Closed-form summaries of the training split; all tensors, so that they travel inside a checkpoint.

    Attributes:
        mean_audio: mean unit-norm audio embedding, [audio width].
        audio_norm: mean norm of the audio embeddings as stored, scalar. A prediction has a direction only; a label
            head with a bias needs a length too, and gets this one.
        audio_samples: audio embeddings of training rows spread over the split, [<= 512, audio width]; for the floor
            "chance".
        visual_to_audio_weight: ridge regression of audio on visual directions, [audio, visual width].
        visual_to_audio_bias: its bias, [audio width].
        audio_to_visual_weight: the translator of the CLIP score, audio to visual, [visual, audio width].
        audio_to_visual_bias: its bias, [visual width].
    """

    mean_audio: Tensor
    audio_norm: Tensor
    audio_samples: Tensor
    visual_to_audio_weight: Tensor
    visual_to_audio_bias: Tensor
    audio_to_visual_weight: Tensor
    audio_to_visual_bias: Tensor

    def predict_audio(self, visual: Tensor) -> Tensor:
        """Audio directions that the ridge regression predicts, [rows, audio width], from visual embeddings."""
        return normalize(visual, dim=-1) @ self.visual_to_audio_weight.T + self.visual_to_audio_bias

    def translate_audio(self, audio: Tensor) -> Tensor:
        """Audio embeddings [rows, audio width] in the visual space, [rows, visual width]."""
        return normalize(audio, dim=-1) @ self.audio_to_visual_weight.T + self.audio_to_visual_bias

    def to(self, device: torch.device) -> "TrainingStatistics":
        """The same statistics on another device."""
        return TrainingStatistics(**{name: value.to(device) for name, value in self.state_dict().items()})

    def state_dict(self) -> dict[str, Tensor]:
        """Plain tensors by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def with_translator(self, path: str) -> "TrainingStatistics":
        """The same, with the linear translator of a safetensors file (``weight`` [visual, audio width], ``bias``).

        Raises:
            InputError: the file is missing or broken, or has other names or widths than needed.
        """
        if not Path(path).is_file():
            raise InputError(f"{path}: no such translator checkpoint; leave translator_checkpoint out for the ridge")
        try:
            tensors = load_file(path)
        except SafetensorError as error:
            raise InputError(f"{path}: not a safetensors file ({error})") from error
        for name, expected in (("weight", self.audio_to_visual_weight), ("bias", self.audio_to_visual_bias)):
            if name not in tensors or tensors[name].shape != expected.shape:
                found = tuple(tensors[name].shape) if name in tensors else "nothing"
                raise InputError(f"{path}: field {name!r} must have shape {tuple(expected.shape)}, found {found}")
            if not tensors[name].isfinite().all():
                raise InputError(f"{path}: field {name!r} holds NaN or infinite numbers")
        state = self.state_dict()
        state["audio_to_visual_weight"] = tensors["weight"].float()
        state["audio_to_visual_bias"] = tensors["bias"].float()
        return TrainingStatistics(**state)


def fit_training_statistics(batches: Iterable[dict[str, Tensor]]) -> TrainingStatistics:
    """Fit the statistics in one pass over the training rows (every row once, views averaged).

    Every rank reads the same rows in the same order, so that all ranks hold the same floors to the bit.
    The ridge penalties are chosen by generalised cross-validation: the strongest floor that needs no tuning.

    Args:
        batches: dict batches with ``visual`` [rows, width] and ``audio`` [rows, width].

    Raises:
        InputError: there is no row.
    """
    forward = backward = None
    norms, samples = 0.0, _SpreadSample(PRIOR_SAMPLES)
    for batch in batches:
        visual, audio = normalize(batch["visual"].double(), dim=-1), normalize(batch["audio"].double(), dim=-1)
        if forward is None:
            forward = CrossMoments(visual.shape[-1], audio.shape[-1], device=visual.device)
            backward = CrossMoments(audio.shape[-1], visual.shape[-1], device=visual.device)
        forward.update(visual, audio)
        backward.update(audio, visual)
        norms = norms + batch["audio"].double().norm(dim=-1).sum()
        samples.update(batch["audio"])
    if forward is None or backward is None or forward.count == 0:
        raise InputError("the training split has no rows: no floor or translator can be fitted")
    to_audio, to_visual = (ridge_regression(moments, penalty="gcv") for moments in (forward, backward))
    return TrainingStatistics(
        mean_audio=(forward.sum_y / forward.count).float(),
        audio_norm=(norms / forward.count).float(),
        audio_samples=samples.rows(),
        visual_to_audio_weight=to_audio.weight.float(),
        visual_to_audio_bias=to_audio.bias.float(),
        audio_to_visual_weight=to_visual.weight.float(),
        audio_to_visual_bias=to_visual.bias.float(),
    )


class _SpreadSample:
    """At most ``count`` rows at even distances over a sequence of unknown length, in bounded memory."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._stride = 1
        self._seen = 0
        self._kept: list[Tensor] = []  # rows 0, stride, 2 * stride, ... of the sequence

    def update(self, rows: Tensor) -> None:
        """See the next rows of the sequence."""
        self._kept.append(rows[-self._seen % self._stride :: self._stride].clone())  # a view would keep the batch
        self._seen += len(rows)
        while -(-self._seen // self._stride) > 2 * self._count:
            self._kept = [torch.cat(self._kept)[::2]]
            self._stride *= 2

    def rows(self) -> Tensor:
        """The sample, [<= count, width]."""
        kept = torch.cat(self._kept)
        positions = torch.linspace(0, len(kept) - 1, min(self._count, len(kept)), device=kept.device).round().long()
        return kept[positions]
