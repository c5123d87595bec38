"""Figures without pyplot, for all that draw."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> "Figure":
    """Makes a figure without pyplot: no global state, no window system. Fine, so that thumbnails can be read.

    matplotlib is imported only here, so that nobody waits for it who draws nothing.

    Args:
        width: in inches.
        height: in inches.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=150, layout="constrained")
