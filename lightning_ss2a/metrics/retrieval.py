"""Cross-modal retrieval as a metric."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from lightning_ss2a.metrics.base import ExactMetric
from lightning_ss2a.metrics.functional.retrieval import median_rank, retrieval_ranks, retrieval_recall
from lightning_ss2a.metrics.gather import gather_ragged


class CrossModalRetrieval(ExactMetric):
    """Recall@k and median rank of the matching row among all rows, from visual to audio and back.

    As input to ``update``:

    - ``visual_embedding``: manifold embeddings of the visuals, ``[B, D]``, any norm; B may be 0.
    - ``audio_embedding``: manifold embeddings of the matching audio, ``[B, D]``, any norm.
    - ``index``: number of each row in the data set, ``[B]`` int64, unique over batches and ranks.

    As output of ``compute``: a dict of float32 scalars, ``recall@{k}/visual_to_audio`` and ``.../audio_to_visual`` in
    [0, 1] for each k (higher is better), ``median_rank/visual_to_audio`` and ``.../audio_to_visual`` from 1 (lower is
    better). Ties count half. Rows are put in the order of their index first, so that the values are the same for any
    split into batches and ranks. NaN where there is no row; a row with NaN or infinity is a miss.

    All embeddings are kept in float32 until ``reset`` (8 * D bytes a pair), the similarities never at once.

    Attributes:
        rows: rows of all ranks at the last ``compute``.

    Args:
        ks: places that count for recall, each at least 1.
        kwargs: options of ``torchmetrics.Metric``.

    Raises:
        ValueError: If ``ks`` is out of range, shapes of an update disagree, or at ``compute`` an index came twice.

    Example:
        >>> import torch
        >>> from lightning_ss2a.metrics import CrossModalRetrieval
        >>> metric = CrossModalRetrieval(ks=(1,))
        >>> metric.update(torch.eye(3), torch.eye(3)[[0, 2, 1]], index=torch.arange(3))
        >>> values = metric.compute()
        >>> values["recall@1/visual_to_audio"], values["median_rank/visual_to_audio"]
        (tensor(0.3333), tensor(2.5000))
    """

    higher_is_better = None  # recall: higher, median rank: lower

    visual_embedding: list[Tensor]
    audio_embedding: list[Tensor]
    index: list[Tensor]

    def __init__(self, ks: Sequence[int] = (1, 5, 10), **kwargs: Any) -> None:
        super().__init__(**{"dist_sync_fn": gather_ragged, **kwargs})
        if not ks or min(ks) < 1:
            raise ValueError(f"ks must name places from 1, got {tuple(ks)}")
        self.ks = tuple(ks)
        self.rows = 0
        for name in ("visual_embedding", "audio_embedding", "index"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, visual_embedding: Tensor, audio_embedding: Tensor, index: Tensor) -> None:
        """Adds rows: embeddings ``[B, D]`` each, index ``[B]``."""
        shape = visual_embedding.shape
        if len(shape) != 2 or audio_embedding.shape != shape or index.shape != shape[:1]:
            raise ValueError(
                "visual_embedding, audio_embedding and index must have shapes [rows, width] twice and [rows], "
                f"got {tuple(shape)}, {tuple(audio_embedding.shape)} and {tuple(index.shape)}"
            )
        self.visual_embedding.append(visual_embedding.detach().float())
        self.audio_embedding.append(audio_embedding.detach().float())
        self.index.append(index.long())

    def compute(self) -> dict[str, Tensor]:
        """Computes the values over all rows of all ranks."""
        visual, audio = self._ordered_rows()
        self.rows = len(visual)
        values: dict[str, Tensor] = {}
        for direction, pair in (("visual_to_audio", (visual, audio)), ("audio_to_visual", (audio, visual))):
            ranks = retrieval_ranks(*pair)
            values |= {f"recall@{k}/{direction}": retrieval_recall(ranks, k) for k in self.ks}
            values[f"median_rank/{direction}"] = median_rank(ranks)
        return values

    def _ordered_rows(self) -> tuple[Tensor, Tensor]:
        """Sorts visual and audio embeddings by the index, ``[N, D]`` each."""
        if len(self.index) == 0:
            nothing = torch.zeros(0, 0, device=self.device)
            return nothing, nothing
        index, order = dim_zero_cat(self.index).sort()
        repeated = index[1:][index[1:] == index[:-1]]
        if len(repeated):
            raise ValueError(f"index must be unique over batches and ranks, got {int(repeated[0])} more than once")
        return dim_zero_cat(self.visual_embedding)[order], dim_zero_cat(self.audio_embedding)[order]
