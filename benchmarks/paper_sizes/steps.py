"""Seconds of a manifold's training steps: through Lightning, and in a bare loop of the same calls."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer

from lightning_ss2a.callbacks import Throughput
from lightning_ss2a.data import FieldSpec, ShardDataModule, ShardWriter
from lightning_ss2a.training import ManifoldModule
from lightning_ss2a.training.optimization import build_adamw
from paper_sizes import AUDIO_WIDTH, VISUAL_WIDTH


def write_random_pairs(folder: Path, rows: int) -> None:
    """Random unit embeddings of the paper's widths."""
    generator = np.random.default_rng(0)
    columns = {}
    for name, width in (("visual", VISUAL_WIDTH), ("audio", AUDIO_WIDTH)):
        x = generator.standard_normal((rows, width), dtype=np.float32)
        columns[name] = x / np.linalg.norm(x, axis=1, keepdims=True)
    columns |= {
        "class_index": np.zeros(rows, np.int32),
        "pair_origin": np.zeros(rows, np.uint8),
        "group": np.arange(rows),
    }
    columns["key"] = np.array([f"row{i}" for i in range(rows)], dtype=np.bytes_)
    fields = {"visual": FieldSpec(VISUAL_WIDTH, "random"), "audio": FieldSpec(AUDIO_WIDTH, "random")}
    with ShardWriter(
        folder, kind="pairs", fields=fields, classes=["noise"], provenance="random", licence="none"
    ) as writer:
        writer.write("train", columns)
        writer.write("validation", {name: value[:8] for name, value in columns.items()} | {"key": columns["key"][:8]})


def device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name() -> str:
    """Name of the GPU, or how many threads compute."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"


def wait() -> None:
    """Let the GPU finish."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


Precision = Literal["32-true", "bf16-mixed"]


@dataclass(frozen=True)
class Pace:
    """Which steps are timed.

    Args:
        warm_up: steps before the first timed one.
        windows: times that are taken.
        window: steps in each; the GPU is waited for at its end only.
    """

    warm_up: int
    windows: int
    window: int = 1

    @property
    def steps(self) -> int:
        """All steps of a run: the first window starts at the end of a step."""
        return self.warm_up + 1 + self.windows * self.window


class Clock:
    """Seconds a step of each window; told of the end of every step.

    Args:
        pace: which steps are timed.
        now: tells the time in seconds.
    """

    def __init__(self, pace: Pace, now: Callable[[], float] = time.perf_counter) -> None:
        self.pace, self.now = pace, now
        self._step = -pace.warm_up
        self._marks: list[float] = []

    def step(self) -> None:
        """A step has ended."""
        if self._step >= 0 and self._step % self.pace.window == 0:
            wait()
            self._marks.append(self.now())
        self._step += 1

    @property
    def seconds(self) -> list[float]:
        """Mean seconds of a step, for each window that is over."""
        return [(b - a) / self.pace.window for a, b in zip(self._marks, self._marks[1:], strict=False)]


class StepTimes(Callback):
    """Times the steps of ``Trainer.fit`` by a :class:`Clock`; arguments as there."""

    def __init__(self, pace: Pace, now: Callable[[], float] = time.perf_counter) -> None:
        self.clock = Clock(pace, now)

    def on_train_batch_end(self, *_: object) -> None:
        """Count it."""
        self.clock.step()


def lightning_steps(
    data: ShardDataModule,
    pace: Pace,
    callbacks: Sequence[Callback] = (),
    module: ManifoldModule | None = None,
    precision: Precision = "32-true",
) -> list[float]:
    """Seconds of a step in Trainer.fit, for each window of ``pace``.

    Args:
        data: batches.
        pace: which steps are timed.
        callbacks: besides ``Throughput``.
        module: trained; None: a new one of the paper's sizes.
        precision: of the trainer.
    """
    times = StepTimes(pace)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator=device().type,
            devices=1,
            precision=precision,
            max_steps=pace.steps,
            max_epochs=-1,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            default_root_dir=folder,
            callbacks=[Throughput(), *callbacks, times],
        )
        trainer.fit(module or ManifoldModule(VISUAL_WIDTH, AUDIO_WIDTH), datamodule=data)
    return times.clock.seconds


def bare_steps(
    data: ShardDataModule, pace: Pace, module: ManifoldModule | None = None, precision: Precision = "32-true"
) -> list[float]:
    """Seconds of a step in a loop of PyTorch calls around the same losses; arguments as of :func:`lightning_steps`."""
    place, clock, batches = device(), Clock(pace), _endless(data)
    module = (module or ManifoldModule(VISUAL_WIDTH, AUDIO_WIDTH)).to(place).train()
    halves = (module.projector_parameters, module.reconstructor_parameters)
    optimizers = [build_adamw(parameters, module.optimization) for parameters in halves]
    for _ in range(pace.steps):
        batch = {name: x.to(place, non_blocking=True) for name, x in next(batches).items() if torch.is_tensor(x)}
        for turn, losses in enumerate((module.losses, module.reconstructor_losses)):
            with frozen(halves[1 - turn]):
                with torch.autocast(place.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
                    loss = losses(batch)["loss"]
                loss.backward()
            optimizers[turn].step()
            optimizers[turn].zero_grad()
        clock.step()
    return clock.seconds


@contextmanager
def frozen(parameters: list[torch.Tensor]) -> Iterator[None]:
    """Parameters that need no gradients, as in the other half's turn."""
    for parameter in parameters:
        parameter.requires_grad_(False)
    yield
    for parameter in parameters:
        parameter.requires_grad_(True)


def _endless(data: ShardDataModule) -> Iterator[dict]:
    while True:
        yield from data.train_dataloader()
