"""How many pairs a second does `ss2a shards simulate` write at the paper's widths?

100,000 pairs at 768 and 512 numbers in float16, as the command makes them: drawn, converted, packed into blocks,
hashed, written and flushed to disk, with their truth. Two threads draw, whatever the machine has. The best of three
runs: a shared machine can only slow one down.

    python benchmarks/simulation.py
"""

import json
import tempfile
import time

from lightning_ss2a.data.simulation.dataset import simulate_dataset

PAIRS, THREADS, RUNS = 100_000, 2, 3
GOAL_PAIRS_PER_SECOND = 30_000


def pairs_per_second() -> float:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        simulate_dataset(folder, "pairs", {"train": PAIRS}, threads=THREADS)
        return PAIRS / (time.perf_counter() - start)


def main() -> None:
    rates = [pairs_per_second() for _ in range(RUNS)]
    rate = max(rates)
    print(f"{PAIRS:,} pairs, {THREADS} threads: {', '.join(f'{r:,.0f}' for r in rates)} pairs/s")
    ratio = rate / GOAL_PAIRS_PER_SECOND
    result = {"benchmark": "simulation", "ratio": round(ratio, 2), "pairs_per_second": round(rate)}
    print(json.dumps(result | {"goal": 1.0, "holds": ratio >= 1}))


if __name__ == "__main__":
    main()
