"""Checks by their manifests that data sets go together, before anything is read."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lightning_ss2a.data.format.manifest import Manifest
from lightning_ss2a.data.format.schema import FieldSpec
from lightning_ss2a.errors import ShardError


def as_list(datasets: str | list[str]) -> list[str]:
    """Makes a list of one data set or several."""
    return [str(datasets)] if not isinstance(datasets, (list, tuple)) else [str(d) for d in datasets]


def load_manifests(datasets: str | list[str]) -> list[Manifest]:
    """Loads the manifests of data sets that are used together.

    Raises:
        ShardError: a manifest is missing or damaged, or two differ in kind, fields, widths, views, encoders or classes.
    """
    names = as_list(datasets)
    if not names:
        raise ShardError("data.datasets is empty; name at least one folder with a manifest.json")
    manifests = [Manifest.load(name) for name in names]
    for name, manifest in zip(names[1:], manifests[1:], strict=True):
        for (what, first), (_, other) in zip(_facts(manifests[0]), _facts(manifest), strict=False):
            if first != other:
                raise ShardError(
                    f"{names[0]} and {name} do not go together: {what} is {first!r} in the first and {other!r} in the "
                    "second; build both with the same encoders and classes"
                )
    return manifests


def origins_of(manifests: Sequence[Manifest]) -> dict[str, Any]:
    """Tells where rows of several data sets come from, as a writer of all of them takes it.

    Returns:
        ``provenance``, ``licence`` and ``made_by``. What is the same for all stays as it is; what differs stands side
        by side: of ``made_by`` one text for each data set, in their order, since its counts do not add up.
    """
    told = [manifest.made_by or {} for manifest in manifests]
    made_by = {
        name: words[0] if len(set(words)) == 1 else "; ".join(words)
        for name in dict.fromkeys(name for each in told for name in each)
        for words in [[each.get(name, "not said") for each in told]]
    }
    return {
        "provenance": _joined(manifest.provenance for manifest in manifests),
        "licence": _joined(manifest.licence for manifest in manifests),
        "made_by": made_by or None,
    }


def widest_field(name: str, manifests: Sequence[Manifest]) -> FieldSpec:
    """Describes a field as the first data set has it, in the dtype that holds the numbers of all."""
    dtype = np.result_type(*(manifest.fields[name].dtype for manifest in manifests))
    return replace(manifests[0].fields[name], dtype=dtype.name)


def _joined(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(text for text in texts if text))


def _facts(manifest: Manifest) -> Iterator[tuple[str, Any]]:
    """Lists what must be equal, most telling first."""
    yield "the kind", manifest.kind
    yield "the list of fields", sorted(manifest.fields)
    for name, field in sorted(manifest.fields.items()):
        yield f"the encoder of field {name!r}", field.encoder
        yield f"the width of field {name!r}", field.width
        yield f"the number of views of field {name!r}", field.views
    yield "the list of classes", list(manifest.classes)
