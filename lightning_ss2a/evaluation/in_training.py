"""Lets one hear in TensorBoard what a module in training predicts, and measures it as waveforms."""

import hashlib
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor

from lightning_ss2a.callbacks.outputs import tensorboard_writers
from lightning_ss2a.callbacks.protocols import EmbedsPairs, predicts_embeddings
from lightning_ss2a.callbacks.trainer_state import data_of
from lightning_ss2a.data import LabelHead
from lightning_ss2a.drawing import literal, new_figure
from lightning_ss2a.errors import InputError
from lightning_ss2a.generation.mixing.methods import predicted_sounds
from lightning_ss2a.generation.protocols import CalibratedGenerator, Rendering, SoundGenerator, SoundRequest
from lightning_ss2a.metrics.functional import mean_cosine, sound_source_matching_score
from lightning_ss2a.models import Manifold
from lightning_ss2a.options import OptionCheck
from lightning_ss2a.perception.encoders.protocols import AudioEncoder
from lightning_ss2a.perception.media.waveform import at_rate
from lightning_ss2a.perception.weights import load_models

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Batch = dict[str, Any]


class EvaluateAudio(Callback):
    """Sounds a fixed handful of validation items every few epochs, for the ear, the eye and two metrics.

    Rows of the first validation batch, always the same and evenly spread over it, since neighbours are often of one
    class, are predicted and sounded; predictions that no sound can be made of are left out with a warning. TensorBoard
    gets each as ``audio/KEY`` and, drawn, ``spectrograms/KEY``. With an encoder, what it hears in the sounds is
    compared with the embeddings of the true ones: ``audio/cosine`` and, if the data have a label head, ``audio/ssms``
    say how much of a prediction survives being sounded. Shards hold no sounds, so that there is no waveform to compare
    with.

    Args:
        generator: sounds embeddings, such as a bank or AudioLDM; see configs/generation/.
        encoder: hears the sounds; the one that the data's sounds were heard by. None: no metrics.
        items: validation items, at most those of the first batch of rank 0.
        every_n_epochs: least epochs from one time to the next; the first validation is one.
        seconds: length of a sound.
        seed: of the generator.

    Raises:
        InputError: an option is out of range; once it runs, too: the module predicts no audio, or the generator or the
            encoder is of another space than the data.
    """

    def __init__(
        self,
        generator: SoundGenerator,
        encoder: AudioEncoder | None = None,
        items: int = 4,
        every_n_epochs: int = 1,
        seconds: float = 10.0,
        seed: int = 0,
    ) -> None:
        check = OptionCheck("EvaluateAudio")
        check.at_least(1, items=items, every_n_epochs=every_n_epochs)
        check.at_least(0.1, seconds=seconds)
        check.at_least(0, seed=seed)
        self.generator = generator
        self.encoder = encoder
        self.items = items
        self.every_n_epochs = every_n_epochs
        self.seconds = seconds
        self.seed = seed
        self._next_epoch = 0

    def state_dict(self) -> dict[str, Any]:
        """Returns when sounds are due next."""
        return {"next_epoch": self._next_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes that back."""
        self._next_epoch = state_dict["next_epoch"]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checks that the module predicts audio, in the space of generator and encoder, and loads these."""
        if not isinstance(pl_module, EmbedsPairs) and predicts_embeddings(pl_module, self).PREDICTS != "audio":
            raise InputError(f"EvaluateAudio: {type(pl_module).__name__} predicts no audio")
        wanted = data_of(trainer).manifest.fields["audio"].encoder
        spaces = {"generator": self.generator.audio_encoder}
        if self.encoder is not None:
            spaces["encoder"] = self.encoder.identity
        for option, found in spaces.items():
            if found != wanted:
                raise InputError(f"EvaluateAudio.{option}: is of the space of {found}, and the data of {wanted}")
        if stage == "fit" and trainer.is_global_zero:
            load_models([self.generator, self.encoder])  # else a device that is not there ends the first epoch

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Sounds and measures rows of the first batch."""
        fitting = trainer.state.fn == "fit" and not trainer.sanity_checking
        if not (fitting and batch_idx == 0 and trainer.current_epoch >= self._next_epoch):
            return
        self._next_epoch = trainer.current_epoch + self.every_n_epochs
        if not (trainer.is_global_zero and len(batch["index"])):
            return
        rows = spread_rows(len(batch["index"]), self.items)
        with torch.no_grad():
            predicted = predict_audio(pl_module, batch)[rows].float().cpu()
        keys = [_text(batch["key"][row]) for row in rows]
        usable = _usable(keys, predicted)
        if not usable:
            return
        rows, keys, predicted = [rows[i] for i in usable], [keys[i] for i in usable], predicted[usable]
        manifold = (
            pl_module.evaluated_manifold if isinstance(pl_module, EmbedsPairs) else getattr(pl_module, "manifold", None)
        )
        if isinstance(self.generator, CalibratedGenerator) and isinstance(manifold, Manifold):
            self.generator.calibrate(predicted_sounds(manifold, self.generator.real_sounds))
        renderings = self.generator.generate(self._requests(keys, predicted), self.seconds)
        self._show(trainer, keys, renderings)
        if self.encoder is not None:
            target = batch["audio"][rows].float().cpu()
            values = compare(renderings, self.generator.sample_rate, target, self.encoder, data_of(trainer).label_head)
            for logger in trainer.loggers:
                logger.log_metrics({f"audio/{name}": value for name, value in values.items()}, trainer.global_step)

    def _requests(self, keys: Sequence[str], embeddings: Tensor) -> list[SoundRequest]:
        one = torch.ones(1)
        return [
            SoundRequest(key, embedding, embedding[None], one, ("",), _seed(self.seed, key))
            for key, embedding in zip(keys, embeddings, strict=True)
        ]

    def _show(self, trainer: Trainer, keys: Sequence[str], renderings: Sequence[Rendering]) -> None:
        rate = self.generator.sample_rate
        for writer in tensorboard_writers(trainer):
            for key, rendering in zip(keys, renderings, strict=True):
                sound = torch.from_numpy(rendering.waveform)[None]
                writer.add_audio(f"audio/{key}", sound, trainer.global_step, rate)
                figure = spectrogram(rendering.waveform, rate, key)
                writer.add_figure(f"spectrograms/{key}", figure, trainer.global_step)


def spread_rows(rows: int, count: int) -> list[int]:
    """Chooses so many rows of a batch, all where it has no more, evenly spread from its first one on.

    Example:
        >>> spread_rows(34, 4), spread_rows(2, 4)
        ([0, 8, 17, 25], [0, 1])
    """
    count = min(count, rows)
    return [place * rows // count for place in range(count)]


def predict_audio(pl_module: LightningModule, batch: Batch) -> Tensor:
    """Predicts the audio embedding of each row of an evaluation batch, [rows, width]."""
    if isinstance(pl_module, EmbedsPairs):
        manifold = pl_module.evaluated_manifold
        return manifold.reconstruct_audio(manifold.project_visual(batch["visual"]).mean).mean
    predicted: Tensor = pl_module.predict_step(batch, 0)["predicted"]
    return predicted


def compare(
    renderings: Sequence[Rendering], rate: int, target: Tensor, encoder: AudioEncoder, head: LabelHead | None
) -> dict[str, float]:
    """Compares what an encoder hears in sounds with the embeddings of the true ones, [sounds, width].

    Args:
        renderings: the sounds.
        rate: their samples per second.
        target: embeddings of the true sounds by the same encoder.
        encoder: the encoder.
        head: names what an embedding sounds like; None: no matching score.

    Returns:
        ``cosine``, and ``ssms`` if there is a head.
    """
    heard = encoder.encode([at_rate(each.waveform, rate, encoder.sample_rate) for each in renderings])
    values = {"cosine": float(mean_cosine(heard, target))}
    if head is not None:
        values["ssms"] = float(sound_source_matching_score(head.scores(heard), head.scores(target)))
    return values


def spectrogram(waveform: np.ndarray, rate: int, title: str) -> "Figure":
    """Draws the spectrogram of a mono sound, float32 [samples], in decibels below its loudest point."""
    window = torch.hann_window(1024)
    sound = torch.from_numpy(np.pad(waveform, (0, max(0, 1024 - len(waveform)))))
    power = torch.stft(sound, 1024, 256, window=window, return_complex=True).abs().square()
    decibels = 10 * (power / power.max().clamp(min=1e-12)).clamp(min=1e-8).log10()
    figure = new_figure(3.6, 2.4)  # TensorBoard shows it about 300 pixels wide: larger, its text could not be read
    axes = figure.subplots()
    extent = (0, len(waveform) / rate, 0, rate / 2000)
    image = axes.imshow(decibels.numpy(), origin="lower", aspect="auto", extent=extent, vmin=-80, vmax=0)
    figure.colorbar(image, ax=axes, label="dB re peak", ticks=range(-80, 1, 20))
    axes.set(xlabel="time (s)", ylabel="frequency (kHz)")
    axes.set_title(literal(title), fontsize=10)
    return figure


def _usable(keys: Sequence[str], predicted: Tensor) -> list[int]:
    """Gives the places of predictions, [items, width], that can be sounded, and warns of the others."""
    usable = [place for place, each in enumerate(predicted) if each.isfinite().all() and each.any()]
    if len(usable) < len(keys):
        others = ", ".join(key for place, key in enumerate(keys) if place not in usable)
        warnings.warn(f"EvaluateAudio: predictions of NaN, infinity or zeros are not sounded: {others}", stacklevel=3)
    return usable


def _seed(seed: int, key: str) -> int:
    """Gives each item a seed of its own, the same in every epoch."""
    return int.from_bytes(hashlib.sha256(f"{seed} {key}".encode()).digest()[:4], "big")


def _text(key: Any) -> str:
    return key.decode(errors="replace") if isinstance(key, bytes) else str(key)
