"""Markdown tables, and the page that they go into."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

MISSING = ""


def mean_and_spread(values: Sequence[float], digits: int = 3) -> str:
    """``mean ± standard deviation``; the mean alone of one value; nothing of none."""
    if not values:
        return MISSING
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of GitHub's Markdown; numbers are right-aligned, the first column is not."""
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"row {list(row)} has {len(row)} cells, the header has {len(header)}")
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def fill_page(page: Path, blocks: Mapping[str, str]) -> None:
    """Put each text between the lines ``<!-- NAME -->`` and ``<!-- /NAME -->`` of a page."""
    text = page.read_text(encoding="utf-8")
    for name, block in blocks.items():
        start, stop = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        if text.count(start) != 1 or text.count(stop) != 1 or text.index(start) > text.index(stop):
            raise ValueError(f"{page}: needs the line {start.strip()} once, and {stop} once after it")
        head, rest = text.split(start)
        text = f"{head}{start}{block}\n{stop}{rest.split(stop)[1]}"
    page.write_text(text, encoding="utf-8")
