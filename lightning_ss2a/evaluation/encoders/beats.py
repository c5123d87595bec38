"""Encodes sounds with BEATs (Chen et al. 2023), by speechbrain's module and a checkpoint of its authors."""

import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_ss2a.errors import InputError, one_line
from lightning_ss2a.evaluation.encoders.audioset import read_classes
from lightning_ss2a.evaluation.encoders.checkpoint import SAMPLE_RATE, CheckpointEncoder, as_tensor, at_length, at_peak
from lightning_ss2a.files import to_path
from lightning_ss2a.perception.encoders.running import batches
from lightning_ss2a.perception.encoders.torch_files import read_content
from lightning_ss2a.perception.identity import exactly
from lightning_ss2a.perception.packages import media_package

SHORTEST = 0.175
"""Seconds: the first patch of 16 frames of 25 ms, every 10 ms."""


class _Labelled(nn.Module):
    """A BEATs with the names of its classes, which speechbrain's module leaves in the file."""

    def __init__(self, network: nn.Module, labels: tuple[str, ...]) -> None:
        super().__init__()
        self.network = network
        self.labels = labels

    def forward(self, waveforms: Tensor) -> tuple[Tensor, Tensor]:
        """Gives the mean over patches of the last layer, and logits: [sounds, samples] to [sounds, width], [.., K]."""
        # Without lengths speechbrain's module fails; silence at the end is heard as such, as in BEATs' own training.
        patches = self.network(waveforms, torch.ones(len(waveforms), device=waveforms.device))[0]
        head: Any = self.network.get_submodule("predictor")
        return patches.mean(dim=1), head(patches).mean(dim=1)


class BEATs(CheckpointEncoder):
    """Encodes and names sounds, each brought to one level and length first, as in the paper's published run.

    Its mean is taken away and its peak made ``peak``; it is cut after ``seconds``, or silence follows up to there.

    Args:
        path: a checkpoint that was fine-tuned on AudioSet, such as ``BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2.pt``,
            or the folder that holds this one.
        labels: AudioSet's ``class_labels_indices.csv``, by which the checkpoint's ids (``/m/09x0r``) become names;
            None: the ids.
        seconds: of sound that it hears.
        peak: of a sound, from 0 to 1; None: as loud as it is.
        batch_size: sounds at once.
        device: where it runs.

    Raises:
        InputError: an option is out of range; once used, too: a package or a file is missing or not what it should be.
    """

    part = "BEATs"
    model = "speechbrain/BEATs"
    file = "BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2.pt"
    licence = "MIT (BEATs), Apache-2.0 (speechbrain)"
    note = "of SSMS: names AudioSet's classes, at 16 kHz; which of the fine-tuned checkpoints the paper took is unknown"

    def __init__(
        self,
        path: str | None = None,
        labels: str | None = None,
        seconds: float = 10.24,
        peak: float | None = 0.5,
        batch_size: int = 8,
        device: str = "cpu",
    ) -> None:
        super().__init__(path, batch_size, device)
        if not seconds >= SHORTEST or (peak is not None and not 0 < peak <= 1):
            raise InputError(
                f"BEATs: seconds is {seconds}, peak {peak}; needs at least {SHORTEST}, and above 0 to 1 or none"
            )
        self._labels = labels
        self.seconds, self.peak = seconds, peak

    @cached_property
    def width(self) -> int:
        """Numbers in an embedding."""
        return int(self._network.network.cfg.encoder_embed_dim)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes."""
        ids: tuple[str, ...] = self._network.labels
        if self._labels is None:
            return ids
        names = read_classes(to_path(self._labels))
        if unknown := [each for each in ids if each not in names]:
            raise InputError(f"{self._labels}: lacks {unknown[0]}, one of {len(unknown)} classes of {self.path}")
        return tuple(names[each] for each in ids)

    def embed(self, waveforms: Sequence[np.ndarray]) -> Tensor:
        """Embeds mono sounds at 16 kHz as the mean over BEATs' patches: float32 [sounds, width], 768 as published."""
        return self.embed_and_label(waveforms)[0]

    @torch.inference_mode()
    def embed_and_label(self, waveforms: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
        """Embeds mono sounds at 16 kHz, and gives the logits of the classes, before the sigmoid: [sounds, labels]."""
        found = [(torch.empty(0, self.width), torch.empty(0, len(self.labels)))]
        for batch in batches([*map(self._prepare, waveforms)], self.batch_size):
            embeddings, logits = self._network(torch.stack([*batch]).to(self.device))
            found.append((embeddings.float().cpu(), logits.float().cpu()))
        embeddings, logits = (torch.cat(parts) for parts in zip(*found, strict=True))
        return embeddings, logits

    def _prepare(self, waveform: np.ndarray) -> Tensor:
        sound = as_tensor(waveform)
        return at_length(sound if self.peak is None else at_peak(sound, self.peak), round(self.seconds * SAMPLE_RATE))

    @property
    def _preparation(self) -> str:
        level = "as-loud" if self.peak is None else f"peak{exactly(self.peak)}"
        return f"{level}-{exactly(self.seconds)}s-v1"

    def _load(self, file: Path) -> nn.Module:
        module = import_speechbrain_beats()
        labels = _read_labels(file, self.part)
        try:
            network = module.BEATs(str(file))
        except Exception as error:  # torch's and those of the configuration; none is common to them
            raise InputError(f"{self.part}: {file}: not a BEATs ({one_line(error)[:200]})") from error
        if network.predictor is None or network.predictor.out_features != len(labels):
            raise InputError(f"{self.part}: {file}: names {len(labels)} classes, which are not those of its last layer")
        return _Labelled(network, labels)


def import_speechbrain_beats() -> ModuleType:
    """Imports speechbrain's BEATs.

    speechbrain leaves stand-ins for what it has renamed among all modules. Whoever looks at these one by one, such as
    hypothesis, makes the stand-ins import packages that are not here; so they are taken away.

    Raises:
        InputError: speechbrain is not installed.
    """
    module = media_package("speechbrain.lobes.models.beats", extra="evaluation")
    stand_in = media_package("speechbrain.utils.importutils", extra="evaluation").LazyModule
    for name in [name for name, each in sys.modules.items() if isinstance(each, stand_in)]:
        del sys.modules[name]
    return module


def _read_labels(file: Path, part: str) -> tuple[str, ...]:
    """Reads the ids of the classes, in the order of the network's outputs.

    Raises:
        InputError: the file is no checkpoint of BEATs, or was not fine-tuned.
    """
    content = read_content(file)
    if not isinstance(content, Mapping) or not content.keys() >= {"cfg", "model"}:
        raise InputError(f"{part}: {file}: not a BEATs: needs the entries cfg, model and label_dict")
    labels = content.get("label_dict")
    if not isinstance(labels, Mapping) or not labels:
        raise InputError(
            f"{part}: {file}: names no classes; take a checkpoint that was fine-tuned, such as {BEATs.file}"
        )
    try:
        return tuple(str(labels[number]) for number in range(len(labels)))
    except KeyError as error:
        raise InputError(f"{part}: {file}: label_dict has no class {error}") from error
