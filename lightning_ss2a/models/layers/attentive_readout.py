"""What the Remixer and the temporal aggregator share: summary tokens, attention blocks and two heads (supplement 2.3).

Shapes: B rows, S tokens, I width of the inputs, D width of the tokens, A audio width.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_ss2a.models.layers.efficient_attention import AttentionBlock
from lightning_ss2a.models.layers.embeddings import check_sizes
from lightning_ss2a.models.layers.gaussian import DiagonalGaussian
from lightning_ss2a.models.layers.variational_mlp import Variant

HEAD_WIDTHS = (768, 640)


class AttentiveReadout(nn.Module):
    """Self-attention over a row's tokens, read out by a learned [cls] token and two heads, mean and log-variance.

    A base class rather than a part, so that parameters have the same names in everything that is built on it. What the
    tokens are is the subclass's: it makes them, ends with ``self.input`` and hands them to ``mix``. A last layer
    computes the [cls] token only, since nothing else is read.

    Args:
        input_width: I, width of what ``self.input`` turns into tokens.
        audio_width: A, width of the Gaussian.
        width: D.
        num_layers: attention blocks, at least 1.
        num_heads: attention heads, a divisor of ``width``.
        head_widths: hidden layers of both heads.
        expansion: hidden width of a block's feed-forward network over ``width``.
        dropout: probability of zeroing a hidden unit, in [0, 1).
        unit_mean: L2-normalise the Gaussian's mean.
        initial_log_variance: log-variance of every output before training.
        variant: ``paper``: one [cls] token, heads of Linear, ELU and dropout. ``published``: blocks of the released
            weights (see ``AttentionBlock``), a summary token for each head, heads of Linear, LayerNorm, dropout, GELU.

    Raises:
        ValueError: If an argument is out of range or unknown.
    """

    def __init__(
        self,
        *,
        input_width: int,
        audio_width: int,
        width: int,
        num_layers: int,
        num_heads: int,
        head_widths: Sequence[int],
        expansion: int,
        dropout: float,
        unit_mean: bool,
        initial_log_variance: float,
        variant: Variant,
    ) -> None:
        super().__init__()
        check_sizes(audio_width=audio_width, num_layers=num_layers, head_widths=min(head_widths, default=1))
        self.audio_width, self.unit_mean = audio_width, unit_mean
        self.input = nn.Linear(input_width, width)
        self.summary = nn.Parameter(torch.randn(1 if variant == "paper" else 2, width))
        self.blocks = nn.ModuleList(
            AttentionBlock(width, num_heads, expansion, dropout, variant) for _ in range(num_layers)
        )
        widths = [width, *head_widths, audio_width]
        self.mean_head = _head(widths, dropout, variant)
        self.log_variance_head = _head(widths, dropout, variant)
        nn.init.zeros_(self.log_variance_head[-1].weight)
        nn.init.constant_(self.log_variance_head[-1].bias, initial_log_variance)

    def mix(self, tokens: Tensor, attended: Tensor) -> DiagonalGaussian:
        """Gaussian ``[B, A]`` of the tokens ``[B, S, D]`` that are attended to, bool ``[B, S]``."""
        tokens, attended = self._before_last(tokens, attended)
        return self.infer(self.blocks[-1](tokens, attended, num_queries=len(self.summary)))

    def summary_weights(self, tokens: Tensor, attended: Tensor) -> Tensor:
        """How much of each token [cls] takes in the last layer, mean over its heads, ``[B, S]`` (see ``mix``).

        ``published``: of the token that feeds the mean head. See ``EfficientAttention.weights`` for what they sum to.
        """
        tokens, attended = self._before_last(tokens, attended)
        weights = self.blocks[-1].weights(tokens, attended, num_queries=1)
        return weights[:, :, 0, len(self.summary) :].mean(1)

    def with_summary(self, tokens: Tensor, attended: Tensor) -> tuple[Tensor, Tensor]:
        """The same tokens and mask with the summary tokens ([cls]) before them."""
        summary = self.summary.expand(len(tokens), -1, -1)
        return torch.cat([summary.to(tokens.dtype), tokens], dim=1), F.pad(attended, (len(self.summary), 0), value=True)

    def infer(self, summary: Tensor) -> DiagonalGaussian:
        """Gaussian of the summary tokens after attention, ``[B, 1, D]`` (``published``: ``[B, 2, D]``)."""
        mean = self.mean_head(summary[:, 0])
        return DiagonalGaussian(
            F.normalize(mean, dim=-1) if self.unit_mean else mean, self.log_variance_head(summary[:, -1])
        )

    def _before_last(self, tokens: Tensor, attended: Tensor) -> tuple[Tensor, Tensor]:
        """Summary and other tokens as the last block gets them, and their mask."""
        tokens, attended = self.with_summary(tokens, attended)
        for block in self.blocks[:-1]:
            tokens = block(tokens, attended)
        return tokens, attended


def _head(widths: Sequence[int], dropout: float, variant: Variant) -> nn.Sequential:
    """Hidden layers of ``widths[1:-1]`` and a Linear, ``[..., widths[0]] -> [..., widths[-1]]``."""
    layers: list[nn.Module] = []
    for start, end in pairwise(widths[:-1]):
        tail = (
            [nn.ELU(), nn.Dropout(dropout)]
            if variant == "paper"
            else [nn.LayerNorm(end), nn.Dropout(dropout), nn.GELU()]
        )
        layers += [nn.Linear(start, end), *tail]
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))
