"""Measures whether a sound is of the class that was wanted: by a tagger's top labels, with AudioSet's ontology.

``heard_classes.csv`` says for the demo's names what a right sound is called: AudioSet's labels for the thing itself,
and the parents of the first of these in AudioSet's ontology (github.com/audioset/ontology), as far as YAMNet knows
them. Names for which AudioSet has no class are not in it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lightning_ss2a.builders.csv_rows import csv_rows
from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.encoders.protocols import AudioEncoder
from lightning_ss2a.perception.media.waveform import at_rate

TABLE = Path(__file__).with_suffix(".csv")
TOP = 10
DRAWS = 10_000
"""Of the bootstrap."""


@dataclass(frozen=True)
class WantedLabels:
    """What a right sound is called.

    Attributes:
        labels: AudioSet's labels of the thing itself.
        parents: those of its parent in the ontology.
    """

    labels: frozenset[str]
    parents: frozenset[str]

    def heard(self, top: Sequence[str], parents: bool = True) -> bool:
        """Tells whether one of these labels, with or without those of the parent, is among a sound's top ones."""
        return not {*top}.isdisjoint(self.labels | self.parents if parents else self.labels)


@dataclass(frozen=True)
class HeardRate:
    """How often sounds are of the class that was wanted, and how often they would be by chance.

    Attributes:
        items: number of sounds.
        matched: part of the sounds whose own class is heard.
        shuffled: the same where each item gets the sound of another one: the mean over all others.
        interval: of the difference, 95 %, by a bootstrap over groups of items.
    """

    items: int
    matched: float
    shuffled: float
    interval: tuple[float, float]

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{self.matched:.3f} matched, {self.shuffled:.3f} shuffled, difference {self.matched - self.shuffled:.3f} "
            f"[{low:.3f}, {high:.3f}], {self.items} items"
        )


def wanted_labels(table: Path = TABLE) -> dict[str, WantedLabels]:
    """Reads what a right sound of each name is called: a CSV file with the columns name, labels, parents.

    Labels are parted by ``|``.

    Raises:
        InputError: names file and row of what is wrong; or a name is listed twice.
    """
    wanted: dict[str, WantedLabels] = {}
    for place, cells in csv_rows(table, ("name", "labels", "parents"), may_be_empty=("labels", "parents")):
        own, parents = (frozenset(filter(None, cells[column].split("|"))) for column in ("labels", "parents"))
        if not own | parents:
            raise InputError(f"{place}: names no label")
        if cells["name"] in wanted:
            raise InputError(f"{place}: {cells['name']} is listed twice; keep one row")
        wanted[cells["name"]] = WantedLabels(own, parents)
    return wanted


def top_labels(
    waveforms: Sequence[np.ndarray], sample_rate: int, tagger: AudioEncoder, count: int = TOP
) -> list[tuple[str, ...]]:
    """Names what sounds sound like: the labels of the highest score, best first.

    Args:
        waveforms: mono, float32 [samples] each.
        sample_rate: samples per second.
        tagger: an audio encoder with a label head.
        count: labels of each sound.

    Raises:
        InputError: the encoder has no label head.
    """
    head = tagger.label_head()
    if head is None:
        raise InputError(f"{tagger.identity}: has no label head, so that it cannot name what it hears")
    heard = [at_rate(waveform, sample_rate, tagger.sample_rate) for waveform in waveforms]
    best = head.scores(tagger.encode(heard)).topk(count).indices
    return [tuple(head.labels[label] for label in row) for row in best.tolist()]


def heard_rate(
    names: Sequence[str],
    groups: Sequence[object],
    tops: Sequence[Sequence[str]],
    wanted: Mapping[str, WantedLabels],
    parents: bool = True,
    seed: int = 0,
) -> HeardRate:
    """Measures how often sounds are of the class that was wanted, against sounds of other items.

    Args:
        names: what was wanted of each item, a name of ``wanted``.
        groups: items of one group are drawn together by the bootstrap.
        tops: labels that are heard in the sound of each item, see :func:`top_labels`.
        wanted: what a right sound of each name is called.
        parents: the label of the parent counts, too.
        seed: of the bootstrap.
    """
    hits = np.array([[wanted[name].heard(top, parents) for top in tops] for name in names], np.float64)  # [I, I]
    items = len(names)
    if items < 2:
        raise InputError(f"{items} items; at least 2 are needed, to give one the sound of the other")
    matched = hits.diagonal()
    shuffled = (hits.sum(axis=1) - matched) / (items - 1)
    interval = interval_over_groups(matched - shuffled, [[group] for group in groups], seed)
    return HeardRate(items, float(matched.mean()), float(shuffled.mean()), interval)


def interval_over_groups(values: np.ndarray, groups: Sequence[Sequence[object]], seed: int = 0) -> tuple[float, float]:
    """Finds the 95 % interval of a mean by a bootstrap over groups, of which an item may belong to several.

    Groups are drawn with replacement; an item counts as often as the product of the draws of its groups, so that scenes
    that share a thing are not taken for independent ones (Owen and Eckles, 2012, "Bootstrapping data arrays of
    arbitrary order", by whose proof the interval is rather too wide).

    Args:
        values: of each item, [items].
        groups: of each item, at least one.
        seed: of the draws.
    """
    names = sorted({str(group) for own in groups for group in own})
    number = {name: place for place, name in enumerate(names)}
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=DRAWS)
    counts = np.stack([drawn[:, [number[str(group)] for group in own]].prod(axis=1) for own in groups], axis=1)
    total = counts.sum(axis=1)
    means = (counts @ values)[total > 0] / total[total > 0]  # few groups: a draw may hold no item at all
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
