"""Options of generation, without Lightning: the command line reads them in no time."""

from dataclasses import dataclass
from typing import Literal, get_args

from lightning_ss2a.options import OptionCheck

Method = Literal["ss2a", "oracle", "v2a_mapper", "mean", "cascade"]
"""How sources become a sound. ``ss2a``: manifold and Remixer. ``mean``: the weighted mean of χ(e_m). ``cascade``: each
source sounded alone, and the sounds mixed. ``v2a_mapper``: the whole picture, by the paper's rival. ``oracle``: the
embedding of the real sound that is given."""
Sampling = Literal["mean", "draw", "cycle_mix"]
FrameSources = Literal["whole", "detected"]

PAPER_SECONDS = 10.24
"""Of the paper's sounds: 163,840 samples at 16 kHz."""
LONGEST_SECONDS = 3600.0
"""Of a sound that is made at once, in memory."""


@dataclass(frozen=True)
class SoundOptions:
    """What is made of scenes.

    Attributes:
        method: how sources become a sound.
        sampling: of the Remixer's Gaussian: its mean, one draw, or Cycle Mix.
        seconds: of each sound, and of a video's windows, 0.1 to 3600.
        overlap: of a video's windows, at least, in seconds; they are cross-faded there. At most half a window is taken.
        frames: sources of a video's frames: each as a ``whole``, as ``ss2a shards frames`` has it for the aggregator's
            training; or those ``detected`` in it, as in the paper, and slower.
        seed: of everything that is drawn.
        tracks: sound each source alone, too.
        loudness: in LUFS, such as -23; None: as the generator has it.
        threshold: probability from which a tagger hears what must not be heard, above 0, at most 1.
        candidates: sounds that are tried, at most, until one has nothing in it that must not be heard.
    """

    method: Method = "ss2a"
    sampling: Sampling = "mean"
    seconds: float = PAPER_SECONDS
    overlap: float = 1.0
    frames: FrameSources = "whole"
    seed: int = 0
    tracks: bool = False
    loudness: float | None = None
    threshold: float = 0.1
    candidates: int = 4

    def __post_init__(self) -> None:
        check = OptionCheck()
        check.one_of(get_args(Method), method=self.method)
        check.one_of(get_args(Sampling), sampling=self.sampling)
        check.one_of(get_args(FrameSources), frames=self.frames)
        check.within(0.1, LONGEST_SECONDS, seconds=self.seconds)
        check.at_least(0, overlap=self.overlap)
        check.at_least(0, seed=self.seed)
        check.within(-70, 0, loudness=self.loudness)
        check.within(0.001, 1, threshold=self.threshold)
        check.at_least(1, candidates=self.candidates)


@dataclass(frozen=True)
class Checkpoints:
    """Where trained modules are; None: the newest run below ``runs/``, of those that the method needs.

    Attributes:
        manifold: of methods mean and cascade; None: that of the Remixer, if one is named.
        remixer: of method ss2a; it holds its manifold.
        aggregator: fuses a video's frames; the baselines take the mean over frames, unless it is named.
        translator: gives sounds a look (audio_to_visual); None: v = 0, as in the paper.
        mapper: of method v2a_mapper.
    """

    manifold: str | None = None
    remixer: str | None = None
    aggregator: str | None = None
    translator: str | None = None
    mapper: str | None = None
