"""Knows which of AudioSet's classes are kinds of which others, by the hierarchy that Google published with it."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

ONTOLOGY = Path(__file__).with_name("audioset_ontology.txt")


@cache
def audioset_parents() -> Mapping[str, tuple[str, ...]]:
    """Reads the parents of each of the 632 classes, by name; a class at the top has none, and some have several."""
    parents: dict[str, tuple[str, ...]] = {}
    above: list[str] = []
    for line in ONTOLOGY.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        name = line.lstrip("\t")
        depth = len(line) - len(name)
        above[depth:] = [name]
        known = parents.setdefault(name, ())
        if depth and above[depth - 1] not in known:
            parents[name] = (*known, above[depth - 1])
    return parents


@cache
def audioset_ancestors(label: str) -> frozenset[str]:
    """Names the classes that a class is a kind of, itself included; a name that AudioSet lacks is alone."""
    found = {label}
    for parent in audioset_parents().get(label, ()):
        found |= audioset_ancestors(parent)
    return frozenset(found)


def audioset_name(text: str) -> str | None:
    """Finds the class of a name, or of one of the names that a class lists: ``speech``, ``canidae``, ``wolves``.

    Upper and lower case are the same; of several classes the first in the hierarchy counts. None: there is no such.
    """
    wanted = text.strip().casefold()
    return _classes_by_name().get(wanted)


@cache
def _classes_by_name() -> Mapping[str, str]:
    whole = {label.casefold(): label for label in reversed([*audioset_parents()])}
    parts = {part.strip().casefold(): label for label in reversed([*audioset_parents()]) for part in label.split(",")}
    return parts | whole
