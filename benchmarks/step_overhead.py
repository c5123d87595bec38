"""What does Lightning cost? A training step of ManifoldModule in Trainer.fit against a bare PyTorch loop.

Same model (the paper's sizes), same losses, same alternation, same optimisers, same batches from memory, no validation
in either. Both are timed over the same number of steps after a warm-up, in turns, in one process; the ratio is that of
the medians.

    python benchmarks/step_overhead.py [--batch-size 1024] [--steps 6]
"""

import argparse
import json
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer, seed_everything

from lightning_ss2a.callbacks import Throughput
from lightning_ss2a.data import FieldSpec, ShardDataModule, ShardWriter
from lightning_ss2a.training import ManifoldModule
from lightning_ss2a.training.optimization import build_adamw, clip_gradients

GOAL = 1.10
VISUAL_WIDTH, AUDIO_WIDTH = 768, 512


def write_data(folder: Path, rows: int) -> None:
    """Random unit embeddings of the paper's widths."""
    generator = np.random.default_rng(0)
    columns = {}
    for name, width in (("visual", VISUAL_WIDTH), ("audio", AUDIO_WIDTH)):
        x = generator.standard_normal((rows, width), dtype=np.float32)
        columns[name] = x / np.linalg.norm(x, axis=1, keepdims=True)
    columns |= {"class_index": np.zeros(rows, np.int32), "origin": np.zeros(rows, np.uint8), "group": np.arange(rows)}
    columns["key"] = np.array([f"row{i}" for i in range(rows)], dtype=np.bytes_)
    fields = {"visual": FieldSpec(VISUAL_WIDTH, "random"), "audio": FieldSpec(AUDIO_WIDTH, "random")}
    with ShardWriter(folder, kind="pairs", fields=fields, classes=["noise"], origin="random", licence="none") as writer:
        writer.write("train", columns)
        writer.write("validation", {name: value[:8] for name, value in columns.items()} | {"key": columns["key"][:8]})


class StepTimes(Callback):
    """Seconds from one batch end to the next."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *_: object) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())

    def seconds(self, warm_up: int) -> list[float]:
        return [b - a for a, b in zip(self.ends[warm_up:], self.ends[warm_up + 1 :], strict=False)]


def lightning_steps(data: ShardDataModule, steps: int, warm_up: int, callbacks: Sequence[Callback] = ()) -> list[float]:
    """Seconds of each step in Trainer.fit."""
    times = StepTimes()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            max_steps=steps + warm_up + 1,
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
        trainer.fit(ManifoldModule(VISUAL_WIDTH, AUDIO_WIDTH), datamodule=data)
    return times.seconds(warm_up)


def bare_steps(data: ShardDataModule, steps: int, warm_up: int) -> list[float]:
    """Seconds of each step in a loop of PyTorch calls around the same losses."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module = ManifoldModule(VISUAL_WIDTH, AUDIO_WIDTH).to(device).train()
    halves = (module.projector_parameters, module.reconstructor_parameters)
    optimizers = [build_adamw(parameters, 1e-4, 1e-2) for parameters in halves]
    batches = endless(data)
    ends = []
    for _ in range(steps + warm_up + 1):
        batch = {name: value.to(device) for name, value in next(batches).items() if isinstance(value, torch.Tensor)}
        for turn, losses in enumerate((module.losses, module.reconstructor_losses)):
            with frozen(halves[1 - turn]):
                losses(batch)["loss"].backward()
            clip_gradients(halves[turn], None)
            optimizers[turn].step()
            optimizers[turn].zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        ends.append(time.perf_counter())
    return [b - a for a, b in zip(ends[warm_up:], ends[warm_up + 1 :], strict=False)]


@contextmanager
def frozen(parameters: list[torch.nn.Parameter]) -> Iterator[None]:
    """Parameters that need no gradients, as in the other half's turn."""
    for parameter in parameters:
        parameter.requires_grad_(False)
    yield
    for parameter in parameters:
        parameter.requires_grad_(True)


def endless(data: ShardDataModule):
    while True:
        yield from data.train_dataloader()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=6, help="timed steps a turn")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    seed_everything(0, verbose=False)
    ours, bare = [], []
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder) / "data", rows=4 * options.batch_size)
        data = ShardDataModule(f"{folder}/data", batch_size=options.batch_size, residency="memory")
        data.setup("fit")
        for _ in range(options.turns):
            bare += bare_steps(data, options.steps, warm_up=2)
            ours += lightning_steps(data, options.steps, warm_up=2)
    ratio = statistics.median(ours) / statistics.median(bare)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"
    print(f"batch {options.batch_size}, paper sizes, {device}: {len(ours)} timed steps each")
    print(f"bare loop {statistics.median(bare):.4f} s a step, Lightning {statistics.median(ours):.4f} s a step")
    print(json.dumps({"benchmark": "step_overhead", "ratio": round(ratio, 3), "goal": GOAL, "holds": ratio <= GOAL}))


if __name__ == "__main__":
    main()
