"""What the parts share: sizes, data, modules, what was measured before; and how a step's time is judged."""

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from paper_sizes import AUDIO_WIDTH, BATCH_SIZE, EPOCHS, PAIRS, VISUAL_WIDTH, steps_of
from paper_sizes.steps import Pace, Precision, lightning_steps, wait
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from gpu_parts.process import Figures, Report
from lightning_ss2a.data import ShardDataModule
from lightning_ss2a.data.simulation.dataset import simulate_dataset
from lightning_ss2a.data.simulation.world import ModalitySpec, WorldSpec
from lightning_ss2a.models import ManifoldOptions, RemixerOptions
from lightning_ss2a.training import ManifoldModule


@dataclass(frozen=True)
class Sizes:
    """How much a part does.

    Attributes:
        pairs: pairs to train on.
        scenes: scenes to train on.
        validation: rows of the validation splits.
        widths: of the visual and the audio embeddings.
        batch_size: rows of a batch.
        pace: which steps are timed.
        turns: times that things compared are timed in turn.
        profiled_steps: steps whose kernels are timed.
        manifold: architecture of the manifold; by default the paper's.
        remixer: that of the Remixer, likewise.
        product: rows and columns of the matrices by which the card's rates are measured.
        copied: bytes of the copy by which its bandwidth is.
        contrastive: batches of the contrastive loss: the largest, and the one at which the plain formula fits too.
        chunks: rows of the similarity matrix held at a time.
        mixed: scenes that Cycle Mix mixes at once.
        draws: its iterations and samples.
        epochs: epochs of the command as it is.
        equal_steps: steps after which weights are compared.
        frame: height and width of the pictures that are encoded, by default VGGSound's.
        frames: pictures.
        sounds: sounds of 10 s that are encoded.
        encoded_batch: pictures or sounds at once; it divides their numbers.
        clips: sounds that are generated.
        sampler_steps: steps of their diffusion.
    """

    pairs: int = PAIRS
    scenes: int = 32_768
    validation: int = 5_000
    widths: tuple[int, int] = (VISUAL_WIDTH, AUDIO_WIDTH)
    batch_size: int = BATCH_SIZE
    pace: Pace = field(default_factory=lambda: Pace(warm_up=30, windows=3, window=40))
    turns: int = 2
    profiled_steps: int = 5
    manifold: ManifoldOptions = field(default_factory=ManifoldOptions)
    remixer: RemixerOptions = field(default_factory=RemixerOptions)
    product: int = 8192
    copied: int = 4 * 2**30
    contrastive: tuple[int, int] = (65_536, 16_384)
    chunks: tuple[int, int] = (512, 4096)
    mixed: tuple[int, int] = (4, 512)
    draws: tuple[int, int] = (64, 64)
    epochs: int = 4
    equal_steps: int = 24
    frame: tuple[int, int] = (360, 640)
    frames: int = 512
    sounds: int = 512
    encoded_batch: int = 64
    clips: int = 64
    sampler_steps: int = 50


SMOKE = Sizes(
    pairs=200,
    scenes=64,
    validation=16,
    widths=(20, 16),
    batch_size=16,
    pace=Pace(warm_up=0, windows=1, window=1),
    turns=1,
    profiled_steps=1,
    manifold=ManifoldOptions(width=12, projector_widths=(16,), reconstructor_widths=(16,)),
    remixer=RemixerOptions(width=16, num_heads=2, head_widths=(16,)),
    product=64,
    copied=2**16,
    contrastive=(64, 32),
    chunks=(8, 16),
    mixed=(1, 2),
    draws=(2, 2),
    epochs=3,
    equal_steps=2,
    frame=(40, 48),
    frames=4,
    sounds=2,
    encoded_batch=2,
    clips=2,
    sampler_steps=2,
)
"""Everything once, in seconds on a CPU; its figures say nothing."""


@dataclass(frozen=True)
class Inputs:
    """What a part is given.

    Attributes:
        folder: where the parts share data.
        smoke: whether sizes are tiny.
        known: figures of the parts before, by part.
    """

    folder: str
    smoke: bool
    known: dict[str, Figures]

    @property
    def sizes(self) -> Sizes:
        """How much to do."""
        return SMOKE if self.smoke else Sizes()

    def dataset(self, kind: Literal["pairs", "scenes"], report: Report) -> str:
        """The folder of a simulated data set, ``pairs`` or ``scenes``, made by the first part that needs it."""
        sizes, path, start = self.sizes, Path(self.folder, kind), time.perf_counter()
        rows = {"pairs": sizes.pairs, "scenes": sizes.scenes}[kind]
        visual, audio = (ModalitySpec(width, cone) for width, cone in zip(sizes.widths, (0.47, 0.51), strict=True))
        world = WorldSpec(visual, audio, instance_width=min(32, *sizes.widths))
        if not (path / "done").exists():
            splits = {"train": rows, "validation": sizes.validation}
            simulate_dataset(str(path), kind, splits, world=world, progress=False)
            (path / "done").touch()
            report(simulated_rows=rows, simulation_seconds=time.perf_counter() - start)
        return str(path)

    def pairs(self, report: Report, **options: Any) -> ShardDataModule:
        """Batches of pairs."""
        return ShardDataModule(self.dataset("pairs", report), batch_size=self.sizes.batch_size, **options)

    def manifold(self, **options: Any) -> ManifoldModule:
        """A new module, the same each time."""
        seed_everything(0, verbose=False)
        return ManifoldModule(*self.sizes.widths, self.sizes.manifold, **options)

    def time_manifold(self, data: ShardDataModule, precision: Precision = "bf16-mixed") -> list[float]:
        """Seconds of a step through Lightning, eager, for each window."""
        return lightning_steps(data, self.sizes.pace, module=self.manifold(), precision=precision)


def smaller_model(inputs: Inputs, group: str, options: ManifoldOptions | RemixerOptions) -> list[str]:
    """Arguments that make the model of a config tiny, for a smoke test; none where the config's own is measured."""
    return [f"--model.{group}={json.dumps(asdict(options))}"] if inputs.smoke else []


def step_figures(seconds: float, lower_bound_ms: float | None) -> Figures:
    """A step of the manifold in ms, against what the card needs, and what all the paper's steps would take.

    Args:
        seconds: of a step.
        lower_bound_ms: what the card needs; None: not measured in this run.
    """
    projected = seconds * steps_of(PAIRS, EPOCHS, BATCH_SIZE)
    figures = {"ms_a_step": seconds * 1e3, "projected_seconds": projected, "how": "projected from measured ms a step"}
    if lower_bound_ms is None:
        return figures
    return {**figures, "lower_bound_ms": lower_bound_ms, "times_lower_bound": seconds * 1e3 / lower_bound_ms}


def reset_peak_memory() -> None:
    """Forget the peak so far."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> Figures:
    """What the allocator held at most, on a GPU."""
    return {"peak_gib": torch.cuda.max_memory_allocated() / 2**30} if torch.cuda.is_available() else {}


class KernelTimes(Callback):
    """Adds up what the GPU computes in some steps, by torch's profiler, which slows the host: not while timing.

    Args:
        after: steps before the first one looked at.
        steps: steps looked at.
    """

    def __init__(self, after: int, steps: int) -> None:
        self._first, self._last = after, after + steps - 1
        self._step = 0
        self._profile: profile | None = None

    def on_train_batch_start(self, trainer: Trainer, *_: object) -> None:
        """Start at the first one."""
        if self._step == self._first:
            wait()
            kinds = [ProfilerActivity.CUDA if torch.cuda.is_available() else ProfilerActivity.CPU]
            self._profile = profile(activities=kinds)
            self._profile.start()

    def on_train_batch_end(self, *_: object) -> None:
        """Stop at the last one."""
        if self._step == self._last and self._profile is not None:
            wait()
            self._profile.stop()
        self._step += 1

    def figures(self, seconds: float) -> Figures:
        """Kernels of a step and their time, and the share of an undisturbed step's seconds; nothing without a GPU."""
        events = self._profile.events() if self._profile is not None else []
        on_gpu = [e for e in events or [] if e.device_type == DeviceType.CUDA and not e.is_user_annotation]
        if not on_gpu:
            return {}
        steps = self._last - self._first + 1
        busy = sum(event.time_range.elapsed_us() for event in on_gpu) * 1e-6 / steps
        return {"gpu_ms_a_step": busy * 1e3, "gpu_busy": busy / seconds, "kernels_a_step": len(on_gpu) // steps}
