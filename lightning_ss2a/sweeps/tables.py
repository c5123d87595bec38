"""A sweep's results laid out as a paper prints them."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Table:
    """Layout of a table.

    Args:
        title: above the table.
        rows: parameters whose values make the rows; the others are averaged over, as repeats are.
        metrics: metrics that make the columns, and their headings.
        columns: parameter whose values make groups of columns, for a table of two parameters.
        labels: what to print instead of a value, by parameter.
        base: value of the first row's parameter that others are compared with, paired by repeat.
        digits: after the decimal point.
    """

    title: str
    rows: list[str]
    metrics: dict[str, str]
    columns: str | None = None
    labels: dict[str, dict[str, str]] = field(default_factory=dict)
    base: str | None = None
    digits: int = 2
