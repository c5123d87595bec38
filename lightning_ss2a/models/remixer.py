"""The Sound Source Remixer ψ: tokens of a scene's sources to the Gaussian of one mixed audio embedding (Eq. 8).

Shapes: B scenes, S slots, M manifold width, V visual width, A audio width, D width of the tokens.
Paper: "Sound Source Remixer" and supplement 2.3; sizes from the published configuration.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_ss2a.models.layers.attentive_readout import HEAD_WIDTHS, AttentiveReadout
from lightning_ss2a.models.layers.embeddings import check_sizes, unit_variance
from lightning_ss2a.models.layers.gaussian import DiagonalGaussian
from lightning_ss2a.models.layers.variational_mlp import Variant

Conditions = Literal["manifold+visual", "manifold", "visual"]
TokenDropout = Literal["whole", "parts"]
MAX_SLOTS = 64


class Remixer(AttentiveReadout):
    """Self-attention over the tokens [e; v] of a scene's sources, read out by a learned [cls] token and two heads.

    Sources are a set: no position enters, so their order changes nothing. A last layer computes the [cls] token only,
    since nothing else is read.

    A source of audio has v = 0, a token left out under classifier-free guidance is all zeros; both stay zero under
    ``input_scaling``. A scene without a valid slot is no error here: it is mixed from [cls] alone.

    Args:
        manifold_width: M, width of e (768).
        visual_width: V, width of v (768 for CLIP ViT-L/14).
        audio_width: A, width of the mixed embedding (512 for CLAP).
        width: D.
        num_layers: attention blocks, at least 1 (the paper's best).
        num_heads: attention heads, a divisor of ``width``.
        head_widths: hidden layers of both heads; with ``audio_width`` at their end, the paper's [768, 640, 512]. The
            released weights have [768].
        expansion: hidden width of a block's feed-forward network over ``width``.
        dropout: probability of zeroing a hidden unit, in [0, 1).
        token_dropout: probability of zeroing a token in training (classifier-free guidance), in [0, 1).
        token_dropout_mode: ``whole`` zeroes e and v of a source together; ``parts``, as published, each on its own.
        conditions: parts of the tokens that are used (Table 3); the other part is zero. It may be changed after
            training, ``remixer.conditions = "manifold"``.
        input_scaling: bring e and v to unit variance (L2-normalised, then times the root of their width); ``False``
            takes them as they are, as the released weights want it.
        unit_mean: L2-normalise the Gaussian's mean, so that training cannot shrink the noise beside it.
        initial_log_variance: log-variance of every output before training.
        mask_padding: leave invalid slots out of attention. ``False``, as published: scenes are padded to
            ``max_slots`` with zero slots, and all of them are attended to.
        max_slots: slots that a scene may have.
        variant: ``paper``: one [cls] token, heads of Linear, ELU and dropout. ``published``: blocks of the released
            weights (see ``AttentionBlock``), a summary token for each head, heads of Linear, LayerNorm, dropout, GELU.

    Raises:
        ValueError: If an argument is out of range or unknown.

    Example:
        >>> import torch
        >>> from lightning_ss2a.models import Remixer
        >>> remixer = Remixer(768, 768, 512)
        >>> valid = torch.tensor([[True, True, False], [True, True, True]])
        >>> remixer(torch.randn(2, 3, 768), torch.randn(2, 3, 768), valid).sample().shape
        torch.Size([2, 512])
    """

    def __init__(
        self,
        manifold_width: int,
        visual_width: int,
        audio_width: int,
        width: int = 768,
        num_layers: int = 1,
        num_heads: int = 8,
        head_widths: Sequence[int] = HEAD_WIDTHS,
        expansion: int = 1,
        dropout: float = 0.2,
        token_dropout: float = 0.2,
        token_dropout_mode: TokenDropout = "whole",
        conditions: Conditions = "manifold+visual",
        input_scaling: bool = True,
        unit_mean: bool = False,
        initial_log_variance: float = -4.0,
        mask_padding: bool = True,
        max_slots: int = MAX_SLOTS,
        variant: Variant = "paper",
    ) -> None:
        check_sizes(manifold_width=manifold_width, visual_width=visual_width, max_slots=max_slots)
        if not 0 <= token_dropout < 1:
            raise ValueError(f"token_dropout must be in [0, 1), got {token_dropout}")
        _check_choice("token_dropout_mode", token_dropout_mode, TokenDropout)
        super().__init__(
            input_width=manifold_width + visual_width,
            audio_width=audio_width,
            width=width,
            num_layers=num_layers,
            num_heads=num_heads,
            head_widths=head_widths,
            expansion=expansion,
            dropout=dropout,
            unit_mean=unit_mean,
            initial_log_variance=initial_log_variance,
            variant=variant,
        )
        self.manifold_width, self.visual_width = manifold_width, visual_width
        self.token_dropout, self.token_dropout_mode = token_dropout, token_dropout_mode
        self.conditions = conditions
        self.input_scaling = input_scaling
        self.mask_padding, self.max_slots = mask_padding, max_slots

    @property
    def conditions(self) -> Conditions:
        """Parts of the tokens that are used."""
        return self._conditions

    @conditions.setter
    def conditions(self, conditions: Conditions) -> None:
        _check_choice("conditions", conditions, Conditions)
        self._conditions = conditions

    def forward(self, manifold_tokens: Tensor, visual_tokens: Tensor, valid: Tensor) -> DiagonalGaussian:
        """Mix each scene's sources.

        A sample of the Gaussian is not a unit vector: L2-normalise what ``sample`` returns, as CLAP's embeddings are.

        Args:
            manifold_tokens: e of each slot, ``[B, S, M]``.
            visual_tokens: v of each slot, ``[B, S, V]``; zero for a source of audio.
            valid: which slots hold a source, bool ``[B, S]``. Others may hold anything. NaN in a valid slot makes its
                own scene NaN and no other.

        Returns:
            Gaussian of the mixed audio embedding, ``[B, A]``.

        Raises:
            ValueError: If there are more than ``max_slots`` slots, or shapes or the mask's dtype do not fit.
        """
        self.check_inputs(manifold_tokens, visual_tokens, valid)
        return self.mix(*self.encode(*self.pad(manifold_tokens, visual_tokens, valid)))

    def attention_weights(self, manifold_tokens: Tensor, visual_tokens: Tensor, valid: Tensor) -> Tensor:
        """How much of each source the [cls] token takes in the last layer, mean over heads; for figures.

        Args:
            manifold_tokens: as in ``forward``, ``[B, S, M]``.
            visual_tokens: as in ``forward``, ``[B, S, V]``.
            valid: as in ``forward``, bool ``[B, S]``.

        Returns:
            Weights, ``[B, S]``, 0 for invalid slots. What a scene's weights lack to 1 is the share of [cls] itself;
            under ``published`` they are those of the token that feeds the mean head and have no fixed sum (see
            ``EfficientAttention.weights``). They are the last layer's alone: with more layers a token already holds
            something of all sources.

        Raises:
            ValueError: As ``forward`` does.
        """
        self.check_inputs(manifold_tokens, visual_tokens, valid)
        weights = self.summary_weights(*self.encode(*self.pad(manifold_tokens, visual_tokens, valid)))
        # Padding that is attended to has a weight, but is no source.
        return weights[:, : valid.shape[1]].masked_fill(~valid, 0)

    def check_inputs(self, manifold_tokens: Tensor, visual_tokens: Tensor, valid: Tensor) -> None:
        """Raise ValueError if the inputs of ``forward`` have wrong shapes, dtype or too many slots."""
        if valid.ndim != 2 or valid.dtype != torch.bool:
            raise ValueError(f"valid must be a bool mask [scenes, slots], got {valid.dtype} {tuple(valid.shape)}")
        for name, tokens, width in (
            ("manifold_tokens", manifold_tokens, self.manifold_width),
            ("visual_tokens", visual_tokens, self.visual_width),
        ):
            expected = (*valid.shape, width)
            if tokens.shape != expected:
                raise ValueError(f"{name} must have shape {expected}, got {tuple(tokens.shape)}")
        if valid.shape[1] > self.max_slots:
            raise ValueError(
                f"a scene has {valid.shape[1]} slots, at most {self.max_slots} (max_slots): choose which sources to mix"
            )

    def pad(self, manifold_tokens: Tensor, visual_tokens: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same slots and, where padding is attended to, empty ones up to ``max_slots``."""
        missing = 0 if self.mask_padding else max(0, self.max_slots - valid.shape[1])
        if not missing:
            return manifold_tokens, visual_tokens, valid
        rows = (0, 0, 0, missing)
        return F.pad(manifold_tokens, rows), F.pad(visual_tokens, rows), F.pad(valid, (0, missing))

    def encode(self, manifold_tokens: Tensor, visual_tokens: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens ``[B, S, D]`` before attention, and which of them are attended to, bool ``[B, S]``; slot by slot."""
        parts = [tokens.masked_fill(~valid.unsqueeze(-1), 0) for tokens in (manifold_tokens, visual_tokens)]
        parts = self._drop(parts)
        used = (self.conditions != "visual", self.conditions != "manifold")
        parts = [part if keep else torch.zeros_like(part) for part, keep in zip(parts, used, strict=True)]
        if self.input_scaling:
            parts = [unit_variance(part) for part in parts]
        return self.input(torch.cat(parts, dim=-1)), valid if self.mask_padding else torch.ones_like(valid)

    def _drop(self, parts: list[Tensor]) -> list[Tensor]:
        """Zero tokens at random while training."""
        if not self.training or not self.token_dropout:
            return parts
        masks = [torch.rand_like(part[..., :1]) >= self.token_dropout for part in parts]
        if self.token_dropout_mode == "whole":
            masks = [masks[0]] * len(parts)
        return [part * mask for part, mask in zip(parts, masks, strict=True)]


def _check_choice(name: str, value: str, choices: object) -> None:
    names = get_args(choices)
    if value not in names:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, names))}, got {value!r}")
