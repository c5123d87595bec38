"""The Sound Source Remixer ψ: tokens of a scene's sources to the Gaussian of one mixed audio embedding (Eq. 8).

Shapes: B scenes, S slots, M manifold width, V visual width, A audio width, D width of the tokens.
Paper: "Sound Source Remixer" and supplement 2.3; sizes from the published configuration.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_ss2a.errors import InputError
from lightning_ss2a.models.layers.attentive_readout import AttentiveReadout, ReadoutOptions
from lightning_ss2a.models.layers.embeddings import check_sizes, unit_variance
from lightning_ss2a.models.layers.gaussian import DiagonalGaussian
from lightning_ss2a.options import OptionCheck

Conditions = Literal["manifold+visual", "manifold", "visual"]
TokenDropout = Literal["whole", "parts"]
Residual = Literal["none", "mean", "weighted_mean"]


@dataclass(frozen=True)
class RemixerOptions(ReadoutOptions):
    """Architecture of a ``Remixer``, and how its tokens are used.

    Args:
        token_dropout: probability of zeroing a token in training (classifier-free guidance), in [0, 1).
        token_dropout_mode: ``whole`` zeroes e and v of a source together; ``parts``, as published, each on its own.
        conditions: parts of the tokens that are used (Table 3); the other part is zero. A trained Remixer's may be
            changed too: ``remixer.options = replace(remixer.options, conditions="manifold")``.
        mask_padding: leave invalid slots out of attention. False, as published: scenes are padded to ``max_slots``
            with zero slots, and all of them are attended to; ``RemixerModule`` gives these the e that published
            scenes of pictures have there, υ(0) (see ``source_slots.fill_slots``).
        max_slots: slots that a scene may have, that of the global embedding included.
        residual: what the mean head's output is added to. ``none``, as in the paper and the released weights.
            ``mean``: the weighted mean of the sources' unit χ(e_m), brought to unit variance; the head's last layer
            starts at zero, so that training starts from that mean and learns what to change about it.
            ``weighted_mean``: the same, but each weight is multiplied by exp of a score that is read off the source's
            token: how loud it looks. Scores start at zero, so that training starts from the mean, too.
    """

    GROUP: ClassVar = "model.remixer"

    token_dropout: float = 0.2
    token_dropout_mode: TokenDropout = "whole"
    conditions: Conditions = "manifold+visual"
    mask_padding: bool = True
    max_slots: int = 64
    residual: Residual = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        check = OptionCheck(self.GROUP)
        check.at_least(1, max_slots=self.max_slots)
        check.probability(token_dropout=self.token_dropout)
        check.one_of(get_args(TokenDropout), token_dropout_mode=self.token_dropout_mode)
        check.one_of(get_args(Conditions), conditions=self.conditions)
        check.one_of(get_args(Residual), residual=self.residual)
        if self.residual != "none" and self.conditions == "visual":
            raise InputError(
                f"{self.GROUP}.residual={self.residual} is made of e, which {self.GROUP}.conditions=visual leaves out: "
                "choose one"
            )

    def architecture(self) -> "RemixerOptions":
        """Returns the same, without what has no part in trained weights."""
        trained = replace(super().architecture(), token_dropout=0.0, token_dropout_mode="whole")
        return replace(trained, conditions="manifold+visual", max_slots=64)


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
        options: architecture; by default the paper's.

    Raises:
        ValueError: If a width is not positive.

    Example:
        >>> import torch
        >>> from lightning_ss2a.models import Remixer
        >>> remixer = Remixer(768, 768, 512)
        >>> valid = torch.tensor([[True, True, False], [True, True, True]])
        >>> remixer(torch.randn(2, 3, 768), torch.randn(2, 3, 768), valid).sample().shape
        torch.Size([2, 512])
    """

    def __init__(
        self, manifold_width: int, visual_width: int, audio_width: int, options: RemixerOptions = RemixerOptions()
    ) -> None:
        check_sizes(manifold_width=manifold_width, visual_width=visual_width)
        super().__init__(manifold_width + visual_width, audio_width, options)
        self.manifold_width, self.visual_width, self.options = manifold_width, visual_width, options
        if options.residual != "none":
            last = self.mean_head[-1]
            assert isinstance(last, nn.Linear)
            _start_at_zero(last)
        if options.residual == "weighted_mean":
            self.loudness = _start_at_zero(nn.Linear(options.width, 1))

    def forward(
        self, manifold_tokens: Tensor, visual_tokens: Tensor, valid: Tensor, source_audio: Tensor | None = None
    ) -> DiagonalGaussian:
        """Mixes each scene's sources.

        A sample of the Gaussian is not a unit vector: L2-normalise what ``sample`` returns, as CLAP's embeddings are.

        Args:
            manifold_tokens: e of each slot, ``[B, S, M]``.
            visual_tokens: v of each slot, ``[B, S, V]``; zero for a source of audio.
            valid: which slots hold a source, bool ``[B, S]``. Others may hold anything. NaN in a valid slot makes its
                own scene NaN and no other.
            source_audio: unit χ(e_m) of each slot times its weight, ``[B, S, A]``, zero where there is none; with a
                residual alone (see ``source_slots.source_audio``).

        Returns:
            Gaussian of the mixed audio embedding, ``[B, A]``.

        Raises:
            ValueError: If there are more than ``max_slots`` slots, shapes or the mask's dtype do not fit, or
                ``source_audio`` is given without being needed or the other way round.
        """
        self.check_inputs(manifold_tokens, visual_tokens, valid)
        tokens, attended = self.encode(*self.pad(manifold_tokens, visual_tokens, valid))
        return self.mix(tokens, attended, self.start(source_audio, tokens))

    def start(self, source_audio: Tensor | None, tokens: Tensor) -> Tensor | None:
        """Makes what the mean head's output is added to, ``[B, A]``; None without a residual.

        At unit variance, since the noise of a draw, exp(-2) a dimension before training, would drown a unit vector.

        Args:
            source_audio: as in ``forward``, of all slots or the first.
            tokens: of all slots before attention, ``[B, S, D]``.

        Raises:
            ValueError: As ``forward`` does.
        """
        residual = self.options.residual
        if residual == "none":
            if source_audio is not None:
                raise ValueError("source_audio is of no use to a Remixer without a residual")
            return None
        expected = (*tokens.shape[:2], self.audio_width)
        found = () if source_audio is None else tuple(source_audio.shape)
        if source_audio is None or found[::2] != expected[::2] or len(found) != 3 or found[1] > expected[1]:
            raise ValueError(f"residual {residual!r} needs source_audio of shape {expected}, got {found or None}")
        if residual == "weighted_mean":
            score = self.loudness(F.elu(tokens[:, : source_audio.shape[1]])).squeeze(-1)
            score = score.masked_fill(~source_audio.any(-1), torch.finfo(score.dtype).min)
            source_audio = source_audio * score.softmax(1).unsqueeze(-1)
        return unit_variance(source_audio.sum(1))

    def attention_weights(self, manifold_tokens: Tensor, visual_tokens: Tensor, valid: Tensor) -> Tensor:
        """Tells how much of each source the [cls] token takes in the last layer, mean over heads; for figures.

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
        """Raises ValueError if the inputs of ``forward`` have wrong shapes, dtype or too many slots."""
        if valid.ndim != 2 or valid.dtype != torch.bool:
            raise ValueError(f"valid must be a bool mask [scenes, slots], got {valid.dtype} {tuple(valid.shape)}")
        for name, tokens, width in (
            ("manifold_tokens", manifold_tokens, self.manifold_width),
            ("visual_tokens", visual_tokens, self.visual_width),
        ):
            expected = (*valid.shape, width)
            if tokens.shape != expected:
                raise ValueError(f"{name} must have shape {expected}, got {tuple(tokens.shape)}")
        if valid.shape[1] > self.options.max_slots:
            raise ValueError(
                f"a scene has {valid.shape[1]} slots, at most {self.options.max_slots} (max_slots): "
                "choose which sources to mix"
            )

    def pad(self, manifold_tokens: Tensor, visual_tokens: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the same slots and, where padding is attended to, empty ones up to ``max_slots``."""
        missing = 0 if self.options.mask_padding else max(0, self.options.max_slots - valid.shape[1])
        if not missing:
            return manifold_tokens, visual_tokens, valid
        rows = (0, 0, 0, missing)
        return F.pad(manifold_tokens, rows), F.pad(visual_tokens, rows), F.pad(valid, (0, missing))

    def encode(self, manifold_tokens: Tensor, visual_tokens: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Makes tokens before attention, ``[B, S, D]``; tells which are attended to, bool ``[B, S]``; slot by slot."""
        parts = [tokens.masked_fill(~valid.unsqueeze(-1), 0) for tokens in (manifold_tokens, visual_tokens)]
        parts = self._drop(parts)
        used = (self.options.conditions != "visual", self.options.conditions != "manifold")
        parts = [part if keep else torch.zeros_like(part) for part, keep in zip(parts, used, strict=True)]
        if self.options.input_scaling:
            parts = [unit_variance(part) for part in parts]
        return self.input(torch.cat(parts, dim=-1)), valid if self.options.mask_padding else torch.ones_like(valid)

    def _drop(self, parts: list[Tensor]) -> list[Tensor]:
        """Zeroes tokens at random while training."""
        if not self.training or not self.options.token_dropout:
            return parts
        masks = [torch.rand_like(part[..., :1]) >= self.options.token_dropout for part in parts]
        if self.options.token_dropout_mode == "whole":
            masks = [masks[0]] * len(parts)
        return [part * mask for part, mask in zip(parts, masks, strict=True)]


def _start_at_zero(layer: nn.Linear) -> nn.Linear:
    """Sets a layer's weights to zero; returns it."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
