"""Mixes scenes to audio embeddings: SS2A itself, and the paper's baselines through the same path.

Shapes: B scenes, S slots, V visual width, A audio width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lightning_ss2a.data.loading.tensors import Batch
from lightning_ss2a.errors import InputError
from lightning_ss2a.generation.mixing.levels import levels_of
from lightning_ss2a.generation.options import Sampling
from lightning_ss2a.generation.scene.source import Scene
from lightning_ss2a.models import AudioToVisual, CycleMixOptions, Manifold
from lightning_ss2a.models.layers.gaussian import DiagonalGaussian
from lightning_ss2a.models.layers.keyed_noise import keyed_draw
from lightning_ss2a.models.source_slots import SourceSlots, audio_slots, join_slots, visual_slots
from lightning_ss2a.training import RemixerModule, V2AMapperModule


@dataclass(frozen=True)
class Mixed:
    """What a scene sounds like.

    Attributes:
        embedding: of all of it, unit vector, float32 [A].
        sources: of each source alone, unit vectors, float32 [sources, A]; no rows where the method knows no sources.
        weights: of these, float32 [sources].
        labels: of these.
        heard: of these, whether it is heard itself and not predicted; empty: none is.
    """

    embedding: Tensor
    sources: Tensor
    weights: Tensor
    labels: tuple[str, ...]
    heard: tuple[bool, ...] = ()


class Mixer(Protocol):
    """Mixes scenes."""

    def check(self, scene: Scene) -> None:
        """Refuses a scene that it cannot mix.

        Raises:
            InputError: says why.
        """

    def mix(self, scenes: Sequence[Scene], seed: int) -> list[Mixed]:
        """Mixes scenes that were checked; what becomes of one depends on its key, its sources and the seed alone."""

    def predict_sounds(self, audio: Tensor) -> Tensor:
        """Tells what it makes of real sounds alone, or gives them as they are if it takes none: [N, A] to [N, A].

        A generator may judge by them what is near to everything that the mixer ever gives.
        """


class SS2AMixer:
    """The paper's way: υ and φ project the sources, the Remixer mixes their tokens.

    Sources' weights: Cycle Mix weights its score by them; the mean and a draw are averages over sets of sources, see
    :mod:`.levels`.

    Args:
        module: the Remixer with its manifold, in evaluation mode.
        translator: gives sounds a v; None: v = 0, as in the paper.
        sampling: the mean of the Remixer's Gaussian, one draw, or Cycle Mix.
        cycle_mix: options of Cycle Mix; None: those of the checkpoint.
    """

    def __init__(
        self,
        module: RemixerModule,
        translator: AudioToVisual | None = None,
        sampling: Sampling = "mean",
        cycle_mix: CycleMixOptions | None = None,
    ) -> None:
        self.module, self.translator, self.sampling = module, translator, sampling
        self.cycle_mix = cycle_mix or module.cycle_mix

    def check(self, scene: Scene) -> None:
        """Refuses a scene of more sources than the Remixer has slots."""
        room = self.module.remixer.options.max_slots - self.module.use_global
        if len(scene.sources) > room:
            raise InputError(
                f"{len(scene.sources)} sources, and the Remixer has slots for {room}; drop some (--without, or a scene "
                "file with --sources_file)"
            )

    @torch.no_grad()
    def mix(self, scenes: Sequence[Scene], seed: int) -> list[Mixed]:
        """Mixes scenes; see :class:`Mixer`."""
        sources = source_slots(scenes, self.module.manifold, self.translator)
        slots = join_slots([self._first_slot(scenes), sources]) if self.module.use_global else sources
        mixed = (
            self._in_cycles(scenes, slots, seed) if self.sampling == "cycle_mix" else self._by_sets(scenes, slots, seed)
        )
        alone = audio_alone(scenes, unit_audio(sources, self.module.manifold))
        return [_mixed(*each) for each in zip(scenes, mixed, alone, strict=True)]

    def predict_sounds(self, audio: Tensor) -> Tensor:
        """Tells what χ(φ(a)) is of real sounds; see :class:`Mixer`."""
        return predicted_sounds(self.module.manifold, audio)

    def _first_slot(self, scenes: Sequence[Scene]) -> SourceSlots:
        """Makes the slot of the whole picture; empty where there is none."""
        nothing = torch.zeros(self.module.manifold.visual_width)
        wholes = [nothing if scene.global_visual is None else scene.global_visual for scene in scenes]
        visual = torch.stack(wholes).unsqueeze(1).to(self.module.device)
        # What Cycle Mix is to overwrite must be there: the published code has zeros in it.
        overwrites = self.sampling == "cycle_mix" and self.cycle_mix.feedback == "replace"
        there = [[scene.global_visual is not None or overwrites] for scene in scenes]
        valid = torch.tensor(there, device=visual.device)
        return visual_slots(visual, valid, self.module.manifold.project_visual, weight=0.0)

    def _in_cycles(self, scenes: Sequence[Scene], slots: SourceSlots, seed: int) -> Tensor:
        batch: Batch = {"key": [scene.key for scene in scenes]}
        return self.module.mix_in_cycles(batch, slots, seed, _composed(scenes), self.cycle_mix).embedding

    def _by_sets(self, scenes: Sequence[Scene], slots: SourceSlots, seed: int) -> Tensor:
        """Averages over the sets of sources that the weights mean, all of them one batch: unit vectors [B, A]."""
        levels = [levels_of(scene.weights) for scene in scenes]
        rows = [row for row, each in enumerate(levels) for _ in each.shares]
        cmss = DiagonalGaussian(slots.cmss.mean[rows], slots.cmss.log_variance[rows])
        # Within a set all sources count alike: its share is what their weights come to.
        sets = SourceSlots(cmss, slots.visual[rows], slots.valid[rows], (slots.weight[rows] > 0).to(slots.weight))
        for mask, chosen in zip(sets.valid, (chosen for each in levels for chosen in each.sets), strict=True):
            first = self.module.use_global
            mask[first : first + len(chosen)] &= chosen.to(mask.device)
        mixed = self.module.mix(sets, _composed(scenes)[rows])
        if self.sampling == "mean":
            drawn = normalize(mixed.mean.float(), dim=-1)
        else:
            drawn = keyed_draw(mixed, seed, [scenes[row].key for row in rows])
        shares = torch.cat([each.shares for each in levels]).to(drawn.device)
        summed = drawn.new_zeros(len(scenes), drawn.shape[1])
        summed.index_add_(0, torch.tensor(rows, device=drawn.device), drawn * shares.unsqueeze(1))
        return normalize(summed, dim=-1)


class MeanMixer:
    """The weighted mean of the sources' χ(e_m): mixing without a Remixer.

    Args:
        manifold: υ, φ and χ, in evaluation mode.
    """

    def __init__(self, manifold: Manifold) -> None:
        self.manifold = manifold

    def check(self, scene: Scene) -> None:
        """Takes every scene."""

    @torch.no_grad()
    def mix(self, scenes: Sequence[Scene], seed: int) -> list[Mixed]:
        """Mixes scenes; see :class:`Mixer`."""
        slots = source_slots(scenes, self.manifold)
        alone = unit_audio(slots, self.manifold)
        weights = (slots.weight * slots.valid).unsqueeze(-1)
        mixed = normalize((alone * weights).sum(1), dim=-1)
        return [_mixed(*each) for each in zip(scenes, mixed, audio_alone(scenes, alone), strict=True)]

    def predict_sounds(self, audio: Tensor) -> Tensor:
        """Tells what χ(φ(a)) is of real sounds; see :class:`Mixer`."""
        return predicted_sounds(self.manifold, audio)


class MapperMixer:
    """The paper's rival: the whole picture to one audio embedding; it knows no sources.

    Args:
        module: the V2A-Mapper, in evaluation mode.
    """

    def __init__(self, module: V2AMapperModule) -> None:
        self.module = module

    def check(self, scene: Scene) -> None:
        """Refuses a scene that is more, or less, than one picture."""
        if scene.global_visual is None or any(source.modality in ("text", "audio") for source in scene.sources):
            raise InputError("method v2a_mapper hears a whole picture and nothing else: give it an image or a video")

    @torch.no_grad()
    def mix(self, scenes: Sequence[Scene], seed: int) -> list[Mixed]:
        """Mixes scenes; see :class:`Mixer`."""
        wholes = [scene.global_visual for scene in scenes if scene.global_visual is not None]
        keys = [scene.key for scene in scenes]
        batch = {"global_visual": torch.stack(wholes).to(self.module.device), "key": keys}
        return [_without_sources(audio) for audio in self.module.predict_audio(batch, seed)]

    def predict_sounds(self, audio: Tensor) -> Tensor:
        """Gives sounds as they are: it takes pictures alone."""
        return audio


class OracleMixer:
    """What a real sound's own embedding gives: the best that a generator can do with one embedding."""

    def check(self, scene: Scene) -> None:
        """Refuses a scene that is not one sound."""
        if [source.modality for source in scene.sources] != ["audio"]:
            raise InputError("method oracle sounds the embedding of one real sound: give it one --audio, nothing else")

    def mix(self, scenes: Sequence[Scene], seed: int) -> list[Mixed]:
        """Mixes scenes; see :class:`Mixer`."""
        return [
            _without_sources(source.audio) for scene in scenes for source in scene.heard if source.audio is not None
        ]

    def predict_sounds(self, audio: Tensor) -> Tensor:
        """Gives sounds as they are, which is what it makes of them."""
        return audio


def source_slots(
    scenes: Sequence[Scene], manifold: Manifold, translate: Callable[[Tensor], Tensor] | None = None
) -> SourceSlots:
    """Makes the slots of scenes' sources, in their order, and empty ones where others have more.

    Args:
        scenes: their sources are projected together.
        manifold: υ and φ; where it is, the slots will be.
        translate: gives sounds a v, see :func:`~lightning_ss2a.models.source_slots.audio_slots`.
    """
    device = manifold.log_temperature.device
    seen = [source.visual for scene in scenes for source in scene.seen if source.visual is not None]
    heard = [source.audio for scene in scenes for source in scene.heard if source.audio is not None]
    parts = []
    if seen:
        there = torch.ones(1, len(seen), dtype=torch.bool, device=device)
        parts.append(visual_slots(torch.stack(seen).unsqueeze(0).to(device), there, manifold.project_visual))
    if heard:
        there = torch.ones(1, len(heard), dtype=torch.bool, device=device)
        parts.append(audio_slots(torch.stack(heard).unsqueeze(0).to(device), there, manifold, translate))
    return _by_scene(join_slots(parts), scenes)


def _by_scene(flat: SourceSlots, scenes: Sequence[Scene]) -> SourceSlots:
    """Deals slots, all those seen and then all those heard, to their scenes: [1, sources] to [B, S]."""
    most = max(len(scene.sources) for scene in scenes)
    place = torch.zeros(len(scenes), most, dtype=torch.long)
    weight = torch.zeros(len(scenes), most)
    seen, heard = 0, sum(len(scene.seen) for scene in scenes)
    for row, scene in enumerate(scenes):
        own = [*range(seen, seen := seen + len(scene.seen)), *range(heard, heard := heard + len(scene.heard))]
        place[row, : len(own)] = torch.tensor(own)
        weight[row, : len(own)] = torch.tensor(scene.weights)
    cmss = DiagonalGaussian(flat.cmss.mean[0, place], flat.cmss.log_variance[0, place])
    weight = weight.to(flat.weight.device)
    return SourceSlots(cmss, flat.visual[0, place], weight > 0, weight)


def _composed(scenes: Sequence[Scene]) -> Tensor:
    """Tells which scenes show no one picture, bool [B]."""
    return torch.tensor([scene.global_visual is None for scene in scenes])


def unit_audio(slots: SourceSlots, manifold: Manifold) -> Tensor:
    """Computes what each source sounds like alone, the unit χ(e_m), [B, S, A]."""
    return normalize(manifold.reconstruct_audio(slots.cmss.mean).mean.float(), dim=-1)


@torch.no_grad()
def predicted_sounds(manifold: Manifold, audio: Tensor) -> Tensor:
    """Computes what a manifold makes of sounds, the unit χ(φ(a)): [N, A] to float32 [N, A]."""
    cmss = manifold.project_audio(audio.to(manifold.log_temperature.device)).mean
    return normalize(manifold.reconstruct_audio(cmss).mean.float(), dim=-1).cpu()


def audio_alone(scenes: Sequence[Scene], predicted: Tensor) -> Tensor:
    """Gives what each source sounds like alone: what is predicted of those seen, and of those heard their own sound.

    Args:
        scenes: B of them.
        predicted: the unit χ(e_m) of all sources, in their order, [B, S, A].
    """
    alone = predicted.clone()
    for row, scene in enumerate(scenes):
        for place, source in enumerate(scene.ordered):
            if source.audio is not None:
                alone[row, place] = normalize(source.audio.to(alone), dim=0)
    return alone


def _mixed(scene: Scene, embedding: Tensor, alone: Tensor) -> Mixed:
    weights = torch.tensor(scene.weights)
    labels = tuple(source.label for source in scene.ordered)
    heard = tuple(source.audio is not None for source in scene.ordered)
    return Mixed(embedding.float().cpu(), alone[: len(labels)].float().cpu(), weights, labels, heard)


def _without_sources(audio: Tensor) -> Mixed:
    return Mixed(
        normalize(audio.float(), dim=-1).cpu(), audio.new_empty(0, len(audio)).float().cpu(), torch.empty(0), ()
    )
