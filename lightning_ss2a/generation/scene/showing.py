"""Draws what was perceived: pictures with boxes, labels and scores."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lightning_ss2a.drawing import literal, new_figure
from lightning_ss2a.files import write_whole
from lightning_ss2a.generation.scene.perceiving import PerceivedItem
from lightning_ss2a.generation.scene.source import Source

_WIDTH = 8.0
"""Inches of a drawing."""
_KEPT, _DROPPED = "tab:green", "tab:red"


def draw_sources(folder: Path, key: str, images: Mapping[str, np.ndarray], perceived: PerceivedItem) -> list[Path]:
    """Draws each picture of an item with its sources, those that are dropped in red with a dashed box.

    Args:
        folder: of the drawings.
        key: of the item, which names them.
        images: uint8 [height, width, 3] each, by file.
        perceived: of the item.

    Returns:
        the drawings' files: ``KEY.sources.png``, numbered where there are several.
    """
    written = []
    for number, picture in enumerate(perceived.pictures, start=1):
        own = [(source, _KEPT) for source in perceived.sources if source.file == picture.file]
        own += [(source, _DROPPED) for source, _ in perceived.dropped if source.file == picture.file]
        name = f"{key}.sources.png" if len(perceived.pictures) == 1 else f"{key}.sources{number}.png"
        written.append(write_whole(folder / name, _drawing(images[picture.file], own)))
    return written


def _drawing(image: np.ndarray, sources: list[tuple[Source, str]]) -> bytes:
    height, width = image.shape[:2]
    figure = new_figure(_WIDTH, _WIDTH * height / width)
    axes = figure.add_subplot()
    axes.imshow(image)
    axes.set_axis_off()
    for source, colour in sources:
        left, top, right, bottom = source.box or (0.0, 0.0, 1.0, 1.0)
        style = "-" if colour == _KEPT else "--"
        frame = [left, right, right, left, left], [top, top, bottom, bottom, top]
        axes.plot(np.array(frame[0]) * width, np.array(frame[1]) * height, style, color=colour, linewidth=2)
        score = "" if source.score is None else f" {source.score:.2f}"
        axes.text(
            left * width, top * height, literal(f"{source.label}{score}"), color="white", va="top",
            bbox={"facecolor": colour, "edgecolor": "none", "pad": 2},
        )  # fmt: skip
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()
