"""Lets a generator sound embeddings, and again with other seeds where something is heard that must not be."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning_ss2a.builders.engine.module import Outcome, each_or_reason
from lightning_ss2a.errors import InputError
from lightning_ss2a.generation.listening import Tagger
from lightning_ss2a.generation.mixing.methods import Mixed, Mixer
from lightning_ss2a.generation.protocols import CalibratedGenerator, Rendering, SoundGenerator, SoundRequest


@dataclass(frozen=True, eq=False)
class Wanted:
    """One sound that a generator is asked for.

    Attributes:
        key: of the item, and what of it this is.
        mixed: what it is to sound like.
        seconds: how long it is.
    """

    key: str
    mixed: Mixed
    seconds: float

    def request(self, seed: int, attempt: int) -> SoundRequest:
        """Asks for it; each attempt has a seed of its own."""
        own = keyed_seed(seed, f"{self.key}#{attempt}")
        return SoundRequest(
            self.key, self.mixed.embedding, self.mixed.sources, self.mixed.weights, self.mixed.labels, own,
            self.mixed.heard, attempt,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Sounded:
    """A sound, and how it came about.

    Attributes:
        rendering: the sound.
        seed: it was made with.
        rejected: candidates before it: their seed, and what was heard in them.
    """

    rendering: Rendering
    seed: int
    rejected: tuple[dict[str, Any], ...] = ()

    def described(self) -> dict[str, Any]:
        """Tells how it came about, for the item's JSON."""
        told = {"seed": self.seed, "score": self.rendering.score, "details": dict(self.rendering.details)}
        return told | ({"rejected": list(self.rejected)} if self.rejected else {})


@dataclass
class _Pending:
    number: int
    wanted: Wanted
    rejected: list[dict[str, Any]] = field(default_factory=list)


def keyed_seed(seed: int, key: str) -> int:
    """Makes a seed of 31 bits from a seed and a key, the same in every process."""
    digest = hashlib.blake2b(b"%d:%s" % (seed, key.encode()), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1


def calibrate(generator: SoundGenerator, mixer: Mixer) -> None:
    """Tells a generator of real sounds what a mixer makes of these, which is what it is going to be asked for."""
    if isinstance(generator, CalibratedGenerator):
        generator.calibrate(mixer.predict_sounds(generator.real_sounds))


class Sounder:
    """Sounds what is wanted.

    Args:
        generator: sounds embeddings.
        seed: of all sounds.
        tagger: hears what must not be heard; None: everything may.
        candidates: sounds that are tried for each, at most.
    """

    def __init__(self, generator: SoundGenerator, seed: int, tagger: Tagger | None = None, candidates: int = 1) -> None:
        self.generator, self.seed, self.tagger = generator, seed, tagger
        self.candidates = candidates if tagger is not None else 1

    def sound(self, wanted: Sequence[Wanted]) -> list[Outcome[Sounded]]:
        """Sounds all that is wanted, as many at once as there are of one length; or tells why one is not sounded."""
        done: dict[int, Outcome[Sounded]] = {}
        pending = [_Pending(number, each) for number, each in enumerate(wanted)]
        for attempt in range(self.candidates):
            rejected = []
            for seconds in dict.fromkeys(each.wanted.seconds for each in pending):
                alike = [each for each in pending if each.wanted.seconds == seconds]
                rejected += self._try(alike, attempt, seconds, done)
            pending = rejected
        for each in pending:
            heard = each.rejected[-1]["heard"]
            label = next(iter(heard))
            done[each.number] = InputError(
                f"all {self.candidates} candidates are rejected: in the last one {label} is heard "
                f"({heard[label]:.2f}); allow more candidates, or a higher threshold"
            )
        return [done[number] for number in range(len(wanted))]

    def _try(
        self, pending: Sequence[_Pending], attempt: int, seconds: float, done: dict[int, Outcome[Sounded]]
    ) -> list[_Pending]:
        """Sounds all of one length; gives back those in which something is heard that must not be."""
        requests = [each.wanted.request(self.seed, attempt) for each in pending]
        outcomes = each_or_reason(lambda own: self.generator.generate(own, seconds), requests)
        rejected = []
        for each, request, outcome in zip(pending, requests, outcomes, strict=True):
            if isinstance(outcome, InputError):
                done[each.number] = outcome
                continue
            heard = self.tagger.hears(outcome.waveform, self.generator.sample_rate) if self.tagger is not None else {}
            if heard:
                each.rejected.append({"seed": request.seed, "heard": heard})
                rejected.append(each)
            else:
                done[each.number] = Sounded(outcome, request.seed, tuple(each.rejected))
        return rejected
