"""What the Remixer and the temporal aggregator share: summary tokens, attention blocks and two heads (supplement 2.3).

Shapes: B rows, S tokens, I width of the inputs, D width of the tokens, A audio width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar, TypeVar, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_ss2a.errors import InputError
from lightning_ss2a.models.layers.efficient_attention import AttentionBlock
from lightning_ss2a.models.layers.embeddings import check_sizes
from lightning_ss2a.models.layers.gaussian import DiagonalGaussian
from lightning_ss2a.models.layers.published_mlp import normalized_layer
from lightning_ss2a.models.layers.variational_mlp import Variant
from lightning_ss2a.options import OptionCheck

Readout = TypeVar("Readout", bound="ReadoutOptions")


@dataclass(frozen=True)
class ReadoutOptions:
    """Architecture of an ``AttentiveReadout``.

    Args:
        width: width D of the tokens.
        num_layers: attention blocks, at least 1 (the paper's best).
        num_heads: attention heads, a divisor of ``width``.
        head_widths: hidden layers of both heads; with the audio width at their end, the paper's [768, 640, 512]. The
            released weights have [768].
        expansion: hidden width of a block's feed-forward network over ``width``.
        dropout: probability of zeroing a hidden unit, in [0, 1).
        input_scaling: bring the embeddings to unit variance (L2-normalised, then times the root of their width); false
            takes them as they are, as the released weights want it.
        unit_mean: L2-normalise the Gaussian's mean, so that training cannot shrink the noise beside it.
        initial_log_variance: log-variance of every output before training.
        variant: ``paper``: one [cls] token, heads of Linear, ELU and dropout. ``published``: blocks of the released
            weights (see ``AttentionBlock``), a summary token for each head, heads of Linear, LayerNorm, dropout, GELU.
    """

    GROUP: ClassVar[str]
    """What the options' names begin with."""

    width: int = 768
    num_layers: int = 1
    num_heads: int = 8
    head_widths: tuple[int, ...] = (768, 640)
    expansion: int = 1
    dropout: float = 0.2
    input_scaling: bool = True
    unit_mean: bool = False
    initial_log_variance: float = -4.0
    variant: Variant = "paper"

    def __post_init__(self) -> None:
        check = OptionCheck(self.GROUP)
        check.at_least(1, width=self.width, num_layers=self.num_layers, num_heads=self.num_heads)
        check.at_least(1, head_widths=min(self.head_widths, default=1), expansion=self.expansion)
        check.probability(dropout=self.dropout)
        check.one_of(get_args(Variant), variant=self.variant)
        if self.width % self.num_heads:
            raise InputError(f"{self.GROUP}.num_heads must divide width {self.width}, found {self.num_heads}")

    def architecture(self: Readout) -> Readout:
        """Returns the same, without what has no part in trained weights."""
        return replace(self, dropout=0.0, initial_log_variance=0.0)


class AttentiveReadout(nn.Module):
    """Self-attention over a row's tokens, read out by a learned [cls] token and two heads, mean and log-variance.

    A base class rather than a part, so that parameters have the same names in everything that is built on it. What the
    tokens are is the subclass's: it makes them, ends with ``self.input`` and hands them to ``mix``. A last layer
    computes the [cls] token only, since nothing else is read.

    Args:
        input_width: I, width of what ``self.input`` turns into tokens.
        audio_width: A, width of the Gaussian.
        options: architecture.

    Raises:
        ValueError: If ``audio_width`` is not positive.
    """

    def __init__(self, input_width: int, audio_width: int, options: ReadoutOptions) -> None:
        super().__init__()
        check_sizes(audio_width=audio_width)
        self.audio_width, self.unit_mean = audio_width, options.unit_mean
        self.input: nn.Module = nn.Linear(input_width, options.width)
        self.summary = nn.Parameter(torch.randn(1 if options.variant == "paper" else 2, options.width))
        self.blocks = nn.ModuleList(
            AttentionBlock(options.width, options.num_heads, options.expansion, options.dropout, options.variant)
            for _ in range(options.num_layers)
        )
        widths = [options.width, *options.head_widths, audio_width]
        self.mean_head = _head(widths, options.dropout, options.variant)
        self.log_variance_head = _head(widths, options.dropout, options.variant)
        last = self.log_variance_head[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.constant_(last.bias, options.initial_log_variance)

    @property
    def last_block(self) -> AttentionBlock:
        """The block that computes the summary tokens only."""
        block = self.blocks[-1]
        assert isinstance(block, AttentionBlock)
        return block

    def mix(self, tokens: Tensor, attended: Tensor, start: Tensor | None = None) -> DiagonalGaussian:
        """Infers the Gaussian ``[B, A]`` of the tokens ``[B, S, D]`` that are attended to, bool ``[B, S]``."""
        tokens, attended = self._before_last(tokens, attended)
        return self.infer(self.last_block(tokens, attended, num_queries=len(self.summary)), start)

    def summary_weights(self, tokens: Tensor, attended: Tensor) -> Tensor:
        """Tells how much of each token [cls] takes in the last layer, mean over its heads, ``[B, S]`` (see ``mix``).

        ``published``: of the token that feeds the mean head. See ``EfficientAttention.weights`` for what they sum to.
        """
        tokens, attended = self._before_last(tokens, attended)
        weights = self.last_block.weights(tokens, attended, num_queries=1)
        return weights[:, :, 0, len(self.summary) :].mean(1)

    def with_summary(self, tokens: Tensor, attended: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the same tokens and mask with the summary tokens ([cls]) before them."""
        summary = self.summary.expand(len(tokens), -1, -1)
        return torch.cat([summary.to(tokens.dtype), tokens], dim=1), F.pad(attended, (len(self.summary), 0), value=True)

    def infer(self, summary: Tensor, start: Tensor | None = None) -> DiagonalGaussian:
        """Infers the Gaussian of the summary tokens after attention, ``[B, 1, D]`` (``published``: ``[B, 2, D]``).

        Args:
            summary: the tokens.
            start: what the mean head's output is added to, ``[B, A]``; None: nothing.
        """
        mean = self.mean_head(summary[:, 0])
        if start is not None:
            mean = mean + start
        return DiagonalGaussian(
            F.normalize(mean, dim=-1) if self.unit_mean else mean, self.log_variance_head(summary[:, -1])
        )

    def _before_last(self, tokens: Tensor, attended: Tensor) -> tuple[Tensor, Tensor]:
        """Returns summary and other tokens as the last block gets them, and their mask."""
        tokens, attended = self.with_summary(tokens, attended)
        for block in self.blocks[:-1]:
            tokens = block(tokens, attended)
        return tokens, attended


def _head(widths: Sequence[int], dropout: float, variant: Variant) -> nn.Sequential:
    """Makes hidden layers of ``widths[1:-1]`` and a Linear, ``[..., widths[0]] -> [..., widths[-1]]``."""
    layers: list[nn.Module] = []
    for start, end in pairwise(widths[:-1]):
        if variant == "paper":
            layers += [nn.Linear(start, end), nn.ELU(), nn.Dropout(dropout)]
        else:
            layers += [*normalized_layer(start, end, dropout), nn.GELU()]
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))
