"""CLIP score as a metric."""

from torch import Tensor

from lightning_ss2a.metrics.cosine import MeanCosine
from lightning_ss2a.metrics.functional.clip_score import CLIP_SCORE_SCALE


class CLIPScore(MeanCosine):
    r"""Mean cosine between translated audio and visual embeddings, times 100.

    .. math:: \frac{100}{N} \sum_i \cos(T(a_i), v_i)

    As input to ``update``:

    - ``translated_audio``: audio embeddings in visual space, ``[B, D]``, any norm; B may be 0.
    - ``visual``: visual embeddings, ``[B, D]``, any norm.

    As output of ``compute``: the score, a float32 scalar in [-100, 100], the same bits for any split into batches and
    ranks; NaN where there is no row, or where a row holds NaN or infinity.

    Args:
        kwargs: options of ``torchmetrics.Metric``.

    Raises:
        ValueError: If the shapes of an update differ or are not two-dimensional.

    Example:
        >>> import torch
        >>> from lightning_ss2a.metrics import CLIPScore
        >>> metric = CLIPScore()
        >>> metric.update(torch.tensor([[0.6, 0.8]]), torch.tensor([[1.0, 0.0]]))
        >>> metric.compute()
        tensor(60.)
    """

    scale = CLIP_SCORE_SCALE

    def update(self, translated_audio: Tensor, visual: Tensor) -> None:
        """Add rows, ``[B, D]`` each."""
        super().update(translated_audio, visual)
