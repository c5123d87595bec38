"""Gzip where it pays; never unpacked beyond what the manifest says, whoever wrote the file."""

import gzip
import io
import tarfile
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lightning_ss2a.data import FieldSpec, Manifest, ShardError, ShardReader, ShardWriter
from lightning_ss2a.data.format import npy
from lightning_ss2a.data.format.compression import MOST_EXPANSION, compress, decompress, stated_size
from lightning_ss2a.data.tools.pack import repack_dataset
from lightning_ss2a.data.tools.validate import validate_dataset
from tests.data.shard_examples import CLASSES, FIELDS, make_dataset, random_columns, read_everything, same_data
from tests.data.shard_forgery import build_tar, replace_block, rewrite_manifest, tar_members


def still_videos(rows: int) -> dict:
    """Videos whose frames are all the same."""
    columns = random_columns("videos", rows)
    columns["frames"] = np.repeat(columns["frames"][:, :1], 64, axis=1)
    return columns


def members_of(file: Path) -> dict[str, bytes]:
    return {member.name: content for member, content in tar_members(file.read_bytes())}


# ---------------------------------------------------------------- writing


def test_it_is_a_gzip_of_no_time_that_anybody_unpacks():
    content = b"still " * 1000
    packed = compress(content)
    assert gzip.decompress(packed) == content
    assert packed[4:8] == bytes(4)
    assert packed == compress(content)
    assert stated_size(memoryview(packed), "x") == len(content)
    assert decompress(memoryview(packed), len(content), "x") == content


def test_what_hardly_gets_smaller_is_left_as_it_is():
    noise = np.random.default_rng(0).standard_normal(50_000).astype(np.float16).tobytes()
    assert len(zlib.compress(noise, 9)) < len(noise)
    assert compress(noise) is None
    assert compress(b"") is None


def test_each_member_is_compressed_only_where_it_pays(tmp_path):
    with ShardWriter(tmp_path, "videos", FIELDS["videos"], CLASSES, compression="gzip") as writer:
        writer.write("train", still_videos(200))
    members = members_of(tmp_path / "train-000000.tar")
    suffixes = {name.partition(".")[2] for name in members}
    assert {"frames.npy.gz", "key.npy.gz", "class_index.npy.gz"} <= suffixes
    assert "audio.npy" in suffixes  # noise
    assert all(len(content) <= 0.9 * len(gzip.decompress(content)) for n, content in members.items() if n[-3:] == ".gz")
    (block,) = Manifest.load(tmp_path).shards("train")[0].blocks
    assert block.unpacked_bytes == sum(len(gzip.decompress(x) if n[-3:] == ".gz" else x) for n, x in members.items())


@pytest.mark.parametrize("kind", FIELDS)
def test_rows_are_those_of_plain_shards(tmp_path, kind):
    plain = make_dataset(tmp_path / "plain", kind)
    packed = make_dataset(tmp_path / "packed", kind, compression="gzip")
    assert same_data(read_everything(plain), read_everything(packed))
    assert any(name.endswith(".gz") for name in members_of(packed / "train-000000.tar"))
    assert validate_dataset(packed) == []
    repack_dataset([str(packed)], tmp_path / "again")
    for name in ("train-000000.tar", "validation-000000.tar"):
        assert (tmp_path / "again" / name).exists()
    assert same_data(read_everything(tmp_path / "again"), read_everything(plain))


def test_only_blocks_are_compressed(tmp_path):
    with pytest.raises(ShardError, match="compression is 'gzip', needs one of none, gzip; in layout samples"):
        ShardWriter(tmp_path, "pairs", FIELDS["pairs"], CLASSES, layout="samples", compression="gzip")
    with pytest.raises(ShardError, match="compression is 'zip', needs one of none, gzip"):
        ShardWriter(tmp_path, "pairs", FIELDS["pairs"], CLASSES, compression="zip")


# ---------------------------------------------------------------- reading what others forged

ROWS, WIDTH = 4, 6


@pytest.fixture
def folder(tmp_path) -> Path:
    fields = {"visual": FieldSpec(WIDTH, "clip"), "audio": FieldSpec(4, "clap")}
    with ShardWriter(tmp_path, "pairs", fields, CLASSES, compression="gzip") as writer:
        columns = random_columns("pairs", ROWS)
        writer.write("train", columns | {"visual": np.zeros((ROWS, WIDTH))})
    assert "000000.visual.npy.gz" in members_of(tmp_path / "train-000000.tar")
    return tmp_path


def forge(folder: Path, change: Callable[[bytes], bytes], unpacked_bytes: int) -> None:
    """Change the compressed visual member; the manifest's checksums follow, its unpacked bytes are those given."""
    members = tar_members((folder / "train-000000.tar").read_bytes())
    changed = [(m, change(x) if m.name == "000000.visual.npy.gz" else x) for m, x in members]
    replace_block(folder, "train", 0, 0, build_tar(changed), unpacked_bytes)


def refused(folder: Path, message: str) -> None:
    with pytest.raises(ShardError, match=rf"train-000000\.tar: block 0: {message}"):
        read_everything(folder)
    assert "train-000000.tar" in "\n".join(map(str, validate_dataset(folder)))


def unpacked(folder: Path) -> int:
    return Manifest.load(folder).shards("train")[0].blocks[0].unpacked_bytes


def bomb(size: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return packer.compress(npy.encode(np.zeros((ROWS, WIDTH), np.float16)) + bytes(size)) + packer.flush()


def most_memory(folder: Path) -> int:
    """Bytes that an attempt to read takes at most."""
    tracemalloc.start()
    try:
        with pytest.raises(ShardError):
            read_everything(folder)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_bomb_is_refused_before_it_is_unpacked(folder):
    forge(folder, lambda _: bomb(1 << 26), unpacked(folder))
    assert most_memory(folder) < 1 << 20
    refused(folder, r"member '000000\.visual\.npy\.gz' is said to unpack to 671\d+ bytes, which is more than the man")


def test_a_bomb_that_lies_about_its_size_is_unpacked_to_that_size_only(folder):
    size = stated_size(memoryview(members_of(folder / "train-000000.tar")["000000.visual.npy.gz"]), "x")
    forge(folder, lambda _: bomb(1 << 26)[:-4] + size.to_bytes(4, "little"), unpacked(folder))
    assert most_memory(folder) < 1 << 20
    refused(folder, rf"member '000000\.visual\.npy\.gz': unpacks to another size than the {size} bytes that it states")


def test_a_bomb_that_the_manifest_knows_of_is_not_what_its_rows_are(folder):
    honest = unpacked(folder)
    forge(folder, lambda _: bomb(1 << 20), honest + (1 << 20))
    with pytest.raises(ShardError, match=r"train-000000\.tar: block 0, field visual: \d+ bytes of numbers, but shape"):
        read_everything(folder)
    assert validate_dataset(folder)


def test_the_manifest_cannot_state_more_than_any_gzip_holds(folder):
    def claim(content: dict) -> None:
        (shard,) = content["splits"]["train"]
        shard["rows"] = shard["blocks"][0]["rows"] = 1 << 40
        shard["blocks"][0]["unpacked_bytes"] = MOST_EXPANSION * shard["blocks"][0]["bytes"] + 1

    rewrite_manifest(folder, claim)
    with pytest.raises(ShardError, match=r"rows is 1099511627776, which \d+ bytes cannot hold"):
        ShardReader(folder)
    assert any("cannot unpack to" in str(problem) for problem in validate_dataset(folder))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[:10], "member '000000.visual.npy.gz': not a gzip file"),
        (lambda x: b"x" + x[1:], "member '000000.visual.npy.gz': damaged gzip file"),
        (lambda x: x[:-8] + bytes(4) + x[-4:], "member '000000.visual.npy.gz': damaged gzip file"),
        (lambda x: x[:-20] + x[-4:], "member '000000.visual.npy.gz': "),
        (lambda x: x[:12] + x, "member '000000.visual.npy.gz': "),
        (lambda x: x + x, "member '000000.visual.npy.gz': unpacks to another size"),
        (lambda x: gzip.compress(gzip.decompress(x).replace(b"'<f2'", b"'|O' ")), "field visual: holds pickled Python"),
    ],
    ids=["cut", "no gzip", "checksum", "shortened", "repeated start", "two of them", "pickled objects"],
)
def test_damaged_members(folder, change, message):
    forge(folder, change, unpacked(folder))
    with pytest.raises(ShardError, match=message.replace(".", r"\.")):
        read_everything(folder)
    assert validate_dataset(folder)


@pytest.mark.parametrize("difference", [-1, 1])
def test_other_sizes_than_the_manifests(folder, difference):
    forge(folder, lambda x: x, unpacked(folder) + difference)
    refused(folder, r"(member '\S+' is said to unpack to|its members unpack to \d+ bytes, the manifest says)")


def test_a_member_that_is_there_both_ways(folder):
    members = tar_members((folder / "train-000000.tar").read_bytes())
    i = next(i for i, (member, _) in enumerate(members) if member.name == "000000.visual.npy.gz")
    members.insert(i, (tarfile.TarInfo("000000.visual.npy"), gzip.decompress(members[i][1])))
    replace_block(folder, "train", 0, 0, build_tar(members))
    refused(folder, r"member '000000\.visual\.npy\.gz' is there as '000000\.visual\.npy', too")


def test_a_compressed_pickle_is_no_member(folder):
    members = tar_members((folder / "train-000000.tar").read_bytes())
    buffer = io.BytesIO()
    buffer.write(gzip.compress(b"x"))
    members.append((tarfile.TarInfo("000000.visual.pickle.gz"), buffer.getvalue()))
    replace_block(folder, "train", 0, 0, build_tar(members))
    refused(folder, r"member '000000\.visual\.pickle\.gz' does not belong here")
