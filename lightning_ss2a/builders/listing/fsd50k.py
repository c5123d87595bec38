"""Reads FSD50K: sounds of Freesound with labels, out of which captions are made."""

from collections.abc import Iterator
from pathlib import Path

from lightning_ss2a.builders.csv_rows import csv_rows
from lightning_ss2a.builders.listing.item import Item, ItemReader
from lightning_ss2a.errors import InputError

SPLITS = {"train": "train", "val": "validation"}
"""How the file names its splits, and we do."""


class FSD50K(ItemReader):
    """Reads FSD50K as published (Zenodo record 4060432): sounds whose labels become a text.

    ``FSD50K.ground_truth/dev.csv`` has the columns fname, labels, mids and split (``train``, ``val``), ``eval.csv`` the
    same without split; ``labels`` are names of AudioSet with underscores, joined by commas, the most special first and
    parents after it. Sounds are ``FSD50K.dev_audio/FNAME.wav`` and ``FSD50K.eval_audio/FNAME.wav``.

    The text is made as LAION did for LAION-630K, "The sounds of A, B and C"; the class is the first label. The split of
    ``eval.csv`` is ``test``. The key is the number of the sound at Freesound.

    Args:
        template: text around the labels.
        most_labels: how many labels stand in the text, at most.
    """

    def __init__(self, template: str = "The sounds of {labels}", most_labels: int = 8) -> None:
        if "{labels}" not in template:
            raise InputError(f"template must hold {{labels}}, found {template!r}")
        if most_labels < 1:
            raise InputError(f"most_labels must be at least 1, found {most_labels}")
        self._template, self._most_labels = template, most_labels

    def read(self, source: Path, root: Path) -> Iterator[Item]:
        """Lists the items; see :meth:`ItemReader.read`."""
        if not source.is_dir():
            raise InputError(f"{source}: not a folder; name the one that holds FSD50K.ground_truth")
        for part in ("dev", "eval"):
            required = ("fname", "labels", "split") if part == "dev" else ("fname", "labels")
            for place, cells in csv_rows(source / "FSD50K.ground_truth" / f"{part}.csv", required):
                split = cells.get("split", "")
                if part == "dev" and split not in SPLITS:
                    raise InputError(f"{place}: split {split!r} is not one of {', '.join(SPLITS)}")
                yield self._item(place, cells, f"FSD50K.{part}_audio/{cells['fname']}.wav", SPLITS.get(split, "test"))

    def _item(self, place: str, cells: dict[str, str], sound: str, split: str) -> Item:
        labels = [label.strip().replace("_", " ") for label in cells["labels"].split(",") if label.strip()]
        if not labels:
            raise InputError(f"{place}: column labels holds no label")
        text = self._template.replace("{labels}", _enumerated(labels[: self._most_labels]))
        return Item(
            place,
            key=cells["fname"],
            name=text,
            class_name=labels[0],
            text=text,
            sound=sound,
            split=split,
            pair_origin="translated",
        )


def _enumerated(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
