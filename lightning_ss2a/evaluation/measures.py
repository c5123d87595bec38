"""Defines what can be measured of a method's sounds: which metric, on what which encoder hears.

An :class:`ItemMeasure` has a value for each item, of which the score is the mean; a :class:`SetMeasure` has one for all
of them. Scores, intervals and differences are made of both in :mod:`.scoring`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_ss2a.errors import InputError
from lightning_ss2a.evaluation.protocols import SyncEstimator, WaveformEncoder, tells_classes
from lightning_ss2a.metrics.functional import (
    clap_score,
    clip_score,
    desynchronization,
    frechet_audio_distance,
    inception_score,
    kernel_audio_distance,
    paired_kl,
    shuffled_splits,
    sound_source_matching_score,
    weighted_mean_absolute_offset,
)
from lightning_ss2a.metrics.functional.frechet import (
    FrechetExtrapolation,
    enough_rows,
    extrapolate_frechet,
    gaussian_distance,
    gaussian_of_counted_rows,
    gaussian_of_moments,
    gaussian_of_rows,
    warn_of_few,
)
from lightning_ss2a.metrics.functional.inception_score import class_distributions, split_scores
from lightning_ss2a.metrics.functional.kernel import KERNEL_SCALE, reference_bandwidth, squared_discrepancies
from lightning_ss2a.metrics.functional.moments import Moments, moments_of_draws
from lightning_ss2a.options import OptionCheck

Side = Literal["reference", "images", "videos", "text"]
"""What a measure wants beside the methods' sounds: a folder, or the csv file's column of texts."""


@dataclass(frozen=True)
class Rows:
    """What is known of all items, in their order; rows of items without it hold anything.

    Attributes:
        there: which items have it, bool [items].
        embeddings: [items, width], or of several things an item [items, things, width], or of all frames of all items,
            one item after the other, [frames, width].
        logits: of classes, [items, labels]; None: there are none.
        visible: which things of an item there are, bool [items, things].
        owners: the item of each frame, int64 [frames]; None: embeddings are not of frames.
    """

    there: Tensor
    embeddings: Tensor
    logits: Tensor | None = None
    visible: Tensor | None = None
    owners: Tensor | None = None


@dataclass(frozen=True)
class Evidence:
    """All that measures may read of one method.

    Attributes:
        generated: what is heard in the method's sounds, by the ear's name, see :attr:`Measure.ear`.
        reference: what is heard in the references.
        images: embeddings of the pictures.
        text: embeddings of the texts.
        offsets: of each item, logits of the offsets between sound and video, [windows, offsets]; None: it has none.
        offset_seconds: the offsets.
    """

    generated: Mapping[str, Rows]
    reference: Mapping[str, Rows] = field(default_factory=dict)
    images: Rows | None = None
    text: Rows | None = None
    offsets: Sequence[Tensor | None] = ()
    offset_seconds: tuple[float, ...] = ()


class Counted(NamedTuple):
    """Rows that are there several times, or not at all.

    Attributes:
        rows: [rows, numbers]; those that are not there hold anything.
        counts: how often each is there, int64 [rows].
    """

    rows: Tensor
    counts: Tensor

    @property
    def repeated(self) -> Tensor:
        """Each row as often as it is there, [rows, numbers]."""
        return self.rows.repeat_interleave(self.counts, dim=0)

    @property
    def once(self) -> bool:
        """Whether no row is there more than once."""
        return bool((self.counts <= 1).all())


class Drawn(NamedTuple):
    """Items drawn several times over, each with all its rows.

    Attributes:
        rows: [rows, numbers]; those of items that are not there hold anything.
        counts: how often each item is there in each draw, int64 [draws, items].
        owners: the item of each row, int64 [rows], ascending; None: each item has one.
    """

    rows: Tensor
    counts: Tensor
    owners: Tensor | None = None

    def draw(self, number: int) -> Counted:
        """Gives the rows of one draw."""
        counts = self.counts[number]
        return Counted(self.rows, counts if self.owners is None else counts[self.owners])

    def known(self) -> tuple[Tensor, Tensor]:
        """Gives the rows that any draw has, float64 [rows, numbers], and how often each has them, [draws, rows]."""
        counts = self.counts if self.owners is None else self.counts[:, self.owners]
        drawn = counts.any(0)
        return self.rows[drawn].double(), counts[:, drawn]

    def moments(self) -> Iterator[Moments]:
        """Computes the moments of each draw's rows."""
        owners = torch.arange(len(self.rows)) if self.owners is None else self.owners
        return moments_of_draws(self.rows, owners, self.counts)


class Measure(ABC):
    """A column of the table.

    Attributes:
        higher_is_better: which end of its range is good.
        needs: what it wants beside the methods' sounds.
        labelled: whether its encoder must tell classes.
        bounds: of its values.
        encoder: name of the encoder of waveforms that it reads; empty: none.
        frames: whether it reads the embedding of each frame.
    """

    higher_is_better: ClassVar[bool]
    needs: ClassVar[tuple[Side, ...]] = ()
    labelled: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float]] = (0.0, float("inf"))
    encoder: str = ""
    frames: bool = False

    @property
    def ear(self) -> str:
        """Name of what it reads of a sound: the encoder's, or that of the encoder's frames."""
        return f"{self.encoder} frames" if self.frames else self.encoder

    def check(  # noqa: B027  # most have no such option
        self, name: str, encoder: WaveformEncoder | None, sync: SyncEstimator | None
    ) -> None:
        """Checks its options against its models, once these are loaded and before they run.

        Args:
            name: of its column, for messages.
            encoder: that it reads; None: it reads none.
            sync: tells offsets; None: there is none.

        Raises:
            InputError: an option asks for more than the models tell.
        """


class ItemMeasure(Measure):
    """A measure with a value for each item."""

    @abstractmethod
    def values(self, evidence: Evidence) -> Tensor:
        """Computes the value of each item, float64 [items]; NaN where something of it is missing."""


class SetMeasure(Measure):
    """A measure of all items at once."""

    paired: ClassVar[bool] = True
    """Whether it compares with the references."""

    @abstractmethod
    def rows(self, rows: Rows) -> Tensor:
        """Gives what is compared, [rows, numbers]."""

    @abstractmethod
    def value(self, generated: Counted, reference: Counted) -> float:
        """Computes it of both sets, of which the first has a row; NaN: too few rows. Not paired: heed the first."""

    def values(self, generated: Drawn, reference: Drawn) -> np.ndarray:
        """Computes it on each draw, float64 [draws]; NaN where nothing generated is drawn."""
        sides = ((generated.draw(number), reference.draw(number)) for number in range(len(generated.counts)))
        return np.array([self.value(*both) if both[0].counts.any() else np.nan for both in sides])


class _Frechet(SetMeasure):
    """What distances of normal distributions share.

    Args:
        encoder: name of the encoder.
        scale: what the distance is multiplied by; the paper's C-FAD is 100 times the distance of unit vectors.
        frames: whether every frame of a sound is a row, as in published V-FAD (VGGish's patches of 0.96 s); else the
            sound is. Of frames, too, whole sounds are drawn for intervals.
    """

    higher_is_better = False
    needs = ("reference",)

    def __init__(self, encoder: str, scale: float = 1.0, frames: bool = False) -> None:
        if not scale > 0:
            raise InputError(f"scale of {type(self).__name__} must be above 0, found {scale}")
        self.encoder = encoder
        self.scale = scale
        self.frames = frames

    def rows(self, rows: Rows) -> Tensor:
        """Gives the embeddings."""
        return rows.embeddings


class FAD(_Frechet):
    """Fréchet audio distance, see :func:`lightning_ss2a.metrics.functional.frechet_audio_distance`.

    Args:
        encoder: name of the encoder.
        scale: what the distance is multiplied by; the paper's C-FAD is 100 times the distance of unit vectors.
        frames: whether every frame of a sound is a row, as in published V-FAD (VGGish's patches of 0.96 s); else the
            sound is. Of frames, too, whole sounds are drawn for intervals.
    """

    def value(self, generated: Counted, reference: Counted) -> float:
        """Computes the distance."""
        if (generated.once and reference.once) or min(int(each.counts.sum()) for each in (generated, reference)) < 2:
            return self.scale * float(frechet_audio_distance(generated.repeated, reference.repeated))
        fits = (gaussian_of_counted_rows(*each) for each in (generated, reference))
        return self.scale * float(gaussian_distance(*fits))

    def values(self, generated: Drawn, reference: Drawn) -> np.ndarray:
        """Computes the distance on each draw; of many draws of frames, from each sound's sums."""
        if generated.owners is None or len(generated.counts) == 1:
            return super().values(generated, reference)
        sides = (generated.moments(), reference.moments())
        return np.array(
            [
                self.scale * float(gaussian_distance(*map(gaussian_of_moments, both)))
                if min(int(side.size) for side in both) >= 2
                else np.nan
                for both in zip(*sides, strict=True)
            ]
        )


class FADInfinity(_Frechet):
    """FAD extrapolated to infinitely many generated sounds.

    See :class:`~lightning_ss2a.metrics.functional.frechet.FrechetExtrapolation`. Each draw of an interval costs as many
    distances as there are points: lower ``bootstrap.set_resamples`` where that is too slow.

    Args:
        encoder: name of the encoder.
        scale: what the distance is multiplied by.
        frames: whether every frame of a sound is a row.
        extrapolation: sizes and seed of the subsets of rows.
    """

    bounds = (-float("inf"), float("inf"))

    def __init__(
        self,
        encoder: str,
        scale: float = 1.0,
        frames: bool = False,
        extrapolation: FrechetExtrapolation = FrechetExtrapolation(),  # noqa: B008  # frozen
    ) -> None:
        super().__init__(encoder, scale, frames)
        self.extrapolation = extrapolation

    def value(self, generated: Counted, reference: Counted) -> float:
        """Computes where the line through the distances of subsets ends."""
        rows, others = generated.repeated, reference.repeated
        if not enough_rows("FAD∞", len(rows), len(others)):
            return float("nan")
        warn_of_few(len(rows), len(others), rows.shape[1])
        return self.scale * float(extrapolate_frechet(rows, gaussian_of_rows(others), self.extrapolation).value)


class KAD(SetMeasure):
    """Kernel audio distance, see :func:`lightning_ss2a.metrics.functional.kernel_audio_distance`.

    Args:
        encoder: name of the encoder.
        bandwidth: of the kernel; None: the median distance within the reference.
    """

    higher_is_better = False
    needs = ("reference",)
    bounds = (-float("inf"), float("inf"))

    def __init__(self, encoder: str, bandwidth: float | None = None) -> None:
        if bandwidth is not None and not bandwidth > 0:
            raise InputError(f"bandwidth of KAD must be above 0, found {bandwidth}")
        self.encoder = encoder
        self.bandwidth = bandwidth

    def rows(self, rows: Rows) -> Tensor:
        """Gives the embeddings."""
        return rows.embeddings

    def value(self, generated: Counted, reference: Counted) -> float:
        """Computes the distance."""
        return float(kernel_audio_distance(generated.repeated, reference.repeated, self.bandwidth))

    def values(self, generated: Drawn, reference: Drawn) -> np.ndarray:
        """Computes the distance on each draw; of many, with one bandwidth, that of the rows which any draw has."""
        if len(generated.counts) == 1:
            return super().values(generated, reference)
        (x, x_counts), (y, y_counts) = (side.known() for side in (generated, reference))
        bandwidth = self.bandwidth or (reference_bandwidth(y) if len(y) > 1 else 0.0)
        if bandwidth == 0 or not len(x):
            return np.full(len(x_counts), np.nan)
        centre = y[0]  # as one computes a score
        values = squared_discrepancies(x - centre, y - centre, x_counts, y_counts, bandwidth)
        few = (x_counts.sum(1) < 2) | (y_counts.sum(1) < 2)
        return (KERNEL_SCALE * values).masked_fill(few, torch.nan).numpy()


class IS(SetMeasure):
    """Inception score, see :func:`lightning_ss2a.metrics.functional.inception_score`.

    Args:
        encoder: name of the encoder, which must tell classes.
        splits: number of splits that it is the mean of; av-benchmark takes 10.
        seed: of the splits.
    """

    higher_is_better = True
    labelled = True
    paired = False
    bounds = (1.0, float("inf"))

    def __init__(self, encoder: str, splits: int = 1, seed: int = 2020) -> None:
        OptionCheck("IS").at_least(1, splits=splits)
        OptionCheck("IS").at_least(0, seed=seed)
        self.encoder = encoder
        self.splits = splits
        self.seed = seed

    def rows(self, rows: Rows) -> Tensor:
        """Gives the class logits."""
        return _logits(rows)

    def value(self, generated: Counted, reference: Counted) -> float:
        """Computes the mean score of the splits."""
        logits = generated.repeated
        split_index = shuffled_splits(len(logits), self.splits, self.seed)
        return float(inception_score(logits, split_index, self.splits)[0])

    def values(self, generated: Drawn, reference: Drawn) -> np.ndarray:
        """Computes the mean score on each draw; of many, from the probabilities of each sound, computed once."""
        if len(generated.counts) == 1:
            return super().values(generated, reference)
        logits, counts = generated.known()
        probabilities, negative_entropy = class_distributions(logits)
        values = []
        for draw in counts:
            places = torch.arange(len(draw)).repeat_interleave(draw)
            weights = torch.zeros(self.splits, len(draw), dtype=torch.float64)
            split = shuffled_splits(len(places), self.splits, self.seed)
            weights.index_put_((split, places), torch.ones(len(places), dtype=torch.float64), accumulate=True)
            scores = split_scores(weights @ negative_entropy, weights @ probabilities, weights.sum(1))
            values.append(float(scores.mean()))
        return np.array(values)


class SSMS(ItemMeasure):
    """Sound source matching score, see :func:`lightning_ss2a.metrics.functional.sound_source_matching_score`.

    Args:
        encoder: name of the encoder, which must tell classes.
        top_n: likeliest labels that count.
    """

    higher_is_better = True
    needs = ("reference",)
    labelled = True
    bounds = (0.0, 10.0)

    def __init__(self, encoder: str, top_n: int = 10) -> None:
        OptionCheck("SSMS").at_least(1, top_n=top_n)
        self.encoder = encoder
        self.top_n = top_n

    def check(self, name: str, encoder: WaveformEncoder | None, sync: SyncEstimator | None) -> None:
        """Checks that there are as many labels."""
        labels = len(encoder.labels) if encoder is not None and tells_classes(encoder) else self.top_n
        if self.top_n > labels:
            raise InputError(
                f"measures.{name}.top_n is {self.top_n}, needs at most {labels}, the labels of {self.encoder}"
            )

    def values(self, evidence: Evidence) -> Tensor:
        """Computes each pair's score."""
        generated, reference = evidence.generated[self.encoder], evidence.reference[self.encoder]
        both = generated.there & reference.there
        scores = sound_source_matching_score(
            _logits(generated)[both], _logits(reference)[both], self.top_n, reduction="none"
        )
        return _spread_out(scores, both)


class KL(ItemMeasure):
    """Divergence of paired class distributions, see :func:`lightning_ss2a.metrics.functional.paired_kl`.

    Args:
        encoder: name of the encoder, which must tell classes.
        activation: how class logits become probabilities.
    """

    higher_is_better = False
    needs = ("reference",)
    labelled = True
    bounds = (-float("inf"), float("inf"))

    def __init__(self, encoder: str, activation: Literal["softmax", "sigmoid"] = "softmax") -> None:
        self.encoder = encoder
        self.activation: Literal["softmax", "sigmoid"] = activation

    def values(self, evidence: Evidence) -> Tensor:
        """Computes each pair's divergence in nats."""
        generated, reference = evidence.generated[self.encoder], evidence.reference[self.encoder]
        both = generated.there & reference.there
        found = paired_kl(_logits(generated)[both], _logits(reference)[both], self.activation, reduction="none")
        return _spread_out(found, both)


class CLIP(ItemMeasure):
    """CLIP score of sounds and pictures, see :func:`lightning_ss2a.metrics.functional.clip_score`.

    Args:
        encoder: name of an encoder of waveforms into the space of the protocol's image encoder, such as Wav2CLIP.
    """

    higher_is_better = True
    needs = ("images",)
    bounds = (-100.0, 100.0)

    def __init__(self, encoder: str) -> None:
        self.encoder = encoder

    def values(self, evidence: Evidence) -> Tensor:
        """Computes each item's score, the mean over its pictures."""
        generated, images = evidence.generated[self.encoder], evidence.images
        if images is None or images.visible is None:
            raise InputError("the CLIP score needs pictures")
        both = generated.there & images.there
        sounds, pictures = generated.embeddings[both], images.embeddings[both]
        if len(sounds) and sounds.shape[-1] != pictures.shape[-1]:
            raise InputError(
                f"CLIP: {self.encoder} has {sounds.shape[-1]} numbers and the image encoder {pictures.shape[-1]}: "
                "they are of different spaces"
            )
        return _spread_out(clip_score(sounds, pictures, images.visible[both], reduction="none"), both)


class CLAP(ItemMeasure):
    """CLAP score of sounds and texts, see :func:`lightning_ss2a.metrics.functional.clap_score`.

    Args:
        encoder: name of a CLAP, whose text tower is the protocol's text encoder.
    """

    higher_is_better = True
    needs = ("text",)
    bounds = (-1.0, 1.0)

    def __init__(self, encoder: str) -> None:
        self.encoder = encoder

    def values(self, evidence: Evidence) -> Tensor:
        """Computes each item's cosine."""
        generated, text = evidence.generated[self.encoder], evidence.text
        if text is None:
            raise InputError("the CLAP score needs texts")
        both = generated.there & text.there
        found = clap_score(text.embeddings[both], generated.embeddings[both], reduction="none")
        return _spread_out(found, both)


class WMAO(ItemMeasure):
    """Weighted mean absolute offset, see :func:`lightning_ss2a.metrics.functional.weighted_mean_absolute_offset`.

    Args:
        top_k: classes of offsets that count; the paper's number is not known.
    """

    higher_is_better = False
    needs = ("videos",)

    def __init__(self, top_k: int = 5) -> None:
        OptionCheck("WMAO").at_least(1, top_k=top_k)
        self.top_k = top_k

    def check(self, name: str, encoder: WaveformEncoder | None, sync: SyncEstimator | None) -> None:
        """Checks that there are as many offsets."""
        if sync is not None and self.top_k > len(sync.offsets):
            raise InputError(f"measures.{name}.top_k is {self.top_k}, needs at most {len(sync.offsets)}, the offsets")

    def values(self, evidence: Evidence) -> Tensor:
        """Computes each item's seconds, of the windows' mean logits."""
        return _seconds_off(
            evidence,
            lambda logits: weighted_mean_absolute_offset(logits.mean(1), self.top_k, evidence.offset_seconds),
        )


class DeSync(ItemMeasure):
    """Seconds off of the likeliest offset, see :func:`lightning_ss2a.metrics.functional.desynchronization`."""

    higher_is_better = False
    needs = ("videos",)

    def values(self, evidence: Evidence) -> Tensor:
        """Computes each item's seconds, mean over windows."""
        return _seconds_off(evidence, lambda logits: desynchronization(logits, evidence.offset_seconds))


def _logits(rows: Rows) -> Tensor:
    if rows.logits is None:
        raise InputError("an encoder that tells classes is needed")
    return rows.logits


def _seconds_off(evidence: Evidence, measure: Callable[[Tensor], Tensor]) -> Tensor:
    """Measures one item after the other, since their windows may be of different numbers: float64 [items]."""
    return torch.tensor(
        [torch.nan if logits is None else float(measure(logits[None])) for logits in evidence.offsets],
        dtype=torch.float64,
    )


def _spread_out(values: Tensor, there: Tensor) -> Tensor:
    """Puts the values of the items that are there at their places, float64 [items]; NaN elsewhere."""
    spread = torch.full(there.shape, torch.nan, dtype=torch.float64)
    spread[there] = values.double()
    return spread
