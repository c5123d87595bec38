"""Builds a data set in a folder inside its own, and puts it in its place when it is whole."""

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from lightning_ss2a.data.format.manifest import MANIFEST

STAGING = ".writing"
"""Folder in that of a data set where the next one is built; what lies beside it stays as it is until that is whole."""

JOURNAL = ".journal"
"""File in it that tells what is finished; see :mod:`lightning_ss2a.data.format.journal`."""

_REPLACED = ".replaced"
"""The manifest of the data set that makes room, while files change places."""

_LISTED = re.compile(rb'"file"\s*:\s*"([A-Za-z0-9][A-Za-z0-9._-]{0,199})"')


def publish(folder: Path) -> None:
    """Puts the data set that was built in the place of the one before; does nothing unless it is whole.

    May be killed anywhere, and goes on when it is called again. The old manifest goes first and the new one comes last,
    so that meanwhile nobody takes the folder for a data set.

    Args:
        folder: folder of the data set.

    Raises:
        OSError: a file cannot be moved; what was built stays.
    """
    staging = folder / STAGING
    built, replaced, manifest = staging / MANIFEST, staging / _REPLACED, folder / MANIFEST
    if not built.exists():
        return
    if manifest.exists():
        os.replace(manifest, replaced)
    for name in listed_files(replaced) - listed_files(built):
        (folder / name).unlink(missing_ok=True)
    for file in [file for file in staging.rglob("*") if file.is_file() and not file.name.startswith(".")]:
        if file != built:
            place = folder / file.relative_to(staging)
            place.parent.mkdir(exist_ok=True)
            os.replace(file, place)
    # Now, because with the manifest gone a journal would be that of an unfinished build.
    (staging / JOURNAL).unlink(missing_ok=True)
    os.replace(built, manifest)
    shutil.rmtree(staging)


def listed_files(manifest: Path) -> set[str]:
    """Finds the names of the files that a manifest lists, also one that is damaged or of another version."""
    return {name.decode() for name in _LISTED.findall(manifest.read_bytes())} if manifest.exists() else set()


def foreign_files(folder: Path, listed: Sequence[str], beside: Sequence[str]) -> Iterator[Path]:
    """Finds what a build would replace though no build of ours made it.

    These are all tars that no manifest lists, for the names of shards are known only when all rows are; and a
    ``manifest.json`` of something else.

    Args:
        folder: folder of the data set, which may not exist.
        listed: names of other files of the build that its manifest lists.
        beside: patterns of files that the build leaves there and no manifest lists.
    """
    manifests = [manifest for manifest in (folder / MANIFEST, folder / STAGING / MANIFEST) if manifest.exists()]
    ours = set().union(*map(listed_files, manifests))
    files = [*sorted(folder.glob("*.tar")), *(folder / name for name in listed)]
    yield from (manifest for manifest in manifests if b'"format_version"' not in manifest.read_bytes())
    yield from (file for file in files if file.name not in ours and file.exists())
    if not manifests:
        yield from (file for pattern in beside for file in sorted(folder.glob(pattern)))
