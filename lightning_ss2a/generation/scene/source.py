"""Defines sound sources and scenes: what is perceived, and what is mixed."""

from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from lightning_ss2a.builders.listing import Box

Modality = Literal["image", "text", "audio", "video"]
WHOLE = "(the whole picture)"
"""Label of a picture in which nothing was detected, so that all of it is one source."""


@dataclass(frozen=True, eq=False)
class Source:
    """A thing that sounds.

    Attributes:
        modality: what it was perceived in: ``image``, ``text``, ``audio`` or ``video`` (each frame as a whole).
        label: what it is called: by the detector, by the text, by the label head; or the file's name.
        weight: how loud it is in proportion to the others; 0: left out.
        file: the medium, as it was named; empty for a text.
        box: of a picture's source: left, top, right and bottom as parts of width and height; None: all of it.
        score: of the detector, in [0, 1]; None: it was not detected.
        visual: embedding of what it looks like, float32 [V]; None: it is heard, or not embedded yet.
        audio: embedding of what it sounds like, float32 [A]; of sounds, and of texts that a sound prior reads.
    """

    modality: Modality
    label: str
    weight: float = 1.0
    file: str = ""
    box: Box | None = None
    score: float | None = None
    visual: Tensor | None = None
    audio: Tensor | None = None

    @property
    def names(self) -> frozenset[str]:
        """What options may call it by: its label and its file."""
        return frozenset(filter(None, (self.label, self.file)))

    def with_embedding(self, embedding: Tensor, heard: bool) -> "Source":
        """Gives it its embedding: of what it sounds like, or of what it looks like."""
        return replace(self, audio=embedding) if heard else replace(self, visual=embedding)


@dataclass(frozen=True, eq=False)
class Scene:
    """What sounds together.

    Attributes:
        key: names the item, or the item's frame.
        sources: at least one, each with a weight above 0 and its embedding.
        global_visual: embedding of the whole picture, float32 [V]; None: there is no picture.
    """

    key: str
    sources: tuple[Source, ...]
    global_visual: Tensor | None = None

    @property
    def seen(self) -> list[Source]:
        """Sources that are seen, or read as pictures."""
        return [source for source in self.sources if source.visual is not None]

    @property
    def heard(self) -> list[Source]:
        """Sources that are sounds, or read as such."""
        return [source for source in self.sources if source.audio is not None]

    @property
    def ordered(self) -> list[Source]:
        """All sources as they are mixed: those seen, then those heard."""
        return [*self.seen, *self.heard]

    @property
    def weights(self) -> list[float]:
        """Gives the weights of these. Only their proportions count: the largest is 1, however large or small it was."""
        given = [source.weight for source in self.ordered]
        return [weight / max(given) for weight in given]
