"""Damaged and malicious shards whose checksums are right, so that only the content can give them away."""

import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lightning_ss2a.data import Manifest, ShardReader
from lightning_ss2a.data.format.block_layout import encode_block


def rewrite_manifest(folder: Path, change: Callable[[dict], None]) -> None:
    """Change the manifest as somebody with an editor would, who deletes the checksum."""
    content = json.loads((folder / "manifest.json").read_text())
    del content["checksum"]
    change(content)
    (folder / "manifest.json").write_text(json.dumps(content))


def forge_block(folder: Path, split: str, shard: int, block: int, change: Callable[[dict], None]) -> None:
    """Change the columns of a block and everything that is computed from its bytes."""
    reader = ShardReader(folder)
    start = sum(b.rows for b in reader.manifest.shards(split)[shard].blocks[:block])
    rows = reader.manifest.shards(split)[shard].blocks[block].rows
    columns = {name: column.copy() if isinstance(column, np.ndarray) else column
               for name, column in reader.read(split, shard, start, start + rows).items()}  # fmt: skip
    change(columns)
    replace_block(folder, split, shard, block, encode_block(columns, block)[0])


def replace_block(
    folder: Path, split: str, shard: int, block: int, data: bytes, unpacked_bytes: int | None = None
) -> None:
    """Put other bytes in the place of a block; offsets and checksums follow.

    ``unpacked_bytes`` are those of the members, if they can be read, unless they are given.
    """
    entry = Manifest.load(folder).shards(split)[shard]
    old = (folder / entry.file).read_bytes()
    place = entry.blocks[block]
    new = old[: place.offset] + data + old[place.offset + place.bytes :]
    (folder / entry.file).write_bytes(new)

    def change(content: dict) -> None:
        written = content["splits"][split][shard]
        written.update(bytes=len(new), sha256=hashlib.sha256(new).hexdigest())
        written["blocks"][block].update(bytes=len(data), crc32=zlib.crc32(data))
        written["blocks"][block]["unpacked_bytes"] = (
            _size_of_members(data, place.unpacked_bytes) if unpacked_bytes is None else unpacked_bytes
        )
        for later in written["blocks"][block + 1 :]:
            later["offset"] += len(data) - place.bytes

    rewrite_manifest(folder, change)


def _size_of_members(data: bytes, otherwise: int) -> int:
    try:
        return sum(len(content) for _, content in tar_members(data))
    except (tarfile.TarError, ValueError, AttributeError, KeyError):
        return otherwise


def replace_shard(folder: Path, split: str, shard: int, data: bytes) -> None:
    """Put other bytes in the place of a shard of layout ``samples``; checksums follow."""
    (folder / Manifest.load(folder).shards(split)[shard].file).write_bytes(data)
    sums = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    rewrite_manifest(folder, lambda content: content["splits"][split][shard].update(sums))


def tar_members(data: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
    """Members of tar entries as Python's own reader sees them."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [(member, tar.extractfile(member).read()) for member in tar]


def build_tar(members: list[tuple[tarfile.TarInfo, bytes]], format: int = tarfile.USTAR_FORMAT) -> bytes:
    """Tar entries without the end of the archive."""
    parts = []
    for member, content in members:
        if member.type == tarfile.REGTYPE:
            member.size = len(content)
        parts.append(member.tobuf(format) + content + bytes(-len(content) % 512))
    return b"".join(parts)
