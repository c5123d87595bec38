"""CLAP score: does a sound match what is written?"""

from typing import Literal

from torch import Tensor

from lightning_ss2a.metrics.functional.checks import check_pairs
from lightning_ss2a.metrics.functional.cosine import row_cosine


def clap_score(text_embedding: Tensor, audio_embedding: Tensor, reduction: Literal["mean", "none"] = "mean") -> Tensor:
    r"""Computes the cosine of a text's and a sound's embeddings by one CLAP, mean over pairs.

    .. math:: \frac{1}{N} \sum_i \cos(t_i, a_i)

    As AudioGen's and av-benchmark's: neither cut at 0 nor scaled, unlike the CLIP score of pictures.

    Args:
        text_embedding: CLAP embeddings of texts, ``[B, D]``, any norm.
        audio_embedding: embeddings of their sounds by the same CLAP, ``[B, D]``, any norm.
        reduction: ``mean`` over pairs, or ``none``.

    Returns:
        The cosine in [-1, 1], float32: a scalar (NaN where there is no pair), or ``[B]`` with ``none``. A row of zeros
        has cosine 0.

    Raises:
        ValueError: If the shapes differ, are not two-dimensional, or ``reduction`` is unknown.
        InputError: If a row holds NaN or infinity.

    Example:
        >>> import torch
        >>> from lightning_ss2a.metrics.functional import clap_score
        >>> clap_score(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.6, 0.8]]))
        tensor(0.6000)
    """
    if reduction not in ("mean", "none"):
        raise ValueError(f"reduction must be 'mean' or 'none', got {reduction!r}")
    check_pairs(text_embedding=text_embedding, audio_embedding=audio_embedding)
    cosines = row_cosine(text_embedding, audio_embedding)
    return (cosines.mean() if reduction == "mean" else cosines).float()
