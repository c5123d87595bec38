"""Makes sounds of items: the module that Lightning's ``Trainer.predict`` runs on every device."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn.functional import normalize

from lightning_ss2a.builders.engine.module import Outcome
from lightning_ss2a.builders.engine.packing import Packed
from lightning_ss2a.data.format.schema import FRAMES_PER_VIDEO
from lightning_ss2a.errors import InputError, one_line
from lightning_ss2a.generation.items import Item
from lightning_ss2a.generation.mixing.methods import Mixed, Mixer
from lightning_ss2a.generation.options import SoundOptions
from lightning_ss2a.generation.scene.media import ItemMedia
from lightning_ss2a.generation.scene.perceiving import PerceivedItem, Perceiver
from lightning_ss2a.generation.scene.source import Scene, Source
from lightning_ss2a.generation.sounding import Sounded, Sounder, Wanted
from lightning_ss2a.generation.windows import Window, join, of_length, windows_of
from lightning_ss2a.models import mean_over_frames
from lightning_ss2a.perception.media.video import Clip, VideoReader
from lightning_ss2a.training import TemporalAggregationModule


@dataclass(frozen=True, eq=False)
class Track:
    """A source, sounded alone.

    Attributes:
        label: what it is called.
        waveform: float32 [samples].
        renderings: how it came about, a window each.
    """

    label: str
    waveform: np.ndarray
    renderings: list[dict[str, Any]]


@dataclass(frozen=True, eq=False)
class Made:
    """What an item has become.

    Attributes:
        item: what was asked for.
        perceived: its sources.
        waveform: float32 [samples], as loud as the generator has it.
        renderings: how it came about, a window each.
        tracks: its sources alone, if they were asked for.
    """

    item: Item
    perceived: PerceivedItem
    waveform: np.ndarray
    renderings: list[dict[str, Any]]
    tracks: tuple[Track, ...] = ()


@dataclass(frozen=True)
class Failed:
    """An item that nothing was made of.

    Attributes:
        item: what was asked for.
        reason: why not.
    """

    item: Item
    reason: str


@dataclass
class _Plan:
    """The sounds that an item needs: of each window all of it and, if they are wanted, its sources.

    Attributes:
        item: what is asked for.
        perceived: its sources.
        windows: one, or those of its video.
        mixed: what each window sounds like.
        sounded: what became of what is wanted, see :meth:`wanted`.
    """

    item: Item
    perceived: PerceivedItem
    windows: list[Window]
    mixed: list[Mixed]
    sounded: list[list[Outcome[Sounded] | None]] = field(default_factory=list)

    @property
    def fullest(self) -> Mixed:
        """A window in which all sources are: of a video, what is seen may be in some windows alone, and comes first."""
        return max(self.mixed, key=lambda mixed: len(mixed.labels))

    def wanted(self, options: SoundOptions) -> list[list[Wanted | None]]:
        """Lists the sounds of each window: first all of it (unless that is the sum of its sources), then each source.

        None stands for a source that is not in the window, so that all windows have as many.
        """
        return [[*self._of_window(number, options)] for number in range(len(self.windows))]

    def _of_window(self, number: int, options: SoundOptions) -> Iterator[Wanted | None]:
        mixed, seconds, key = self.mixed[number], self.windows[number].seconds, f"{self.item.key}#{number}"
        apart = options.method == "cascade"
        if not apart:
            yield Wanted(key, mixed, seconds)
        if apart or options.tracks:
            absent = len(self.fullest.labels) - len(mixed.labels)
            yield from [None] * absent
            for source, label in enumerate(mixed.labels):
                yield Wanted(f"{key}/{source + absent}", _alone(mixed, source, label), seconds)


class GenerationModule(LightningModule):
    """Turns the media of items into sounds, a batch at a time.

    Args:
        perceiver: finds the sources.
        mixer: mixes them to audio embeddings.
        sounder: sounds these.
        options: what is made.
        video_reader: reads videos.
        aggregator: fuses the embeddings of a video's frames; None: their mean.
        networks: of mixer and aggregator, which go to this process's device.
        threads: of a processor's computations.
    """

    def __init__(
        self,
        perceiver: Perceiver,
        mixer: Mixer,
        sounder: Sounder,
        options: SoundOptions,
        video_reader: VideoReader,
        aggregator: TemporalAggregationModule | None,
        networks: Sequence[nn.Module],
        threads: int,
    ) -> None:
        super().__init__()
        self.perceiver, self.mixer, self.sounder, self.options = perceiver, mixer, sounder, options
        self.video_reader, self.threads = video_reader, threads
        self.networks = nn.ModuleList(networks)
        self._aggregator = [aggregator]  # a module among networks already, and no part of this one's state

    @property
    def aggregator(self) -> TemporalAggregationModule | None:
        """Fuses frames."""
        return self._aggregator[0]

    def on_predict_start(self) -> None:
        """Brings models and generator to this process's device."""
        torch.set_num_threads(self.threads)
        self.networks.eval()
        for model in (*self.perceiver.stack.every_model, self.sounder.generator):
            if hasattr(model, "device"):
                model.device = str(self.device)

    @torch.inference_mode()
    def predict_step(self, batch: Sequence[ItemMedia] | Packed, batch_idx: int) -> list[Made | Failed]:
        """Makes the sounds of some items; each item has its own fate.

        Raises:
            InputError: the device's memory does not hold them.
        """
        media: Sequence[ItemMedia] = batch.unpack() if isinstance(batch, Packed) else batch
        try:
            return self._make(media)
        except torch.OutOfMemoryError as error:
            raise InputError(
                f"{self.device}: its memory does not hold what {len(media)} items need at once; start again with a "
                "smaller batch_size: what is made stays"
            ) from error

    def _make(self, media: Sequence[ItemMedia]) -> list[Made | Failed]:
        plans = self._plan(media)
        good = [plan for plan in plans if isinstance(plan, _Plan)]
        wanted = [plan.wanted(self.options) for plan in good]
        every = [each for own in wanted for window in own for each in window if each is not None]
        sounded = iter(self.sounder.sound(every))
        for plan, own in zip(good, wanted, strict=True):
            plan.sounded = [[None if each is None else next(sounded) for each in window] for window in own]
        return [
            Failed(each.item, one_line(plan)) if isinstance(plan, InputError) else self._finished(plan)
            for each, plan in zip(media, plans, strict=True)
        ]

    # ---------------------------------------------------------------- scenes to embeddings

    def _plan(self, media: Sequence[ItemMedia]) -> list[Outcome[_Plan]]:
        """Mixes the scenes of all items at once; videos one by one, each with many."""
        perceived = self.perceiver.perceive(media)
        plans: list[Outcome[_Plan]] = []
        for each, outcome in zip(media, perceived, strict=True):
            try:
                plans.append(outcome if isinstance(outcome, InputError) else self._started(each, outcome))
            except InputError as error:
                plans.append(error)
        still = [plan for plan in plans if isinstance(plan, _Plan) and not plan.mixed]
        if still:
            mixed = self.mixer.mix([plan.perceived.scene(plan.item.key) for plan in still], self.options.seed)
            for plan, own in zip(still, mixed, strict=True):
                plan.mixed = [own] * len(plan.windows)
        return plans

    def _started(self, media: ItemMedia, perceived: PerceivedItem) -> _Plan:
        """Begins with an item; one of a video comes back with its embeddings."""
        item = media.item
        windows = self._windows(item)
        own = next((source for source in perceived.sources if source.modality == "video"), None)
        if own is None:
            self.mixer.check(perceived.scene(item.key))
            return _Plan(item, perceived, windows, [])
        mixed = [self._mix_window(item, perceived, own, number, windows) for number in range(len(windows))]
        return _Plan(item, perceived, windows, mixed)

    def _windows(self, item: Item) -> list[Window]:
        if not item.videos:
            return [Window(0.0, self.options.seconds)]
        total = self._clip(item.videos[0]).seconds
        return windows_of(total, self.options.seconds, min(self.options.overlap, self.options.seconds / 2))

    def _clip(self, video: str, **options: Any) -> Clip:
        """Reads a video; whatever its decoder stumbles over is told of its item."""
        try:
            return self.video_reader.read(Path(video), name=video, **options)
        except InputError:
            raise
        except Exception as error:  # the other items do not suffer for one file
            raise InputError(f"{video}: {type(error).__name__}: {one_line(error)}") from error

    def _mix_window(
        self, item: Item, perceived: PerceivedItem, own: Source, number: int, windows: Sequence[Window]
    ) -> Mixed:
        """Mixes the frames of a window, each with the item's other sources, and fuses them."""
        window = windows[number]
        clip = self._clip(
            own.file, frames=FRAMES_PER_VIDEO, window=(window.start, window.end) if len(windows) > 1 else None
        )
        # A frame that stands for several moments is perceived once.
        _, first, which = np.unique(clip.presented, return_index=True, return_inverse=True)
        frames = self.perceiver.perceive_frames(own, [*clip.frames[first]], self.options.frames == "detected")
        others = perceived.scene("").sources
        scenes = [
            Scene(f"{item.key}#{number}@{frame}", (*sources, *others), whole)
            for frame, (sources, whole) in enumerate(frames)
        ]
        there = [frame for frame, scene in enumerate(scenes) if scene.sources]
        if not there:
            raise InputError(f"{own.file}: every source in its frames is dropped, nothing is left to sound")
        for frame in there:
            self.mixer.check(scenes[frame])
        mixed = dict(zip(there, self.mixer.mix([scenes[frame] for frame in there], self.options.seed), strict=True))
        # What shows nothing that sounds takes what the nearest frame that does sounds like.
        nearest = [min(there, key=lambda other: abs(other - frame)) for frame in which.reshape(-1).tolist()]
        timestamps = torch.from_numpy(clip.timestamps)
        return self._fused(
            [mixed[frame] for frame in nearest], [len(frames[frame][0]) for frame in nearest], timestamps, own
        )

    def _fused(self, frames: Sequence[Mixed], counts: Sequence[int], timestamps: Tensor, own: Source) -> Mixed:
        """Fuses what the frames of a window sound like: all of it, and what is seen in them alone.

        Args:
            frames: 64.
            counts: sources of each that are its own; those come first.
            timestamps: float32 [64], in seconds.
            own: the video as a source.
        """
        embedding = self._aggregate(torch.stack([frame.embedding for frame in frames]), timestamps)
        if not len(frames[0].sources):
            return replace(frames[0], embedding=embedding)
        showing = [number for number, count in enumerate(counts) if count]
        if not showing:
            return replace(frames[0], embedding=embedding)
        first, count = frames[showing[0]], counts[showing[0]]
        # As in the mix, a frame that shows nothing of its own takes what the nearest that does sounds like.
        nearest = [min(showing, key=lambda other: abs(other - number)) for number in range(len(frames))]
        seen = torch.stack([frames[number].sources[: counts[number]].mean(0) for number in nearest])
        alone = self._aggregate(normalize(seen, dim=-1), timestamps)
        return Mixed(
            embedding,
            torch.cat([alone.unsqueeze(0), first.sources[count:]]),
            torch.cat([first.weights[:1], first.weights[count:]]),
            (own.label, *first.labels[count:]),
            (False, *first.heard[count:]),
        )

    def _aggregate(self, frames: Tensor, timestamps: Tensor) -> Tensor:
        """Fuses embeddings of frames, [64, A], to one unit vector [A]."""
        if self.aggregator is None:
            fused = mean_over_frames(frames.unsqueeze(0))
        else:
            device = self.aggregator.device
            batch = {"frames": frames.unsqueeze(0).to(device), "timestamps": timestamps.unsqueeze(0).to(device)}
            fused = self.aggregator.predict_audio(batch)
        return normalize(fused[0].float(), dim=-1).cpu()

    # ---------------------------------------------------------------- renderings to sounds

    def _finished(self, plan: _Plan) -> Made | Failed:
        for outcome in (each for window in plan.sounded for each in window):
            if isinstance(outcome, InputError):
                return Failed(plan.item, one_line(outcome))
        columns = [self._joined(plan, column) for column in zip(*plan.sounded, strict=True)]
        apart = self.options.method == "cascade"
        alone = columns if apart else columns[1:]
        tracks = tuple(Track(label, *own) for label, own in zip(plan.fullest.labels, alone, strict=False))
        waveform, renderings = columns[0]
        if apart:
            waveform = overlaid([track.waveform for track in tracks], plan.fullest.weights.tolist())
            renderings = [told for track in tracks for told in track.renderings]
        return Made(plan.item, plan.perceived, waveform, renderings, tracks if self.options.tracks else ())

    def _joined(
        self, plan: _Plan, sounded: Sequence[Outcome[Sounded] | None]
    ) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """Joins the sounds of all windows, silence where there is none, and tells how each came about."""
        rate, sounds, told = self.sounder.generator.sample_rate, [], []
        for each, window in zip(sounded, plan.windows, strict=True):
            waveform = each.rendering.waveform if isinstance(each, Sounded) else np.zeros(0, np.float32)
            sounds.append(of_length(waveform, round(window.seconds * rate)))
            if isinstance(each, Sounded):
                told.append({"from": round(window.start, 4), "to": round(window.end, 4)} | each.described())
        return join(sounds, plan.windows, rate), told


def overlaid(sounds: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """Overlays sounds of one length, brought to equal power and then weighted: float32 [samples].

    The sum has the power of one of them, so that more sources are not louder; silent ones stay silent.
    """
    powers = [float(np.sqrt(np.mean(np.square(sound, dtype=np.float64)))) for sound in sounds]
    level = max(powers)
    scale = np.sqrt(np.sum(np.square(weights)))
    summed = np.zeros_like(sounds[0])
    for sound, power, weight in zip(sounds, powers, weights, strict=True):
        if power > 0:
            summed += (sound * (weight / scale * level / power)).astype(np.float32)
    return summed


def _alone(mixed: Mixed, source: int, label: str) -> Mixed:
    """Makes of a source a mix of its own."""
    embedding = mixed.sources[source]
    return Mixed(embedding, embedding.unsqueeze(0), torch.ones(1), (label,), mixed.heard[source : source + 1])
