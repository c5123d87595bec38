"""Hundreds of damaged and malicious data sets: each is a clear error or harmless; none executes anything."""

import json
import os
import pickle
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_ss2a.data import FieldSpec, Manifest, Ragged, ShardError, ShardReader, ShardWriter
from lightning_ss2a.data.format import npy
from lightning_ss2a.data.format.block_layout import encode_block
from lightning_ss2a.data.format.compatibility import load_manifests
from lightning_ss2a.data.format.manifest import FORMAT_VERSION
from lightning_ss2a.data.format.tar import END_OF_ARCHIVE
from lightning_ss2a.data.tools.pack import repack_dataset
from lightning_ss2a.data.tools.validate import validate_dataset
from tests.data.shard_examples import (
    CLASSES,
    FIELDS,
    make_dataset,
    make_label_head,
    random_columns,
    read_everything,
    same_data,
)
from tests.data.shard_forgery import build_tar, forge_block, replace_block, replace_shard, rewrite_manifest, tar_members

EXAMPLES = [(kind, layout) for kind in FIELDS for layout in ("blocks", "samples")] + [("scenes", "gzip")]
LAYOUTS = {
    "blocks": {"layout": "blocks"},
    "samples": {"layout": "samples"},
    "gzip": {"layout": "blocks", "compression": "gzip"},
}
SPLITS = {"train": 6, "validation": 2}


@cache
def original(kind: str, layout: str) -> tuple[dict[str, bytes], dict, Manifest]:
    """Files, rows and manifest of a good data set."""
    with tempfile.TemporaryDirectory() as folder:
        options = {"block_rows": 2, "shard_rows": 4, "label_head": make_label_head(labels=40)}
        make_dataset(Path(folder), kind, SPLITS, **LAYOUTS[layout], **options)
        files = {file.name: file.read_bytes() for file in sorted(Path(folder).iterdir())}
        return files, read_everything(folder), Manifest.load(folder)


def check(folder: Path, kind: str, layout: str) -> str | None:
    """Read and validate; returns the reader's error, or None where everything is as it was."""
    _, rows, manifest = original(kind, layout)
    problems = validate_dataset(folder)
    assert all(str(problem) and "\n" not in str(problem) for problem in problems)
    try:
        reader = ShardReader(folder)
        found = {split: reader.read_split(split) for split in reader.manifest.splits}
        if reader.manifest.label_head is not None:
            reader.manifest.load_label_head(folder)
    except ShardError as error:
        message = str(error)
    else:
        assert reader.manifest == manifest
        assert same_data(found, rows)
        return None
    assert "\n" not in message
    assert problems, f"the reader sees what the validator does not: {message}"
    return message


def check_error(folder: Path, message: str = "") -> str:
    """Reader and validator both must refuse it."""
    problems = "\n".join(map(str, validate_dataset(folder)))
    with pytest.raises(ShardError, match=message) as caught:
        read_everything(folder)
    assert problems
    return str(caught.value)


def spread(files: dict[str, bytes], folder: str) -> Path:
    for name, data in files.items():
        (Path(folder) / name).write_bytes(data)
    return Path(folder)


# ---------------------------------------------------------------- accidents: any bit, any length, any mix of files


@pytest.mark.parametrize(("kind", "layout"), EXAMPLES)
@settings(max_examples=80, deadline=None, derandomize=True)
@given(data=st.data())
def test_flipped_bits(kind, layout, data):
    files = dict(original(kind, layout)[0])
    name = data.draw(st.sampled_from(sorted(files)))
    damaged = bytearray(files[name])
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with tempfile.TemporaryDirectory() as folder:
        check(spread(files | {name: bytes(damaged)}, folder), kind, layout)


@pytest.mark.parametrize(("kind", "layout"), EXAMPLES)
def test_every_kind_of_byte_matters(kind, layout):
    """Flips in tar headers, array headers, numbers and padding are all seen: only the end of the archive is free."""
    files, _, manifest = original(kind, layout)
    shard = manifest.shards("train")[0]
    data = files[shard.file]
    for position in (0, 100, 130, 150, 156, 257, 511, 512, 518, 530, 700, len(data) // 2, len(data) - 1025):
        damaged = bytearray(data)
        damaged[position] ^= 4
        with tempfile.TemporaryDirectory() as folder:
            assert check(spread(files | {shard.file: bytes(damaged)}, folder), kind, layout), position
    damaged = data[:-1] + b"x"
    with tempfile.TemporaryDirectory() as folder:
        seen = check(spread(files | {shard.file: damaged}, folder), kind, layout)
        assert (seen is None) == (layout != "samples")
        assert validate_dataset(folder)


@pytest.mark.parametrize(("kind", "layout"), EXAMPLES)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_truncation_and_growth(kind, layout, data):
    files = dict(original(kind, layout)[0])
    name = data.draw(st.sampled_from(sorted(files)))
    size = data.draw(st.integers(0, len(files[name]) + 700))
    damaged = (files[name] + bytes(700))[:size]
    with tempfile.TemporaryDirectory() as folder:
        spread(files | {name: damaged}, folder)
        # White space may follow JSON, anything else is seen.
        harmless = damaged == files[name] or (name == "manifest.json" and damaged.strip() == files[name].strip())
        assert (check(Path(folder), kind, layout) is None) == harmless


@pytest.mark.parametrize(("kind", "layout"), EXAMPLES)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(data=st.data())
def test_swapped_missing_and_foreign_files(kind, layout, data):
    files = dict(original(kind, layout)[0])
    one, other = data.draw(st.lists(st.sampled_from(sorted(files)), min_size=2, max_size=2, unique=True))
    changed = data.draw(st.sampled_from(["swapped", "missing", "copied"]))
    if changed == "swapped":
        files[one], files[other] = files[other], files[one]
    elif changed == "missing":
        del files[one]
    else:
        files[one] = files[other]
    with tempfile.TemporaryDirectory() as folder:
        assert check(spread(files, folder), kind, layout)


@pytest.mark.parametrize("layout", ["blocks", "samples"])
def test_a_shard_of_another_encoder(tmp_path, layout):
    options = {"layout": layout, "shard_rows": 4, "block_rows": 2}
    for name, encoder in (("clip", "clip"), ("other", "other")):
        fields = {"visual": FieldSpec(6, encoder, views=2), "audio": FieldSpec(4, "clap", dtype="float32")}
        with ShardWriter(tmp_path / name, "pairs", fields, CLASSES, **options) as writer:
            writer.write("train", random_columns("pairs", 8, seed=len(name)))
    with pytest.raises(ShardError, match="encoder of field 'visual' is 'clip' in the first and 'other' in the second"):
        load_manifests([str(tmp_path / "clip"), str(tmp_path / "other")])
    with pytest.raises(ShardError, match="encoder"):
        repack_dataset([str(tmp_path / "clip"), str(tmp_path / "other")], tmp_path / "mixed")
    shutil.copy(tmp_path / "other" / "train-000001.tar", tmp_path / "clip" / "train-000001.tar")
    check_error(tmp_path / "clip", r"train-000001\.tar")


def test_missing_manifest_and_other_versions(tmp_path):
    make_dataset(tmp_path)
    rewrite_manifest(tmp_path, lambda content: content.update(format_version=FORMAT_VERSION + 1))
    check_error(tmp_path, "upgrade lightning_ss2a")
    content = json.loads((tmp_path / "manifest.json").read_text()) | {"format_version": FORMAT_VERSION - 1}
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    assert "\n" not in check_error(tmp_path, r"older than this program reads.*: build the data set again \(ss2a shards")
    (tmp_path / "manifest.json").unlink()
    check_error(tmp_path, r"manifest\.json: missing")


# ---------------------------------------------------------------- malice: the checksums are right


def damage_columns(name: str, change: Callable) -> Callable[[dict], None]:
    def apply(columns: dict) -> None:
        columns[name] = change(columns[name])

    return apply


def put(index, number) -> Callable:
    def change(column):
        column[index] = number
        return column

    return change


@pytest.mark.parametrize(
    ("kind", "name", "change", "message"),
    [
        ("pairs", "visual", put((1, 0, 2), np.nan), "row 1, field visual is NaN or infinite"),
        ("pairs", "audio", put((0, 3), -np.inf), "row 0, field audio is NaN or infinite"),
        ("pairs", "audio", lambda x: x[:, :3], r"field audio has shape \[2, 3\], needs \[2, 4\]"),
        ("pairs", "audio", lambda x: x[:1], r"field audio has shape \[1, 4\]"),
        ("pairs", "audio", lambda x: x.astype(np.float64), "field audio has dtype float64, needs float32"),
        ("pairs", "audio", lambda x: x.astype(">f4"), "field audio has dtype >f4"),
        ("pairs", "audio", lambda x: x.astype("S8"), "field audio has dtype"),
        ("pairs", "class_index", put(1, 3), "row 1, field class_index is 3, needs 0 to 2"),
        ("pairs", "class_index", put(1, -1), "row 1, field class_index is -1"),
        ("pairs", "pair_origin", put(0, 7), "row 0, field pair_origin is 7"),
        ("pairs", "key", put(0, b"\xff"), "row 0, field key is not UTF-8"),
        ("pairs", "key", put(1, b""), "row 1, field key is empty"),
        ("pairs", "key", lambda x: np.array(["a", "b"]), "field key has dtype"),
        ("videos", "frames", lambda x: x[:, :63], r"needs \[2, 64, 3\]"),
        ("videos", "timestamps", put((1, 5), np.nan), "row 1, field timestamps is NaN"),
        ("scenes", "sources", lambda x: Ragged(x.values, x.offsets[::-1].copy()), "offsets that do not go up"),
        ("scenes", "sources", lambda x: Ragged(x.values, x.offsets + 1), "offsets that do not go up"),
        ("scenes", "sources", lambda x: Ragged(x.values, x.offsets * 2**40), "offsets that do not go up"),
        ("scenes", "sources", lambda x: Ragged(x.values, x.offsets.astype(np.int32)), "offsets int32"),
        ("scenes", "sources", lambda x: Ragged(x.values[:, :2], x.offsets), "has shape"),
        ("scenes", "sources", lambda x: Ragged(x.values * np.nan, x.offsets), "row 0, field sources is NaN"),
        ("scenes", "classes", lambda x: Ragged(np.full(2, 9, np.int32), np.array([0, 0, 2])), "row 1, field classes"),
    ],
)
def test_forged_columns(tmp_path, kind, name, change, message):
    make_dataset(tmp_path, kind, SPLITS, block_rows=2, shard_rows=4)
    forge_block(tmp_path, "train", 0, 1, damage_columns(name, change))
    assert "train-000000.tar: block 1" in check_error(tmp_path, message)


class _Canary:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def canary_array(path: Path) -> bytes:
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    header += b" " * (64 - (len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + pickle.dumps(_Canary(path))


def code_header(path: Path) -> bytes:
    header = f"{{'descr': __import__('os').mkdir('{path}'), 'fortran_order': False, 'shape': (1,)}}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


def array_header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


Members = list[tuple[tarfile.TarInfo, bytes]]


def with_content(content: Callable[[Path], bytes]) -> Callable[[Members, Path], None]:
    def change(members: Members, canary: Path) -> None:
        i = next(i for i, (member, _) in enumerate(members) if member.name.endswith(".audio.npy"))
        members[i] = members[i][0], content(canary)

    return change


def with_name(name: str) -> Callable[[Members, Path], None]:
    def change(members: Members, canary: Path) -> None:
        members[0][0].name = name

    return change


def with_new(name: str) -> Callable[[Members, Path], None]:
    def change(members: Members, canary: Path) -> None:
        members.append((tarfile.TarInfo(name), pickle.dumps(_Canary(canary))))

    return change


def with_type(kind: bytes, target: str = "/etc/hostname") -> Callable[[Members, Path], None]:
    def change(members: Members, canary: Path) -> None:
        member = members[0][0]
        member.type, member.linkname, member.size = kind, target, 0
        members[0] = member, b""

    return change


def duplicated(members: Members, canary: Path) -> None:
    members.insert(1, members[0])


def dropped(members: Members, canary: Path) -> None:
    del members[0]


MALICE = {
    "pickled objects": (with_content(canary_array), "pickled Python objects, which are never loaded"),
    "a bare pickle": (with_content(lambda path: pickle.dumps(_Canary(path))), "not an .npy file"),
    "code in a header": (with_content(code_header), "damaged .npy header"),
    "an empty array file": (with_content(lambda path: b""), "not an .npy file"),
    "an endless header": (with_content(lambda path: array_header("(" * 9000)), r"\.npy"),
    "a huge shape": (
        with_content(lambda p: array_header("{'descr': '<f2', 'fortran_order': False, 'shape': (1<<60,)}\n")),
        r"\.npy header",
    ),
    "a shape beyond the file": (
        with_content(lambda p: array_header("{'descr': '<f2', 'fortran_order': False, 'shape': (9999999999,)}\n")),
        "bytes of numbers",
    ),
    "a negative shape": (
        with_content(lambda p: array_header("{'descr': '<f2', 'fortran_order': False, 'shape': (-1, -1)}\n")),
        r"\.npy header",
    ),
    "a .pyd member": (with_new("{key}.visual.pyd"), "is a pickle, which is never loaded"),
    "a .pickle member": (with_new("{key}.pickle"), "is a pickle"),
    "a .pth member": (with_new("{key}.visual.pth"), "is a pickle"),
    "another member": (with_new("{key}.notes.txt"), "does not belong here"),
    "a path upwards": (with_name("../{key}.visual.npy"), "not a plain file name"),
    "an absolute path": (with_name("/tmp/{key}.visual.npy"), "not a plain file name"),
    "a folder in the name": (with_name("x/{key}.visual.npy"), "not a plain file name"),
    "a Windows path": (with_name("..\\{key}.visual.npy"), "not a plain file name"),
    "a symbolic link": (with_type(tarfile.SYMTYPE), "is a symbolic link"),
    "a hard link": (with_type(tarfile.LNKTYPE), "is a hard link"),
    "a device": (with_type(tarfile.CHRTYPE), "is a device"),
    "a named pipe": (with_type(tarfile.FIFOTYPE), "is a named pipe"),
    "a folder": (with_type(tarfile.DIRTYPE), "is a folder"),
    "a long name": (with_type(tarfile.GNUTYPE_LONGNAME), "unknown type"),
    "an extended header": (with_type(b"x"), "unknown type"),
    "a sparse file": (with_type(tarfile.GNUTYPE_SPARSE), "is a sparse file"),
    "a member twice": (duplicated, "comes twice"),
    "a member missing": (dropped, "is missing"),
}


@pytest.mark.parametrize("layout", ["blocks", "samples"])
@pytest.mark.parametrize("what", MALICE)
def test_malicious_members(tmp_path, what, layout):
    change, message = MALICE[what]
    folder, canary = tmp_path / "data", tmp_path / "canary"
    make_dataset(folder, "pairs", SPLITS, layout=layout, block_rows=2, shard_rows=4)
    shard = Manifest.load(folder).shards("train")[0]
    data = (folder / shard.file).read_bytes()
    if layout == "blocks":
        block = shard.blocks[0]
        members = tar_members(data[block.offset : block.offset + block.bytes])
    else:
        members = tar_members(data)
    key = members[0][0].name.partition(".")[0]
    change(members, canary)
    for member, _ in members:
        member.name = member.name.replace("{key}", key)
    forged = build_tar(members)
    if layout == "blocks":
        replace_block(folder, "train", 0, 0, forged)
    else:
        replace_shard(folder, "train", 0, forged + END_OF_ARCHIVE)
    check_error(folder, message)
    assert not canary.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


@pytest.mark.parametrize("layout", ["blocks", "samples"])
@pytest.mark.parametrize(
    "size", [b"-0000001000\0", b"\xff" * 12, b"77777777777\0", b"\x80" + bytes(10) + b"\x01", bytes(12)]
)
def test_sizes_that_send_readers_in_circles(tmp_path, layout, size):
    make_dataset(tmp_path, "pairs", SPLITS, layout=layout, block_rows=2, shard_rows=4)
    shard = Manifest.load(tmp_path).shards("train")[0]
    data = bytearray((tmp_path / shard.file).read_bytes())
    data[124:136] = size
    data[148:156] = b" " * 8
    data[148:156] = f"{sum(data[:512]):06o}\0 ".encode()
    if layout == "blocks":
        replace_block(tmp_path, "train", 0, 0, bytes(data[: shard.blocks[0].bytes]))
    else:
        replace_shard(tmp_path, "train", 0, bytes(data))
    check_error(tmp_path, r"train-000000\.tar")


def test_blocks_in_another_order(tmp_path):
    """A block knows its number: the bytes of another block with a right checksum are still refused."""
    make_dataset(tmp_path, "pairs", SPLITS, block_rows=2, shard_rows=4)
    columns = ShardReader(tmp_path).read("train", 0, 2, 4)
    replace_block(tmp_path, "train", 0, 0, encode_block(columns, 1)[0])
    check_error(tmp_path, "block 0: member '000001.audio.npy' does not belong here")


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (b"{", "not valid JSON"),
        (b"[]", "needs an object"),
        (b'{"class": "wolf"}', "class 'wolf' is not one of"),
        (b'{"class": "dog", "class_index": 1}', "is not class 'dog'"),
        (b'{"class_index": 99}', "row 0, field class_index is 99"),
        (b'{"class_index": 1e999}', "class_index in .json needs int"),
        (b'{"class": "dog", "pair_origin": "found"}', "pair_origin is 'found'"),
        (b'{"class": "dog", "group": "x"}', "group in .json needs int"),
        (b'{"class": "dog", "group": 36893488147419103232}', "does not fit int64"),
        (b'{"class": "dog", "key": ""}', "row 0, field key is empty"),
        (b'{"key": "a"}', "row 0, field class_index is -1"),
        (b"[" * 100_000, "not valid JSON"),
    ],
)
def test_forged_facts_of_samples(tmp_path, facts, message):
    make_dataset(tmp_path, "pairs", SPLITS, layout="samples", shard_rows=4)
    members = tar_members((tmp_path / "train-000000.tar").read_bytes())
    i = next(i for i, (member, _) in enumerate(members) if member.name.endswith(".json"))
    members[i] = members[i][0], facts
    replace_shard(tmp_path, "train", 0, build_tar(members) + END_OF_ARCHIVE)
    check_error(tmp_path, message)


@pytest.mark.parametrize("array", [np.ones((2, 5)), np.ones(6), np.ones((2, 6)), np.full((2, 6), np.nan)])
def test_forged_arrays_of_samples(tmp_path, array):
    make_dataset(tmp_path, "pairs", SPLITS, layout="samples", shard_rows=4)
    members = tar_members((tmp_path / "train-000000.tar").read_bytes())
    i = next(i for i, (member, _) in enumerate(members) if member.name.endswith(".visual.npy"))
    kind = np.float64 if np.isfinite(array).all() and array.shape == (2, 6) else np.float16
    members[i] = members[i][0], npy.encode(array.astype(kind))
    replace_shard(tmp_path, "train", 0, build_tar(members) + END_OF_ARCHIVE)
    check_error(tmp_path, "field visual")


def test_names_in_the_manifest_reach_no_shell_and_no_other_folder(tmp_path):
    folder = make_dataset(tmp_path / "data")
    for name in (f"x; mkdir {tmp_path}/canary", f"$(mkdir {tmp_path}/canary)", "../x.tar", "/etc/passwd", "", "."):
        content = json.loads((folder / "manifest.json").read_text())
        content.pop("checksum", None)
        content["splits"]["train"][0]["file"] = name
        (folder / "manifest.json").write_text(json.dumps(content))
        for path in (folder, f"pipe:cat {folder}"):
            assert validate_dataset(path)
            with pytest.raises(ShardError, match="needs the plain name of a file in the folder"):
                read_everything(path)
    assert not (tmp_path / "canary").exists()


def test_links_in_the_folder(tmp_path):
    folder = make_dataset(tmp_path / "data")
    for name in ("train-000000.tar", "manifest.json"):
        (folder / name).rename(tmp_path / name)
        (folder / name).symlink_to(tmp_path / name)
        check_error(folder, "is a link out of the data set's folder")
        with pytest.raises(ShardError, match="is a link out of the data set's folder"):
            read_everything(f"file://{folder}")
        assert validate_dataset(f"file://{folder}")
        (folder / name).unlink()
        (tmp_path / name).rename(folder / name)
    (folder / "train-000000.tar").rename(folder / "elsewhere")
    (folder / "train-000000.tar").symlink_to("elsewhere")
    assert len(read_everything(folder)["train"]["key"]) == 20
