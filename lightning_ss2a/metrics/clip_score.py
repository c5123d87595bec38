"""CLIP score as a metric."""

from torch import Tensor

from lightning_ss2a.metrics.cosine import MeanCosine
from lightning_ss2a.metrics.functional.clip_score import CLIP_SCORE_SCALE, mean_source_cosine


class CLIPScore(MeanCosine):
    r"""Mean cosine between translated audio and visual embeddings, times 100.

    .. math:: \frac{100}{N} \sum_i \frac{1}{M_i} \sum_{m=1}^{M_i} \cos(T(a_i), v_{im})

    with M = 1 where each row shows one thing, and the sources of a scene where it shows several.

    As input to ``update``:

    - ``translated_audio``: audio embeddings in visual space, ``[B, D]``, any norm; B may be 0.
    - ``visual``: visual embeddings, ``[B, D]``, or of several sources, ``[B, S, D]``, any norm.
    - ``visible``: with several sources, which of them there are, bool ``[B, S]``; at least one in each row.

    As output of ``compute``: the score, a float32 scalar in [-100, 100], the same bits for any split into batches and
    ranks; NaN where there is no row, or where a row holds NaN or infinity.

    Args:
        kwargs: options of ``torchmetrics.Metric``.

    Raises:
        ValueError: If the shapes of an update do not fit.

    Example:
        >>> import torch
        >>> from lightning_ss2a.metrics import CLIPScore
        >>> metric = CLIPScore()
        >>> metric.update(torch.tensor([[0.6, 0.8]]), torch.tensor([[1.0, 0.0]]))
        >>> metric.compute()
        tensor(60.)
    """

    scale = CLIP_SCORE_SCALE

    def update(self, translated_audio: Tensor, visual: Tensor, visible: Tensor | None = None) -> None:
        """Adds rows, ``[B, D]`` each, or ``[B, D]``, ``[B, S, D]`` and ``[B, S]``."""
        if visible is None:
            super().update(translated_audio, visual)
            return
        cosines = mean_source_cosine(translated_audio, visual, visible)
        self._add(cosines, translated_audio, visual.masked_fill(~visible.unsqueeze(-1), 0), cosines.unsqueeze(1))
