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
import warnings
from pathlib import Path

from lightning.pytorch import seed_everything
from paper_sizes.steps import Pace, bare_steps, device_name, lightning_steps, write_random_pairs

from lightning_ss2a.data import ShardDataModule

GOAL = 1.10


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
    pace = Pace(warm_up=2, windows=options.steps)
    with tempfile.TemporaryDirectory() as folder:
        write_random_pairs(Path(folder) / "data", rows=4 * options.batch_size)
        data = ShardDataModule(f"{folder}/data", batch_size=options.batch_size, residency="memory")
        data.setup("fit")
        for _ in range(options.turns):
            bare += bare_steps(data, pace)
            ours += lightning_steps(data, pace)
    ratio = statistics.median(ours) / statistics.median(bare)
    print(f"batch {options.batch_size}, paper sizes, {device_name()}: {len(ours)} timed steps each")
    print(f"bare loop {statistics.median(bare):.4f} s a step, Lightning {statistics.median(ours):.4f} s a step")
    print(json.dumps({"benchmark": "step_overhead", "ratio": round(ratio, 3), "goal": GOAL, "holds": ratio <= GOAL}))


if __name__ == "__main__":
    main()
