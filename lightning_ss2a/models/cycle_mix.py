"""Cycle Mix: draw mixtures, keep the one closest to all sources, let it condition the next draws (Algorithm 1).

Shapes: B scenes, S slots, N draws an iteration, T iterations, M manifold width, V visual width, A audio width.
Paper: "Cycle Mix" and Algorithm 1 of supplement 2.3.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_ss2a.errors import InputError
from lightning_ss2a.models.layers.gaussian import DiagonalGaussian
from lightning_ss2a.models.layers.keyed_noise import keyed_generator
from lightning_ss2a.models.manifold import Manifold
from lightning_ss2a.models.remixer import Remixer
from lightning_ss2a.models.remixer_cache import RemixerCache
from lightning_ss2a.options import OptionCheck

Score = Literal["mean", "min", "std"]
Feedback = Literal["append", "replace"]
Proposal = Literal["draws", "optimum"]


@dataclass(frozen=True)
class CycleMixOptions:
    """Options of Cycle Mix.

    Args:
        iterations: T of Algorithm 1, at least 1; the published code runs one more than it is told.
        samples: N of Algorithm 1, draws an iteration, at least 1.
        score: ``mean`` of a draw's cosines to the sources, as in the paper; it ranks draws as the cosine to the
            weighted mean of the unit χ(e_m) does. ``min``: the cosine of the worst source, so that none is forgotten.
            ``std``, as published: their standard deviation, lower is better; slots of weight 0 count as cosine 0.
        feedback: ``append`` the best draw as one more source, beyond the Remixer's ``max_slots`` if need be, or, as
            published, ``replace`` the e of slot 0, where the scene's global embedding is.
        var_samples: draws averaged into one sample before its normalisation, in closed form; the paper takes 1, the
            published code 64.
        feedback_samples: condition on the mean of so many draws of φ(a_best); 0 takes its mean. As published 64.
        noise_scale: multiplies the Remixer's standard deviations, at least 0; smaller draws closer to its mean.
        proposal: what an iteration proposes. ``draws``, as in the paper. ``optimum``: the direction that the score
            ``mean`` is largest for, known in closed form, the normalised weighted mean of the unit χ(e_m), as far as
            ``trust_radius`` allows; nothing is drawn.
        trust_radius: how far from its mean, in standard deviations a dimension (root of the mean square), the Gaussian
            is followed to the optimum, at least 0. Draws lie at about 1; 0 is the mean, null the optimum itself,
            whatever the Remixer says.
    """

    iterations: int = 64
    samples: int = 64
    score: Score = "mean"
    feedback: Feedback = "append"
    var_samples: int = 1
    feedback_samples: int = 0
    noise_scale: float = 1.0
    proposal: Proposal = "draws"
    trust_radius: float | None = None

    def __post_init__(self) -> None:
        check = OptionCheck("model.cycle_mix")
        check.at_least(1, iterations=self.iterations, samples=self.samples, var_samples=self.var_samples)
        check.at_least(0, feedback_samples=self.feedback_samples, noise_scale=self.noise_scale)
        check.at_least(0, trust_radius=self.trust_radius)
        check.one_of(get_args(Score), score=self.score)
        check.one_of(get_args(Feedback), feedback=self.feedback)
        check.one_of(get_args(Proposal), proposal=self.proposal)
        if self.proposal == "optimum" and self.score != "mean":
            raise InputError(
                f"model.cycle_mix.proposal=optimum is known for model.cycle_mix.score=mean alone, found {self.score!r}"
            )


@dataclass(frozen=True)
class CycleMixResult:
    """What Cycle Mix found in each scene.

    Attributes:
        embedding: best draw, unit vectors, ``[B, A]``.
        score: its score, ``[B]``.
        history: best score after each iteration, ``[B, T]``; never falls (never rises for ``score="std"``). Its first
            k columns are the history of a run of k iterations.
    """

    embedding: Tensor
    score: Tensor
    history: Tensor


@torch.no_grad()
def cycle_mix(
    remixer: Remixer,
    manifold: Manifold,
    manifold_tokens: Tensor,
    visual_tokens: Tensor,
    valid: Tensor,
    scene_keys: Sequence[str | bytes | int],
    *,
    options: CycleMixOptions = CycleMixOptions(),
    seed: int = 0,
    slot_weights: Tensor | None = None,
    source_audio: Tensor | None = None,
) -> CycleMixResult:
    """Mixes each scene by Algorithm 1.

    Every iteration draws N embeddings a_n from ψ(x_1 .. x_M+1), scores each by its cosines to χ(e_m), and if the best
    beats the scene's best so far, keeps it and sets x_M+1 = [φ(a_best); 0]. χ(e_m) does not change between iterations
    and ψ changes only with x_M+1, so the first is computed once and the second after an improvement only. χ and φ are
    taken at their means. Algorithm 1 starts from a score of 0 and returns nothing if no draw is above; here the first
    best draw is always kept.

    Randomness: each scene has a generator of its own, seeded by ``seed`` and its key alone, on the tokens' device. It
    is read N x A normals an iteration and, with ``feedback_samples``, M more after an improvement. So a scene's result
    depends neither on the other scenes nor on padding or the order of its sources (up to rounding).

    Args:
        remixer: ψ, in evaluation mode.
        manifold: φ and χ, in evaluation mode.
        manifold_tokens: e of each slot, ``[B, S, M]``.
        visual_tokens: v of each slot, ``[B, S, V]``; zero for a source of audio.
        valid: which slots hold a source, bool ``[B, S]``. Others may hold anything.
        scene_keys: what each scene is called, B of them; scenes of one key share their noise.
        options: T, N and the rest; by default the paper's.
        seed: changes the noise of all scenes.
        slot_weights: weight of each slot in the score, at least 0, ``[B, S]``; by default 1 for valid slots, but 0 for
            slot 0 with ``replace``. For ``min`` and ``std`` only zero or not matters. A global embedding beside the
            sources gets 0 here.
        source_audio: as ``Remixer`` takes it, ``[B, S, A]``.

    Returns:
        Best embedding, its score and the history of the best score, all at least float32.

    Raises:
        ValueError: If shapes do not fit (see ``Remixer``), a module is in training mode, a
            scene has no source to be scored against or a NaN or infinity in a valid slot.
    """
    _check_modules(remixer, manifold)
    remixer.check_inputs(manifold_tokens, visual_tokens, valid)
    _check_scenes(manifold_tokens, visual_tokens, valid, scene_keys, options.feedback)
    dtype = torch.promote_types(manifold_tokens.dtype, torch.float32)
    weights = _slot_weights(slot_weights, valid, scene_keys, options.feedback, dtype)
    sources = _sources(manifold, manifold_tokens, weights)
    generators = [keyed_generator(seed, key, valid.device) for key in scene_keys]
    mixer = _Mixer(remixer, manifold, (manifold_tokens, visual_tokens, valid), source_audio, options)
    optimum = _optimum(sources, weights)
    embedding = torch.full_like(mixer.mean, torch.nan)
    best = torch.full_like(mixer.mean[:, 0], -torch.inf)
    history, drawn = [], options.proposal == "draws"
    for iteration in range(options.iterations):
        draws = mixer.draw(options.samples, generators) if drawn else mixer.approach(optimum, options.trust_radius)
        merit, chosen = _merit(draws, sources, valid, weights, options.score).max(dim=1)
        improved = merit > best
        rows = improved.nonzero().squeeze(1)
        best = torch.where(improved, merit, best)
        history.append(best)
        embedding[rows] = F.normalize(draws[rows, chosen[rows]], dim=-1)
        if len(rows) and iteration + 1 < options.iterations:
            mixer.condition(rows, embedding[rows], options.feedback_samples, generators)
    sign = -1 if options.score == "std" else 1
    return CycleMixResult(embedding, sign * best, sign * torch.stack(history, dim=1))


class _Mixer:
    """The Gaussians of all scenes, and how a scene's best draw conditions its own."""

    def __init__(
        self,
        remixer: Remixer,
        manifold: Manifold,
        slots: tuple[Tensor, Tensor, Tensor],
        source_audio: Tensor | None,
        options: CycleMixOptions,
    ) -> None:
        self.manifold = manifold
        self.std_scale = options.noise_scale / options.var_samples**0.5
        manifold_tokens, visual_tokens, valid = slots
        if options.feedback == "append":
            manifold_tokens, visual_tokens = (F.pad(x, (0, 0, 0, 1)) for x in (manifold_tokens, visual_tokens))
            valid = F.pad(valid, (0, 1))
        open_slot = 0 if options.feedback == "replace" else valid.shape[1] - 1
        self.cache = RemixerCache(remixer, manifold_tokens, visual_tokens, valid, open_slot, source_audio)
        self.visual_token = visual_tokens[:, open_slot]
        everyone = torch.arange(len(valid), device=valid.device)
        gaussian = self.cache(everyone, manifold_tokens[:, open_slot], self.visual_token, valid[:, open_slot])
        self.mean, self.spread = self._moments(gaussian)

    def draw(self, samples: int, generators: Sequence[torch.Generator]) -> Tensor:
        """Draws for every scene, before normalisation, ``[B, N, A]``, each scene's from its own generator."""
        noise = self.mean.new_empty(len(self.mean), samples, self.mean.shape[1])
        for scene, generator in zip(noise, generators, strict=True):
            scene.normal_(generator=generator)
        return torch.addcmul(self.mean.unsqueeze(1), noise, self.spread.unsqueeze(1), out=noise)

    def approach(self, optimum: Tensor, radius: float | None) -> Tensor:
        """Goes from each Gaussian's mean towards the optimum as far as the trust region reaches, ``[B, 1, A]``.

        The way is straight and ends at the optimum's direction with the mean's length, so the score rises along it.

        Args:
            optimum: unit vectors, ``[B, A]``; a scene whose sources cancel each other out has 0 and stays at its mean.
            radius: of the trust region, in standard deviations a dimension (root of the mean square); None: no bound.
        """
        way = optimum * self.mean.norm(dim=-1, keepdim=True) - self.mean
        reached = torch.ones_like(way[:, :1])
        if radius is not None:
            scale = self.spread.clamp_min(torch.finfo(way.dtype).tiny)
            length = (way / scale).square().mean(-1, keepdim=True).sqrt()
            reached = torch.where(length <= radius, 1, radius / length)
        reached = reached.masked_fill(~optimum.any(-1, keepdim=True), 0)
        return (self.mean + reached * way).unsqueeze(1)

    def condition(self, rows: Tensor, best: Tensor, samples: int, generators: Sequence[torch.Generator]) -> None:
        """Puts φ of the best draws, ``[K, A]``, in the open slot of the scenes ``rows``, ``[K]``."""
        projected = self.manifold.project_audio(best)
        token = projected.mean
        if samples:
            noise = torch.empty_like(token)
            for scene, row in zip(noise, rows.tolist(), strict=True):
                scene.normal_(generator=generators[row])
            token = token + noise * (projected.std / samples**0.5)
        filled = torch.ones_like(rows, dtype=torch.bool)
        self.mean[rows], self.spread[rows] = self._moments(self.cache(rows, token, self.visual_token[rows], filled))

    def _moments(self, gaussian: DiagonalGaussian) -> tuple[Tensor, Tensor]:
        dtype = torch.promote_types(gaussian.mean.dtype, torch.float32)
        return gaussian.mean.to(dtype), gaussian.std.to(dtype) * self.std_scale


def _merit(draws: Tensor, sources: Tensor, valid: Tensor, weights: Tensor, score: Score) -> Tensor:
    """Scores each draw, negated where lower is better, ``[B, N]``."""
    with torch.autocast(draws.device.type, enabled=False):
        cosines = draws @ sources.to(draws.dtype).mT / draws.norm(dim=-1, keepdim=True)  # 0 where a slot has no weight
        if score == "mean":
            return (cosines * weights.unsqueeze(1)).sum(-1) / weights.sum(-1, keepdim=True)
        if score == "min":
            return cosines.masked_fill((weights == 0).unsqueeze(1), torch.inf).amin(-1)
        counted, number = valid.unsqueeze(1), valid.sum(-1)[:, None, None]
        deviations = (cosines - cosines.sum(-1, keepdim=True) / number) * counted
        return -(deviations.square().sum(-1) / number.squeeze(-1)).sqrt()


def _optimum(sources: Tensor, weights: Tensor) -> Tensor:
    """Computes the direction of the largest mean cosine to the sources, ``[B, A]``.

    The score of a unit vector d is Σ w_m <d, χ_m> / Σ w_m = <d, mean of χ_m>: by Cauchy-Schwarz largest along the mean.
    """
    return F.normalize((sources * weights.unsqueeze(-1)).sum(1), dim=-1)


def _sources(manifold: Manifold, manifold_tokens: Tensor, weights: Tensor) -> Tensor:
    """Computes the unit χ(e_m) of the slots that have a weight, 0 elsewhere, ``[B, S, A]``."""
    scored = weights > 0
    audio = F.normalize(manifold.reconstruct_audio(manifold_tokens[scored]).mean, dim=-1)
    sources = audio.new_zeros(*weights.shape, audio.shape[-1])
    sources[scored] = audio
    return sources


def _slot_weights(
    given: Tensor | None, valid: Tensor, keys: Sequence, feedback: Feedback, dtype: torch.dtype
) -> Tensor:
    """Returns the weight of each slot in the score, 0 where it is not valid, ``[B, S]``."""
    if given is None:
        weights = valid.to(dtype)
        if feedback == "replace":
            weights[:, 0] = 0
    else:
        if given.shape != valid.shape:
            raise ValueError(f"slot_weights must have shape {tuple(valid.shape)}, got {tuple(given.shape)}")
        weights = given.to(dtype).masked_fill(~valid, 0)
        if not (weights.isfinite() & (weights >= 0)).all():
            raise ValueError("slot_weights must be finite and at least 0")
    for row in (weights.sum(-1) == 0).nonzero()[:1].flatten().tolist():
        raise ValueError(f"scene {keys[row]!r} has no source to be scored against (no valid slot with a weight)")
    return weights


def _check_modules(remixer: Remixer, manifold: Manifold) -> None:
    for name, module in (("remixer", remixer), ("manifold", manifold)):
        if module.training:
            raise ValueError(f"{name} is in training mode, whose dropout would change the result: call {name}.eval()")
    width = manifold.audio_projector.input_width
    if width != remixer.audio_width:
        raise ValueError(f"manifold takes audio of width {width}, remixer gives {remixer.audio_width}")


def _check_scenes(
    manifold_tokens: Tensor, visual_tokens: Tensor, valid: Tensor, keys: Sequence, feedback: Feedback
) -> None:
    if len(keys) != len(valid):
        raise ValueError(f"scene_keys must name {len(valid)} scenes, got {len(keys)}")
    for name, tokens in (("manifold_tokens", manifold_tokens), ("visual_tokens", visual_tokens)):
        for row, slot in (valid & ~tokens.isfinite().all(-1)).nonzero()[:1].tolist():
            raise ValueError(f"{name} of scene {keys[row]!r} hold a NaN or infinity in slot {slot}")
    if feedback == "replace":
        missing = ~valid[:, 0] if valid.shape[1] else torch.ones(len(valid), dtype=torch.bool)
        for row in missing.nonzero()[:1].flatten().tolist():
            raise ValueError(f"feedback 'replace' needs a valid slot 0, scene {keys[row]!r} has none")
