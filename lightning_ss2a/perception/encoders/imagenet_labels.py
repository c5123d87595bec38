"""Names the 1000 classes of ImageNet."""

from functools import cache
from pathlib import Path

FILE = Path(__file__).with_suffix(".txt")


@cache
def imagenet_labels() -> tuple[str, ...]:
    """Reads the names of the 1000 classes, in ImageNet's order; two pairs of them have one name."""
    return tuple(line for line in FILE.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))
