"""CLAP score as a metric."""

from torch import Tensor

from lightning_ss2a.metrics.cosine import MeanCosine
from lightning_ss2a.metrics.functional.checks import check_pairs


class ClapScore(MeanCosine):
    r"""Mean cosine of texts' and sounds' embeddings by one CLAP, neither cut at 0 nor scaled.

    .. math:: \frac{1}{N} \sum_i \cos(t_i, a_i)

    As input to ``update``:

    - ``text_embedding``: CLAP embeddings of texts, ``[B, D]``, any norm; B may be 0.
    - ``audio_embedding``: embeddings of their sounds by the same CLAP, ``[B, D]``, any norm.

    As output of ``compute``: the mean, a float32 scalar in [-1, 1], the same bits for any split into batches and ranks;
    NaN where there is no row.

    Args:
        kwargs: options of ``torchmetrics.Metric``.

    Raises:
        ValueError: If the shapes of an update differ or are not two-dimensional.
        InputError: If a row holds NaN or infinity.

    Example:
        >>> import torch
        >>> from lightning_ss2a.metrics import ClapScore
        >>> metric = ClapScore()
        >>> metric.update(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.6, 0.8]]))
        >>> metric.compute()
        tensor(0.6000)
    """

    def update(self, text_embedding: Tensor, audio_embedding: Tensor) -> None:
        """Adds rows, ``[B, D]`` each."""
        check_pairs(text_embedding=text_embedding, audio_embedding=audio_embedding)
        super().update(text_embedding, audio_embedding)
