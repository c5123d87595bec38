"""Tables in text: means with their spread, numbers of comparable precision, Markdown and CSV."""

import csv
import io
import math
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

MISSING = ""
"""What an empty cell holds."""


def spread(values: Sequence[float]) -> float:
    """Computes the standard deviation of a sample; NaN of fewer than two values."""
    return statistics.stdev(values) if len(values) > 1 else math.nan


def mean_and_spread(values: Sequence[float], digits: int | None = None) -> str:
    """Writes a sample as ``mean ± standard deviation``.

    Args:
        values: the sample; of one value the mean stands alone, of none the cell is empty.
        digits: after the decimal point, as ``column_digits`` finds them; None: four significant digits.
    """
    return with_spread(statistics.fmean(values), spread(values), digits) if values else MISSING


def with_spread(mean: float, spread: float, digits: int | None = None) -> str:
    """Writes ``mean ± spread``; the mean alone where the spread is not finite, nothing of a mean that is NaN.

    Args:
        mean: of a sample.
        spread: its standard deviation.
        digits: see :func:`mean_and_spread`.
    """
    if math.isnan(mean):
        return MISSING
    parts = [mean, spread] if math.isfinite(spread) else [mean]
    return " ± ".join(number_text(part) if digits is None else f"{part:.{digits}f}" for part in parts)


def number_text(value: float) -> str:
    """Writes a measured number with four significant digits, trailing zeros kept so that a column can be compared."""
    if not math.isfinite(value):
        return str(value)
    exponent = math.floor(math.log10(abs(value))) if value else 0
    return f"{value:.{max(0, 3 - exponent)}f}" if -4 < exponent < 6 else f"{value:.3e}"


def column_digits(spreads: Iterable[float]) -> int | None:
    """Finds the digits after the point for a column of ``mean ± spread``: two significant ones of the median spread.

    Returns:
        None where no spread is finite and above 0, or where digits after the point do not suit its size.
    """
    known = [spread for spread in spreads if math.isfinite(spread) and spread > 0]
    if not known:
        return None
    exponent = math.floor(math.log10(statistics.median(known)))
    return max(0, 1 - exponent) if -6 < exponent < 6 else None


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Writes a table of GitHub's Markdown, all columns but the first aligned to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(_markdown_cell, line))} |" for line in lines)


def _markdown_cell(text: str) -> str:
    # A choice named a|b, or a reason of two lines, would tear the row.
    return " ".join(text.split()).replace("|", "\\|")


def marked(mark: str) -> re.Pattern[str]:
    """Matches what stands in a page between ``<!-- MARK -->`` and the next ``<!-- end -->``; mark is an expression."""
    return re.compile(rf"<!-- {mark} -->\n.*?<!-- end -->", re.S)


def fill_marked(text: str, between: re.Pattern[str], content: Callable[[re.Match[str]], str]) -> str:
    """Replaces what stands between marks in the text of a page.

    Args:
        text: of the page.
        between: see :func:`marked`.
        content: gives what is to stand there, whole lines, for what was found.
    """

    def filled(found: re.Match[str]) -> str:
        begin, _, _ = found[0].partition("\n")
        return f"{begin}\n{content(found)}<!-- end -->"

    return between.sub(filled, text)


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Writes comma-separated values; None and NaN are empty cells."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(
        [MISSING if isinstance(cell, float) and math.isnan(cell) else cell for cell in row] for row in rows
    )
    return text.getvalue()
