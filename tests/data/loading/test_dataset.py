"""ShardDataset, batches of every kind, and the rule of residency."""

import threading
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_ss2a.data import FieldSpec, ShardDataModule, ShardDataset, ShardWriter
from lightning_ss2a.data.loading import datamodule, shard_rows
from lightning_ss2a.data.loading.residency import available_memory, choose_residency
from lightning_ss2a.data.loading.tensors import RaggedRows, join, take
from lightning_ss2a.errors import InputError
from tests.data.shards import AUDIO_WIDTH, VISUAL_WIDTH, embeddings, pair_columns, write_pairs

PLACES = pytest.mark.parametrize(
    "options", [{"residency": "memory"}, {"residency": "stream", "shuffle_rows": 16}], ids=["memory", "stream"]
)


def row_columns(rows: int) -> dict[str, np.ndarray]:
    return {
        "pair_origin": np.zeros(rows, np.uint8),
        "group": np.arange(rows),
        "key": np.array([f"row{i}" for i in range(rows)], dtype=np.bytes_),
    }


def write_scenes(folder: Path, rows: int = 30) -> str:
    """Row i has 1 + i % 4 sources; its source j is [i, j, 1, ...]."""
    fields = {
        "sources": FieldSpec(width=VISUAL_WIDTH, encoder="eye", dtype="float32", ragged=True),
        "global_visual": FieldSpec(width=VISUAL_WIDTH, encoder="eye", dtype="float32"),
        "audio": FieldSpec(width=AUDIO_WIDTH, encoder="ear", dtype="float32"),
    }
    numbers = np.arange(rows)
    columns = {
        "sources": [embeddings(np.array([i]), VISUAL_WIDTH, 1 + i % 4)[0] for i in range(rows)],
        "global_visual": embeddings(numbers, VISUAL_WIDTH),
        "audio": embeddings(numbers, AUDIO_WIDTH),
        "classes": [np.full(i % 3, i % 2, np.int32) for i in range(rows)],
        **row_columns(rows),
    }
    with ShardWriter(
        folder, kind="scenes", fields=fields, classes=["cat", "dog"], provenance="test", licence="CC0", block_rows=8
    ) as writer:
        writer.write("train", columns)
        writer.write("validation", {name: column[:5] for name, column in columns.items()})
    return str(folder)


def write_videos(folder: Path, rows: int = 20) -> str:
    """Frame j of row i is [i, j, 1, ...] at second j / 8."""
    fields = {
        "frames": FieldSpec(width=VISUAL_WIDTH, encoder="eye", dtype="float16"),
        "audio": FieldSpec(width=AUDIO_WIDTH, encoder="ear", dtype="float16"),
    }
    columns = {
        "frames": embeddings(np.arange(rows), VISUAL_WIDTH, 64),
        "audio": embeddings(np.arange(rows), AUDIO_WIDTH),
        "timestamps": np.tile(np.arange(64, dtype=np.float32) / 8, (rows, 1)),
        "class_index": np.zeros(rows, np.int32),
        **row_columns(rows),
    }
    with ShardWriter(
        folder, kind="videos", fields=fields, classes=["cat"], provenance="test", licence="CC0", block_rows=8
    ) as writer:
        writer.write("train", columns)
        writer.write("validation", {name: column[:3] for name, column in columns.items()})
    return str(folder)


def check_scenes(batch: dict) -> None:
    index = batch["index"]
    lengths = 1 + index % 4
    assert batch["sources"].shape == (len(index), int(lengths.max()), VISUAL_WIDTH)
    assert torch.equal(batch["valid"].sum(dim=1), lengths)
    assert torch.equal(batch["valid"], torch.arange(batch["valid"].shape[1]) < lengths[:, None])
    assert torch.equal(batch["sources"][..., 0], index[:, None] * batch["valid"].float())
    assert not batch["sources"][~batch["valid"]].any()
    assert torch.equal((batch["classes"] >= 0).sum(dim=1), index % 3)
    assert torch.equal(batch["global_visual"][:, 0].long(), index)


@PLACES
def test_scenes_are_padded_with_a_mask(tmp_path: Path, options):
    data = ShardDataModule(write_scenes(tmp_path), batch_size=8, evaluation_batch_size=4, **options)
    batches = list(data.train_dataloader())
    assert len(batches) == 3
    for batch in [*batches, *data.val_dataloader()]:
        check_scenes(batch)
    assert batches[0]["sources"].dtype == torch.float32
    assert batches[0]["classes"].dtype == torch.int64
    empty = data.val_dataloader().source.read(5, 5)
    assert empty["sources"].shape == (0, 1, VISUAL_WIDTH)
    assert empty["valid"].shape == (0, 1)
    assert empty["key"] == []


@PLACES
def test_videos_have_frames_and_timestamps(tmp_path: Path, options):
    data = ShardDataModule(write_videos(tmp_path), batch_size=8, **options)
    for batch in [*data.train_dataloader(), *data.val_dataloader()]:
        rows = len(batch["index"])
        assert batch["frames"].shape == (rows, 64, VISUAL_WIDTH)
        assert batch["frames"].dtype == batch["timestamps"].dtype == torch.float32
        assert torch.equal(batch["frames"][:, :, 0].long(), batch["index"][:, None].expand(-1, 64))
        assert torch.equal(batch["frames"][0, :, 1], torch.arange(64.0))
        assert torch.equal(batch["timestamps"][0], torch.arange(64) / 8)


def test_a_split_for_notebooks(tmp_path: Path):
    path = write_pairs(tmp_path, visual_views=3)
    split = ShardDataset(path, "train", batch_size=30)
    assert len(split) == 100
    batches = list(split)
    assert [len(batch["key"]) for batch in batches] == [30, 30, 30, 10]
    whole = split.columns()
    assert whole["key"] == [f"row{i}" for i in range(100)]
    assert torch.equal(whole["visual"], torch.cat([batch["visual"] for batch in batches]))
    assert whole["visual"].shape == (100, VISUAL_WIDTH)
    assert whole["visual"][:, 1].unique().tolist() == [1.0]
    assert split.views["visual"].shape == (100, 3, VISUAL_WIDTH)
    assert list(split.views) == ["visual"]
    with pytest.raises(InputError, match=r"split is 'test', but the data set has only \['train', 'validation'\]"):
        ShardDataset(path, "test")


def test_ragged_rows_are_taken_and_joined_like_lists():
    ragged = RaggedRows(torch.arange(1, 7), torch.tensor([0, 2, 2, 3, 6]))  # [1, 2], [], [3], [4, 5, 6]
    taken = ragged.take(torch.tensor([3, 1, 0, 3]))
    assert taken.values.tolist() == [4, 5, 6, 1, 2, 4, 5, 6]
    assert taken.offsets.tolist() == [0, 3, 3, 5, 8]
    assert ragged.between(1, 4).values.tolist() == [3, 4, 5, 6]
    joined = join([{"x": ragged}, {"x": ragged.between(2, 4)}])["x"]
    assert joined.offsets.tolist() == [0, 2, 2, 3, 6, 7, 10]
    assert take({"x": joined}, torch.tensor([5]))["x"].values.tolist() == [4, 5, 6]


def test_residency_counts_what_rows_take_once_they_are_unpacked(tmp_path, monkeypatch):
    sizes = []
    monkeypatch.setattr(
        datamodule, "choose_residency", lambda wanted, size, *_, **__: sizes.append(size) or ("memory", "")
    )
    for compression in ("none", "gzip"):
        data = ShardDataModule(write_pairs(tmp_path / compression, compression=compression), batch_size=4)
        data.train_dataloader()
        assert sizes[-1] == sum(s.unpacked_bytes for split in data.manifest.splits for s in data.manifest.shards(split))
    assert sizes[0] == sizes[1]


def test_residency_follows_the_stated_rule():
    cpu, available = torch.device("cpu"), available_memory()
    assert available > 0
    assert choose_residency("stream", 0, cpu, 1)[0] == "stream"
    assert choose_residency("auto", available // 4, cpu, 1)[0] == "memory"
    place, reason = choose_residency("auto", available // 4, cpu, 4)
    assert place == "stream"
    assert "x 4 processes, more than 50 % of" in reason


def test_residency_prefers_a_gpu_that_has_room(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 2000))
    gpu = torch.device("cuda", 0)
    assert choose_residency("auto", 250, gpu, 1)[0] == "device"
    assert choose_residency("auto", 251, gpu, 1)[0] == "memory"


@pytest.mark.parametrize("residency", ["memory", "stream"])
@pytest.mark.parametrize("chosen", [None, np.r_[3:40:2, 41:100]], ids=["all rows", "a selection"])
def test_vectors_of_zeros_are_named_once_when_they_are_trained_on(tmp_path: Path, residency, chosen, monkeypatch):
    columns = pair_columns(np.arange(100), group_size=2, visual_views=2, audio_views=None)
    columns["audio"][[41, 77]] = 0
    fields = {"visual": FieldSpec(VISUAL_WIDTH, "eye", views=2), "audio": FieldSpec(AUDIO_WIDTH, "ear")}
    with ShardWriter(tmp_path, "pairs", fields, ["cat", "dog", "owl"], block_rows=8, shard_rows=40) as writer:
        writer.write("train", columns)
    data = ShardDataModule(str(tmp_path), batch_size=10, residency=residency, num_workers=0, fold=None)
    data.select_training_rows(chosen)
    find, both = shard_rows.zero_vectors, threading.Barrier(2)

    def find_at_once(column: np.ndarray) -> np.ndarray:
        """Lets two threads that read find zeros at the same time; where one reads alone, it waits in vain."""
        if len(found := find(column)):
            with suppress(threading.BrokenBarrierError):
                both.wait(0.5)
        return found

    monkeypatch.setattr(shard_rows, "zero_vectors", find_at_once)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loader = data.train_dataloader()
        for epoch in range(2):
            loader.load_state_dict({"epoch": epoch, "batch": 0})
            assert len(list(loader)) == len(loader)
    messages = [str(warning.message) for warning in caught if "zeros" in str(warning.message)]
    names = [f"{tmp_path}/train-000001.tar, row {row}, field audio: holds a vector of zeros" for row in (1, 37)]
    assert len(messages) == 1  # a stream reads its blocks in any order
    assert messages[0].startswith(tuple(names))
