import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.media import qt_resources
from lightning_ss2a.perception.media.files import read_media
from lightning_ss2a.perception.media.qt_resources import COMPRESSED_ZLIB, COMPRESSED_ZSTD, DIRECTORY, QtResources
from tests.perception.media_files import result_or_error

CAT = bytes(range(256)) * 5
FILES = {
    "zoo/cat.svg": (CAT, COMPRESSED_ZLIB),
    "zoo/größe.ogg": (b"plain content", 0),
    "top.txt": (b"", 0),
}


def qt_compress(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + zlib.compress(content)


def qt_hash(name: str) -> int:
    """qt_hash of qtbase/src/corelib/tools/qhash.cpp; the reader does not need it, real files have it."""
    h = 0
    for unit in struct.unpack(f">{len(name.encode('utf-16-be')) // 2}H", name.encode("utf-16-be")):
        h = (h << 4) + unit
        h ^= (h & 0xF0000000) >> 23
        h &= 0x0FFFFFFF
    return h


def resource_file(files: dict[str, tuple[bytes, int]], version: int = 1) -> bytes:
    """A file as Qt's rcc writes it: breadth first, a directory's children side by side."""
    root: dict = {}
    for path, content in files.items():
        *folders, name = path.split("/")
        place = root
        for folder in folders:
            place = place.setdefault(folder, {})
        place[name] = content
    names, data, nodes = b"", b"", []
    queue = [("", root)]
    following = 1
    while queue:
        name, entry = queue.pop(0)
        name_position = len(names) if nodes else 0
        if nodes:
            names += struct.pack(">HI", len(name.encode("utf-16-be")) // 2, qt_hash(name)) + name.encode("utf-16-be")
        if isinstance(entry, dict):
            nodes.append(struct.pack(">IHII", name_position, DIRECTORY, len(entry), following))
            following += len(entry)
            queue += sorted(entry.items(), key=lambda item: qt_hash(item[0]))
        else:
            content, flags = entry
            stored = qt_compress(content) if flags & COMPRESSED_ZLIB else content
            nodes.append(struct.pack(">IHHHI", name_position, flags, 0, 0, len(data)))
            data += struct.pack(">I", len(stored)) + stored
    tree = b"".join(node + (bytes(8) if version > 1 else b"") for node in nodes)
    header = 20 if version < 3 else 24
    positions = (header + len(data) + len(names), header, header + len(data))
    head = struct.pack(">4sIIII", b"qres", version, *positions) + (struct.pack(">I", 0) if version > 2 else b"")
    return head + data + names + tree


def write(folder: Path, data: bytes) -> Path:
    path = folder / "x.rcc"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("version", [1, 2, 3])
def test_files_of_every_version_come_back(tmp_path, version):
    resources = QtResources(write(tmp_path, resource_file(FILES, version)))
    assert resources.names == sorted(FILES)
    for name, (content, _) in FILES.items():
        assert resources.read(name) == content


file_names = st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(
    files=st.dictionaries(
        st.lists(file_names, min_size=1, max_size=3).map("/".join),
        st.tuples(st.binary(max_size=200), st.sampled_from([0, COMPRESSED_ZLIB])),
        min_size=1,
        max_size=8,
    ),
    version=st.integers(1, 3),
)
def test_any_tree_comes_back(tmp_path_factory, files, version):
    files = {path: content for path, content in files.items() if not any(p.startswith(f"{path}/") for p in files)}
    resources = QtResources(write(tmp_path_factory.mktemp("rcc"), resource_file(files, version)))
    assert {name: resources.read(name) for name in resources.names} == {name: c for name, (c, _) in files.items()}


def test_read_media_reads_inside(tmp_path):
    write(tmp_path, resource_file(FILES))
    assert read_media(tmp_path, "x.rcc!zoo/cat.svg") == CAT
    for outside in ("../x.rcc", "zoo", "", "/etc/passwd", "zoo/../top.txt"):
        with pytest.raises(InputError, match=r"x\.rcc: holds no "):
            read_media(tmp_path, f"x.rcc!{outside}")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cannot be read as a Qt resource file"),
        (b"qres", "cannot be read as a Qt resource file"),
        (b"PK\3\4" + bytes(40), "not a Qt resource file of version 1 to 3"),
        (resource_file(FILES)[:7] + b"\4" + resource_file(FILES)[8:], "not a Qt resource file of version 1 to 3"),
        (resource_file(FILES)[:-1], "cannot be read as a Qt resource file"),
    ],
)
def test_what_is_no_resource_file(tmp_path, data, message):
    with pytest.raises(InputError, match=rf"x\.rcc: {message}"):
        QtResources(write(tmp_path, data))


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"none\.rcc: cannot be read as a Qt resource file \(No such file"):
        QtResources(tmp_path / "none.rcc")


def test_zstd_is_named(tmp_path):
    resources = QtResources(write(tmp_path, resource_file({"a": (b"\x28\xb5\x2f\xfd", COMPRESSED_ZSTD)}, 3)))
    with pytest.raises(InputError, match="a is compressed with zstd; unpack"):
        resources.read("a")


def directory(count: int, first: int, name: int = 0) -> bytes:
    return struct.pack(">IHII", name, DIRECTORY, count, first)


def tree_file(tree: bytes, names: bytes = struct.pack(">HI", 1, 0) + b"\0a") -> bytes:
    return struct.pack(">4sIIII", b"qres", 1, 20, 20 + len(tree), 20 + len(tree)) + tree + names


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (directory(1, 0), "its tree is none"),  # the root holds itself
        (directory(1, 1) + directory(1, 0), "its tree is none"),  # a circle
        (directory(2, 1) + directory(1, 3) + directory(1, 3) + directory(0, 0), "its tree is none"),  # two parents
        (directory(2**32 - 1, 1), "its tree is none"),
        (directory(1, 2**31), "cannot be read"),
        (directory(2, 1) + 2 * struct.pack(">IHHHI", 0, 0, 0, 0, 0), "two files have the same path"),
        (b"".join(directory(1, i + 1) for i in range(3000)), "a path is too long"),
    ],
)
def test_damaged_trees(tmp_path, tree, message):
    with pytest.raises(InputError, match=message):
        QtResources(write(tmp_path, tree_file(tree)))


def test_a_name_that_is_cut_off(tmp_path):
    with pytest.raises(InputError, match="is cut off"):
        QtResources(write(tmp_path, tree_file(directory(1, 1) + directory(0, 0), struct.pack(">HI", 9, 0) + b"\0a")))


@pytest.mark.parametrize(("stated", "real"), [(10, 11), (11, 10), (0, 1), (10, 100_000)])
def test_unpacked_data_of_another_length_than_stated(tmp_path, stated, real):
    data = resource_file({"a": (bytes(real), COMPRESSED_ZLIB)})
    assert data[24:28] == struct.pack(">I", real)
    resources = QtResources(write(tmp_path, data[:24] + struct.pack(">I", stated) + data[28:]))
    with pytest.raises(InputError, match="a is damaged"):
        resources.read("a")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(qt_resources, "LARGEST_FILE", 999)
    resources = QtResources(write(tmp_path, resource_file({"a": (bytes(1000), COMPRESSED_ZLIB)})))
    with pytest.raises(InputError, match="a is larger than 999 bytes"):
        resources.read("a")


@settings(max_examples=400, deadline=None)
@given(
    version=st.integers(1, 3),
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 7)), min_size=1, max_size=4),
    cut=st.floats(0, 1) | st.just(1.0),
)
def test_damage_is_an_input_error_or_leaves_the_right_content(tmp_path_factory, version, flips, cut):
    """The one file is compressed, so that zlib's checksum covers it; nothing in the format covers a plain one."""
    data = bytearray(resource_file({"zoo/birds/owl.ogg": (CAT, COMPRESSED_ZLIB)}, version))
    for place, bit in flips:
        data[int(place * (len(data) - 1))] ^= 1 << bit
    path = write(tmp_path_factory.mktemp("rcc"), bytes(data[: max(1, int(cut * len(data)))]))
    content, error = result_or_error(lambda: QtResources(path).read("zoo/birds/owl.ogg"))
    if error:
        assert str(path) in error
    else:
        # Its flag "compressed" may be gone: what then comes is the packed content, as it is.
        assert content in (CAT, qt_compress(CAT)) or not is_flagged(data, version)


def is_flagged(data: bytes, version: int) -> bool:
    """Whether the last node of the tree is still a compressed file."""
    size = 14 if version == 1 else 22
    return bool(struct.unpack_from(">H", data, len(data) - size + 4)[0] & COMPRESSED_ZLIB)


@settings(max_examples=200, deadline=None)
@given(version=st.integers(1, 3), flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 7)), min_size=1, max_size=6))
def test_damage_of_plain_files_raises_nothing_else(tmp_path_factory, version, flips):
    data = bytearray(resource_file(FILES, version))
    for place, bit in flips:
        data[int(place * (len(data) - 1))] ^= 1 << bit
    path = write(tmp_path_factory.mktemp("rcc"), bytes(data))
    contents, error = result_or_error(read_all, path)
    if error:
        assert str(path) in error
    else:
        assert all(len(content) <= max(len(data), len(CAT)) for content in contents)


def read_all(path: Path) -> list[bytes]:
    resources = QtResources(path)
    return [resources.read(name) for name in resources.names]
