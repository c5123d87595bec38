"""Inception score: are generated sounds distinct, each one clearly something?"""

import warnings

import numpy as np
import torch
from torch import Tensor

from lightning_ss2a.metrics.functional.checks import check_groups, check_rows


def split_scores(negative_entropy: Tensor, probabilities: Tensor, count: Tensor) -> Tensor:
    r"""Computes the score of each split from its sums.

    .. math:: \exp\left(\frac{1}{N} \sum_i \sum_l p_{il} \log p_{il} - \sum_l \bar{p}_l \log \bar{p}_l\right)

    Args:
        negative_entropy: sum over sounds of Σ p log p, ``[splits]`` float64.
        probabilities: sum over sounds of their probabilities, ``[splits, L]`` float64.
        count: sounds, ``[splits]``.

    Returns:
        Scores in [1, L], ``[splits]`` float64; NaN where a split has no sound, with a warning where others have some.
    """
    if count.any() and not count.all():
        warnings.warn(
            f"inception score of {int(count.sum())} sounds in {len(count)} splits, of which some have none: it is NaN; "
            "take fewer splits",
            stacklevel=3,
        )
    mean = probabilities / count.unsqueeze(1)
    return (negative_entropy / count - torch.xlogy(mean, mean).sum(1)).exp()


def class_distributions(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Computes probabilities and Σ p log p of each sound, ``[B, L]`` to float64 ``[B, L]`` and ``[B]``."""
    log_probabilities = logits.double().log_softmax(1)
    probabilities = log_probabilities.exp()
    return probabilities, (probabilities * log_probabilities).sum(1)


def inception_score(logits: Tensor, split_index: Tensor | None = None, splits: int = 1) -> tuple[Tensor, Tensor]:
    r"""Computes the inception score of sounds from their class logits (Salimans et al. 2016), mean over splits.

    .. math:: \exp\left(\frac{1}{N} \sum_i \mathrm{KL}(p_i \| \bar{p})\right)

    The score of a split grows with its size, so that only scores of as many sounds in as many splits compare.

    Args:
        logits: class logits of each sound, ``[B, L]``; softmax makes them probabilities.
        split_index: split of each sound in 0..splits - 1, ``[B]``, such as :func:`shuffled_splits` gives them; None:
            where there is one split.
        splits: number of splits.

    Returns:
        Mean and standard deviation (over splits, as a population) of the score, float32 scalars; NaN, with a
        warning, where a split has no sound.

    Raises:
        ValueError: If the logits are not two-dimensional, or splits are missing or out of range.
        InputError: If a row holds NaN or infinity.

    Example:
        >>> import torch
        >>> from lightning_ss2a.metrics.functional import inception_score
        >>> inception_score(100 * torch.eye(4))  # four sounds, each of its own class
        (tensor(4.), tensor(0.))
    """
    check_rows(logits=logits)
    split = checked_splits(split_index, len(logits), splits, logits.device)
    probabilities, negative_entropy = class_distributions(logits)
    scores = split_scores(
        negative_entropy.new_zeros(splits).index_add_(0, split, negative_entropy),
        probabilities.new_zeros(splits, logits.shape[1]).index_add_(0, split, probabilities),
        torch.bincount(split, minlength=splits),
    )
    return scores.mean().float(), scores.std(correction=0).float()


def checked_splits(split_index: Tensor | None, rows: int, splits: int, device: torch.device) -> Tensor:
    """Returns the split of each row, ``[rows]`` int64; raises ValueError where it is missing or out of range."""
    if splits < 1:
        raise ValueError(f"splits must be at least 1, got {splits}")
    if split_index is None:
        if splits > 1:
            raise ValueError(f"there are {splits} splits, so split_index must be given")
        return torch.zeros(rows, dtype=torch.int64, device=device)
    check_groups(rows, splits, split_index=split_index)
    return split_index.long()


def shuffled_splits(rows: int, splits: int = 10, seed: int = 2020) -> Tensor:
    """Assigns sounds to splits as av-benchmark does: shuffled by NumPy's legacy generator, then cut into equal parts.

    Args:
        rows: sounds of the whole set.
        splits: number of splits.
        seed: seed of the shuffle; av-benchmark takes 2020.

    Returns:
        Split of each sound, ``[rows]`` int64.
    """
    order = np.random.RandomState(seed).permutation(rows)
    split_index = torch.empty(rows, dtype=torch.int64)
    for split in range(splits):
        split_index[order[split * rows // splits : (split + 1) * rows // splits]] = split
    return split_index
