"""Computes scores of methods with their bootstrap intervals, and differences of methods on the same items."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from scipy.special import ndtr, stdtrit
from torch import Tensor

from lightning_ss2a.evaluation.folders import BREAKDOWNS, Item
from lightning_ss2a.evaluation.measures import Drawn, Evidence, ItemMeasure, Measure, SetMeasure
from lightning_ss2a.options import OptionCheck

NO_INTERVAL = (float("nan"), float("nan"))


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made: 95 % of the values on items that are drawn anew, with replacement.

    Reference and generated sound of an item are drawn together, and all methods share the draws. Percentiles of a mean
    are those of few items, see :func:`tails`. What is measured of sets has another mean on draws, in which items
    repeat: the interval is moved by as much.

    Attributes:
        resamples: draws for measures that are means over items; 0: no intervals.
        set_resamples: draws for measures of sets, each of which costs as much as the score; 0: none of these.
        seed: of the draws.
    """

    resamples: int = 1000
    set_resamples: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the options."""
        check = OptionCheck("bootstrap")
        check.at_least(0, resamples=self.resamples, set_resamples=self.set_resamples, seed=self.seed)


@dataclass(frozen=True)
class Score:
    """A cell of the table.

    Attributes:
        method: whose.
        measure: name of the column.
        value: NaN: nothing could be measured.
        low: start of the 95 % interval; NaN: there is none.
        high: its end.
        items: how many items it is of.
    """

    method: str
    measure: str
    value: float
    low: float
    high: float
    items: int


@dataclass(frozen=True)
class Difference:
    """How much higher a method scores than another on the items that both have; fields as of :class:`Score`."""

    measure: str
    method: str
    other: str
    value: float
    low: float
    high: float
    items: int


@dataclass(frozen=True)
class PartScore:
    """The mean of a measure over the items with one value in a column of the csv file."""

    column: str
    part: str
    method: str
    measure: str
    value: float
    items: int


def draw_counts(groups: Sequence[str], resamples: int, seed: int) -> np.ndarray:
    """Draws groups of items with replacement: how often each item is in each draw, int64 [resamples, items].

    Args:
        groups: of each item; an empty one is of its own.
        resamples: draws.
        seed: of the draws.
    """
    units = unit_numbers(groups)
    count = int(units.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), resamples)
    return drawn[:, units]


def unit_numbers(groups: Sequence[str]) -> np.ndarray:
    """Numbers what is drawn as one, groups and items without a group, from 0 in their order: int64 [items]."""
    names = [("group", group) if group else ("item", str(number)) for number, group in enumerate(groups)]
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return np.array([places[name] for name in names], np.int64)


def tails(units: int | None) -> tuple[float, float]:
    r"""Gives the parts of the draws below and above which a 95 % interval ends.

    Draws of n values spread less than their mean does, by a factor of sqrt(1 - 1 / n), and their percentiles have the
    tails of the normal distribution, where those of Student's t belong. Both make the interval of a mean too narrow, of
    8 items by 22 %. The expanded percentiles of Hesterberg ("What teachers should know about the bootstrap", 2015)
    make up for it:

    .. math:: \Phi\left(-\sqrt{n / (n - 1)}\; t_{0.975, n - 1}\right)

    Args:
        units: n, how many are drawn independently, at least 2; None: the percentiles as they are.

    Example:
        >>> [round(tails(units)[0], 4) for units in (8, 32, 1000, None)]
        [0.0057, 0.0191, 0.0248, 0.025]
    """
    low = 0.025 if units is None else float(ndtr(-((units / (units - 1)) ** 0.5) * stdtrit(units - 1, 0.975)))
    return low, 1 - low


def interval(
    value: float, resampled: np.ndarray, bounds: tuple[float, float], units: int | None = None
) -> tuple[float, float]:
    """Gives the 95 % interval around a value, from the values on draws, within the measure's bounds.

    Args:
        value: NaN has no interval.
        resampled: those that are not finite do not count.
        bounds: least and highest value.
        units: of a mean, how many are drawn, see :func:`tails`.
    """
    known = resampled[np.isfinite(resampled)]
    if len(known) < 2 or not np.isfinite(value):
        return NO_INTERVAL
    low, high = np.quantile(known, tails(units)) + (value - known.mean())
    return float(max(low, bounds[0])), float(min(high, bounds[1]))


class Scorer:
    """Computes scores of several methods on the same items.

    Args:
        items: the items.
        evidence: of each method.
        bootstrap: how intervals are made.

    Attributes:
        notes: warnings of the metrics, each once.
        uneven: names of measures that are not of the same items for all methods.
    """

    def __init__(self, items: Sequence[Item], evidence: Mapping[str, Evidence], bootstrap: Bootstrap) -> None:
        self.items = items
        self.evidence = evidence
        self.bootstrap = bootstrap
        self.notes: dict[str, None] = {}
        self.uneven: list[str] = []
        self._item_values: dict[str, dict[str, Tensor]] = {}
        self._groups = [item.group for item in items]
        self._units = unit_numbers(self._groups)

    def score(self, name: str, measure: Measure) -> tuple[list[Score], list[Difference]]:
        """Measures all methods, and each pair of them."""
        column: _Column = (
            _ItemColumn(self, name, measure) if isinstance(measure, ItemMeasure) else _SetColumn(self, name, measure)
        )
        scores, differences, everywhere = [], [], {}
        for method in self.evidence:
            value, drawn = column.resampled(method, column.there(method))
            everywhere[method] = value, drawn
            there = column.there(method)
            ends = self._interval(value, drawn, there, measure, measure.bounds)
            scores.append(Score(method, name, value, *ends, int(there.sum())))
        for method, other in combinations(self.evidence, 2):
            common = column.there(method) & column.there(other)
            (value, drawn), (other_value, other_drawn) = (
                everywhere[each] if torch.equal(common, column.there(each)) else column.resampled(each, common)
                for each in (method, other)
            )
            if name not in self.uneven and not torch.equal(column.there(method), column.there(other)):
                self.uneven.append(name)
            change = value - other_value
            ends = self._interval(change, drawn - other_drawn, common, measure, (-np.inf, np.inf))
            differences.append(Difference(name, method, other, change, *ends, int(common.sum())))
        return scores, differences

    def parts(self, name: str, measure: Measure) -> list[PartScore]:
        """Measures items by their values in the columns of the csv file; nothing of what is measured of sets."""
        if not isinstance(measure, ItemMeasure):
            return []
        found = []
        for column in BREAKDOWNS:
            values = [item.values.get(column, "") for item in self.items]
            for part in sorted(set(values) - {""}):
                chosen = torch.tensor([value == part for value in values])
                for method, own in self.item_values(name, measure).items():
                    each = own[chosen]
                    each = each[each.isfinite()]
                    mean = float(each.mean()) if len(each) else float("nan")
                    found.append(PartScore(column, part, method, name, mean, len(each)))
        return found

    def values(self, measures: Mapping[str, Measure]) -> dict[str, dict[str, np.ndarray]]:
        """Gives each item's value by method and measure, of measures of items."""
        of_items = {
            name: self.item_values(name, measure)
            for name, measure in measures.items()
            if isinstance(measure, ItemMeasure)
        }
        return {method: {name: values[method].numpy() for name, values in of_items.items()} for method in self.evidence}

    def item_values(self, name: str, measure: ItemMeasure) -> dict[str, Tensor]:
        """Gives each item's value by method, float64 [items]; computed once."""
        if name not in self._item_values:
            self._item_values[name] = {method: measure.values(own) for method, own in self.evidence.items()}
        return self._item_values[name]

    def _interval(
        self, value: float, drawn: np.ndarray, there: Tensor, measure: Measure, bounds: tuple[float, float]
    ) -> tuple[float, float]:
        """Gives the interval of a value of the items that are there; none where these are drawn as one."""
        units = len(np.unique(self._units[there.numpy()]))
        if units < 2:
            return NO_INTERVAL
        return interval(value, drawn, bounds, units if isinstance(measure, ItemMeasure) else None)

    def draws(self, resamples: int) -> np.ndarray:
        """Draws items, see :func:`draw_counts`."""
        return draw_counts(self._groups, resamples, self.bootstrap.seed)


class _Column:
    """One measure of all methods."""

    def there(self, method: str) -> Tensor:
        """Which items can be measured, bool [items]."""
        raise NotImplementedError

    def resampled(self, method: str, chosen: Tensor) -> tuple[float, np.ndarray]:
        """Computes the score on chosen items, and on draws of them, float64 [resamples]."""
        raise NotImplementedError


class _ItemColumn(_Column):
    def __init__(self, scorer: Scorer, name: str, measure: ItemMeasure) -> None:
        self._values = scorer.item_values(name, measure)
        self._counts = scorer.draws(scorer.bootstrap.resamples).astype(np.float64)

    def there(self, method: str) -> Tensor:
        return self._values[method].isfinite()

    def resampled(self, method: str, chosen: Tensor) -> tuple[float, np.ndarray]:
        values, counts = self._values[method][chosen].numpy(), self._counts[:, chosen.numpy()]
        if not len(values):
            return float("nan"), np.full(len(counts), np.nan)
        with np.errstate(invalid="ignore"):  # a draw that has none of them is NaN
            return float(values.mean()), counts @ values / counts.sum(1)


class _SetColumn(_Column):
    def __init__(self, scorer: Scorer, name: str, measure: Measure) -> None:
        if not isinstance(measure, SetMeasure):
            raise TypeError(f"{name}: neither a measure of items nor of sets: {type(measure).__name__}")
        self._scorer, self._name, self._measure = scorer, name, measure
        self._counts = torch.from_numpy(scorer.draws(scorer.bootstrap.set_resamples))

    def there(self, method: str) -> Tensor:
        return self._scorer.evidence[method].generated[self._measure.ear].there

    def resampled(self, method: str, chosen: Tensor) -> tuple[float, np.ndarray]:
        once = torch.ones(1, len(chosen), dtype=torch.int64)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            value = float(self._values(method, chosen, once)[0])
        if torch.equal(chosen, self.there(method)):  # else of a difference, of fewer items
            self._scorer.notes.update({f"{self._name}: {warning.message}": None for warning in caught})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said once
            return value, self._values(method, chosen, self._counts)

    def _values(self, method: str, chosen: Tensor, counts: Tensor) -> np.ndarray:
        """Computes the measure on draws, int64 [draws, items]; the reference is not only of the chosen."""
        evidence, measure = self._scorer.evidence[method], self._measure
        rows = evidence.generated[measure.ear]
        generated = Drawn(measure.rows(rows), counts * (rows.there & chosen), rows.owners)
        if not measure.paired:
            return measure.values(generated, generated)
        rows = evidence.reference[measure.ear]
        return measure.values(generated, Drawn(measure.rows(rows), counts * rows.there, rows.owners))
