"""How long does `lightning fit` take to its first training step on the demo, beyond importing lightning and torch?

Whole processes, by the wall clock, alternating, the median of several: a process that only imports `lightning.pytorch`
and `torch`, and `lightning fit -c configs/manifold.yaml` stopped after its first step.

    python benchmarks/startup.py
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
RUNS = 5
GOAL_SECONDS = 3.0
BARE = "import torch, lightning"
FIT = "from lightning_ss2a.cli.lightning import main; main()"


def seconds(*command: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", *command], check=True, capture_output=True, cwd=ROOT, env=os.environ.copy())
    return time.perf_counter() - start


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        one_step = ("--trainer.max_steps=1", "--trainer.limit_val_batches=0", f"--trainer.logger.save_dir={folder}")
        fit = ("fit", "-c", "configs/manifold.yaml", *one_step)
        seconds(BARE), seconds(FIT, *fit)  # fill the page cache
        pairs = [(seconds(BARE), seconds(FIT, *fit)) for _ in range(RUNS)]
    bare, whole = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"import lightning, torch: {bare:.2f} s; lightning fit to its first step and out again: {whole:.2f} s")
    result = {"benchmark": "startup", "ratio": round(whole / bare, 2), "seconds_more": round(whole - bare, 2)}
    print(json.dumps(result | {"goal": f"at most {GOAL_SECONDS} s more", "holds": whole - bare <= GOAL_SECONDS}))


if __name__ == "__main__":
    main()
