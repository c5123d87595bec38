"""Checks by their manifests that data sets go together, before anything is read."""

from collections.abc import Iterator
from typing import Any

from lightning_ss2a.data.format.manifest import Manifest
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


def _facts(manifest: Manifest) -> Iterator[tuple[str, Any]]:
    """Lists what must be equal, most telling first."""
    yield "the kind", manifest.kind
    yield "the list of fields", sorted(manifest.fields)
    for name, field in sorted(manifest.fields.items()):
        yield f"the encoder of field {name!r}", field.encoder
        yield f"the width of field {name!r}", field.width
        yield f"the number of views of field {name!r}", field.views
    yield "the list of classes", list(manifest.classes)
