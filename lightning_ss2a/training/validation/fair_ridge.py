"""Ridge regression that sees what the model trains on, its penalty chosen as the model's options are: by the metrics.

Every row counts as often as training draws it, and every view of it. The penalty is chosen on parts of the training
rows left out one by one (folds or groups of rows that are alike), measured there as validation measures: once by the
mean cosine, once by SSMS. One decomposition a part serves all penalties.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from lightning_ss2a.data import ShardDataModule
from lightning_ss2a.data.format.label_head import LabelHead
from lightning_ss2a.data.loading.tensors import Batch, tensor_column
from lightning_ss2a.errors import InputError
from lightning_ss2a.metrics.functional.ssms import matching_labels
from lightning_ss2a.models.ridge import NO_VARIANCE, LinearMap, RidgeRegression
from lightning_ss2a.training.validation.targets import targets_of

PENALTIES = torch.logspace(-3, 4, 29, dtype=torch.float64).tolist()
"""Relative penalties to choose from."""
MOST_MEASURED = 2_000
"""Training rows, at most, that penalties are measured on: so that it takes seconds whatever the data."""


@dataclass(frozen=True)
class FairRidge:
    """The regressions of audio directions on what is seen; see ``Targets.features``.

    Attributes:
        by_cosine: its penalty has the largest mean cosine.
        by_ssms: its penalty has the largest SSMS; without a label head the same as ``by_cosine``.
    """

    by_cosine: LinearMap
    by_ssms: LinearMap


@dataclass(frozen=True)
class Judge:
    """Measures predictions of audio embeddings, as validation does.

    Attributes:
        head: label head; None: no SSMS.
        top_n: labels a side that SSMS compares.
        audio_norm: length that predictions are given, scalar.
    """

    head: LabelHead | None
    top_n: int
    audio_norm: Tensor

    def score(self, predicted: Tensor, audio: Tensor) -> Tensor:
        """Sums cosines and matching labels over rows, [2] float64.

        Args:
            predicted: [rows, audio width].
            audio: the true embeddings, [rows, audio width].
        """
        direction = normalize(predicted, dim=-1)
        cosine = (direction * normalize(audio.double(), dim=-1)).sum()
        if self.head is None:
            return torch.stack([cosine, cosine])
        scores = self.head.scores(direction.float() * self.audio_norm), self.head.scores(audio.float())
        return torch.stack([cosine, matching_labels(*scores, self.top_n).sum().double()])


def fit_fair_ridge(data: ShardDataModule, judge: Judge) -> FairRidge:
    """Fits it to all training rows; the same on every rank.

    Where the training rows are one group there is nothing to leave out: the penalty is that of generalised
    cross-validation.

    Raises:
        InputError: there is no row.
    """
    parts = read_parts(data)
    if not parts:
        raise InputError("the training split has no rows: no baseline can be fitted")
    whole = reduce(RidgeRegression.combined, (part.ridge for part in parts))
    path = whole.path()
    if len(parts) == 1 or path.mean_variance == 0:
        return FairRidge(whole.fit(), whole.fit())
    axes = path.eigenvectors[:, path.eigenvalues > NO_VARIANCE * path.eigenvalues.amax()]  # of few rows far fewer
    scores = torch.zeros(len(PENALTIES), 2, dtype=torch.float64)
    for part in (part for part in parts if len(part.audio)):
        others = whole.combined(part.ridge, sign=-1).rotated(axes, path.mean_x).path()
        # Penalties are relative to the mean variance of the inputs, of which the axes are fewer.
        relative = [penalty * axes.shape[1] / len(axes) for penalty in PENALTIES]
        predictions = others.predict((part.features - path.mean_x) @ axes, relative)
        scores += torch.stack([judge.score(predicted, part.audio) for predicted in predictions]).cpu()
    by_cosine, by_ssms = (path.at(PENALTIES[int(column.argmax())]) for column in scores.T)
    return FairRidge(by_cosine, by_ssms)


@dataclass(frozen=True)
class Part:
    """Rows that are left out together.

    Attributes:
        ridge: the sums over all of them, every view.
        features: of those that are measured, float64 [rows, feature width].
        audio: their true audio embeddings, [rows, audio width].
    """

    ridge: RidgeRegression
    features: Tensor
    audio: Tensor


def read_parts(data: ShardDataModule) -> list[Part]:
    """Reads all training rows once, part by part; parts without weight are left out."""
    division = data.training_parts()
    measured = torch.from_numpy(spread(division.is_measured, MOST_MEASURED))
    number, weight = torch.from_numpy(division.part), torch.from_numpy(division.weight)
    views = {name: field.views for name, field in data.manifest.fields.items() if field.views}
    ridges: list[RidgeRegression] = []
    seen: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(division.number)]
    for batch in data.training_rows_loader(every_row=True, every_view=True):
        index = tensor_column(batch, "index").cpu()
        targets = targets_of(mean_view(batch, views))
        if not ridges:
            widths = targets.features.shape[-1], targets.audio.shape[-1]
            ridges = [RidgeRegression(*widths, device=targets.audio.device) for _ in seen]
        examples = [(view, weight[index] * share) for view, share in every_view(batch, views)]
        for part, ridge in enumerate(ridges):
            rows = (number[index] == part).to(targets.audio.device)
            for (features, audio), times in examples:
                ridge.update(features[rows], audio[rows], times.to(rows.device)[rows])
            rows &= measured[index].to(rows.device)
            seen[part].append((targets.features[rows].double(), targets.audio[rows]))
    parts = []
    for ridge, pieces in zip(ridges, seen, strict=False):  # without rows there is no ridge
        features, audio = (torch.cat(column) for column in zip(*pieces, strict=True))
        parts.append(Part(ridge, features, audio))
    return [part for part in parts if part.ridge.count > 0]


def mean_view(batch: Batch, views: dict[str, int]) -> Batch:
    """Gives a batch as evaluation sees it: the mean over all views of each field that has several."""
    return batch | {name: tensor_column(batch, name).mean(1) for name in views}


def every_view(batch: Batch, views: dict[str, int]) -> Iterator[tuple[tuple[Tensor, Tensor], float]]:
    """Gives features and audio directions, float64, of every view of what is seen, with its share of the row.

    The audio is the mean direction over the audio's views: in least squares that is to pair every view seen with every
    view heard, as training draws them.
    """
    seen = {name: count for name, count in views.items() if name != "audio"}
    audio = normalize(tensor_column(batch, "audio").double(), dim=-1)
    heard = audio.mean(1) if "audio" in views else audio
    count = max(seen.values(), default=1)
    for view in range(count):
        chosen = {name: tensor_column(batch, name)[:, view % held].double() for name, held in seen.items()}
        yield (targets_of(batch | chosen).features.double(), heard), 1 / count


def spread(chosen: np.ndarray, most: int) -> np.ndarray:
    """Keeps at most so many of the rows chosen, evenly spread over them, bool [rows]."""
    rows = np.flatnonzero(chosen)
    kept = np.zeros_like(chosen)
    kept[rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(np.int64)]] = True
    return kept
