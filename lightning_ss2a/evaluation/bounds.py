"""Computes what scores are to be compared with: chance, the true sounds themselves, and two halves of these."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from lightning_ss2a.evaluation.folders import Item
from lightning_ss2a.evaluation.measures import Drawn, Evidence, ItemMeasure, Measure, Rows, SetMeasure
from lightning_ss2a.evaluation.scoring import Bootstrap, unit_numbers

CHANCE, REAL, HALVES = "chance (another item's)", "the true sounds", "halves of the true sounds"
"""Sounds compared with what belongs to others; the reference as a method; a half of it as a method of the other."""
DEALS = 10
"""Times that other items, or halves, are dealt out: the bound is the mean."""


@dataclass(frozen=True)
class Bound:
    """What a measure would be of sounds whose worth is known.

    Attributes:
        measure: name of the column.
        kind: :data:`CHANCE`, :data:`REAL` or :data:`HALVES`.
        value: never NaN.
    """

    measure: str
    kind: str
    value: float


def measure_bounds(
    items: Sequence[Item], evidence: Mapping[str, Evidence], measures: Mapping[str, Measure], bootstrap: Bootstrap
) -> list[Bound]:
    """Computes the bounds of measures, as far as there are any.

    - Measures of items that compare with references, pictures or texts: of the true sounds (without a reference the
      mean over methods) compared with those of an item of another group, and of the true sounds themselves, where that
      is not the best score by definition.
    - Distances of sets: of two halves of the true sounds, each the other's reference. That is about the least that a
      perfect method of half as many sounds can reach.
    - Measures of sets without a reference: of the true sounds.

    Offsets from videos have none here.

    Args:
        items: the items.
        evidence: of each method.
        measures: by name.
        bootstrap: its seed deals; where measures of sets have no draws, they have no halves either.
    """
    units = unit_numbers([item.group for item in items])
    generator = np.random.default_rng(bootstrap.seed)
    partners = _partners(units, generator)
    halves = _halves(units, min(DEALS, bootstrap.set_resamples), generator)
    (first, *_) = evidence.values()
    true = [replace(first, generated=first.reference)] if first.reference else []
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is to be said of the sets, the scores say
        for name, measure in measures.items():
            if isinstance(measure, ItemMeasure) and {"reference", "images", "text"} & {*measure.needs}:
                dealt = [_chance(measure, each, partners, units) for each in true or evidence.values()]
                found.append(Bound(name, CHANCE, float(np.mean(dealt))))
                if "reference" not in measure.needs:
                    found += [Bound(name, REAL, _mean(measure.values(each).numpy())) for each in true]
            elif isinstance(measure, SetMeasure):
                kind = HALVES if measure.paired else REAL
                counts = halves if measure.paired else np.ones((1, len(items)), np.int64)
                found += [Bound(name, kind, _of_set(measure, each, counts)) for each in true]
    return [bound for bound in found if np.isfinite(bound.value)]


def _partners(units: np.ndarray, generator: np.random.Generator) -> list[np.ndarray]:
    """Deals each item the places of other items, a different one each time: int64 [items] each."""
    order = generator.permutation(len(units))
    dealt = []
    for step in range(1, min(DEALS, len(units) - 1) + 1):
        partner = np.empty_like(order)
        partner[order] = np.roll(order, step)
        dealt.append(partner)
    return dealt


def _halves(units: np.ndarray, deals: int, generator: np.random.Generator) -> np.ndarray:
    """Deals groups into two halves: 1 for the items of the first, 0 for the others, int64 [deals, items]."""
    count = int(units.max()) + 1
    dealt = [generator.permutation(count)[units] < count // 2 for _ in range(deals)]
    return np.array(dealt, np.int64).reshape(deals, len(units))


def _chance(measure: ItemMeasure, evidence: Evidence, partners: Sequence[np.ndarray], units: np.ndarray) -> float:
    """Computes the mean over items of a method compared with others' references, pictures and texts."""
    values = [np.full(len(units), np.nan)]
    for partner in partners:
        reference = {name: _taken(rows, partner) for name, rows in evidence.reference.items()}
        images, text = (None if rows is None else _taken(rows, partner) for rows in (evidence.images, evidence.text))
        dealt = measure.values(replace(evidence, reference=reference, images=images, text=text)).numpy()
        values.append(np.where(units[partner] == units, np.nan, dealt))
    return _mean(np.concatenate(values))


def _taken(rows: Rows, places: np.ndarray) -> Rows:
    """Gives each item what is known of another; frames, which no measure of items reads, stay."""
    if rows.owners is not None:
        return rows
    index = torch.from_numpy(places)
    logits, visible = (None if part is None else part[index] for part in (rows.logits, rows.visible))
    return Rows(rows.there[index], rows.embeddings[index], logits, visible)


def _of_set(measure: SetMeasure, evidence: Evidence, chosen: np.ndarray) -> float:
    """Computes the mean over deals of chosen true sounds, int64 [deals, items], as a method of the others."""
    rows = evidence.reference[measure.ear]
    first = torch.from_numpy(chosen) * rows.there
    other = torch.from_numpy(1 - chosen) * rows.there
    if len(chosen) == 0 or not first.any(1).all():
        return float("nan")
    numbers = measure.rows(rows)
    return _mean(measure.values(Drawn(numbers, first, rows.owners), Drawn(numbers, other, rows.owners)))


def _mean(values: np.ndarray) -> float:
    """Gives the mean of the values that are finite; NaN: there are none."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")
