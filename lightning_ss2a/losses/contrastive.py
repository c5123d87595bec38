"""Symmetric contrastive loss of Eq. 3 with the cross-modal contrastive mask regularisation (CCMR) of Eq. 6-7.

Shapes: B rows of this rank, N rows of all ranks (N = B in one process), C rows of a chunk, D embedding width,
V and A the widths of the raw visual and audio inputs.

No rank ever forms more than its own rows: [B, N] matrices in the plain formula, [C, N] in the chunked one. The mask is
symmetric, so one mask serves both directions.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_ss2a.losses.gather import gather_rows, gather_with_gradient, world_size
from lightning_ss2a.options import OptionCheck


@dataclass(frozen=True)
class ContrastiveOptions:
    """Options of the contrastive loss.

    Args:
        ccmr_alpha: α of the CCMR mask (Eq. 7), at least 0; 0 switches the mask off. The published model uses 0.35.
        ccmr_mask_diagonal: mask the matching pairs too, as Eq. 7 does; false leaves them at 1. Masked, matching pairs
            are weakened most, and opposite modalities (all cosines -1) have a lower loss than equal ones.
        chunk_size: rows of the similarity matrix held at a time, at least 1; null: all. Memory grows with
            ``chunk_size`` times the global batch; the gradient is computed along with the value, so that nothing is
            computed twice.
    """

    ccmr_alpha: float = 0.35
    ccmr_mask_diagonal: bool = True
    chunk_size: int | None = None

    def __post_init__(self) -> None:
        check = OptionCheck("model.contrastive")
        check.at_least(0, ccmr_alpha=self.ccmr_alpha)
        check.at_least(1, chunk_size=self.chunk_size)


@dataclass(frozen=True)
class CcmrMask:
    """The CCMR mask by rows, from unit rows (this rank) and unit columns (all ranks)."""

    visual: Tensor  # [B, V]
    audio: Tensor  # [B, A]
    columns_visual: Tensor  # [N, V]
    columns_audio: Tensor  # [N, A]
    options: ContrastiveOptions
    offset: int

    def rows(self, start: int, stop: int) -> Tensor:
        """Computes rows ``start:stop`` of the mask, ``[stop - start, N]``."""
        with torch.no_grad():
            alike = self.visual[start:stop] @ self.columns_visual.T
            mask = _weakening(alike.mul_(self.audio[start:stop] @ self.columns_audio.T), self.options.ccmr_alpha)
            if not self.options.ccmr_mask_diagonal:
                mask.diagonal(self.offset + start).fill_(1)
            return mask


def _weakening(alike: Tensor, ccmr_alpha: float) -> Tensor:
    """Turns products of cosines into the mask of Eq. 7, ``exp(-α clamp(alike)^α)``, in place."""
    return alike.clamp_(0, 1).pow_(ccmr_alpha).mul_(-ccmr_alpha).exp_()


def contrastive_loss(
    visual_embedding: Tensor,
    audio_embedding: Tensor,
    temperature: Tensor,
    *,
    visual: Tensor | None = None,
    audio: Tensor | None = None,
    options: ContrastiveOptions = ContrastiveOptions(ccmr_alpha=0.0),
    mask_type: type[CcmrMask] = CcmrMask,
) -> Tensor:
    r"""Computes the contrastive loss over the global batch (Eq. 3), similarities weakened by the CCMR mask (Eq. 7).

    .. math::
        C^*_{ij} = \tau \cos(e^{visual}_i, e^{audio}_j) M_{ij}, \qquad
        L_c = -\frac{1}{2N} \sum_i
              \left[\log \mathrm{softmax}_j(C^*)_{ii} + \log \mathrm{softmax}_j(C^{*\top})_{ii}\right]

    Eq. 3 is printed without the minus sign; the loss is the cross-entropy, minimised. Embeddings are L2-normalised
    here. Everything is computed in float32 or wider, also under autocast.

    With several processes, each passes its own rows, the same number on every rank. The value is the mean over this
    rank's rows; its gradients, once *averaged* over ranks as DistributedDataParallel does, are those of one process
    holding the global batch.

    Args:
        visual_embedding: manifold embeddings of the visuals, ``[B, D]``, any norm.
        audio_embedding: manifold embeddings of the matching audio, ``[B, D]``, any norm.
        temperature: logit scale that multiplies the cosines (a scalar, about 1 to 100).
        visual: raw visual inputs, ``[B, V]``, needed for the mask; no gradient flows to them.
        audio: raw audio inputs, ``[B, A]``, needed for the mask; no gradient flows to them.
        options: mask and rows at a time; by default no mask, and all rows.
        mask_type: computes the mask.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: If shapes disagree, or the mask is on and ``visual`` or ``audio`` is missing.

    Example:
        >>> import torch
        >>> from lightning_ss2a.losses import contrastive_loss
        >>> embedding = torch.eye(4)
        >>> contrastive_loss(embedding, embedding, torch.tensor(10.0))
        tensor(0.0001)
    """
    _check_embeddings(visual_embedding, audio_embedding)
    with torch.autocast(visual_embedding.device.type, enabled=False):
        gather = world_size() > 1
        visual_rows, audio_rows = unit_rows(visual_embedding), unit_rows(audio_embedding)
        visual_columns = gather_with_gradient(visual_rows) if gather else visual_rows
        audio_columns = gather_with_gradient(audio_rows) if gather else audio_rows
        offset = dist.get_rank() * len(visual_rows) if gather else 0
        mask = _build_mask(visual_rows, visual, audio, options, offset, gather, mask_type)
        temperature = torch.as_tensor(temperature, dtype=visual_rows.dtype, device=visual_rows.device)
        sides = (visual_rows, audio_rows, visual_columns, audio_columns, temperature, mask, offset)
        return _plain_loss(*sides) if options.chunk_size is None else _chunked_loss(*sides, options.chunk_size)


@torch.no_grad()
def ccmr_mask(
    visual: Tensor,
    audio: Tensor,
    ccmr_alpha: float,
    *,
    columns_visual: Tensor | None = None,
    columns_audio: Tensor | None = None,
    ccmr_mask_diagonal: bool = True,
    diagonal_offset: int = 0,
    mask_type: type[CcmrMask] = CcmrMask,
) -> Tensor:
    r"""Computes the mask of the cross-modal contrastive mask regularisation (Eq. 6-7).

    .. math::
        M_{ij} = \exp\left(-\alpha\, \mathrm{clamp}_{[0, 1]}\left(\cos(v_i, v_j) \cos(a_i, a_j)\right)^{\alpha}\right)

    It falls from 1 (unlike in sight or in sound) to exp(-α) (alike in both). At ``ccmr_alpha=0`` it is exp(0) = 1
    everywhere. As Eq. 7 says, the product is clamped: two *negative* cosines also weaken a pair.

    Args:
        visual: raw visual inputs of the rows, ``[N, V]``, any norm.
        audio: raw audio inputs of the rows, ``[N, A]``, any norm.
        ccmr_alpha: α of Eq. 7, at least 0 (the published model uses 0.35).
        columns_visual: raw visual inputs of the columns, ``[M, V]``; the rows themselves by default.
        columns_audio: raw audio inputs of the columns, ``[M, A]``; the rows themselves by default.
        ccmr_mask_diagonal: mask the matching pairs too, as Eq. 7 does; ``False`` sets them to 1.
        diagonal_offset: column that matches row 0, where the rows are a part of the columns.
        mask_type: computes the mask.

    Returns:
        The mask, ``[N, M]``, values in [exp(-α), 1], without gradient.

    Raises:
        ValueError: If ``ccmr_alpha`` is negative or rows and columns of the two modalities do not pair up.

    Example:
        >>> import torch
        >>> from lightning_ss2a.losses import ccmr_mask
        >>> ccmr_mask(torch.eye(2), torch.eye(2), ccmr_alpha=0.35)
        tensor([[0.7047, 1.0000],
                [1.0000, 0.7047]])
    """
    options = ContrastiveOptions(ccmr_alpha, ccmr_mask_diagonal)
    columns_visual = visual if columns_visual is None else columns_visual
    columns_audio = audio if columns_audio is None else columns_audio
    if len(visual) != len(audio) or len(columns_visual) != len(columns_audio):
        raise ValueError(
            f"visual and audio must pair up, got {len(visual)} and {len(audio)} rows, "
            f"{len(columns_visual)} and {len(columns_audio)} columns"
        )
    columns = unit_rows(columns_visual), unit_rows(columns_audio)
    return mask_type(unit_rows(visual), unit_rows(audio), *columns, options, diagonal_offset).rows(0, len(visual))


def unit_rows(rows: Tensor) -> Tensor:
    """Returns L2-normalised rows in float32 or wider; a zero row stays zero."""
    return F.normalize(rows if rows.dtype == torch.float64 else rows.float(), dim=-1)


def _build_mask(
    embedding: Tensor,
    visual: Tensor | None,
    audio: Tensor | None,
    options: ContrastiveOptions,
    offset: int,
    gather: bool,
    mask_type: type[CcmrMask],
) -> CcmrMask | None:
    """Builds the mask of this rank's rows; None where it is 1 everywhere."""
    if options.ccmr_alpha == 0:
        return None
    if visual is None or audio is None:
        raise ValueError(f"ccmr_alpha={options.ccmr_alpha} needs the raw inputs: pass visual and audio")
    if not len(visual) == len(audio) == len(embedding):
        raise ValueError(
            f"visual and audio must have as many rows as the embeddings ({len(embedding)}), "
            f"got {len(visual)} and {len(audio)}"
        )
    with torch.no_grad():
        # In the embeddings' precision, so that the mask never widens or narrows the logits.
        visual, audio = unit_rows(visual).to(embedding.dtype), unit_rows(audio).to(embedding.dtype)
        columns_visual, columns_audio = (gather_rows(visual), gather_rows(audio)) if gather else (visual, audio)
    return mask_type(visual, audio, columns_visual, columns_audio, options, offset)


def _plain_loss(
    visual_rows: Tensor,
    audio_rows: Tensor,
    visual_columns: Tensor,
    audio_columns: Tensor,
    temperature: Tensor,
    mask: CcmrMask | None,
    offset: int,
) -> Tensor:
    """Computes Eq. 3 as it is written, for this rank's rows: two [B, N] matrices."""
    visual_to_audio = temperature * _Similarity.apply(visual_rows, audio_columns)  # [B, N]
    audio_to_visual = temperature * _Similarity.apply(audio_rows, visual_columns)  # [B, N]
    if mask is not None:
        rows = mask.rows(0, len(visual_rows))  # [B, N]
        visual_to_audio, audio_to_visual = visual_to_audio * rows, audio_to_visual * rows
    target = torch.arange(offset, offset + len(visual_rows), device=visual_rows.device)
    return (F.cross_entropy(visual_to_audio, target) + F.cross_entropy(audio_to_visual, target)) / 2


class _Similarity(torch.autograd.Function):
    """``rows @ columns.T`` whose backward keeps its precision too, when it runs inside autocast.

    Lightning's manual optimisation calls backward there.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, columns: Tensor) -> Tensor:
        ctx.save_for_backward(rows, columns)
        return rows @ columns.T

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        rows, columns = ctx.saved_tensors
        with torch.autocast(gradient.device.type, enabled=False):
            return gradient @ columns, gradient.T @ rows


class _ChunkedLoss(torch.autograd.Function):
    """Eq. 3 in chunks of rows. The loss is a scalar, so forward makes the gradient too and keeps nothing of [C, N]."""

    @staticmethod
    def forward(
        ctx: Any,
        visual_rows: Tensor,
        audio_rows: Tensor,
        visual_columns: Tensor,
        audio_columns: Tensor,
        temperature: Tensor,
        mask: CcmrMask | None,
        offset: int,
        chunk_size: int,
    ) -> Tensor:
        gradients = None
        if any(ctx.needs_input_grad):
            inputs = (visual_rows, audio_rows, visual_columns, audio_columns, temperature)
            gradients = [torch.zeros_like(tensor) for tensor in inputs]
        loss = torch.zeros_like(temperature)
        scale = 0.5 / len(visual_rows)
        for start in range(0, len(visual_rows), chunk_size):
            stop = min(start + chunk_size, len(visual_rows))
            mask_rows = None if mask is None else mask.rows(start, stop)
            # (rows, columns) of the two directions, as positions in `gradients`.
            for side, (rows, columns) in enumerate(((visual_rows, audio_columns), (audio_rows, visual_columns))):
                targets = (gradients[side][start:stop], gradients[3 - side], gradients[4]) if gradients else None
                loss += _chunk_loss(rows[start:stop], columns, temperature, mask_rows, offset + start, scale, targets)
        if gradients:
            ctx.save_for_backward(*gradients)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return (*(gradient * saved for saved in ctx.saved_tensors), None, None, None)


# torch.compile (2.11) traces the in-place sums of this function to wrong gradients without a word; the matrix products
# that it consists of gain nothing from being compiled.
_chunked_loss = torch.compiler.disable(_ChunkedLoss.apply)


def _chunk_loss(
    rows: Tensor,
    columns: Tensor,
    temperature: Tensor,
    mask: Tensor | None,
    offset: int,
    scale: float,
    gradients: tuple[Tensor, Tensor, Tensor] | None,
) -> Tensor:
    """Sums the rows' cross-entropies, scaled; adds to the gradients of rows, columns and temperature in place.

    Args:
        rows: unit rows, ``[C, D]``.
        columns: unit columns, ``[N, D]``.
        temperature: logit scale.
        mask: rows of the CCMR mask, ``[C, N]``, or None.
        offset: column that matches row 0.
        scale: weight of each row's cross-entropy.
        gradients: accumulators of the shapes of rows, columns and temperature, or None.
    """
    similarity = rows @ columns.T  # [C, N]
    if mask is not None:
        similarity *= mask
    logits = similarity * temperature  # [C, N]
    log_normaliser = logits.logsumexp(1, keepdim=True)  # [C, 1]
    loss = scale * (log_normaliser.sum() - logits.diagonal(offset).sum())
    if gradients is None:
        return loss
    rows_gradient, columns_gradient, temperature_gradient = gradients
    gradient = logits.sub_(log_normaliser).exp_()  # softmax, and below the derivative by the logits, [C, N]
    gradient.diagonal(offset).sub_(1)
    gradient *= scale
    temperature_gradient += similarity.mul_(gradient).sum()
    if mask is not None:
        gradient *= mask
    gradient *= temperature
    rows_gradient.addmm_(gradient, columns)
    columns_gradient.addmm_(gradient.T, rows)
    return loss


def _check_embeddings(visual_embedding: Tensor, audio_embedding: Tensor) -> None:
    if visual_embedding.ndim != 2 or visual_embedding.shape != audio_embedding.shape:
        raise ValueError(
            "visual_embedding and audio_embedding must have one shape [rows, width], "
            f"got {tuple(visual_embedding.shape)} and {tuple(audio_embedding.shape)}"
        )
