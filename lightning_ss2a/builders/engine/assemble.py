"""Assembles the data set out of the parts: row for row the same, whoever made them and however often it was stopped."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lightning_ss2a.builders.engine.module import SEEN, Stack
from lightning_ss2a.builders.engine.parts import BuildFolder, PerceivedItem
from lightning_ss2a.builders.listing import Item, Listing, hash_ids, ids_text
from lightning_ss2a.builders.rejected import REJECTED, csv_text, rejected_csv
from lightning_ss2a.builders.splits import assign_splits, connected_rows
from lightning_ss2a.data import PAIR_ORIGINS, FieldSpec, Manifest, ShardWriter
from lightning_ss2a.data.format.convert import MOST_LOST, group_of
from lightning_ss2a.files import write_whole
from lightning_ss2a.perception.detectors.crops import CropShape, shown_as

USED, SOURCES = "used_ids.txt", "sources.csv"
"""Files beside the shards: keys of the rows; where the sources of each scene are."""

COUNTS = ("groups", "rejected", "missing", "excluded", "repeated", "bare")
"""Numbers of the report that the manifest keeps."""

_ELSEWHERE = ("kind", "provenance", "licence")
"""What the manifest says beside ``made_by``."""
_TRAINING = "train"


@dataclass(frozen=True)
class ShardChoices:
    """How rows become shards.

    Attributes:
        folds: number of folds; 0: splits ``train`` and ``validation``, or those that the list names.
        validation_fraction: part of the groups in ``validation``, where neither folds nor the list say.
        seed: of the splits.
        dtype: as stored.
        provenance: where the media come from.
        licence: of the media.
        compression: of the shards.
        crop_shape: of what the image encoder saw.
    """

    folds: int
    validation_fraction: float
    seed: int
    dtype: str
    provenance: str
    licence: str
    compression: Any
    crop_shape: CropShape


@dataclass(frozen=True)
class MediaReport:
    """What a build did.

    Attributes:
        rows: rows written, by split.
        groups: number of groups.
        classes: number of classes.
        rejected: items of the list that are not used.
        missing: those of them whose files are not there.
        excluded: items that were left out on demand, and are not counted among the others.
        repeated: entries of the list that say again what another one does.
        bare: scenes in which no source is known, so that the whole picture is their source.
    """

    rows: dict[str, int]
    groups: int
    classes: int
    rejected: int
    missing: int
    excluded: int
    repeated: int
    bare: int

    @classmethod
    def of(cls, manifest: Manifest) -> "MediaReport":
        """Reads it off the manifest of the data set."""
        counts = {name: int((manifest.made_by or {})[name]) for name in COUNTS}
        rows = {split: manifest.rows(split) for split in manifest.splits}
        return cls(dict(sorted(rows.items())), classes=len(manifest.classes), **counts)

    def __str__(self) -> str:
        splits = ", ".join(f"{split} {rows}" for split, rows in self.rows.items())
        words = f"{sum(self.rows.values())} rows ({splits}), {self.groups} groups, {self.classes} classes"
        if self.rejected:
            words += f"; {self.rejected} rejected, {self.missing} of them missing ({REJECTED} says why)"
        words += f"; {self.excluded} excluded" if self.excluded else ""
        words += f"; {self.repeated} listed again" if self.repeated else ""
        return words + (f"; in {self.bare} scenes the whole picture is the only source" if self.bare else "")


@dataclass
class _Used:
    """What is known of an item that can be used, without its embeddings."""

    item: Item
    content: tuple[str, ...]
    bare: bool
    split: str = ""
    group: int = 0


class Assembly:
    """Puts together what became of a list.

    Args:
        folder: the parts.
        parts: number of parts.
        listing: the list.
        kind: of the data set.
        choices: how rows become shards.

    Raises:
        InputError: a part is missing or damaged.
    """

    def __init__(self, folder: BuildFolder, parts: int, listing: Listing, kind: str, choices: ShardChoices) -> None:
        self.folder = folder
        self.listing = listing
        self.kind = kind
        self.choices = choices
        self._parts = range(parts)
        self._rejected: dict[int, str] = {}
        self._used = self._look_through()
        self._assign_groups()
        self._assign_splits()

    @property
    def listed(self) -> int:
        """Items of the list."""
        return len(self.listing.items) + len(self.listing.missing)

    @property
    def used(self) -> int:
        """Items that can be used."""
        return len(self._used)

    @property
    def problems(self) -> list[tuple[Item, str]]:
        """What is left out and why, in the list's order; what is missing comes last."""
        listed = [(self.listing.items[number], reason) for number, reason in sorted(self._rejected.items())]
        return listed + self.listing.problems

    def rejected_csv(self) -> str:
        """Writes the table of what is left out: file, row, key, reason."""
        rows = ([" ".join(item.files), item.place, item.key, reason] for item, reason in self.problems)
        return rejected_csv(rows)

    def write(self, output: Path, stack: Stack) -> MediaReport:
        """Writes the data set, with the tables of what is left out and of what is used beside its shards.

        Raises:
            InputError: the folder holds files of others.
        """
        used = self._used.values()
        classes = sorted({item.class_name for item in (*self.listing.items, *self.listing.missing)})
        keys = [each.item.key for each in used]
        folds = sorted({each.split for each in used}) if self.choices.folds else None
        beside = {REJECTED: self.rejected_csv(), USED: ids_text(keys)}
        if self.kind == "scenes":
            beside[SOURCES] = self._sources_csv()
        report = self._report(len(classes))
        made_by = self.folder.description | {name: str(getattr(report, name)) for name in COUNTS}
        made_by |= {"used_ids": f"sha256 {hash_ids(keys)}", "build": self.folder.digest}
        with ShardWriter(
            output,
            self.kind,
            self._fields(stack),
            classes,
            provenance=self.choices.provenance,
            licence=self.choices.licence,
            folds=folds,
            label_head=stack.audio_encoder.label_head(),
            compression=self.choices.compression,
            overwrite=True,
            beside=[*beside],
            made_by={name: words for name, words in made_by.items() if name not in _ELSEWHERE},
        ) as writer:
            number = {name: i for i, name in enumerate(classes)}
            for split, items in self._in_order():
                writer.write(split, self._columns(items, number))
            for name, text in beside.items():
                write_whole(writer.staging / name, text)
        return report

    def _report(self, classes: int) -> MediaReport:
        used = self._used.values()
        return MediaReport(
            dict(sorted(Counter(each.split for each in used).items())),
            groups=len({each.group for each in used}),
            classes=classes,
            rejected=len(self.problems),
            missing=len(self.listing.missing),
            excluded=len(self.listing.excluded),
            repeated=len(self.listing.repeated),
            bare=sum(each.bare for each in used) if self.kind == "scenes" else 0,
        )

    def _look_through(self) -> dict[int, _Used]:
        used = {}
        for part in self.folder.read(self._parts):
            self._rejected |= part.rejected
            for item in part.items:
                if problem := unstorable(item.fields, self.choices.dtype):
                    self._rejected[item.number] = problem
                else:
                    used[item.number] = _Used(self.listing.items[item.number], item.content, not item.regions)
        return used

    def _assign_groups(self) -> None:
        """Joins what shares a file, by content, or a group."""
        used = [*self._used.values()]
        marks = [
            [("file", content) for content in each.content]
            + ([("group", each.item.group)] if each.item.group is not None else [])
            for each in used
        ]
        for each, first in zip(used, connected_rows(marks), strict=True):
            # Made of content, so that groups of two data sets differ unless their first items are the same.
            each.group = group_of(" ".join(used[first].content).encode())

    def _assign_splits(self) -> None:
        used = [*self._used.values()]
        if not used:
            return
        if any(each.item.split is not None for each in used):
            self._take_listed_splits()
            return
        splits = assign_splits(
            [each.group for each in used],
            [each.item.class_name for each in used],
            folds=self.choices.folds,
            validation_fraction=self.choices.validation_fraction,
            seed=self.choices.seed,
        )
        for each, split in zip(used, splits, strict=True):
            each.split = split

    def _take_listed_splits(self) -> None:
        """Takes the list's splits; of a group in several, only what is held out stays, or training saw it."""
        members: dict[int, list[tuple[int, _Used]]] = defaultdict(list)
        for number, each in self._used.items():
            each.split = each.item.split or _TRAINING
            members[each.group].append((number, each))
        for group in members.values():
            _, kept = min(group, key=lambda member: (member[1].split == _TRAINING, member[0]))
            for number, each in group:
                if each.split != kept.split:
                    self._rejected[number] = (
                        f"shares a file or a group with {kept.item.place}, which is in split {kept.split}"
                    )
                    del self._used[number]

    def _in_order(self) -> Iterator[tuple[str, list[PerceivedItem]]]:
        """Reads what is used, in the list's order within each origin; annotated rows first, as evaluation has them."""
        for origin in PAIR_ORIGINS:
            own = {number for number, each in self._used.items() if each.item.pair_origin == origin}
            for part in self.folder.read(self._parts) if own else ():
                by_split: dict[str, list[PerceivedItem]] = defaultdict(list)
                for item in part.items:
                    if item.number in own:
                        by_split[self._used[item.number].split].append(item)
                yield from by_split.items()

    def _columns(self, items: Sequence[PerceivedItem], number: Mapping[str, int]) -> dict[str, Any]:
        used = [self._used[item.number] for item in items]
        labels = [number[each.item.class_name] for each in used]
        several = ("sources", "frames")
        fields = {
            name: [item.fields[name] if name in several else item.fields[name][0] for item in items]
            for name in items[0].fields
        }
        return {
            "key": [each.item.key for each in used],
            "name": [each.item.name for each in used],
            "pair_origin": [PAIR_ORIGINS.index(each.item.pair_origin) for each in used],
            "group": [each.group for each in used],
            **(
                {"classes": [np.array([label]) for label in labels]}
                if self.kind == "scenes"
                else {"class_index": labels}
            ),
            **{name: values if name == "sources" else np.stack(values) for name, values in fields.items()},
        }

    def _fields(self, stack: Stack) -> dict[str, FieldSpec]:
        image, audio, dtype = stack.image_encoder, stack.audio_encoder, self.choices.dtype
        sight = shown_as(image.identity, self.choices.crop_shape)
        role = "visual" if self.kind == "videos" else None
        specs = {SEEN[self.kind]: FieldSpec(image.width, sight, dtype, role=role)}
        if self.kind == "scenes":
            specs["sources"] = FieldSpec(image.width, sight, dtype, ragged=True)
        return specs | {"audio": FieldSpec(audio.width, audio.identity, dtype)}

    def _sources_csv(self) -> str:
        rows = (
            [self._used[item.number].item.key, region.label, f"{region.score:.4f}", *(f"{x:.5f}" for x in region.box)]
            for part in self.folder.read(self._parts)
            for item in part.items
            if item.number in self._used
            for region in item.regions
        )
        return csv_text(["key", "label", "score", "left", "top", "right", "bottom"], rows)


def unstorable(fields: Mapping[str, np.ndarray], dtype: str) -> str:
    """Tells why embeddings cannot be stored in a dtype; empty: they can."""
    for name, values in fields.items():
        with np.errstate(over="ignore"):
            stored = values.astype(dtype)
        if not np.isfinite(stored).all():
            return f"field {name} holds a number beyond {dtype}; build with dtype float32"
        lost = np.linalg.norm(stored.astype(np.float32) - values, axis=-1)
        if (lost > MOST_LOST * np.linalg.norm(values, axis=-1)).any():
            return f"field {name} holds an embedding too small for {dtype}; build with dtype float32"
    return ""
