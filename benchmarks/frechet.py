"""How much faster is FAD than with scipy's square root of a matrix, and is it the same value?

Embeddings of 2,048 numbers, as PANNs' are: 500 generated sounds against 500 real ones, fewer rows than columns, and
20,000 against 20,000. Ours is the metric, updated in batches of 1,000; the peer is the formula as it is published
everywhere: np.cov of each set, scipy.linalg.sqrtm of their product. Both get the machine's threads. The best of two
runs each for 500 rows; one for 20,000, where a run takes longer than what disturbs it.

    python benchmarks/frechet.py
"""

import json
import time
import warnings
from collections.abc import Callable

import numpy as np
import scipy.linalg
import torch

from lightning_ss2a.metrics import FrechetAudioDistance

WIDTH, BATCH = 2048, 1000
CASES = {500: (10.0, 2), 20_000: (1.5, 1)}
"""Rows a set: at least how many times as fast, and runs of each."""

MOST_DIFFERENCE = 1e-6


def embeddings(rows: int, seed: int, scale: float, shift: float) -> np.ndarray:
    """Rows whose principal components fade, as those of real embeddings do."""
    mix = np.random.default_rng(0).standard_normal((WIDTH, WIDTH)) / WIDTH**0.5
    fading = np.logspace(0, -1.5, WIDTH)
    return scale * (np.random.default_rng(seed).standard_normal((rows, WIDTH)) * fading) @ mix + shift


def ours(generated: np.ndarray, reference: np.ndarray) -> float:
    metric = FrechetAudioDistance()
    for name, rows in (("generated", generated), ("reference", reference)):
        for batch in torch.from_numpy(rows).split(BATCH):
            metric.update(**{name: batch})
    return float(metric.compute())


def by_scipy(generated: np.ndarray, reference: np.ndarray) -> float:
    x, y = (np.cov(rows, rowvar=False) for rows in (generated, reference))
    root = scipy.linalg.sqrtm(x @ y)
    step = generated.mean(0) - reference.mean(0)
    return float(step @ step + np.trace(x) + np.trace(y) - 2 * np.trace(root).real)


def timed(function: Callable[..., float], *arguments: np.ndarray, runs: int) -> tuple[float, float]:
    """The value, and the seconds of the best run."""
    best = float("inf")
    for _ in range(runs):
        start = time.perf_counter()
        value = function(*arguments)
        best = min(best, time.perf_counter() - start)
    return value, best


def main() -> None:
    warnings.simplefilter("ignore")  # of few rows, which is what is measured, and of singular matrices
    ours(*(embeddings(10, seed, 1.0, 0.0) for seed in (0, 1)))  # what is loaded once
    result: dict[str, object] = {"benchmark": "frechet"}
    holds, margins = True, []
    for rows, (goal, runs) in CASES.items():
        sets = embeddings(rows, 1, 1.1, 0.01), embeddings(rows, 2, 1.0, 0.0)
        value, seconds = timed(ours, *sets, runs=runs)
        expected, peer_seconds = timed(by_scipy, *sets, runs=runs)
        ratio, difference = peer_seconds / seconds, abs(value - expected) / expected
        print(
            f"{rows:,} x {WIDTH:,}: {seconds:.2f} s, scipy's sqrtm {peer_seconds:.2f} s ({ratio:.1f} times); "
            f"FAD {value:.7g}, {expected:.7g} ({difference:.1e} apart)",
            flush=True,
        )
        holds = holds and ratio >= goal and difference <= MOST_DIFFERENCE
        margins.append(ratio / goal)
        result |= {
            f"ratio_{rows}": round(ratio, 2),
            f"goal_{rows}": goal,
            f"difference_{rows}": float(f"{difference:.1e}"),
        }
    result |= {"ratio": round(min(margins), 2), "goal": 1.0, "holds": holds}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
