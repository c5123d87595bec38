"""Discriminant test: can a linear classifier tell the groups of embeddings apart, such as modalities?"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lightning_ss2a.metrics.functional.checks import check_groups, check_rows

PRIORS = ("equal", "proportional")

_ROUNDING = 1e-12


class Discriminant(NamedTuple):
    """How well a discriminant classifies the rows that it is fitted to; float32 scalars.

    Attributes:
        entropy_r2: 1 - log-likelihood / log-likelihood without embeddings: 1 is perfect, 0 no better than the priors,
            below 0 worse.
        minus_two_log_likelihood: -2 Σ log of the probability of each row's own group, at least 0.
        misclassified: part of the rows whose likeliest group is another, in [0, 1].
    """

    entropy_r2: Tensor
    minus_two_log_likelihood: Tensor
    misclassified: Tensor


def discriminant_test(
    embedding: Tensor,
    group_index: Tensor,
    prior: Literal["equal", "proportional"] = "equal",
    retained: float = 0.9999,
) -> Discriminant:
    r"""Fits a wide linear discriminant to groups of embeddings and measures how well it classifies them (Table 6).

    The paper's "wide linear binary classifier", "entropy R²" and "-2 log-likelihood" are the words of JMP's
    Discriminant platform, whose documented method this follows: deviations from the group means over pooled standard
    deviations, their principal components up to ``retained`` of the sum of squares, and a linear discriminant in these,
    where the pooled covariance is diagonal.

    The classifier is measured on the rows that it is fitted to, so that it finds something in rows of one distribution,
    too: 20 + 20 normal rows have an entropy R² of 0.03 with 2 columns, 0.96 with 38 and 0.04 with 768. Compare with
    groups drawn at random.

    Args:
        embedding: embeddings, ``[N, D]``, any scale.
        group_index: group of each, such as its modality, ``[N]``, any integers from 0; at least two groups.
        prior: probabilities of the groups without embeddings: ``equal``, JMP's default, or ``proportional`` to their
            rows.
        retained: part of the sum of squares that the components keep, in (0, 1].

    Returns:
        Entropy R², -2 log-likelihood and misclassified rows. NaN where there are fewer than two groups, or no more rows
        than groups.

    Raises:
        ValueError: If the shapes do not fit, or an option is out of range.
        InputError: If a row holds NaN or infinity.

    Example:
        >>> import torch
        >>> from lightning_ss2a.metrics.functional import discriminant_test
        >>> embedding = torch.tensor([[-1.0], [1.0], [0.0], [2.0]])
        >>> discriminant_test(embedding, torch.tensor([0, 0, 1, 1])).entropy_r2  # of log-odds 3/4 and -1/4
        tensor(0.1251)
    """
    check_options(prior, retained)
    check_rows(embedding=embedding)
    check_groups(len(embedding), group_index=group_index)
    _, group, counts = torch.unique(group_index, return_inverse=True, return_counts=True)
    if len(counts) < 2 or len(embedding) <= len(counts):
        return Discriminant(*torch.full((3,), torch.nan, device=embedding.device))
    rows = embedding.double()
    weights = counts.double() if prior == "proportional" else torch.ones_like(counts, dtype=torch.float64)
    log_prior = (weights / weights.sum()).log()
    log_posterior = (log_prior - _squared_distances(rows, group, counts, retained) / 2).log_softmax(1)  # [N, T]
    own = group.unsqueeze(1)
    log_likelihood, without = log_posterior.gather(1, own).sum(), log_prior[group].sum()
    wrong = log_posterior.argmax(1) != group
    return Discriminant(
        (1 - log_likelihood / without).float(), (-2 * log_likelihood).float(), wrong.double().mean().float()
    )


def check_options(prior: str, retained: float) -> None:
    """Raises ValueError for an option of :func:`discriminant_test` that is out of range."""
    if prior not in PRIORS:
        raise ValueError(f"prior must be one of {', '.join(PRIORS)}, got {prior!r}")
    if not 0 < retained <= 1:
        raise ValueError(f"retained must be in (0, 1], got {retained}")


def _squared_distances(rows: Tensor, group: Tensor, counts: Tensor, retained: float) -> Tensor:
    """Computes Mahalanobis distances of rows ``[N, D]`` to the means of T groups, squared, ``[N, T]``."""
    free = len(rows) - len(counts)
    means = rows.new_zeros(len(counts), rows.shape[1]).index_add_(0, group, rows) / counts.unsqueeze(1)
    deviations = rows - means[group]
    spread = (deviations.square().sum(0) / free).sqrt()
    constant = spread <= _ROUNDING * rows.abs().amax(0)
    if _tells_groups_apart(means[:, constant], rows[:, constant]):
        own = torch.arange(len(counts), device=rows.device) == group.unsqueeze(1)
        return torch.zeros(own.shape, dtype=torch.float64, device=rows.device).masked_fill(~own, torch.inf)
    scaled, means, rows = ((x / spread)[:, ~constant] for x in (deviations, means, rows))
    if scaled.shape[1] == 0:
        return rows.new_zeros(len(rows), len(counts))
    _, singular, components = torch.linalg.svd(scaled, full_matrices=False)
    parts = singular.square().cumsum(0) / singular.square().sum()
    kept = int((parts < retained - _ROUNDING).sum()) + 1
    kept = min(kept, int((singular > _ROUNDING * singular[0]).sum()))
    axes = components[:kept].T / singular[:kept] * free**0.5  # to components of variance 1
    return ((rows @ axes).unsqueeze(1) - means @ axes).square().sum(2)


def _tells_groups_apart(means: Tensor, rows: Tensor) -> bool:
    """Says whether columns that are constant in each group differ between groups."""
    return bool(((means.amax(0) - means.amin(0)) > 2 * _ROUNDING * rows.abs().amax(0)).any())
