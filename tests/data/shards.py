"""Small data sets on disk whose embeddings tell which row, field and view they are."""

from pathlib import Path

import numpy as np

from lightning_ss2a.data import FieldSpec, ShardWriter

VISUAL_WIDTH, AUDIO_WIDTH = 6, 4


def embeddings(rows: np.ndarray, width: int, views: int | None = None) -> np.ndarray:
    """Row number in coordinate 0 (exact in float32), view number in coordinate 1, ones elsewhere."""
    x = np.ones((len(rows), views or 1, width), np.float32)
    x[..., 0] = rows[:, None]
    x[..., 1] = np.arange(views or 1)
    return x if views else x[:, 0]


def pair_columns(rows: np.ndarray, group_size: int, visual_views: int | None, audio_views: int | None) -> dict:
    return {
        "visual": embeddings(rows, VISUAL_WIDTH, visual_views),
        "audio": embeddings(rows, AUDIO_WIDTH, audio_views),
        "class_index": (rows % 3).astype(np.int32),
        "pair_origin": (rows % 2).astype(np.uint8),
        "group": rows // group_size,
        "key": np.array([f"row{row}" for row in rows], dtype=np.bytes_),
    }


def write_pairs(
    folder: Path,
    rows: dict[str, int] | None = None,
    *,
    first: int = 0,
    group_size: int = 2,
    visual_views: int | None = None,
    audio_views: int | None = None,
    encoder: str = "eye",
    classes: tuple[str, ...] = ("cat", "dog", "owl"),
    folds: list[str] | None = None,
    shard_rows: int = 40,
    layout: str = "blocks",
    compression: str = "none",
) -> str:
    """Pairs in small blocks and shards; rows are numbered through the splits from ``first``, never within a group."""
    fields = {
        "visual": FieldSpec(width=VISUAL_WIDTH, encoder=encoder, views=visual_views, dtype="float32"),
        "audio": FieldSpec(width=AUDIO_WIDTH, encoder="ear", views=audio_views, dtype="float32"),
    }
    with ShardWriter(
        folder,
        kind="pairs",
        fields=fields,
        classes=list(classes),
        provenance="made for a test",
        licence="CC0",
        folds=folds,
        layout=layout,
        compression=compression,
        block_rows=8,
        shard_rows=shard_rows,
    ) as writer:
        for split, count in (rows or {"train": 100, "validation": 23}).items():
            numbers = np.arange(first, first + count)
            writer.write(split, pair_columns(numbers, group_size, visual_views, audio_views))
            first += -(-count // group_size) * group_size
    return str(folder)
