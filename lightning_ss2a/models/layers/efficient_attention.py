"""Efficient Attention and the block of the Remixer and the temporal aggregator (supplement 2.3, Fig. 5b).

Shapes: B batch, S tokens, Q queries, H heads, D width, d = D / H width of a head.
Source: Shen et al., "Efficient Attention: Attention with Linear Complexities" (2021).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_ss2a.models.layers.variational_mlp import Variant

KeySoftmax = Literal["sequence", "features"]


@dataclass(frozen=True)
class GlobalContext:
    """softmax(K)^T V of some tokens, kept so that contexts of disjoint sets of tokens can be merged exactly.

    Attributes:
        values: weighted sums of the tokens' values, ``[B, H, d, d]`` (features of the keys by features of the values).
        weight: what ``values`` is to be divided by, ``[B, H, d]``; 0 where there is no token.
        maximum: logarithm of the unit in which both are counted, ``[B, H, d]``: the largest key, -inf without tokens.
    """

    values: Tensor
    weight: Tensor
    maximum: Tensor

    def rows(self, index: Tensor) -> "GlobalContext":
        """Selects the contexts of some rows of the batch, ``index`` of ``[K]`` row numbers."""
        return GlobalContext(self.values[index], self.weight[index], self.maximum[index])

    def merge(self, other: "GlobalContext") -> "GlobalContext":
        """Merges two contexts into that of both sets of tokens together."""
        maximum = torch.maximum(self.maximum, other.maximum)
        unit = _finite(maximum)
        scale, other_scale = (self.maximum - unit).exp(), (other.maximum - unit).exp()
        return GlobalContext(
            self.values * scale.unsqueeze(-1) + other.values * other_scale.unsqueeze(-1),
            self.weight * scale + other.weight * other_scale,
            maximum,
        )


class EfficientAttention(nn.Module):
    """Multi-head attention in time and memory linear in the number of tokens: softmax(Q) (softmax(K)^T V).

    Queries are normalised over the features of a head, keys over the sequence: each feature of the keys is one
    attention map over all tokens, and a query says how much it takes of each.

    Args:
        width: D.
        num_heads: H, a divisor of ``width``.
        key_softmax: ``sequence``, as in the paper. ``features``, as in the released weights: keys are normalised over
            the features of a head and tokens are summed, so that the output grows with their number.
        output_projection: end with a Linear that mixes the heads; the released weights have none.
        dropout: probability of zeroing an entry of the global context, in [0, 1).

    Raises:
        ValueError: If an argument is out of range or unknown.

    Example:
        >>> import torch
        >>> from lightning_ss2a.models import EfficientAttention
        >>> attention = EfficientAttention(16, num_heads=4)
        >>> attention(torch.randn(2, 5, 16), torch.ones(2, 5, dtype=torch.bool)).shape
        torch.Size([2, 5, 16])
    """

    def __init__(
        self,
        width: int,
        num_heads: int = 8,
        key_softmax: KeySoftmax = "sequence",
        output_projection: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if num_heads < 1 or width < 1 or width % num_heads:
            raise ValueError(f"num_heads must divide width, got {num_heads} heads and width {width}")
        if key_softmax not in ("sequence", "features"):
            raise ValueError(f"key_softmax must be 'sequence' or 'features', got {key_softmax!r}")
        _check_dropout(dropout)
        self.num_heads = num_heads
        self.key_softmax = key_softmax
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.output = nn.Linear(width, width) if output_projection else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, valid: Tensor, queries: Tensor | None = None) -> Tensor:
        """Attends.

        Args:
            tokens: keys and values come from these, ``[B, S, D]``. Invalid ones may hold anything, NaN included.
            valid: which tokens exist, bool ``[B, S]``. A row without any gives a zero context.
            queries: ``[B, Q, D]``; the tokens by default.

        Returns:
            ``[B, Q, D]``.
        """
        return self.read(tokens if queries is None else queries, self.context(tokens, valid))

    def context(self, tokens: Tensor, valid: Tensor) -> GlobalContext:
        """Computes the global context of the valid tokens, ``[B, S, D]`` and ``[B, S]``."""
        tokens = tokens.masked_fill(~valid.unsqueeze(-1), 0)
        weights, weight, maximum = self._weigh_keys(tokens, valid)
        values = self._split(self.value(tokens))
        return GlobalContext(torch.einsum("bshk,bshv->bhkv", weights, values), weight, maximum)

    def weights(self, queries: Tensor, tokens: Tensor, valid: Tensor) -> Tensor:
        """Tells how much of each token's value a query takes, before dropout and ``self.output``; for figures.

        sum_k softmax(q)_k K_{s,k}, K the normalised keys: what attention never forms, since it is not linear in S.

        Args:
            queries: ``[B, Q, D]``.
            tokens: ``[B, S, D]``. Invalid ones may hold anything, NaN included.
            valid: which tokens exist, bool ``[B, S]``.

        Returns:
            ``[B, H, Q, S]``, at least 0, and 0 for invalid tokens. With ``key_softmax="sequence"`` they sum to 1 over
            the valid tokens; with ``"features"`` each is at most 1 and they sum to at most the number of those.
        """
        tokens = tokens.masked_fill(~valid.unsqueeze(-1), 0)
        weights, weight, _ = self._weigh_keys(tokens, valid)
        if self.key_softmax == "sequence":
            weights = weights / weight.clamp_min(1).unsqueeze(1)
        asked = self._split(self.query(queries)).softmax(-1)
        return torch.einsum("bqhk,bshk->bhqs", asked, weights)

    def read(self, queries: Tensor, context: GlobalContext) -> Tensor:
        """Attends with ``[B, Q, D]`` queries to a context, ``[B, Q, D]``."""
        weights = self._split(self.query(queries)).softmax(-1)
        values = context.values
        if self.key_softmax == "sequence":
            # The largest key weighs exactly 1, so the weight is at least 1 unless there is no token at all.
            values = values / context.weight.clamp_min(1).unsqueeze(-1)
        attended = torch.einsum("bqhk,bhkv->bqhv", weights, self.dropout(values))
        return self.output(attended.flatten(-2))

    def _weigh_keys(self, tokens: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Weighs the tokens for each feature, ``[B, S, H, d]``; ``weight`` and ``maximum`` of ``GlobalContext``."""
        keys, invalid = self._split(self.key(tokens)), ~valid[..., None, None]
        if self.key_softmax == "features":
            weights = keys.softmax(-1).masked_fill(invalid, 0)
            maximum = keys.new_zeros(keys.shape[0], *keys.shape[2:])
            return weights, torch.ones_like(maximum), maximum
        keys = keys.masked_fill(invalid, -torch.inf)
        maximum = _largest(keys.detach())
        weights = (keys - _finite(maximum).unsqueeze(1)).exp()
        return weights, weights.sum(1), maximum

    def _split(self, features: Tensor) -> Tensor:
        """Splits heads, ``[B, S, D] -> [B, S, H, d]``."""
        return features.unflatten(-1, (self.num_heads, -1))


class AttentionBlock(nn.Module):
    """Efficient Attention, then a feed-forward network of one hidden layer, then ELU.

    With x the tokens and A the attention:

    - ``paper``: h = x + A(x), y = ELU(h + W2 dropout(ELU(W1 h))). The text names attention, feed-forward network and
      ELU; the two residuals are the usual ones.
    - ``published`` (the released weights): h = W x + A(LayerNorm(x)) without output projection, keys normalised over
      features, y = h + W2 dropout(GELU(W1 LayerNorm(h))), no ELU, W2 zero before training.

    Args:
        width: D.
        num_heads: heads of the attention, a divisor of ``width``.
        expansion: hidden width of the feed-forward network over D (released weights: 1 in the Remixer, 2 in the
            temporal aggregator).
        dropout: probability of zeroing a hidden unit (``published``: also an entry of the global context), in [0, 1).
        variant: which of the two.

    Raises:
        ValueError: If an argument is out of range or unknown.
    """

    def __init__(
        self, width: int, num_heads: int = 8, expansion: int = 1, dropout: float = 0.2, variant: Variant = "paper"
    ) -> None:
        super().__init__()
        if expansion < 1:
            raise ValueError(f"expansion must be at least 1, got {expansion}")
        if variant not in ("paper", "published"):
            raise ValueError(f"variant must be 'paper' or 'published', got {variant!r}")
        _check_dropout(dropout)
        hidden = expansion * width
        layers: list[nn.Module]
        self.shortcut: nn.Module
        self.norm: nn.Module
        self.end: nn.Module
        if variant == "paper":
            self.attention = EfficientAttention(width, num_heads)
            self.shortcut, self.norm, self.end = nn.Identity(), nn.Identity(), nn.ELU()
            layers = [nn.Linear(width, hidden), nn.ELU()]
        else:
            self.attention = EfficientAttention(width, num_heads, "features", output_projection=False, dropout=dropout)
            self.shortcut, self.norm, self.end = nn.Linear(width, width), nn.LayerNorm(width), nn.Identity()
            layers = [nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU()]
        last = nn.Linear(hidden, width)
        if variant == "published":
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        self.feed_forward = nn.Sequential(*layers, nn.Dropout(dropout), last)

    def forward(self, tokens: Tensor, valid: Tensor, num_queries: int | None = None) -> Tensor:
        """Computes the outputs of the first tokens, which attend to all valid ones.

        Args:
            tokens: ``[B, S, D]``. Invalid ones may hold anything, NaN included.
            valid: which tokens exist, bool ``[B, S]``.
            num_queries: Q, how many tokens to compute, counted from the first; all by default.

        Returns:
            ``[B, Q, D]``.
        """
        tokens = tokens.masked_fill(~valid.unsqueeze(-1), 0)
        return self.read(tokens[:, :num_queries], self.context(tokens, valid))

    def weights(self, tokens: Tensor, valid: Tensor, num_queries: int | None = None) -> Tensor:
        """Tells how much of each token the first tokens take (see ``EfficientAttention.weights``), ``[B, H, Q, S]``."""
        tokens = self.norm(tokens.masked_fill(~valid.unsqueeze(-1), 0))
        return self.attention.weights(tokens[:, :num_queries], tokens, valid)

    def context(self, tokens: Tensor, valid: Tensor) -> GlobalContext:
        """Computes what the block reads of its tokens, ``[B, S, D]`` and ``[B, S]``."""
        return self.attention.context(self.norm(tokens), valid)

    def read(self, queries: Tensor, context: GlobalContext) -> Tensor:
        """Computes the block's outputs at ``[B, Q, D]`` queries, given the context of all tokens."""
        hidden = self.shortcut(queries) + self.attention.read(self.norm(queries), context)
        return self.end(hidden + self.feed_forward(hidden))


def _largest(keys: Tensor) -> Tensor:
    """Finds the largest key of each feature, -inf without tokens, ``[B, S, H, d] -> [B, H, d]``."""
    floor = keys.new_full((keys.shape[0], 1, *keys.shape[2:]), -torch.inf)
    return torch.cat([floor, keys], dim=1).amax(1)


def _finite(maximum: Tensor) -> Tensor:
    return maximum.masked_fill(maximum == -torch.inf, 0)


def _check_dropout(dropout: float) -> None:
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be in [0, 1), got {dropout}")
