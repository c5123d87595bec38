"""Baselines: closed-form summaries of the training split, and what they predict without training."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import normalize

from lightning_ss2a.data import ShardDataModule
from lightning_ss2a.data.loading.residency import CPU
from lightning_ss2a.data.loading.shared_cache import shared_cache
from lightning_ss2a.data.loading.tensors import Batch
from lightning_ss2a.errors import InputError
from lightning_ss2a.files import to_path
from lightning_ss2a.models.ridge import RidgeRegression
from lightning_ss2a.training.pretrained import load_audio_to_visual
from lightning_ss2a.training.validation.fair_ridge import FairRidge, Judge, fit_fair_ridge
from lightning_ss2a.training.validation.targets import Targets, targets_of

PRIOR_SAMPLES = 512


@dataclass
class TrainingStatistics:
    """Closed-form summaries of the training split; all tensors, so that they travel inside a checkpoint.

    Attributes:
        mean_audio: mean unit-norm audio embedding, [audio width].
        audio_norm: mean norm of the audio embeddings as stored, scalar. A prediction has a direction only; a label
            head with a bias needs a length too, and gets this one.
        audio_samples: audio embeddings of training rows spread over the split, [<= 512, audio width]; for the baseline
            "chance".
        features_to_audio_weight: ridge regression of audio directions on what is seen, [audio, feature width]; see
            ``Targets.features``. Its penalty is chosen by cosine.
        features_to_audio_bias: its bias, [audio width].
        features_to_audio_by_ssms_weight: the same, its penalty chosen by SSMS; None: there is the first only.
        features_to_audio_by_ssms_bias: its bias.
        audio_to_visual_weight: the translator of the CLIP score, audio to visual, [visual, audio width]; None: the data
            have no visual embeddings.
        audio_to_visual_bias: its bias, [visual width].
        mean_visual: mean of the unit embeddings of what is seen, [visual width]; None as above.
        visual_norm: mean norm of the visual embeddings as stored, scalar; None as above.
        translator: a trained translator that takes the ridge's place; it is no part of the state.
    """

    mean_audio: Tensor
    audio_norm: Tensor
    audio_samples: Tensor
    features_to_audio_weight: Tensor
    features_to_audio_bias: Tensor
    features_to_audio_by_ssms_weight: Tensor | None = None
    features_to_audio_by_ssms_bias: Tensor | None = None
    audio_to_visual_weight: Tensor | None = None
    audio_to_visual_bias: Tensor | None = None
    mean_visual: Tensor | None = None
    visual_norm: Tensor | None = None
    translator: nn.Module | None = None

    def predict_audio(self, features: Tensor) -> Tensor:
        """Predicts audio directions by ridge regression, [rows, audio width], from ``Targets.features``."""
        return _affine(features, self.features_to_audio_weight, self.features_to_audio_bias)

    def predict_audio_by_ssms(self, features: Tensor) -> Tensor:
        """Predicts them by the ridge regression whose penalty is chosen by SSMS, or by the first where it is alone."""
        weight, bias = self.features_to_audio_by_ssms_weight, self.features_to_audio_by_ssms_bias
        return self.predict_audio(features) if weight is None or bias is None else _affine(features, weight, bias)

    def translate_audio(self, audio: Tensor) -> Tensor:
        """Translates audio embeddings [rows, audio width] to the visual space, [rows, visual width].

        Raises:
            InputError: the data have no visual embeddings.
        """
        if self.translator is None:
            return _affine(normalize(audio, dim=-1), *self._audio_to_visual())
        with torch.autocast(audio.device.type, enabled=False):
            return self.translator(audio)

    def to(self, device: torch.device) -> "TrainingStatistics":
        """Moves the statistics to another device."""
        translator = None if self.translator is None else self.translator.to(device)
        moved = {name: value.to(device) for name, value in self.state_dict().items()}
        return TrainingStatistics(**moved, translator=translator)

    def state_dict(self) -> dict[str, Tensor]:
        """Returns plain tensors by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "translator"}
        return {name: value for name, value in values.items() if value is not None}

    def with_translator(self, path: str) -> "TrainingStatistics":
        """Replaces the translator by a checkpoint of ``AudioToVisualModule``, or a linear map.

        Args:
            path: a ``.ckpt``, or a safetensors file (``weight`` [visual, audio width], ``bias``).

        Raises:
            InputError: the file is missing or broken, or has other names or widths than needed.
        """
        weight, bias = self._audio_to_visual()
        if path.endswith(".ckpt"):
            visual_width, audio_width = weight.shape
            translator = load_audio_to_visual(path, "translator_checkpoint", audio_width, visual_width)
            return replace(self, translator=translator)
        file = to_path(path)
        if not file.is_file():
            raise InputError(f"{path}: no such translator checkpoint; leave translator_checkpoint out for the ridge")
        try:
            tensors = load_file(file)
        except SafetensorError as error:
            raise InputError(f"{path}: not a safetensors file ({error})") from error
        for name, expected in (("weight", weight), ("bias", bias)):
            if name not in tensors or tensors[name].shape != expected.shape:
                found = tuple(tensors[name].shape) if name in tensors else "nothing"
                raise InputError(f"{path}: field {name!r} must have shape {tuple(expected.shape)}, found {found}")
            if not tensors[name].isfinite().all():
                raise InputError(f"{path}: field {name!r} holds NaN or infinite numbers")
        return replace(self, translator=LinearTranslator(tensors["weight"].float(), tensors["bias"].float()))

    def _audio_to_visual(self) -> tuple[Tensor, Tensor]:
        """Returns weight and bias of the ridge regression from audio to visual."""
        if self.audio_to_visual_weight is None or self.audio_to_visual_bias is None:
            raise InputError("translator_checkpoint has no use: these data have no visual embeddings to compare with")
        return self.audio_to_visual_weight, self.audio_to_visual_bias


class LinearTranslator(nn.Module):
    """A linear map from the direction of audio embeddings to the visual space.

    Args:
        weight: [visual, audio width].
        bias: [visual width].
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        """Translates audio embeddings, [rows, audio width] -> [rows, visual width]."""
        return _affine(normalize(audio, dim=-1), self.weight, self.bias)


def fit_training_statistics(
    batches: Iterable[Batch], fit_ridge: Callable[[Tensor], FairRidge] | None = None
) -> TrainingStatistics:
    """Fits the statistics in one pass over the training rows (every row once, views averaged).

    Every rank reads the same rows in the same order, so that all ranks hold the same baselines to the bit.
    The translator's ridge penalty is chosen by generalised cross-validation.

    Args:
        batches: dict batches of pairs, scenes or videos.
        fit_ridge: fits the regressions that predict audio, told ``audio_norm``; None: one is fitted to these rows, its
            penalty chosen as the translator's.

    Raises:
        InputError: there is no row.
    """
    to_audio: RidgeRegression | None = None
    to_visual: RidgeRegression | None = None
    count, audio_sum = 0, torch.zeros((), dtype=torch.float64)
    norms, visual_norms = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    samples = _SpreadSample(PRIOR_SAMPLES)
    for batch in batches:
        targets = targets_of({name: _double(column) for name, column in batch.items()})
        features, audio, visual = targets.features, normalize(targets.audio, dim=-1), targets.mean_visual
        if to_audio is None:
            to_audio = RidgeRegression(features.shape[-1], audio.shape[-1], device=audio.device)
        if fit_ridge is None:
            to_audio.update(features, audio)
        audio_sum, count = audio_sum + audio.sum(0), count + len(audio)
        if targets.visual is not None and visual is not None:
            if to_visual is None:
                to_visual = RidgeRegression(audio.shape[-1], visual.shape[-1], device=audio.device)
            to_visual.update(audio, visual)
            lengths = targets.visual.norm(dim=-1).masked_fill(~targets.visible, 0).sum(1)
            visual_norms = visual_norms + (lengths / targets.visible.sum(1)).sum()
        norms = norms + targets.audio.norm(dim=-1).sum()
        samples.update(batch["audio"])
    if count == 0 or to_audio is None:
        raise InputError("the training split has no rows: no baseline or translator can be fitted")
    audio_norm = (norms / count).float()
    ridge = None if fit_ridge is None else fit_ridge(audio_norm)
    audio_map = to_audio.fit() if ridge is None else ridge.by_cosine
    statistics = TrainingStatistics(
        mean_audio=(audio_sum / count).float(),
        audio_norm=audio_norm,
        audio_samples=samples.rows(),
        features_to_audio_weight=audio_map.weight.float(),
        features_to_audio_bias=audio_map.bias.float(),
        features_to_audio_by_ssms_weight=None if ridge is None else ridge.by_ssms.weight.float(),
        features_to_audio_by_ssms_bias=None if ridge is None else ridge.by_ssms.bias.float(),
    )
    if to_visual is None:
        return statistics
    visual_map = to_visual.fit()
    return replace(
        statistics,
        audio_to_visual_weight=visual_map.weight.float(),
        audio_to_visual_bias=visual_map.bias.float(),
        mean_visual=to_visual.mean_target.float(),
        visual_norm=(visual_norms / to_visual.count).float(),
    )


def training_statistics(data: ShardDataModule, top_n: int | None) -> TrainingStatistics:
    """Fits the statistics of the training rows that ``data`` measures, once for all runs within ``use_shared_cache()``.

    The ridge regressions that predict audio are :class:`FairRidge`: fitted to all that is trained on.

    Args:
        data: whose rows, label head and weights.
        top_n: labels a side that SSMS compares; None: no audio is predicted, and the regressions are left as
            :func:`fit_training_statistics` fits them.

    Raises:
        InputError: there is no row.
    """

    def fit() -> TrainingStatistics:
        if top_n is None:
            return fit_training_statistics(data.training_rows_loader())
        return fit_training_statistics(
            data.training_rows_loader(), lambda norm: fit_fair_ridge(data, Judge(data.label_head, top_n, norm))
        )

    cache = shared_cache()
    if cache is None:
        return fit()
    key = ("statistics", top_n, data.measured_training_rows_key())
    return cache.get(key, lambda: fit().to(CPU), lambda fitted: sum(x.nbytes for x in fitted.state_dict().values()))


RIDGES = ("ridge", "ridge_ssms")
BASELINES = ("chance", "mean_audio", *RIDGES)
"""Names of :func:`untrained_predictions`."""


def untrained_predictions(targets: Targets, statistics: TrainingStatistics) -> dict[str, Tensor]:
    """Predicts audio without training, [rows, audio width] each: chance, the mean audio, ridge regressions.

    Chance predicts the embedding of some training row, whatever it sees; the mean audio predicts the mean training
    embedding; ``ridge`` regresses audio on what is seen in closed form, with the penalty of the best cosine,
    ``ridge_ssms`` with that of the best SSMS.
    """
    samples = statistics.audio_samples
    return {
        "chance": samples[targets.index % len(samples)],
        "mean_audio": statistics.mean_audio.expand_as(targets.audio),
        "ridge": statistics.predict_audio(targets.features),
        "ridge_ssms": statistics.predict_audio_by_ssms(targets.features),
    }


def _affine(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Applies a closed-form map, the same for a row in any batch and under autocast, which leaves float64 alone."""
    return (rows.double() @ weight.double().T + bias.double()).float()


def _double(column: Tensor | list[str]) -> Tensor | list[str]:
    return column.double() if isinstance(column, Tensor) and column.is_floating_point() else column


class _SpreadSample:
    """At most ``count`` rows at even distances over a sequence of unknown length, in bounded memory."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._stride = 1
        self._seen = 0
        self._kept: list[Tensor] = []  # rows 0, stride, 2 * stride, ... of the sequence

    def update(self, rows: Tensor) -> None:
        """Sees the next rows of the sequence."""
        self._kept.append(rows[-self._seen % self._stride :: self._stride].clone())  # a view would keep the batch
        self._seen += len(rows)
        while -(-self._seen // self._stride) > 2 * self._count:
            self._kept = [torch.cat(self._kept)[::2]]
            self._stride *= 2

    def rows(self) -> Tensor:
        """Returns the sample, [<= count, width]."""
        kept = torch.cat(self._kept)
        positions = torch.linspace(0, len(kept) - 1, min(self._count, len(kept)), device=kept.device).round().long()
        return kept[positions]
