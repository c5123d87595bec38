"""CLIP score: does the audio, translated to visual space, match what is seen?"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from lightning_ss2a.metrics.functional.cosine import row_cosine

CLIP_SCORE_SCALE = 100


def clip_score(
    translated_audio: Tensor,
    visual: Tensor,
    visible: Tensor | None = None,
    reduction: Literal["mean", "none"] = "mean",
) -> Tensor:
    r"""Computes the mean cosine between translated audio and visual embeddings, times 100.

    .. math:: \frac{100}{N} \sum_i \frac{1}{M_i} \sum_{m=1}^{M_i} \cos(T(a_i), v_{im})

    with M = 1 where each row shows one thing, and the annotated sources of a scene where it shows several.

    The translator T comes from elsewhere (Wav2CLIP in the paper; a ridge regression on the demo). Negative cosines
    count as they are.

    Args:
        translated_audio: audio embeddings in visual space, ``[B, D]``, any norm.
        visual: visual embeddings, ``[B, D]``, or of several sources, ``[B, S, D]``, any norm.
        visible: with several sources, which of them there are, bool ``[B, S]``.
        reduction: ``mean`` over rows, or ``none``.

    Returns:
        The score in [-100, 100], float32: a scalar (NaN where there is no row), or ``[B]`` with ``none``. NaN for a row
        without a source.

    Raises:
        ValueError: If the shapes do not fit, or ``reduction`` is unknown.

    Example:
        >>> import torch
        >>> from lightning_ss2a.metrics.functional import clip_score
        >>> clip_score(torch.tensor([[0.6, 0.8]]), torch.tensor([[1.0, 0.0]]))
        tensor(60.0000)
    """
    if reduction not in ("mean", "none"):
        raise ValueError(f"reduction must be 'mean' or 'none', got {reduction!r}")
    if visible is None:
        cosines = row_cosine(translated_audio, visual)
    else:
        cosines = mean_source_cosine(translated_audio, visual, visible)
    return CLIP_SCORE_SCALE * (cosines.mean() if reduction == "mean" else cosines).float()


def mean_source_cosine(translated_audio: Tensor, visual: Tensor, visible: Tensor) -> Tensor:
    r"""Computes the cosine of translated audio to what is seen, mean over the sources of a row ("Objective Metrics").

    .. math:: \frac{1}{M_i} \sum_{m=1}^{M_i} \cos(T(a_i), v_{im})

    Args:
        translated_audio: audio embeddings in visual space, ``[B, D]``, any norm.
        visual: embeddings of the sources, ``[B, S, D]``, any norm. Those that are not there may hold anything.
        visible: which sources there are, bool ``[B, S]``.

    Returns:
        The mean cosine of each row, ``[B]`` float64; NaN where there is no source.

    Raises:
        ValueError: If the shapes do not fit.

    Example:
        >>> import torch
        >>> from lightning_ss2a.metrics.functional import mean_source_cosine
        >>> sources, visible = torch.eye(2).unsqueeze(0), torch.tensor([[True, True]])
        >>> mean_source_cosine(torch.tensor([[0.6, 0.8]]), sources, visible)
        tensor([0.7000], dtype=torch.float64)
    """
    rows, width = translated_audio.shape
    if visual.ndim != 3 or visual.shape[::2] != (rows, width) or visible.shape != visual.shape[:2]:
        raise ValueError(
            f"translated_audio {tuple(translated_audio.shape)}, visual {tuple(visual.shape)} and visible "
            f"{tuple(visible.shape)} do not fit: they must be [rows, width], [rows, sources, width], [rows, sources]"
        )
    sources = F.normalize(visual.double(), dim=-1).masked_fill(~visible.unsqueeze(-1), 0)
    cosines = (sources @ F.normalize(translated_audio.double(), dim=-1).unsqueeze(-1)).squeeze(-1)  # [B, S]
    return cosines.sum(-1) / visible.sum(-1)
