"""CLIP score: does the audio, translated to visual space, match what is seen?"""

from torch import Tensor

from lightning_ss2a.metrics.functional.cosine import mean_cosine

CLIP_SCORE_SCALE = 100


def clip_score(translated_audio: Tensor, visual: Tensor) -> Tensor:
    r"""Mean cosine between translated audio and visual embeddings, times 100.

    .. math:: \frac{100}{N} \sum_i \cos(T(a_i), v_i)

    The translator T comes from elsewhere (Wav2CLIP in the paper; a ridge regression on the demo). Negative cosines
    count as they are.

    Args:
        translated_audio: audio embeddings in visual space, ``[B, D]``, any norm.
        visual: visual embeddings, ``[B, D]``, any norm.

    Returns:
        The score, a float32 scalar in [-100, 100]; NaN where there is no row.

    Raises:
        ValueError: If the shapes differ or are not two-dimensional.

    Example:
        >>> import torch
        >>> from lightning_ss2a.metrics.functional import clip_score
        >>> clip_score(torch.tensor([[0.6, 0.8]]), torch.tensor([[1.0, 0.0]]))
        tensor(60.0000)
    """
    return CLIP_SCORE_SCALE * mean_cosine(translated_audio, visual)
