"""Says who is first and second in a column of scores, and how tables mark that."""

import math
from collections.abc import Hashable, Mapping
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)

MARKDOWN_MARKS = {0: "%s", 1: "**%s**", 2: "<u>%s</u>"}
LATEX_MARKS = {0: "%s", 1: r"\textbf{%s}", 2: r"\underline{%s}"}
"""By place, 0 for none: the first is bold, the second underlined."""
ARROWS = {True: "↑", False: "↓"}
LATEX_ARROWS = {True: r"$\uparrow$", False: r"$\downarrow$"}
"""By whether higher is better."""


def first_two(values: Mapping[Name, float], higher_is_better: bool) -> dict[Name, int]:
    """Gives first and second place, 1 and 2; equal values share one, and what is alone or NaN has none.

    Values are equal that agree to six digits: who else is in a batch changes the last ones of what an encoder hears.

    Example:
        >>> first_two({"a": 3.0, "b": 5.0, "c": 3.0, "d": 1.0, "e": float("nan")}, higher_is_better=True)
        {'a': 2, 'b': 1, 'c': 2}
    """
    known = {name: float(f"{value:.5e}") for name, value in values.items() if math.isfinite(value)}
    if len(known) < 2:
        return {}
    order = sorted(set(known.values()), reverse=higher_is_better)
    return {name: place for name, value in known.items() if (place := order.index(value) + 1) <= 2}
