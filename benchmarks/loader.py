"""How fast do rows become training batches? ShardDataModule, in memory and streaming, against WebDataset.

The peer is what WebDataset's documentation recommends for samples in tar files: one sample an entry, shuffle, decode,
to_tuple, batched, in a torch DataLoader, with 0 or 2 workers, whichever is faster. All of them deliver shuffled float32
batches of the same size from the same kind of rows (768 + 512 float16 numbers); all files are in the page cache.
PyTorch computes with one thread, as torchrun sets it and as worker processes do. Rates are over whole epochs for at
least a second, the best of a few, taken in turns in one process.

    python benchmarks/loader.py [--rows 102400] [--batch-size 1024]
"""

import argparse
import io
import json
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import webdataset
from torch.utils.data import DataLoader

from lightning_ss2a.data import FieldSpec, ShardDataModule, ShardWriter

GOALS = {"memory": 100, "stream": 40}
WIDTHS = {"visual": 768, "audio": 512}
PEER_ROWS = 20480
PEER_SHARD_ROWS = 2560
TURNS = 4

Batches = Callable[[], Iterator[torch.Tensor]]


def random_rows(rows: int, seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    x = {name: generator.standard_normal((rows, width), dtype=np.float32) for name, width in WIDTHS.items()}
    return {name: (v / np.linalg.norm(v, axis=1, keepdims=True)).astype(np.float16) for name, v in x.items()}


def write_ours(folder: Path, rows: int) -> None:
    fields = {name: FieldSpec(width=width, encoder="random") for name, width in WIDTHS.items()}
    with ShardWriter(
        folder, kind="pairs", fields=fields, classes=["noise"], provenance="random", licence="none"
    ) as writer:
        for start in range(0, rows, 8192):
            count = min(8192, rows - start)
            columns = random_rows(count, seed=start)
            columns |= {"class_index": np.zeros(count, np.int32), "pair_origin": np.zeros(count, np.uint8)}
            columns["group"] = np.arange(start, start + count)
            columns["key"] = np.array([f"row{i}" for i in columns["group"]], dtype=np.bytes_)
            writer.write("train", columns)


def write_peer(folder: Path) -> list[str]:
    folder.mkdir()
    for start in range(0, PEER_ROWS, PEER_SHARD_ROWS):
        columns = random_rows(PEER_SHARD_ROWS, seed=start)
        with webdataset.TarWriter(str(folder / f"{start:06d}.tar")) as tar:
            for i in range(PEER_SHARD_ROWS):
                sample = {f"{name}.npy": npy(column[i]) for name, column in columns.items()}
                tar.write({"__key__": f"row{start + i}", **sample})
    return sorted(str(path) for path in folder.iterdir())


def npy(x: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, x)
    return buffer.getvalue()


def ours(folder: Path, batch_size: int, **options: str | int) -> Batches:
    loader = ShardDataModule(str(folder), batch_size=batch_size, **options).train_dataloader()
    return lambda: (batch["visual"] for batch in loader)


def peer(shards: list[str], batch_size: int, num_workers: int) -> Batches:
    dataset = (
        webdataset.WebDataset(shards, shardshuffle=len(shards), workersplitter=webdataset.split_by_worker)
        .shuffle(1000)
        .decode()
        .to_tuple("visual.npy", "audio.npy")
        .batched(batch_size)
    )
    loader = DataLoader(dataset, batch_size=None, num_workers=num_workers)

    def batches() -> Iterator[torch.Tensor]:
        for visual, audio in loader:
            audio.float()
            yield visual.float()

    return batches


def rows_per_second(batches: Batches) -> float:
    """Over whole epochs, as many as take a second."""
    start, rows, seconds = time.perf_counter(), 0, 0.0
    while seconds < 1:
        rows += sum(len(batch) for batch in batches())
        seconds = time.perf_counter() - start
    return rows / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=102400)
    parser.add_argument("--batch-size", type=int, default=1024)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        write_ours(Path(folder) / "ours", options.rows)
        shards = write_peer(Path(folder) / "peer")
        candidates = {
            "memory": ours(Path(folder) / "ours", options.batch_size, residency="memory"),
            "stream": ours(Path(folder) / "ours", options.batch_size, residency="stream"),
            "stream, 2 workers": ours(Path(folder) / "ours", options.batch_size, residency="stream", num_workers=2),
            "webdataset": peer(shards, options.batch_size, 0),
            "webdataset, 2 workers": peer(shards, options.batch_size, 2),
        }
        rates = dict.fromkeys(candidates, 0.0)
        for _ in range(TURNS):
            for name, batches in candidates.items():
                rates[name] = max(rates[name], rows_per_second(batches))
    base = max(rate for name, rate in rates.items() if name.startswith("webdataset"))
    print(f"{options.rows} rows of 768 + 512 float16, batches of {options.batch_size}, one compute thread")
    for name, rate in rates.items():
        print(f"{name:24s}{rate:12,.0f} rows/s {rate / base:8.1f} x")
    results = {name: {"ratio": round(rates[name] / base, 1), "goal": goal} for name, goal in GOALS.items()}
    for result in results.values():
        result["holds"] = result["ratio"] >= result["goal"]
    tightest = min(results.values(), key=lambda result: result["ratio"] / result["goal"])
    summary = {"benchmark": "loader", "ratio": tightest["ratio"], "goal": tightest["goal"]}
    print(json.dumps({**summary, "holds": all(r["holds"] for r in results.values()), "modes": results}))


if __name__ == "__main__":
    main()
