"""A Remixer whose scenes stay the same but for one slot, as Cycle Mix calls it.

Shapes: B scenes, S slots, K scenes of a call, M manifold width, V visual width, A audio width, D width of the tokens.
"""

import torch
from torch import Tensor

from lightning_ss2a.models.layers.efficient_attention import GlobalContext
from lightning_ss2a.models.layers.gaussian import DiagonalGaussian
from lightning_ss2a.models.remixer import Remixer


class RemixerCache:
    """ψ of Eq. 8 with one slot left open: what the other slots contribute is computed once.

    Efficient Attention reads its tokens through sums over them, so with one layer a call costs one token whatever the
    number of slots: the open slot's context is merged into that of the others. A deeper Remixer changes at every
    token; then only the tokens before attention are kept.

    Args:
        remixer: in evaluation mode.
        manifold_tokens: e of each slot, ``[B, S, M]``.
        visual_tokens: v of each slot, ``[B, S, V]``.
        valid: which slots hold a source, bool ``[B, S]``.
        open_slot: number of the slot that is given at each call; what the inputs hold there is not attended to.
        source_audio: as ``Remixer`` takes it, ``[B, S, A]``, of all slots or the first; a residual starts from these
            sources whatever is in the open slot.
    """

    def __init__(
        self,
        remixer: Remixer,
        manifold_tokens: Tensor,
        visual_tokens: Tensor,
        valid: Tensor,
        open_slot: int,
        source_audio: Tensor | None = None,
    ) -> None:
        self.remixer = remixer
        slots = remixer.pad(manifold_tokens, visual_tokens, valid)
        kept = torch.arange(slots[2].shape[1], device=valid.device) != open_slot
        self.tokens, self.attended = remixer.encode(*(part[:, kept] for part in slots))
        self.start = remixer.start(source_audio, self.tokens if source_audio is None else remixer.encode(*slots)[0])
        self.context: GlobalContext | None = None
        if len(remixer.blocks) == 1:
            self.context = remixer.last_block.context(*remixer.with_summary(self.tokens, self.attended))

    def __call__(self, rows: Tensor, manifold_token: Tensor, visual_token: Tensor, filled: Tensor) -> DiagonalGaussian:
        """Mixes some scenes, each with its open slot filled.

        Args:
            rows: numbers of the scenes, ``[K]``.
            manifold_token: e of the open slot, ``[K, M]``.
            visual_token: v of the open slot, ``[K, V]``.
            filled: whether the open slot holds a source at all, bool ``[K]``.

        Returns:
            Gaussian of the mixed audio embeddings, ``[K, A]``.
        """
        remixer = self.remixer
        token, attended = remixer.encode(manifold_token[:, None], visual_token[:, None], filled[:, None])
        start = None if self.start is None else self.start[rows]
        if self.context is None:
            tokens = torch.cat([self.tokens[rows], token], dim=1)
            return remixer.mix(tokens, torch.cat([self.attended[rows], attended], dim=1), start)
        context = self.context.rows(rows).merge(remixer.last_block.context(token, attended))
        return remixer.infer(remixer.last_block.read(remixer.summary.expand(len(rows), -1, -1), context), start)
