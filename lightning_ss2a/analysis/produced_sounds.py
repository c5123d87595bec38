"""Sounds things and scenes of shards by the parts of ``ss2a generate``, and hears what they have become.

Shapes: V visual width, A audio width.
"""

import csv
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lightning_ss2a.analysis.heard_classes import TOP
from lightning_ss2a.builders.engine.module import Outcome
from lightning_ss2a.callbacks.mean_teacher.teacher import ANNOTATED
from lightning_ss2a.data.loading.dataset import ShardDataset
from lightning_ss2a.errors import InputError
from lightning_ss2a.files import local_path
from lightning_ss2a.generation.listening import Tagger
from lightning_ss2a.generation.mixing.methods import Mixed, Mixer
from lightning_ss2a.generation.protocols import SoundGenerator
from lightning_ss2a.generation.scene.source import WHOLE, Scene, Source
from lightning_ss2a.generation.sounding import Sounded, Sounder, Wanted, calibrate
from lightning_ss2a.perception.encoders.protocols import AudioEncoder
from lightning_ss2a.perception.media.waveform import at_rate


@dataclass(frozen=True, eq=False)
class Thing:
    """A picture of one thing, and its sound.

    Attributes:
        key: of its row.
        name: what it is, the key without its digest.
        group: of rows that share a picture or a sound.
        visual: float32 [V].
        audio: float32 [A].
    """

    key: str
    name: str
    group: int
    visual: Tensor
    audio: Tensor

    def seen(self) -> Source:
        """Makes of it a source that is seen."""
        return Source("image", self.name, file=self.key, visual=self.visual)

    def heard(self) -> Source:
        """Makes of it a source that is heard."""
        return Source("audio", self.name, file=self.key, audio=self.audio)

    def scene(self, *added: Source) -> Scene:
        """Makes of it what generation makes of a picture in which nothing is detected, with further sources."""
        return Scene(self.key, (replace(self.seen(), label=WHOLE), *added), self.visual)


@dataclass(frozen=True, eq=False)
class Composition:
    """A composed picture of several things.

    Attributes:
        scene: each thing as a source, with the whole picture.
        things: what it shows, in the order of the sources.
        audio: of the mixture of their sounds, float32 [A].
    """

    scene: Scene
    things: tuple[Thing, ...]
    audio: Tensor


def read_things(pairs: str, split: str) -> list[Thing]:
    """Reads the annotated pairs of a split."""
    rows = ShardDataset(pairs, split).columns()
    visual, audio = rows["visual"].float(), rows["audio"].float()
    return [
        Thing(key, key.rpartition("-")[0], int(rows["group"][row]), visual[row], audio[row])
        for row, key in enumerate(rows["key"])
        if rows["pair_origin"][row] == ANNOTATED
    ]


def one_of_each(things: Sequence[Thing], names: Collection[str]) -> list[Thing]:
    """Keeps the first thing of each group and name, of those names that are known."""
    first: dict[tuple[int, str], Thing] = {}
    for thing in things:
        if thing.name in names:
            first.setdefault((thing.group, thing.name), thing)
    return [*first.values()]


def read_compositions(scenes: str, split: str, things: Sequence[Thing]) -> list[Composition]:
    """Reads the composed scenes of a split that show nothing but these things.

    Args:
        scenes: data set with a ``compositions.csv``, which lists each scene's pairs in the order of its sources.
        split: of it.
        things: that may be shown.
    """
    rows, by_key = ShardDataset(scenes, split).columns(), {thing.key: thing for thing in things}
    shown: dict[str, list[str]] = defaultdict(list)
    with open(Path(local_path(scenes), "compositions.csv"), newline="", encoding="utf-8") as opened:
        for row in csv.DictReader(opened):
            shown[row["key"]].append(row["pair"])
    found = []
    for number, key in enumerate(rows["key"]):
        if not all(pair in by_key for pair in shown[key]):
            continue
        own = tuple(by_key[pair] for pair in shown[key])
        sources = tuple(
            replace(thing.seen(), visual=visual)
            for thing, visual in zip(own, rows["sources"][number].float(), strict=False)
        )
        scene = Scene(key, sources, rows["global_visual"][number].float())
        found.append(Composition(scene, own, rows["audio"][number].float()))
    return found


class TrueSounds:
    """Mixes each scene to the real sounds of its things: what generator and tagger leave possible.

    Args:
        compositions: the scenes that it knows.
    """

    def __init__(self, compositions: Sequence[Composition]) -> None:
        self._known = {each.scene.key: each for each in compositions}

    def check(self, scene: Scene) -> None:
        """Takes the scenes that it knows."""
        if scene.key not in self._known:
            raise InputError(f"{scene.key}: is none of the compositions whose sounds are known")

    def mix(self, scenes: Sequence[Scene], seed: int) -> list[Mixed]:
        """Gives the embeddings of the real sounds; the mixed one is that of their mixture."""
        mixed = []
        for known in (self._known[scene.key] for scene in scenes):
            sources = normalize(torch.stack([thing.audio for thing in known.things]), dim=-1)
            labels = tuple(thing.name for thing in known.things)
            mixed.append(Mixed(normalize(known.audio, dim=0), sources, torch.ones(len(labels)), labels))
        return mixed

    def predict_sounds(self, audio: Tensor) -> Tensor:
        """Gives sounds as they are."""
        return audio


class OneEmbedding:
    """Mixes as another mixer does, and tells the generator the mixed embedding alone, without the sources.

    Args:
        mixer: the other one.
    """

    def __init__(self, mixer: Mixer) -> None:
        self.mixer = mixer

    def check(self, scene: Scene) -> None:
        """Takes what the other takes."""
        self.mixer.check(scene)

    def mix(self, scenes: Sequence[Scene], seed: int) -> list[Mixed]:
        """Mixes scenes."""
        return [Mixed(m.embedding, m.sources[:0], m.weights[:0], ()) for m in self.mixer.mix(scenes, seed)]

    def predict_sounds(self, audio: Tensor) -> Tensor:
        """Tells what the other makes of sounds."""
        return self.mixer.predict_sounds(audio)


@dataclass(frozen=True, eq=False)
class Heard:
    """What a sound has become.

    Attributes:
        labels: those of the highest score, best first.
        embedding: of the sound, float32 [A].
        wanted: the mixed embedding, float32 [A].
        sounded: the sound, and how it came about.
    """

    labels: tuple[str, ...]
    embedding: Tensor
    wanted: Tensor
    sounded: Sounded


class Studio:
    """Sounds scenes as ``ss2a generate`` does, and hears them.

    Args:
        generator: sounds embeddings.
        encoder: hears them, by its label head.
        seconds: of each sound.
        seed: of all.
        count: labels of each sound.

    Raises:
        InputError: the encoder has no label head.
    """

    def __init__(
        self, generator: SoundGenerator, encoder: AudioEncoder, seconds: float, seed: int = 0, count: int = TOP
    ) -> None:
        head = encoder.label_head()
        if head is None:
            raise InputError(f"{encoder.identity}: has no label head, so that it cannot name what it hears")
        self.generator, self.encoder, self.seconds, self.seed, self.count = generator, encoder, seconds, seed, count
        self._head = head

    def hear(
        self, scenes: Sequence[Scene], mixer: Mixer, tagger: Tagger | None = None, candidates: int = 1
    ) -> list[Outcome[Heard]]:
        """Sounds scenes and hears them; or tells why one has no sound.

        Args:
            scenes: each with a key of its own.
            mixer: mixes them.
            tagger: hears what must not be heard.
            candidates: sounds that are tried for each, at most.
        """
        for scene in scenes:
            mixer.check(scene)
        mixed = mixer.mix(scenes, self.seed)
        calibrate(self.generator, mixer)
        wanted = [Wanted(f"{scene.key}#0", own, self.seconds) for scene, own in zip(scenes, mixed, strict=True)]
        outcomes = Sounder(self.generator, self.seed, tagger, candidates).sound(wanted)
        return [
            outcome if isinstance(outcome, InputError) else self._heard(own, outcome)
            for own, outcome in zip(mixed, outcomes, strict=True)
        ]

    def _heard(self, mixed: Mixed, sounded: Sounded) -> Heard:
        waveform = at_rate(sounded.rendering.waveform, self.generator.sample_rate, self.encoder.sample_rate)
        embedding = self.encoder.encode([waveform])
        best = self._head.scores(embedding).topk(self.count, dim=-1).indices[0]
        return Heard(tuple(self._head.labels[label] for label in best.tolist()), embedding[0], mixed.embedding, sounded)
