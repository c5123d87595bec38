"""What does a mean teacher cost? Steps of Trainer.fit with EMATeacher following, against the same fit without it.

The paper's sizes, in stage 2 from the first step, consistency_weight 0 (the average alone); and, told beside it, with
the consistency loss (two more forward passes). Timed in turns, in one process; the ratio is that of the throughputs,
by the fastest steps: what else runs on the machine only ever slows a step.

    python benchmarks/mean_teacher.py [--batch-size 512] [--steps 3] [--turns 3]
"""

import argparse
import json
import logging
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

from lightning.pytorch import Callback, seed_everything
from paper_sizes.steps import Pace, device_name, lightning_steps, write_random_pairs

from lightning_ss2a.callbacks import EMATeacher
from lightning_ss2a.data import ShardDataModule

GOAL = 0.9
ARMS: dict[str, Callable[[], list[Callback]]] = {
    "without": lambda: [],
    "average": lambda: [EMATeacher(teacher_epochs=0, consistency_weight=0.0)],
    "average and consistency": lambda: [EMATeacher(teacher_epochs=0, consistency_rampup_epochs=0)],
}
"""Callbacks of each fit."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=3, help="timed steps a turn")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    seed_everything(0, verbose=False)
    pace = Pace(warm_up=2, windows=options.steps)
    seconds: dict[str, list[float]] = {name: [] for name in ARMS}
    with tempfile.TemporaryDirectory() as folder:
        write_random_pairs(Path(folder) / "data", rows=4 * options.batch_size)
        data = ShardDataModule(f"{folder}/data", batch_size=options.batch_size, residency="memory")
        for _ in range(options.turns):
            for name, callbacks in ARMS.items():
                seconds[name] += lightning_steps(data, pace, callbacks())
    fastest = {name: min(values) for name, values in seconds.items()}
    ratio = fastest["without"] / fastest["average"]
    print(f"batch {options.batch_size}, paper sizes, {device_name()}: {len(seconds['without'])} timed steps each")
    for name, value in fastest.items():
        print(f"{name:24} {value:.4f} s a step, {fastest['without'] / value:.3f} of the throughput without")
    print(json.dumps({"benchmark": "mean_teacher", "ratio": round(ratio, 3), "goal": GOAL, "holds": ratio >= GOAL}))


if __name__ == "__main__":
    main()
