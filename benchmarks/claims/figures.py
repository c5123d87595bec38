"""What the figures of all claims share."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from .runs import FIGURES

COLOURS = {"blue": "#1f6fb4", "orange": "#d9730d", "grey": "#7a7a7a", "green": "#2e8b57", "red": "#b5342b"}


@contextmanager
def figure(name: str, columns: int, width: float = 9.0, height: float = 3.2) -> Iterator[Any]:
    """A row of axes, saved as ``docs/figures/NAME.png``."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from PIL import Image

    style = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10}
    with plt.rc_context(style):
        drawn, axes = plt.subplots(1, columns, figsize=(width, height), layout="constrained", squeeze=False)
        yield axes[0]
        FIGURES.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        drawn.savefig(buffer, dpi=100)
        # A palette makes a third of the bytes.
        Image.open(buffer).convert("RGB").quantize(64).save(FIGURES / f"{name}.png", optimize=True)
        plt.close(drawn)


def legend_beside(axis: Any, lines_of: Any) -> None:
    """Legend of the lines of an axis, right of another."""
    handles, labels = lines_of.get_legend_handles_labels()
    axis.legend(handles, labels, frameon=False, fontsize=8, handlelength=3, loc="center left", bbox_to_anchor=(1, 0.5))


def line(axis: Any, x: Sequence[float], samples: Sequence[Sequence[float]], **options: Any) -> None:
    """Means with error bars of one standard deviation; places without a sample are left out."""
    kept = [(at, values) for at, values in zip(x, samples, strict=True) if values]
    if kept:
        means = [np.mean(values) for _, values in kept]
        spread = [np.std(values, ddof=1) if len(values) > 1 else 0.0 for _, values in kept]
        axis.errorbar([at for at, _ in kept], means, spread, capsize=2, marker="o", markersize=4, **options)
