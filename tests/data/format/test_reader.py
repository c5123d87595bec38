import pickle

import fsspec
import numpy as np
import pytest
import webdataset

from lightning_ss2a.data import Manifest, Ragged, ShardError, ShardReader
from lightning_ss2a.data.format import compression
from lightning_ss2a.data.format.compression import decompress
from lightning_ss2a.data.format.storage import RangeReader
from tests.data.shard_examples import FIELDS, make_dataset, read_everything, same_column, same_data

BOTH = pytest.mark.parametrize("layout", ["blocks", "samples"])


@BOTH
@pytest.mark.parametrize("kind", FIELDS)
def test_parts_are_the_whole(tmp_path, kind, layout):
    make_dataset(tmp_path, kind, layout=layout)
    reader = ShardReader(tmp_path)
    whole = reader.read_split("train")
    for start in range(9):
        for stop in range(start, 9):
            part = reader.read("train", 0, start, stop)
            for name, column in part.items():
                expected = whole[name][start:stop]
                assert len(column) == stop - start
                assert same_column(column, expected)


@BOTH
def test_fields_are_chosen(tmp_path, layout):
    reader = ShardReader(make_dataset(tmp_path, layout=layout))
    assert list(reader.read("train", 1, 1, 5, ["audio", "key"])) == ["audio", "key"]
    assert list(reader.read_split("train", ["visual"])) == ["visual"]
    assert sum(len(part["audio"]) for part in reader.blocks("train", ["audio"])) == 20
    with pytest.raises(ShardError, match="no field 'text'"):
        reader.read("train", 0, fields=["text"])
    with pytest.raises(ShardError, match="no rows 3 to 99"):
        reader.read("train", 0, 3, 99)
    with pytest.raises(ShardError, match="no split 'test'"):
        reader.read_split("test")


def test_one_block_is_read_without_a_copy_and_may_be_written_to(tmp_path):
    reader = ShardReader(make_dataset(tmp_path))
    visual = reader.read("train", 0, 0, 3)["visual"]
    assert visual.base is not None
    assert visual.flags.writeable


def test_a_block_is_read_at_once_and_only_the_fields_asked_for_are_unpacked(tmp_path, monkeypatch):
    make_dataset(tmp_path, compression="gzip", block_rows=20, shard_rows=20)
    reads, unpacked, read_into = [], [], RangeReader.read_into

    def counted(file, buffer, offset):
        reads.append(len(buffer))
        return read_into(file, buffer, offset)

    def noted(packed, size, where):
        unpacked.append(where.rpartition("'000000.")[2])
        return decompress(packed, size, where)

    monkeypatch.setattr(RangeReader, "read_into", counted)
    monkeypatch.setattr(compression, "decompress", noted)
    keys = ShardReader(tmp_path).read("train", 0, 3, 5, ["key"])["key"]
    assert keys.tolist() == ["clip ü/3.pairs".encode(), "clip ü/4.pairs".encode()]
    assert keys.flags.writeable
    assert reads == [Manifest.load(tmp_path).shards("train")[0].blocks[0].bytes]
    assert unpacked == ["key.npy.gz'"]


@BOTH
def test_goes_to_other_processes(tmp_path, layout):
    reader = ShardReader(make_dataset(tmp_path, layout=layout))
    reader.read("train", 0)
    copy = pickle.loads(pickle.dumps(reader))
    assert same_column(copy.read_split("train")["audio"], reader.read_split("train")["audio"])


@BOTH
@pytest.mark.parametrize("kind", FIELDS)
def test_plain_webdataset_opens_it(tmp_path, kind, layout):
    make_dataset(tmp_path, kind, layout=layout)
    shards = [str(tmp_path / shard.file) for shard in Manifest.load(tmp_path).shards("train")]
    samples = list(webdataset.WebDataset(shards, shardshuffle=False, empty_check=False).decode())
    audio = [sample["audio.npy"] for sample in samples]
    ours = read_everything(tmp_path)["train"]
    if layout == "blocks":
        assert len(samples) == 8
        assert np.array_equal(np.concatenate(audio), ours["audio"])
        return
    assert len(samples) == 20
    assert np.array_equal(np.stack(audio), ours["audio"])
    assert [sample["json"]["key"].encode() for sample in samples] == ours["key"].tolist()


@pytest.mark.parametrize("kind", FIELDS)
def test_plain_webdataset_unpacks_compressed_members(tmp_path, kind):
    make_dataset(tmp_path, kind, compression="gzip", block_rows=20, shard_rows=20)
    shards = [str(tmp_path / shard.file) for shard in Manifest.load(tmp_path).shards("train")]
    (sample,) = webdataset.WebDataset(shards, shardshuffle=False, empty_check=False).decode()
    ours = read_everything(tmp_path)["train"]
    compressed = [name for name in sample if name.endswith(".npy.gz")]
    assert {"key.npy.gz", "name.npy.gz", "group.npy.gz"} <= set(compressed)
    for name in compressed:
        field, part = name.removesuffix(".npy.gz"), "values"
        if field not in ours:
            field, part = field.split(".")
        column = ours[field]
        assert np.array_equal(sample[name], getattr(column, part) if isinstance(column, Ragged) else column), name


@BOTH
@pytest.mark.parametrize("form", ["{}", "file://{}", "pipe:cat {}", "{}/"])
def test_urls(tmp_path, layout, form):
    make_dataset(tmp_path, layout=layout)
    assert same_data(read_everything(form.format(tmp_path)), read_everything(tmp_path))


@BOTH
def test_memory_file_system(tmp_path, layout):
    make_dataset(tmp_path, layout=layout)
    memory = fsspec.filesystem("memory")
    for file in tmp_path.iterdir():
        memory.pipe_file(f"/{layout}/{file.name}", file.read_bytes())
    assert same_data(read_everything(f"memory://{layout}"), read_everything(tmp_path))


@pytest.mark.parametrize("url", ["pipe:cat {}/nowhere", "pipe:false", "nonsense://x", "memory://nowhere", "/nowhere"])
def test_urls_that_lead_nowhere(tmp_path, url):
    with pytest.raises(ShardError, match=r"manifest\.json"):
        ShardReader(url.format(tmp_path))


def test_a_pipe_is_read_through_and_opened_again_to_go_back(tmp_path):
    make_dataset(tmp_path)
    piped, local = ShardReader(f"pipe:cat {tmp_path}"), ShardReader(tmp_path)
    for start, stop in ((6, 8), (0, 2), (3, 7)):
        assert same_column(piped.read("train", 0, start, stop)["key"], local.read("train", 0, start, stop)["key"])


@BOTH
def test_another_file_of_another_size(tmp_path, layout):
    make_dataset(tmp_path, layout=layout)
    with open(tmp_path / "train-000001.tar", "ab") as file:
        file.write(bytes(512))
    with pytest.raises(ShardError, match=r"train-000001\.tar: has \d+ bytes, the manifest says"):
        read_everything(tmp_path)
