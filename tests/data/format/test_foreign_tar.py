"""Tars of other tools are read whole or refused, whatever is in them, in bounded time and memory."""

import bz2
import gzip
import io
import lzma
import random
import resource
import shutil
import subprocess
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from webdataset.tariterators import group_by_keys, tar_file_expander

from lightning_ss2a.data.format import foreign_tar
from lightning_ss2a.data.format.foreign_tar import read_samples, split_name
from lightning_ss2a.errors import ShardError

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
END = bytes(1024)


def write_tar(members: list[tuple[str, bytes]], format: int = tarfile.USTAR_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return buffer.getvalue()


def entry(kind: bytes, content: bytes = b"", name: bytes = b"0.x", size: bytes | None = None, **fields: bytes) -> bytes:
    """A member with any header at all, whose checksum is right."""
    block = bytearray(512)
    block[:100] = name[:100].ljust(100, b"\0")
    block[124:136] = (b"%011o\0" % len(content) if size is None else size).ljust(12, b"\0")
    block[156:157] = kind
    block[257:263] = fields.get("magic", b"ustar\0")
    block[345:500] = fields.get("prefix", b"").ljust(155, b"\0")
    block[148:156] = b"%06o\0 " % (sum(block) + 256)
    return bytes(block) + content + bytes(-len(content) % 512)


def pax(*records: bytes) -> bytes:
    return entry(b"x", b"".join(record(text) for text in records))


def record(text: bytes) -> bytes:
    length = len(text) + 3
    while len(b"%d %s\n" % (length, text)) != length:
        length += 1
    return b"%d %s\n" % (length, text)


def samples_of(folder: Path, data: bytes) -> list[dict[str, Any]]:
    (folder / "x.tar").write_bytes(data)
    found = list(read_samples(folder / "x.tar"))
    assert all(sample.pop("__url__") == str(folder / "x.tar") for sample in found)
    return found


def samples_of_webdataset(data: bytes) -> list[dict[str, Any]]:
    """As WebDataset reads a good tar, on top of Python's own reader."""
    found = list(group_by_keys(tar_file_expander([{"url": "", "stream": io.BytesIO(data)}]), lcase=False))
    assert all(sample.pop("__url__") == "" for sample in found)
    return found


def two_samples(start: int = 0) -> list[tuple[str, bytes]]:
    return [(f"{i:04}.{suffix}", bytes([65 + i]) * 700) for i in (start, start + 1) for suffix in ("a.npy", "json")]


# ---------------------------------------------------------------- good archives

names = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", "", "./", "folder/", "a.b/c/", "ü/", "d" * 90 + "/" + "e" * 60 + "/", "f" * 300 + "/"]),
        st.sampled_from(["0", "1", "clip ü", "k" * 99, "m" * 120, "_x", "__y__"]),
        st.sampled_from([".npy", ".clip.npy", ".json", ".txt", "", "."]),
    ),
)
contents = st.one_of(st.binary(max_size=20), st.sampled_from([bytes(512), bytes(1024), b"z" * 513, b"y" * 20_000]))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    members=st.lists(st.tuples(names, contents), max_size=6, unique_by=lambda member: member[0]),
    format=st.sampled_from(sorted(FORMATS)),
)
def test_good_archives_are_read_as_webdataset_reads_them(tmp_path_factory, members, format):
    try:
        data = write_tar(members, FORMATS[format])
    except ValueError:  # a name that ustar cannot hold
        reject()
    expected = samples_of_webdataset(data)
    assert samples_of(tmp_path_factory.getbasetemp(), data) == expected
    assert samples_of(tmp_path_factory.getbasetemp(), gzip.compress(data, 1)) == expected


@pytest.mark.parametrize(
    "options", [["--format=gnu"], ["--format=pax"], ["--format=ustar"], ["--format=v7"], ["-b", "1"]]
)
@pytest.mark.skipif(shutil.which("tar") is None, reason="needs the command tar")
def test_what_the_command_tar_writes(tmp_path, options):
    folder = tmp_path / "media" / ("long" * 40 if options[-1][-3:] in ("gnu", "pax") else "short")
    folder.mkdir(parents=True)
    for name, content in two_samples():
        (folder / name).write_bytes(content)
    line = ["tar", "--sort=name", *options, "-cf", str(tmp_path / "x.tar"), "media"]
    subprocess.run(line, cwd=tmp_path, check=True)
    data = (tmp_path / "x.tar").read_bytes()
    found = samples_of(tmp_path, data)
    assert [sample["__key__"] for sample in found] == [f"media/{folder.name}/000{i}" for i in range(2)]
    assert found == samples_of_webdataset(data)


def test_what_webdataset_writes(tmp_path):
    written = [{"__key__": f"{i}", "a.npy": np.arange(i + 1), "json": {"i": i}} for i in range(3)]
    with webdataset.TarWriter(str(tmp_path / "w.tar")) as writer:
        for sample in written:
            writer.write(sample)
    data = (tmp_path / "w.tar").read_bytes()
    assert samples_of(tmp_path, data) == samples_of_webdataset(data)
    assert len(samples_of(tmp_path, data)) == 3


def test_sizes_in_base_256_and_in_pax_records(tmp_path):
    large = entry(b"0", b"abc", b"0.x", size=b"\x80" + (3).to_bytes(11, "big"))
    stated = pax(b"size=4", b"mtime=1.5", b"path=1.x") + entry(b"0", b"defg", b"cut", size=b"0")
    found = samples_of(tmp_path, large + stated + END)
    assert found == [{"__key__": "0", "x": b"abc"}, {"__key__": "1", "x": b"defg"}]


def test_what_old_gnu_archives_hold_in_the_place_of_a_name_is_no_name(tmp_path):
    times = entry(b"0", b"abc", magic=b"ustar ", prefix=b"14550000000\0")
    assert samples_of(tmp_path, times + END) == [{"__key__": "0", "x": b"abc"}]


def test_global_records_and_folders_with_a_size_do_no_harm(tmp_path):
    data = entry(b"g", record(b"comment=commit")) + entry(b"5", name=b"d/", size=b"00000010000\0") + entry(b"0", b"a")
    assert samples_of(tmp_path, data + END) == [{"__key__": "0", "x": b"a"}]


@pytest.mark.parametrize("name", ["._0.npy", "folder/._0.npy", "README", "__meta__/0.npy", "folder.d/README"])
def test_files_that_are_of_no_sample(name):
    assert split_name(name) is None


# ---------------------------------------------------------------- archives joined to one file


def gnu_style(members: list[tuple[str, bytes]]) -> bytes:
    return write_tar(members)


def bsd_style(members: list[tuple[str, bytes]]) -> bytes:
    """Without the zeros that fill up a record, as bsdtar, Go and Rust write it."""
    return write_tar(members).rstrip(b"\0") + bytes(-len(write_tar(members).rstrip(b"\0")) % 512) + END


@pytest.mark.parametrize("style", [gnu_style, bsd_style])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_archives_joined_to_one(tmp_path, style, pack):
    """The last sample of one and the first of the next stay two, though they have the same key."""
    parts = [pack(style(two_samples(start))) for start in (0, 1, 4)]
    found = samples_of(tmp_path, b"".join(parts))
    assert [sample["__key__"] for sample in found] == ["0000", "0001", "0001", "0002", "0004", "0005"]
    for number, part in enumerate(parts):
        (tmp_path / f"{number}.tar").write_bytes(part)
    piped = list(read_samples(f"pipe:cat {tmp_path}/0.tar {tmp_path}/1.tar {tmp_path}/2.tar"))
    assert [sample | {"__url__": ""} for sample in piped] == [sample | {"__url__": ""} for sample in found]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_second_compressed_archive_that_is_damaged(tmp_path, pack):
    """Python's own files for bzip2 and xz take it for the end."""
    first, second = (bytearray(pack(gnu_style(two_samples(start)))) for start in (0, 2))
    for position in (0, 2, len(second) // 2):
        damaged = bytearray(second)
        damaged[position] ^= 1
        with pytest.raises(ShardError, match=r"x\.tar: "):
            samples_of(tmp_path, bytes(first + damaged))


def test_what_may_follow_a_compressed_stream(tmp_path):
    """Zeros, as the format of xz and the command gzip allow; anything else is damage."""
    for pack in (gzip.compress, lzma.compress):
        part = pack(gnu_style(two_samples()))
        assert len(samples_of(tmp_path, part + bytes(8) + part + bytes(4))) == 4
        with pytest.raises(ShardError, match=r"x\.tar: "):
            samples_of(tmp_path, part + b"garbage!")


# ---------------------------------------------------------------- damage


@pytest.mark.parametrize("format", FORMATS)
def test_no_flipped_bit_loses_samples_in_silence(tmp_path, format):
    """What is read is all there; or a sample lacks a file, which who packs it sees."""
    folder = "" if format == "ustar" else "long/" * 25
    good = write_tar([(folder + name, content) for i in (0, 2) for name, content in two_samples(i)], FORMATS[format])
    good = good.rstrip(b"\0")
    good += bytes(-len(good) % 512) + END
    expected, chance = samples_of(tmp_path, good), random.Random(0)
    errors = same = 0
    for _ in range(500):
        damaged = bytearray(good)
        damaged[chance.randrange(len(good))] ^= 1 << chance.randrange(8)
        try:
            found = samples_of(tmp_path, bytes(damaged))
        except ShardError:
            errors += 1
            continue
        same += found == expected
        if format == "ustar":
            assert [(sample["__key__"], *sample) for sample in found] == [(s["__key__"], *s) for s in expected]
        else:  # long names are content, which has no checksum
            assert len(found) == 4 or any(len(sample) != 3 for sample in found)
    assert errors > 50
    assert same > 5


def test_a_damaged_header_is_named_with_its_place(tmp_path):
    data = bytearray(gnu_style(two_samples()))
    data[1536 + 3] ^= 1
    with pytest.raises(ShardError, match=r"x\.tar: byte 1536: is no tar header"):
        samples_of(tmp_path, bytes(data))


@pytest.mark.parametrize("hole", [1536, 3072, 4608])
def test_zeros_in_place_of_whole_members_are_no_end_of_an_archive(tmp_path, hole):
    data = bytearray(gnu_style(two_samples()))
    data[:hole] = bytes(hole)
    with pytest.raises(ShardError, match=rf"x\.tar: byte {6144 + hole}: the {hole} bytes of zeros before it"):
        samples_of(tmp_path, gnu_style(two_samples(2))[:6144] + bytes(data))


def test_archives_that_are_cut_off(tmp_path):
    good = bsd_style(two_samples())
    assert len(samples_of(tmp_path, good)) == 2
    for size in (*range(0, len(good) - 1, 97), *range(0, len(good), 512)):
        with pytest.raises(ShardError, match=r"x\.tar: (.*cut off|.*truncated|is empty)"):
            samples_of(tmp_path, good[:size])


# ---------------------------------------------------------------- hostile archives

HOSTILE: dict[str, tuple[bytes, str]] = {
    "not a tar": (b"<html>not found</html>" * 90, "byte 1024: is no tar header"),
    "a symbolic link": (entry(b"2"), r"member '0\.x' is a symbolic link; write the tar with --dereference"),
    "a hard link": (entry(b"1"), r"member '0\.x' is a hard link; write the tar with --dereference"),
    "a device": (entry(b"3"), "is a device; only files and folders are read"),
    "a named pipe": (entry(b"6"), "is a named pipe"),
    "a sparse file": (entry(b"S", size=b"\x80" + (1 << 40).to_bytes(11, "big")), "is a sparse file"),
    "a pax sparse file": (pax(b"GNU.sparse.major=1", b"GNU.sparse.realsize=1099511627776"), "is a sparse file"),
    "an unknown type of huge size": (entry(b"Z", size=b"77777777777\0"), "unknown type b'Z'"),
    "a volume label": (entry(b"V"), "unknown type b'V'"),
    "a member of a terabyte": (entry(b"0", size=b"\x80" + (1 << 40).to_bytes(11, "big")), "has 1099511627776 bytes"),
    "a member of 2^80 bytes": (entry(b"0", size=b"\x80" + (1 << 80).to_bytes(11, "big")), "has 12089.* bytes"),
    "a negative size": (entry(b"0", size=b"\xff" * 12), "is no tar header"),
    "a size that Python takes for a number": (entry(b"0", size=b"+1_0"), "is no tar header"),
    "a member beyond the end": (entry(b"0", size=b"00000777777\0"), r"member '0\.x' is cut off"),
    "200 kB of digits in a pax header": (entry(b"x", b"9" * 200_000), "damaged extended header"),
    "200 kB of digits as a pax size": (pax(b"size=" + b"9" * 200_000), "damaged extended header"),
    "a pax length over 2^63": (entry(b"x", b"99999999999999999999 path=x\n"), "damaged extended header"),
    "a pax length that stands still": (entry(b"x", b"0 path=x\n"), "damaged extended header"),
    "a pax length that goes back": (entry(b"x", b"-9 path=x\n"), "damaged extended header"),
    "a pax size over 2^63": (pax(b"size=9999999999999999999"), "has 9999999999999999999 bytes"),
    "a pax size below nought": (pax(b"size=-1"), "damaged extended header"),
    "a pax header of 2 MB": (pax(b"comment=" + bytes(2 << 20)), "extended header has .* at most 1048576"),
    "a pax header without a member": (pax(b"path=0.x") + END, "the member of an extended header is missing"),
    "a long pax name": (pax(b"path=" + b"n" * 5000), "name has 5000 bytes, at most 4096"),
    "a long GNU name": (entry(b"L", b"n" * 5000), "name has 5000 bytes, at most 4096"),
    "a name of slashes": (pax(b"path=" + b"/" * 4000 + b".x"), "is cut off"),
    "a member twice": (entry(b"0", b"a") * 2, "comes twice in sample '0'"),
    "a key of this program": (entry(b"0", b"a", b"0.__url__"), "comes twice in sample '0'"),
    "a sample of many files": (b"".join(entry(b"0", b"", b"0.%d" % i) for i in range(1001)), "more than 1000 files"),
    "zeros without end": (bytes((16 << 20) + 512), "more than 16 MiB of zeros"),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_archives(tmp_path, case):
    data, message = HOSTILE[case]
    if case in ("a pax size over 2^63", "a long pax name", "a long GNU name", "a name of slashes"):
        data += entry(b"0", size=b"00000777777\0")
    with pytest.raises(ShardError, match=message) as caught:
        samples_of(tmp_path, entry(b"0", b"good", b"good.x") + data)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.timeout(20)
@pytest.mark.parametrize("header", [b"", entry(b"0", size=b"\x80" + (1 << 39).to_bytes(11, "big"))])
def test_a_file_of_a_terabyte_of_nothing(tmp_path, header):
    with open(tmp_path / "x.tar", "wb") as file:
        file.write(header)
        file.truncate(1 << 40)
    with pytest.raises(ShardError, match=r"more than 16 MiB of zeros|has 549755813888 bytes, at most"):
        list(read_samples(tmp_path / "x.tar"))


@pytest.mark.timeout(20)
@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_bombs(tmp_path, pack):
    """A gigabyte of zeros as one member; unpacking stops soon after the bytes that are free."""
    header = entry(b"0", size=b"%011o\0" % (1 << 30))
    data = pack(header) + pack(bytes(1 << 20)) * 1024
    with pytest.raises(ShardError, match=r"x\.tar: unpacks to over 200 times its size"):
        samples_of(tmp_path, data)


def test_what_unpacks_to_little_may_be_any_number_of_times_as_large(tmp_path):
    data = write_tar([("0.x", bytes(20 << 20))])
    assert len(gzip.compress(data)) * 500 < len(data)
    assert samples_of(tmp_path, gzip.compress(data)) == [{"__key__": "0", "x": bytes(20 << 20)}]


def test_a_sample_larger_than_the_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(foreign_tar, "LARGEST_SAMPLE", 1000)
    assert len(samples_of(tmp_path, write_tar(two_samples()[:1]))) == 1
    with pytest.raises(ShardError, match=r"member '0000\.json': sample '0000' has more than"):
        samples_of(tmp_path, write_tar(two_samples()))


@pytest.fixture
def little_memory():
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_a_member_that_does_not_fit_in_memory(tmp_path, little_memory):
    with open(tmp_path / "x.tar", "wb") as file:
        file.write(entry(b"0", size=b"%011o\0" % (3 << 29)))
        file.truncate(2 << 30)
    with pytest.raises(ShardError, match=r"x\.tar: .*does not fit in memory"):
        list(read_samples(tmp_path / "x.tar"))


def test_an_xz_that_asks_for_gigabytes(tmp_path):
    data = bytearray(lzma.compress(gnu_style(two_samples())))
    assert data[12:16] == b"\x02\x00\x21\x01"
    data[16] = 40  # a dictionary of 4 GiB
    data[20:24] = zlib.crc32(data[12:20]).to_bytes(4, "little")
    with pytest.raises(ShardError, match=r"x\.tar: cannot be read \(Memory usage limit exceeded\)"):
        samples_of(tmp_path, bytes(data))


fields = st.sampled_from(
    [b"", b"7" * 11 + b"\0", b"0", b"  12 \0", b"\x80" + b"\0" * 10 + b"\x05", b"\xff" * 12, b"1_0", b"9"]
)
kinds = st.sampled_from([bytes([kind]) for kind in b"01567LKxgSXVZ\0"])
texts = st.one_of(
    st.binary(max_size=40),
    st.lists(st.sampled_from([b"path=1.x", b"size=5", b"path=", b"GNU.sparse.map=1", b"="])).map(
        lambda lines: b"".join(map(record, lines))
    ),
)
entries = st.builds(
    entry, kinds, texts, st.binary(max_size=30), st.one_of(st.none(), fields), prefix=st.binary(max_size=9)
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(parts=st.lists(st.one_of(entries, entries, st.just(END), st.binary(max_size=600)), max_size=6))
def test_headers_of_any_content_are_read_or_refused(tmp_path_factory, parts):
    try:
        found = samples_of(tmp_path_factory.getbasetemp(), b"".join(parts) + END)
    except ShardError:
        return
    assert all(sample["__key__"] for sample in found)
