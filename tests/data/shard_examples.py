"""Small random data sets of every kind, and ways to compare them."""

from pathlib import Path

import numpy as np
import torch

from lightning_ss2a.data import FRAMES_PER_VIDEO, FieldSpec, LabelHead, Ragged, ShardReader, ShardWriter

CLASSES = ["dog", "cat", "motor boat"]
FIELDS = {
    "pairs": {"visual": FieldSpec(6, "clip", views=2), "audio": FieldSpec(4, "clap", dtype="float32")},
    "scenes": {
        "sources": FieldSpec(6, "clip", ragged=True),
        "global_visual": FieldSpec(6, "clip"),
        "audio": FieldSpec(4, "clap"),
    },
    "videos": {"frames": FieldSpec(3, "clip", role="visual"), "audio": FieldSpec(4, "clap")},
}


def random_columns(kind: str, rows: int, seed: int = 0, first: int = 0) -> dict:
    random = np.random.default_rng(seed)
    columns: dict = {
        "key": [f"clip ü/{first + i}.{kind}" for i in range(rows)],
        "name": [["", "Kätzchen", "boat"][i % 3] for i in range(rows)],
        "pair_origin": random.integers(0, 3, rows),
        "group": np.arange(first, first + rows) // 2,
        "audio": random.standard_normal((rows, 4)),
    }
    if kind == "scenes":
        columns["sources"] = [random.standard_normal((random.integers(1, 5), 6)) for _ in range(rows)]
        columns["global_visual"] = random.standard_normal((rows, 6))
        columns["classes"] = [random.integers(0, 3, random.integers(0, 3)) for _ in range(rows)]
        return columns
    columns["class_index"] = random.integers(0, 3, rows)
    if kind == "videos":
        columns["frames"] = random.standard_normal((rows, FRAMES_PER_VIDEO, 3))
        columns["timestamps"] = np.sort(random.random((rows, FRAMES_PER_VIDEO)), axis=1)
    else:
        columns["visual"] = random.standard_normal((rows, 2, 6))
    return columns


def make_dataset(folder: Path, kind: str = "pairs", splits: dict[str, int] | None = None, **options) -> Path:
    """A data set with several shards and blocks a split."""
    options = {"block_rows": 3, "shard_rows": 8} | options
    with ShardWriter(folder, kind, FIELDS[kind], CLASSES, provenance="random", licence="CC0", **options) as writer:
        first = 0
        for number, (split, rows) in enumerate((splits or {"train": 20, "validation": 4}).items()):
            writer.write(split, random_columns(kind, rows, seed=number, first=first))
            first += rows
    return folder


def make_label_head(width: int = 4, labels: int = 5) -> LabelHead:
    generator = torch.Generator().manual_seed(0)
    names = tuple(f"label {i}" for i in range(labels))
    return LabelHead(torch.randn(labels, width, generator=generator), torch.randn(labels, generator=generator), names)


def read_everything(folder: Path | str) -> dict[str, dict]:
    reader = ShardReader(folder)
    return {split: reader.read_split(split) for split in reader.manifest.splits}


def same_column(one: np.ndarray | Ragged, other: np.ndarray | Ragged) -> bool:
    if isinstance(one, Ragged):
        return same_column(one.values, other.values) and same_column(one.offsets, other.offsets)
    if one.dtype.kind == "S":  # its width depends on what is read together
        return other.dtype.kind == "S" and one.tolist() == other.tolist()
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def same_data(one: dict[str, dict], other: dict[str, dict]) -> bool:
    return list(one) == list(other) and all(
        list(one[split]) == list(other[split])
        and all(same_column(one[split][name], other[split][name]) for name in one[split])
        for split in one
    )
