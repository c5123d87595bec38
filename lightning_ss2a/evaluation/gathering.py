"""Brings what was heard and seen into the order of the items."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lightning_ss2a.errors import InputError
from lightning_ss2a.evaluation.folders import Folders, Item, Problem, why_missing
from lightning_ss2a.evaluation.hearing import Ear, HeardFiles, Listener, hear_offsets
from lightning_ss2a.evaluation.measures import Evidence, Rows
from lightning_ss2a.evaluation.planning import HearingPlan, Protocol
from lightning_ss2a.perception.detectors.crops import CropShape
from lightning_ss2a.perception.encoders.protocols import ImageEncoder
from lightning_ss2a.perception.encoding import EncodedMedia, encode_images


@dataclass(frozen=True)
class Gathering:
    """Brings what was heard and seen into the order of the items.

    Attributes:
        folders: of methods, reference, pictures and videos.
        items: in order.
        protocol: whose models see pictures, read texts and tell offsets.
        plan: what was to be heard and seen.
        listener: how pictures are seen and offsets told.
        heard: what was heard.
        problems: grows by what cannot be used.
    """

    folders: Folders
    items: Sequence[Item]
    protocol: Protocol
    plan: HearingPlan
    listener: Listener
    heard: HeardFiles
    problems: list[Problem]

    def evidence(
        self, sounds: Mapping[str, Sequence[Path | None]], rows: Mapping[str, Mapping[str, Rows]]
    ) -> dict[str, Evidence]:
        """Gives what is known of each method, of which and of the reference the rows are given."""
        needs = self.plan.needs
        reference = rows.get("reference", {})
        images = self._images() if "images" in needs else None
        text = self._text() if "text" in needs else None
        offsets = self._offsets(sounds) if "videos" in needs else {}
        seconds = () if self.protocol.sync is None else self.protocol.sync.offsets
        return {
            method: Evidence(rows[method], reference, images, text, offsets.get(method, ()), tuple(seconds))
            for method in self.folders.methods
        }

    def rows(self, paths: Sequence[Path | None], ears: Mapping[str, Ear]) -> dict[str, Rows]:
        """Gives what is heard in the files of the items."""
        found = {}
        for name, ear in ears.items():
            known = [None if path is None else self.heard.rows[name].get(path) for path in paths]
            if ear.frames:
                found[name] = _frames(known, ear.numbers)
                continue
            rows = _rows([None if each is None else each[0] for each in known], ear.numbers)
            logits = rows.embeddings[:, ear.encoder.width :]
            embeddings = rows.embeddings[:, : ear.encoder.width]
            found[name] = Rows(rows.there, embeddings, logits if logits.shape[1] else None)
        return found

    def _images(self) -> Rows:
        """Embeds the pictures of each item; an item of which one cannot be used has none."""
        folder, encoder = self.folders.images, self.protocol.image_encoder
        if folder is None or encoder is None:
            raise InputError("images need a folder and an image_encoder")
        files = self.plan.pictures
        media = see_pictures(self.plan.picture_files, encoder, self.protocol.crop_shape, self.listener)
        embeddings = dict(zip(media.cached, media.embeddings(media.cached)[:, 0] if media.cached else (), strict=True))
        things: list[list[np.ndarray]] = []
        for item, paths in zip(self.items, files, strict=True):
            reasons = [media.problems[str(path)] for path in paths or [] if str(path) in media.problems]
            if paths is None:
                reasons = [why_missing(item, folder, "image")]
            self.problems.extend(Problem(folder.name, item.name, reason) for reason in reasons)
            things.append([] if reasons else [embeddings[str(path)] for path in paths or []])
        return _ragged(things, encoder.width)

    def _text(self) -> Rows:
        encoder = self.protocol.text_encoder
        texts = {item.text: None for item in self.items if item.text}
        if encoder is None or not texts:
            raise InputError("texts need a csv file with a column text, and a text_encoder")
        encoded = dict(zip(texts, encoder.encode([*texts]).numpy(), strict=True))
        known = {text: embedding for text, embedding in encoded.items() if np.isfinite(embedding).all()}
        for item in self.items:
            if not item.text:
                self.problems.append(Problem("text", item.name, "has no text in the csv file"))
            elif item.text not in known:
                reason = f"{encoder.identity} gave NaN or infinity for {item.text!r}; write it otherwise"
                self.problems.append(Problem("text", item.name, reason))
        return _rows([known.get(item.text) for item in self.items], encoder.width)

    def _offsets(self, sounds: Mapping[str, Sequence[Path | None]]) -> dict[str, list[Tensor | None]]:
        """Has the estimator hear each method's sounds with the items' videos."""
        estimator = self.protocol.sync
        if estimator is None:
            raise InputError("offsets need sync")
        pairs = {method: self.plan.pairs(method, sounds[method]) for method in self.folders.methods}
        known = [pair for each in pairs.values() for pair in each if pair is not None]
        logits, reasons = hear_offsets(known, self.heard.content, estimator, self.listener)
        found = {}
        for method, each in pairs.items():
            for item, pair in zip(self.items, each, strict=True):
                if pair in reasons:
                    self.problems.append(Problem(method, item.name, reasons[pair]))
            rows = [None if pair is None else logits.get(pair) for pair in each]
            found[method] = [None if row is None else torch.from_numpy(row) for row in rows]
        return found


def see_pictures(
    references: Sequence[str], encoder: ImageEncoder, crop_shape: CropShape, listener: Listener
) -> EncodedMedia:
    """Encodes pictures, each once, through the cache."""
    return encode_images(references, Path(), encoder, 1, listener.cache, 0, listener.progress, crop_shape)


def _rows(found: Sequence[np.ndarray | None], width: int) -> Rows:
    """Stacks arrays [width]; zeros where there is none."""
    empty = np.zeros(width, np.float32)
    stacked = np.stack([empty if array is None else array for array in found])
    return Rows(torch.tensor([array is not None for array in found]), torch.from_numpy(stacked))


def _frames(found: Sequence[np.ndarray | None], width: int) -> Rows:
    """Joins frames, [frames, width] an item; none where there is no item."""
    empty = np.zeros((0, width), np.float32)
    frames = [empty if array is None else array for array in found]
    owners = torch.arange(len(frames)).repeat_interleave(torch.tensor([*map(len, frames)]))
    there = torch.tensor([array is not None for array in found])
    return Rows(there, torch.from_numpy(np.concatenate(frames)), owners=owners)


def _ragged(things: Sequence[Sequence[np.ndarray]], width: int) -> Rows:
    """Stacks several arrays [width] an item."""
    most = max(1, max(map(len, things)))
    embeddings, visible = np.zeros((len(things), most, width), np.float32), np.zeros((len(things), most), bool)
    for number, arrays in enumerate(things):
        for place, array in enumerate(arrays):
            embeddings[number, place], visible[number, place] = array, True
    seen = torch.from_numpy(visible)
    return Rows(seen.any(1), torch.from_numpy(embeddings), visible=seen)
