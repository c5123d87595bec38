"""Draws the pairs that scenes and videos are made of, and lists them in ``compositions.csv``."""

import csv
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np

from lightning_ss2a.builders.mixing import Source, draw_sources
from lightning_ss2a.builders.pair_list import Pair
from lightning_ss2a.data import PAIR_ORIGINS, ShardReader
from lightning_ss2a.data.format.columns import dense
from lightning_ss2a.data.format.convert import group_of
from lightning_ss2a.errors import InputError

COMPOSITIONS = "compositions.csv"
"""File beside the shards that names the sources of every row."""


@dataclass(frozen=True)
class PairRow:
    """A listed pair as it is in the data set of pairs."""

    pair: Pair
    class_index: int


@dataclass(frozen=True)
class Composition:
    """A scene or video as it was drawn.

    Attributes:
        key: its name.
        split: its split.
        sources: its sources; the row of each is a :class:`PairRow`.
    """

    key: str
    split: str
    sources: tuple[Source, ...]


def find_groups(listed: Sequence[Pair], source: str, reader: ShardReader) -> dict[str, list[list[PairRow]]]:
    """Finds the annotated pairs of each split by group, in an order that depends on groups and keys alone.

    Args:
        listed: pairs of the list.
        source: the list, for messages.
        reader: of the data set of pairs.

    Splits of translated pairs alone are passed over: such pairs may be of texts, which no list of pictures holds.

    Raises:
        InputError: the list and the data set do not hold the same pairs (of any origin but ``translated``).
    """
    pairs = {pair.key: pair for pair in listed}
    stored: set[str] = set()
    translated: set[str] = set()
    found: dict[str, list[list[PairRow]]] = {}
    for split in reader.manifest.splits:
        columns = {
            name: dense(column)
            for name, column in reader.read_split(split, ("key", "class_index", "pair_origin", "group")).items()
        }
        keys = [key.decode() for key in columns["key"].tolist()]
        stored.update(keys)
        of_texts = columns["pair_origin"] == PAIR_ORIGINS.index("translated")
        translated.update(key for key, of_text in zip(keys, of_texts, strict=True) if of_text)
        if of_texts.all():
            continue
        groups: dict[int, list[PairRow]] = defaultdict(list)
        for key, i in sorted(zip(keys, range(len(keys)), strict=True)):
            if key in pairs and columns["pair_origin"][i] == PAIR_ORIGINS.index("annotated"):
                groups[int(columns["group"][i])].append(PairRow(pairs[key], int(columns["class_index"][i])))
        found[split] = [groups[group] for group in sorted(groups)]
    _check_same(pairs, stored, translated, source, reader.path)
    return found


def draw_composition(
    kind: str, split: str, number: int, groups: Sequence[Sequence[PairRow]], max_sources: int, views: int, seed: int
) -> Composition:
    """Draws one scene or video out of the pairs of a split.

    Args:
        kind: ``scenes`` or ``videos``.
        split: the split.
        number: of the composition in its split.
        groups: pairs of the split by group, as :func:`find_groups` gives them.
        max_sources: at most as many as groups.
        views: views of each picture.
        seed: with the key, all that chance depends on.
    """
    key = f"{kind.removesuffix('s')}-{split}-{number:06d}"
    generator = np.random.default_rng([seed, group_of(key.encode())])
    return Composition(key, split, tuple(draw_sources(groups, views, max_sources, kind == "videos", generator)))


def compositions_csv(compositions: Sequence[Composition], kind: str) -> bytes:
    """Lists the sources: a line each with row, split, pair, view and gain (dB), of videos also start and stop (s)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["key", "split", "pair", "view", "gain_db", *(["start_s", "stop_s"] if kind == "videos" else [])])
    for composition in compositions:
        for source in composition.sources:
            cells = [composition.key, composition.split, source.row.pair.key, source.view, source.gain]
            writer.writerow([*cells, *(source.interval or ())])
    return text.getvalue().encode()


def _check_same(listed: Mapping[str, Pair], stored: Set[str], translated: Set[str], source: str, folder: str) -> None:
    missing = [pair for key, pair in listed.items() if key not in stored]
    unlisted = sorted(stored - translated - set(listed))
    advice = "use the list that the data set was built from, without rows that were left out"
    if missing:
        first = f"{missing[0].place} ({missing[0].key})"
        raise InputError(f"{source}: {len(missing)} pairs are not in {folder}, the first: {first}; {advice}")
    if unlisted:
        raise InputError(f"{folder}: {len(unlisted)} pairs are not in {source}, the first: {unlisted[0]}; {advice}")
