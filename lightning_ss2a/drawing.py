"""Figures without pyplot, for all that draw."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def literal(text: str) -> str:
    """Writes a text so that matplotlib takes a dollar sign for itself, and not for the start of a formula."""
    return text.replace("$", r"\$")


def new_figure(width: float, height: float) -> "Figure":
    """Makes a figure without pyplot: no global state, no window system; fine enough for thumbnails.

    matplotlib is imported here, so that only those who draw wait for it.

    Args:
        width: in inches.
        height: in inches.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=150, layout="constrained")
