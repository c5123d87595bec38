"""V2A-Mapper, the paper's main rival: one global CLIP embedding to one CLAP embedding, by regression or by diffusion.

Shapes: ... any leading dimensions, B rows, V visual width, A audio width, T steps of sampling.
Source: Wang et al., "V2A-Mapper" (AAAI 2024, arXiv 2308.09300). Theirs: a regression and a generative mapper, trained
between frozen CLIP and CLAP on the mean squared error, the second a diffusion prior like DALL-E 2's (Ramesh et al.,
arXiv 2204.06125, section 2.2). No code was released and we know no sizes of theirs: where DALL-E 2's are not named
below, a number is our choice.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_ss2a.errors import InputError
from lightning_ss2a.models.layers.embeddings import check_sizes, unit_variance
from lightning_ss2a.models.layers.residual_mlp import ResidualMLP
from lightning_ss2a.options import OptionCheck


@dataclass(frozen=True)
class RegressionMapperOptions:
    """Architecture of a ``RegressionMapper``; the sizes are ours.

    Args:
        hidden_widths: layers of the trunk, see ``ResidualMLP``.
        dropout: probability of zeroing a unit, in [0, 1).
    """

    hidden_widths: tuple[int, ...] = (1024, 1024, 1024, 1024)
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check = OptionCheck("model.regression")
        check.widths(hidden_widths=self.hidden_widths)
        check.probability(dropout=self.dropout)

    def architecture(self) -> "RegressionMapperOptions":
        """Returns the same, without what has no part in trained weights."""
        return replace(self, dropout=0.0)


class RegressionMapper(nn.Module):
    """``ResidualMLP`` and a Linear from visual to audio embeddings.

    Inputs are brought to unit variance. Outputs have any norm: an error of unit vectors (theirs) or of directions
    (``cosine_distance_loss``) trains it.

    Args:
        visual_width: V (768 for CLIP ViT-L/14).
        audio_width: A (512 for CLAP).
        options: architecture.

    Raises:
        ValueError: If a width is not positive.

    Example:
        >>> import torch
        >>> from lightning_ss2a.models import RegressionMapper
        >>> RegressionMapper(768, 512)(torch.randn(4, 768)).shape
        torch.Size([4, 512])
    """

    def __init__(
        self,
        visual_width: int,
        audio_width: int,
        options: RegressionMapperOptions = RegressionMapperOptions(),
    ) -> None:
        super().__init__()
        check_sizes(visual_width=visual_width, audio_width=audio_width)
        self.visual_width, self.options = visual_width, options
        self.trunk = ResidualMLP(visual_width, options.hidden_widths, options.dropout)
        self.output = nn.Linear(options.hidden_widths[-1], audio_width)

    def forward(self, visual: Tensor) -> Tensor:
        """Maps visual embeddings to audio embeddings.

        Args:
            visual: ``[..., V]``.

        Returns:
            Embeddings of any norm, ``[..., A]``.

        Raises:
            ValueError: If the visual's width is another.
        """
        if visual.shape[-1] != self.visual_width:
            raise ValueError(f"visual has width {visual.shape[-1]}, expected {self.visual_width}")
        return self.output(self.trunk(unit_variance(visual)))


@dataclass(frozen=True)
class DiffusionMapperOptions:
    """Architecture of a ``DiffusionMapper``, and how it is sampled; the sizes are ours.

    Args:
        num_layers: transformer blocks. The default sizes make 49.6M parameters, about what is left of the 229M that
            later comparisons give for all of V2A-Mapper when AudioLDM-S (181M) is taken off.
        num_heads: attention heads.
        head_width: width of a head; all heads together are as wide as the transformer.
        train_steps: steps of the noise schedule (DALL-E 2's), at least 2.
        sample_steps: steps T of sampling (DALL-E 2's number), at most ``train_steps``. With an exact
            denoiser Gaussian data of std 0.1 to 1 keep their spread within 6 % in 16 steps, 0.3 % in 64.
        condition_dropout: share of the visuals left out in training (DALL-E 2's), in [0, 1).
        guidance_scale: γ of sampling's prediction, without visual + γ (with visual - without), at least 0; 1 asks the
            transformer once a step. Another needs ``condition_dropout``.
        dropout: probability of zeroing a unit, in [0, 1).
    """

    num_layers: int = 12
    num_heads: int = 9
    head_width: int = 64
    train_steps: int = 1000
    sample_steps: int = 64
    condition_dropout: float = 0.1
    guidance_scale: float = 1.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check = OptionCheck("model.diffusion")
        check.at_least(1, num_layers=self.num_layers, num_heads=self.num_heads, head_width=self.head_width)
        check.at_least(2, train_steps=self.train_steps)
        check.probability(condition_dropout=self.condition_dropout, dropout=self.dropout)
        check.at_least(0, guidance_scale=self.guidance_scale)
        if self.guidance_scale != 1 and self.condition_dropout == 0:
            raise InputError(
                f"model.diffusion.guidance_scale={self.guidance_scale} needs visuals left out in training: set "
                "model.diffusion.condition_dropout"
            )
        if not 1 <= self.sample_steps <= self.train_steps:
            raise InputError(
                f"model.diffusion.sample_steps must be between 1 and train_steps={self.train_steps}, "
                f"found {self.sample_steps}"
            )

    def architecture(self) -> "DiffusionMapperOptions":
        """Returns the same, without what has no part in trained weights."""
        return replace(self, dropout=0.0, sample_steps=1, condition_dropout=0.1, guidance_scale=1.0)


class DiffusionMapper(nn.Module):
    """Diffusion prior over audio embeddings: a transformer that denoises them, told the visual embedding.

    Its four tokens are the visual embedding, the time step, the noised audio embedding and a learned query, whose
    output is the predicted clean embedding (all as in DALL-E 2's prior, which has text tokens besides, and so has its
    cosine schedule). Attention is not causal: the query comes last and sees the others either way.

    Audio embeddings are L2-normalised and multiplied by the root of their width, so that a coordinate's mean square is
    1, like the noise's; the visual is scaled alike. A visual left out (classifier-free guidance) is all zeros. These
    are our choices.

    Args:
        visual_width: V (768 for CLIP ViT-L/14).
        audio_width: A (512 for CLAP).
        options: architecture and sampling.

    Raises:
        ValueError: If a width is not positive.

    Example:
        >>> import torch
        >>> from lightning_ss2a.models import DiffusionMapper, DiffusionMapperOptions
        >>> mapper = DiffusionMapper(768, 512, DiffusionMapperOptions(num_layers=1, num_heads=2, sample_steps=2))
        >>> mapper.denoising_loss(torch.randn(4, 768), torch.randn(4, 512)).shape
        torch.Size([])
        >>> mapper.sample(torch.randn(4, 768)).norm(dim=1).round(decimals=3)
        tensor([1., 1., 1., 1.])
    """

    def __init__(
        self, visual_width: int, audio_width: int, options: DiffusionMapperOptions = DiffusionMapperOptions()
    ) -> None:
        super().__init__()
        check_sizes(visual_width=visual_width, audio_width=audio_width)
        self.visual_width, self.audio_width, self.options = visual_width, audio_width, options
        self.transformer: Any = _transformer(visual_width, audio_width, options)
        self.scheduler = _scheduler(options.train_steps)

    def denoising_loss(
        self, visual: Tensor, audio: Tensor, noise: Tensor | None = None, timesteps: Tensor | None = None
    ) -> Tensor:
        """Computes the mean squared error of the predicted clean embedding, in float32 or wider, also under autocast.

        The audio has unit variance here, so predicting nothing at all costs 1.

        Args:
            visual: visual embeddings, ``[B, V]``, any norm.
            audio: audio embeddings, ``[B, A]``, any norm.
            noise: standard normal, ``[B, A]``; drawn by default.
            timesteps: steps of the schedule, integers in [0, ``train_steps``), ``[B]``; drawn evenly by default.

        Returns:
            The loss, a scalar.

        Raises:
            ValueError: If a shape is wrong.
        """
        _check_shape("visual", visual, len(visual), self.visual_width)
        _check_shape("audio", audio, len(visual), self.audio_width)
        clean = unit_variance(_wide(audio))
        noise = torch.randn_like(clean) if noise is None else noise.to(clean)
        if timesteps is None:
            timesteps = torch.randint(self.options.train_steps, (len(clean),), device=clean.device)
        timesteps = timesteps.to(clean.device)
        _check_shape("noise", noise, *clean.shape)
        _check_shape("timesteps", timesteps, len(clean))
        noised = self.scheduler.add_noise(clean, noise, timesteps)
        return F.mse_loss(self._denoise(noised, timesteps, self._some_left_out(_condition(visual))), clean)

    @torch.no_grad()
    def sample(self, visual: Tensor, noise: Tensor | None = None) -> Tensor:
        """Draws an audio embedding for each visual, without gradients and without dropout.

        DPM-Solver++ (2M) (Lu et al., arXiv 2211.01095, Algorithm 2) on T = ``sample_steps`` steps of the schedule. Few
        steps of ancestral sampling (Ho et al. 2020) spread too little, since what a step adds leaves out what the
        prediction does not know: of Gaussian data of std 0.5, 16 steps gave 0.42. A row depends on its own visual and
        noise alone. The predicted embedding is kept within the ball on whose surface audio embeddings lie, where every
        mean of them is; guidance may leave it.

        Args:
            visual: visual embeddings, ``[B, V]``, any norm.
            noise: the start, all of the randomness, standard normal, ``[B, A]``; drawn by default.

        Returns:
            Unit vectors, ``[B, A]``.

        Raises:
            ValueError: If a shape is wrong.
        """
        _check_shape("visual", visual, len(visual), self.visual_width)
        condition = _condition(visual)
        if noise is None:
            noise = torch.randn(len(visual), self.audio_width, device=visual.device)
        _check_shape("noise", noise, len(visual), self.audio_width)
        training = self.transformer.training
        self.transformer.eval()
        try:
            sample = self._reverse(condition, noise.to(condition))
        finally:
            self.transformer.train(training)
        return F.normalize(sample, dim=-1)

    def _reverse(self, condition: Tensor, sample: Tensor) -> Tensor:
        """Follows the chain from noise to a clean embedding of unit variance, ``[B, A]``."""
        previous = sample
        steps = _chain(self.scheduler.alphas_cumprod, self.options.sample_steps)
        for timestep, sample_weight, clean_weight, ahead in steps:
            timesteps = torch.full((len(sample),), timestep, device=sample.device)
            clean = _into_ball(self._guided(sample, timesteps, condition), self.audio_width**0.5)
            sample = sample_weight * sample + clean_weight * (clean + ahead * (clean - previous))
            previous = clean
        return sample

    def _guided(self, noised: Tensor, timesteps: Tensor, condition: Tensor) -> Tensor:
        """Predicts the clean embedding under ``guidance_scale``, ``[B, A]``."""
        if self.options.guidance_scale == 1:
            return self._denoise(noised, timesteps, condition)
        conditions = torch.cat([condition, torch.zeros_like(condition)])
        told, untold = self._denoise(noised.repeat(2, 1), timesteps.repeat(2), conditions).chunk(2)
        return untold + self.options.guidance_scale * (told - untold)

    def _denoise(self, noised: Tensor, timesteps: Tensor, condition: Tensor) -> Tensor:
        """Returns what the transformer predicts, ``[B, A]``, in the precision of ``noised``."""
        dtype = self.transformer.dtype
        (clean,) = self.transformer(noised.to(dtype), timesteps, condition.to(dtype), return_dict=False)
        return clean.to(noised.dtype)

    def _some_left_out(self, condition: Tensor) -> Tensor:
        if not self.training or self.options.condition_dropout == 0:
            return condition
        left_out = torch.rand(len(condition), 1, device=condition.device) < self.options.condition_dropout
        return condition.masked_fill(left_out, 0)


def _transformer(visual_width: int, audio_width: int, options: DiffusionMapperOptions) -> nn.Module:
    """Makes diffusers' prior without text: no text tokens among its positions, no layer that would project them."""
    from diffusers import PriorTransformer  # takes seconds to import, and only this model needs it

    transformer: Any = PriorTransformer(
        num_attention_heads=options.num_heads,
        attention_head_dim=options.head_width,
        num_layers=options.num_layers,
        embedding_dim=audio_width,
        embedding_proj_dim=visual_width,
        clip_embed_dim=audio_width,
        num_embeddings=0,
        additional_embeddings=4,
        encoder_hid_proj_type=None,
        dropout=options.dropout,
    )
    # Statistics of Karlo's embeddings, kept as parameters: forward never reads them, so they would get no gradient.
    del transformer.clip_mean, transformer.clip_std
    return transformer


def _scheduler(train_steps: int) -> Any:
    """Makes the cosine schedule. Not a module: its table stays in float32 when the model is cast to less."""
    from diffusers import UnCLIPScheduler

    return UnCLIPScheduler(num_train_timesteps=train_steps, clip_sample=False, prediction_type="sample")


def _chain(alphas: Tensor, steps: int) -> Iterator[tuple[int, float, float, float]]:
    """Yields the steps of DPM-Solver++ (2M), from noisy to clean.

    Each is the time step, the weights of the current sample and of the predicted clean one, and how far ahead of this
    prediction its change since the last is followed: not at the first step, which has no last, nor at the last, where
    the signal-to-noise ratio becomes infinite.
    """
    alphas = alphas.cpu().double()
    timesteps = _spaced_timesteps(len(alphas), steps)
    levels = [*alphas[timesteps].tolist(), 1.0]
    last_stride = math.inf
    for timestep, level, cleaner in zip(timesteps.tolist(), levels, levels[1:], strict=False):
        stride = _half_log_snr(cleaner) - _half_log_snr(level)
        sample_weight = ((1 - cleaner) / (1 - level)) ** 0.5
        clean_weight = cleaner**0.5 - sample_weight * level**0.5
        yield timestep, sample_weight, clean_weight, 0.0 if cleaner == 1 else stride / last_stride / 2
        last_stride = stride


def _spaced_timesteps(train_steps: int, steps: int) -> Tensor:
    """Spaces time steps quadratically, as Song et al. do (arXiv 2010.02502, D.2): dense where little noise is left.

    Evenly spaced ones go from the last noise to clean in too long a stride for what varies little.

    Returns:
        Different integers, falling from ``train_steps`` - 1 to 0, ``[steps]``.
    """
    quadratic = torch.linspace(1, 0, steps, dtype=torch.double).square().mul(train_steps - 1).round().long()
    return torch.maximum(quadratic, torch.arange(steps - 1, -1, -1))


def _half_log_snr(level: float) -> float:
    """Computes λ = log(α / σ) from ᾱ = α²."""
    return 0.5 * math.log(level / (1 - level)) if level < 1 else math.inf


def _condition(visual: Tensor) -> Tensor:
    return unit_variance(_wide(visual))


def _wide(embeddings: Tensor) -> Tensor:
    """Returns the same in float32 or wider."""
    return embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))


def _into_ball(rows: Tensor, radius: float) -> Tensor:
    """Shortens rows that are longer than the radius to it."""
    return rows * (radius / rows.norm(dim=-1, keepdim=True).clamp(min=radius))


def _check_shape(name: str, tensor: Tensor, *shape: int) -> None:
    if tensor.shape != shape:
        raise ValueError(f"{name} must have shape {list(shape)}, got {list(tensor.shape)}")
