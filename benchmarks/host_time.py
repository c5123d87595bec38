"""How much host time does a training step take? All stages, at the paper's depths and a tiny width, on one thread.

Arithmetic is small there, so that what is left is Python and the dispatch of operations: what a GPU waits for, and what
bounds the demo and the sweeps on a CPU. Times are CPU seconds of the process, of the fastest step: what a busy machine
adds is always more. The bare loop makes the same calls as a step without Lightning; "Lightning" is what Trainer.fit
takes beyond it with nothing logged, "logging" what logging every step adds. Operations are those of aten in one step of
the bare loop, nested ones included.

    python benchmarks/host_time.py [--stage manifold] [--precision bf16-mixed] [--step compiled] [--width 96]
"""

import argparse
import json
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger
from paper_sizes.steps import Pace, Precision, StepTimes, frozen
from torch import Tensor
from torch.optim import Optimizer
from torch.profiler import ProfilerActivity, profile

from lightning_ss2a.callbacks import Throughput
from lightning_ss2a.data import ShardDataModule
from lightning_ss2a.data.format.manifest import MANIFEST
from lightning_ss2a.data.simulation.dataset import simulate_dataset
from lightning_ss2a.data.simulation.world import ModalitySpec, WorldSpec
from lightning_ss2a.models import (
    AudioToVisualOptions,
    DiffusionMapperOptions,
    ManifoldOptions,
    RemixerOptions,
    TemporalAggregatorOptions,
)
from lightning_ss2a.training import (
    AudioToVisualModule,
    ManifoldModule,
    RemixerModule,
    TemporalAggregationModule,
    V2AMapperModule,
)
from lightning_ss2a.training.base import StageModule
from lightning_ss2a.training.optimization import add_gradients, build_adamw, optimized_tensors
from lightning_ss2a.training.step import Step
from lightning_ss2a.training.step.differentiate import Differentiate

GOAL = 1.5
ROWS = 8
PHASES = {
    "eager": ("forward", "backward", "optimisers"),
    "compiled": ("forward and backward", "optimisers"),
}
"""What a step is split into: compiled, losses and gradients are one region."""
Batch = dict[str, Any]


@dataclass(frozen=True)
class EagerTurn:
    """One optimiser's part of a step: what it moves, what it holds still, the losses, and how it is optimised."""

    moved: list[Tensor]
    still: list[Tensor]
    losses: Callable[[Batch], dict[str, Tensor]]
    optimizer: Optimizer

    def step(self, batch: Batch, bf16: bool) -> list[float]:
        """Optimises once; returns what the clock of the process says before, between and after the phases."""
        with frozen(self.still):
            marks = [time.process_time()]
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = self.losses(batch)["loss"]
            marks.append(time.process_time())
            loss.backward()
        return [*marks, time.process_time(), _optimize(self.optimizer)]


@dataclass(frozen=True)
class CompiledTurn:
    """The same, of flat parameters."""

    differentiate: Differentiate
    inputs: Callable[[Batch], Batch]
    optimizer: Optimizer

    def step(self, batch: Batch, bf16: bool) -> list[float]:
        """See :meth:`EagerTurn.step`."""
        start = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            _, gradients = self.differentiate(self.inputs(batch))
        add_gradients(optimized_tensors(self.optimizer), gradients)
        return [start, time.process_time(), _optimize(self.optimizer)]


def _optimize(optimizer: Optimizer) -> float:
    optimizer.step()
    optimizer.zero_grad()
    return time.process_time()


def manifold_options(width: int) -> ManifoldOptions:
    """The paper's depths; widths in the paper's ratios."""
    sizes = ManifoldOptions()

    def scaled(widths: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(max(8, size * width // sizes.width) for size in widths)

    return ManifoldOptions(width, scaled(sizes.projector_widths), scaled(sizes.reconstructor_widths))


def build_module(stage: str, width: int, folder: str, step: Step) -> LightningModule:
    """A new module of a stage, the same each time."""
    seed_everything(0, verbose=False)
    sizes: Any = {"step": step}
    if stage == "manifold":
        return ManifoldModule(width, width, manifold_options(width), **sizes)
    if stage == "remixer":
        heads = RemixerOptions(width, num_heads=8, head_widths=(width, width))
        return RemixerModule(width, width, _manifold_checkpoint(width, folder), remixer=heads, **sizes)
    if stage == "temporal_aggregation":
        aggregator = TemporalAggregatorOptions(width=width, num_heads=8, head_widths=(width, width))
        return TemporalAggregationModule(width, aggregator=aggregator, **sizes)
    if stage == "audio_to_visual":
        return AudioToVisualModule(width, width, AudioToVisualOptions(hidden_widths=(width,) * 4), **sizes)
    mapper = DiffusionMapperOptions(num_layers=12, num_heads=8, head_width=width // 8)
    return V2AMapperModule(width, width, diffusion=mapper, **sizes)


STAGES: dict[str, Literal["pairs", "scenes", "videos"]] = {
    "manifold": "pairs",
    "remixer": "scenes",
    "temporal_aggregation": "videos",
    "audio_to_visual": "pairs",
    "v2a_mapper": "scenes",
}
"""Kind of data that each stage takes."""


def _manifold_checkpoint(width: int, folder: str) -> str:
    path = f"{folder}/manifold.ckpt"
    if not Path(path).exists():
        trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
        trainer.strategy.connect(ManifoldModule(width, width, manifold_options(width)))
        trainer.save_checkpoint(path)
    return path


def build_data(kind: Literal["pairs", "scenes", "videos"], width: int, folder: str) -> ShardDataModule:
    """Simulated rows, in memory; the frames of videos pass for audio embeddings, which have the same width."""
    path = Path(folder, kind)
    if not path.exists():
        world = WorldSpec(ModalitySpec(width, 0.47), ModalitySpec(width, 0.51), instance_width=min(32, width))
        splits = {"train": 40 * ROWS, "validation": ROWS}
        manifest = simulate_dataset(str(path), kind, splits, world=world, progress=False)
        if kind == "videos":
            frames = replace(manifest.fields["frames"], role="audio")
            heard = replace(manifest, fields=manifest.fields | {"frames": frames})
            (path / MANIFEST).write_bytes(heard.to_bytes())
    return ShardDataModule(str(path), batch_size=ROWS, residency="memory")


def turns_of(module: Any) -> Sequence[EagerTurn | CompiledTurn]:
    """The turns of a step, as a fit leaves them."""
    optimizers = module.trainer.optimizers
    if isinstance(module, StageModule):
        compiled = [(module._differentiate, module.prepare)] if module._differentiate else []
        eager = [(list(module.network.parameters()), [], module.losses)]
    else:
        compiled = [(found, partial(module._inputs, turn)) for turn, found in module._flat_turns.items()]
        projectors, reconstructor = module.projector_parameters, module.reconstructor_parameters
        eager = [(projectors, reconstructor, module.losses), (reconstructor, projectors, module.reconstructor_losses)]
    if compiled:
        return [CompiledTurn(*turn, optimizer) for turn, optimizer in zip(compiled, optimizers, strict=True)]
    new = [build_adamw(moved, module.optimization) for moved, _, _ in eager]
    return [EagerTurn(*turn, optimizer) for turn, optimizer in zip(eager, new, strict=True)]


class BareLoop(Callback):
    """The calls that a step is made of, without Lightning, with the module and a batch as a fit leaves them.

    Args:
        steps: timed steps, after as many that are not.
        bf16: under autocast.
    """

    def __init__(self, steps: int, bf16: bool) -> None:
        self.steps, self.bf16 = steps, bf16
        self.batch: dict[str, Any] = {}
        self.milliseconds: list[float] = []
        self.operations = 0

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, _: int) -> None:
        """Keep a batch."""
        self.batch = batch

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Time the loop, then count its operations."""
        turns = turns_of(module)
        steps = [self._step(turns) for _ in range(2 * self.steps)]
        self.milliseconds = [seconds * 1e3 for seconds in min(steps[self.steps :], key=sum)]
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            self._step(turns)
        self.operations = sum(event.name.startswith("aten::") for event in profiled.events() or [])

    def _step(self, turns: Sequence[EagerTurn | CompiledTurn]) -> list[float]:
        """Seconds of each of :data:`PHASES`."""
        marks = [turn.step(self.batch, self.bf16) for turn in turns]
        return [sum(end - start for start, end in phase) for phase in zip(*map(pairwise, marks), strict=True)]


def measure(stage: str, options: argparse.Namespace, folder: str) -> dict[str, float]:
    """Milliseconds of a step by phase, and its operations."""
    data = build_data(STAGES[stage], options.width, folder)
    bare = BareLoop(options.steps, options.precision == "bf16-mixed")
    silent = _fit(stage, options, folder, data, 10**9, [bare])
    logged = _fit(stage, options, folder, data, 1, [])
    loop = sum(bare.milliseconds)
    return {
        **dict(zip(PHASES[options.step], bare.milliseconds, strict=True)),
        "Lightning": silent - loop,
        "step": silent,
        "logging": logged - silent,
        "operations": bare.operations,
    }


def _fit(
    stage: str,
    options: argparse.Namespace,
    folder: str,
    data: ShardDataModule,
    log_every_n_steps: int,
    callbacks: Sequence[Callback],
) -> float:
    """CPU milliseconds of a step in Trainer.fit."""
    times = StepTimes(Pace(warm_up=10, windows=options.steps), time.process_time)
    trainer = Trainer(
        accelerator="cpu",
        precision=options.precision,
        max_steps=times.clock.pace.steps,
        max_epochs=-1,
        limit_val_batches=0,
        log_every_n_steps=log_every_n_steps,
        logger=TensorBoardLogger(folder, default_hp_metric=False),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[Throughput(), times, *callbacks],
    )
    trainer.fit(build_module(stage, options.width, folder, options.step), datamodule=data)
    return min(times.clock.seconds) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", action="append", choices=list(STAGES), help="only this one, or these")
    parser.add_argument("--precision", choices=get_args(Precision), default="bf16-mixed")
    parser.add_argument("--step", choices=list(PHASES), default="eager", help="compiling takes minutes")
    parser.add_argument("--width", type=int, default=96, help="of the embeddings and the networks")
    parser.add_argument("--steps", type=int, default=60, help="timed steps")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    print(
        f"ms of host time a step: {options.step}, {options.precision}, width {options.width}, {ROWS} rows, one thread"
    )
    ratios = {}
    with tempfile.TemporaryDirectory() as folder:
        for stage in options.stage or STAGES:
            figures = measure(stage, options, folder)
            ratios[stage] = round(figures["step"] / (figures["step"] - figures["Lightning"]), 3)
            print(f"{stage:22}" + "  ".join(f"{name} {value:.4g}" for name, value in figures.items()), flush=True)
    worst = max(ratios.values())
    line = {"benchmark": "host_time", "ratio": worst, "goal": GOAL, "holds": worst <= GOAL, "of_bare_loop": ratios}
    print(json.dumps(line))


if __name__ == "__main__":
    main()
