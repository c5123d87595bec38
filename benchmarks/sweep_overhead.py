"""What does a trial cost inside a sweep, against the same `lightning fit` alone?

Whole commands by the wall clock, on the demo, one worker of one thread: a sweep of several trials that all train the
same (they differ in the learning rate only), and the same trainings as `lightning fit`, one after another. The sweep's
own start, its check and its tables are part of its time.

    python benchmarks/sweep_overhead.py [--trials 8]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
CONFIG = "configs/manifold.yaml"
WITHOUT_FIGURES = "trainer.callbacks.ManifoldFigures"
LIGHTNING = "from lightning_ss2a.cli.lightning import main; main()"
SS2A = "from lightning_ss2a.cli.ss2a import main; main()"


def seconds(program: str, *arguments: str) -> float:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", program, *arguments], check=True, capture_output=True, cwd=ROOT, env=environment
    )
    return time.perf_counter() - start


def sweep_seconds(folder: str, rates: list[float]) -> float:
    sweep = {
        "name": "overhead",
        "folder": folder,
        "base": str(ROOT / CONFIG),
        "overrides": {WITHOUT_FIGURES: False},
        "parameters": {"model.optimization.learning_rate": {"choices": rates}},
        "sampler": "grid",
    }
    file = Path(folder, "overhead.yaml")
    file.write_text(yaml.safe_dump(sweep))
    return seconds(SS2A, "sweep", "-c", str(file))


def alone_seconds(folder: str, rate: float) -> float:
    options = [
        f"--model.optimization.learning_rate={rate}",
        f"--trainer.logger.save_dir={folder}",
        f"--{WITHOUT_FIGURES}=false",
    ]
    return seconds(LIGHTNING, "fit", "-c", CONFIG, *options, "--trainer.enable_progress_bar=false")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=8)
    trials = parser.parse_args().trials
    rates = [round(1e-3 + number * 1e-6, 9) for number in range(trials)]
    with tempfile.TemporaryDirectory() as folder:
        alone_seconds(folder, rates[0])  # fill the page cache
        alone = sum(alone_seconds(folder, rate) for rate in rates) / trials
        swept = sweep_seconds(folder, rates) / trials
    print(f"a trial, of {trials}: {swept:.2f} s; the same `lightning fit`: {alone:.2f} s")
    result = {"benchmark": "sweep_overhead", "ratio": round(swept / alone, 3)}
    print(json.dumps(result | {"goal": "at most 1.0", "holds": swept <= alone}))


if __name__ == "__main__":
    main()
