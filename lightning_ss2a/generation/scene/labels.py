"""Tells which sources and labels a word such as "speech" means, by AudioSet's hierarchy where it can."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lightning_ss2a.errors import InputError
from lightning_ss2a.generation.scene.source import WHOLE, Source
from lightning_ss2a.perception.audioset import audioset_ancestors, audioset_name, audioset_parents
from lightning_ss2a.perception.detectors.coco import COCO_TO_AUDIOSET
from lightning_ss2a.perception.encoders.minilm import MiniLM
from lightning_ss2a.perception.text_labels import TextLabels

MOST_MEANINGS = 3
"""Classes that a text may mean."""


class LabelMeanings:
    """Translates names into AudioSet's classes.

    A name is a class's own (or one of those that a class lists); else what a thing of COCO sounds like; else what it
    means as a text, where a text encoder is at hand that tells similar words from others.

    Args:
        texts: compares texts with AudioSet's classes; None: texts mean what they name, and no more.
    """

    def __init__(self, texts: TextLabels | None) -> None:
        self._texts = texts
        self._known: dict[str, frozenset[str]] = {}

    @classmethod
    def with_minilm(cls) -> "LabelMeanings":
        """Compares texts by MiniLM, if its files are installed."""
        encoder: Any = MiniLM()  # whose identity, a cached property, mypy takes for one that cannot be set
        return cls(TextLabels(encoder, [*audioset_parents()]) if encoder.describe().weights.present else None)

    def of(self, name: str) -> frozenset[str]:
        """Finds the classes that a name means; none, if nothing is known of it."""
        if name not in self._known:
            self._known[name] = frozenset(self._find(name))
        return self._known[name]

    def _find(self, name: str) -> Sequence[str]:
        if own := audioset_name(name) or COCO_TO_AUDIOSET.get(name.strip().casefold()):
            return [own]
        if self._texts is None or not name.strip():
            return []
        try:
            return [match.label for match in self._texts.labels_of_text(name, MOST_MEANINGS)]
        except InputError:  # it means none of them
            return []


@dataclass(frozen=True)
class Unwanted:
    """What is not to be heard.

    Attributes:
        words: as they were given.
        classes: AudioSet's classes that each of them means, by word.
        meanings: translates the names of sources.
    """

    words: tuple[str, ...]
    classes: dict[str, frozenset[str]]
    meanings: LabelMeanings

    @classmethod
    def of_words(cls, words: Sequence[str], meanings: LabelMeanings) -> "Unwanted":
        """Finds out what words mean: the nearest class for each, with all that are kinds of it."""
        return cls(tuple(words), {word: meanings.of(word) for word in words}, meanings)

    def word_for(self, source: Source) -> str | None:
        """Gives the word that a source falls under; None: it may be heard."""
        for word in self.words:
            if word.casefold() in {name.casefold() for name in source.names}:
                return word
        if source.label == WHOLE or source.modality == "video":  # which are named by nothing that was perceived
            return None
        heard = [self.word_for_label(label) for label in sorted(self.meanings.of(source.label))]
        return next(filter(None, heard), None)

    def word_for_label(self, label: str) -> str | None:
        """Gives the word that a class of AudioSet falls under; None: it may be heard."""
        above = audioset_ancestors(label)
        return next((word for word in self.words if self.classes[word] & above), None)

    def without_meaning(self) -> list[str]:
        """Lists words that no class of AudioSet goes with: only a source of just this name falls under them."""
        return [word for word in self.words if not self.classes[word]]
