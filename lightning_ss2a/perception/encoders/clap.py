"""Encodes sounds and texts with a CLAP (HTSAT and RoBERTa, 512-d) of LAION, or with the one inside AudioLDM.

The two are different spaces: AudioLDM sounds embeddings of its own CLAP only, which is in its original checkpoint.
"""

import csv
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from lightning_ss2a.data import LabelHead
from lightning_ss2a.errors import InputError, one_line
from lightning_ss2a.files import to_path
from lightning_ss2a.perception.encoders.clap_sounds import SAMPLE_RATE, prepare_sound
from lightning_ss2a.perception.encoders.clap_towers import FOLDER_FILES, Towers, load_clap_towers
from lightning_ss2a.perception.encoders.laion_towers import load_laion_towers
from lightning_ss2a.perception.encoders.protocols import TextFeatures
from lightning_ss2a.perception.encoders.running import (
    Precision,
    autocast,
    batches,
    check_running,
    load_once,
    usable_device,
)
from lightning_ss2a.perception.identity import identify
from lightning_ss2a.perception.packages import media_package
from lightning_ss2a.perception.weights import ModelCard, WeightsStatus, files_at, find_weights, joined, obtain_weights

REPOSITORY = "laion/clap-htsat-unfused"
TOKENIZER_REPOSITORY, TOKENIZER_FILE = "FacebookAI/roberta-base", "tokenizer.json"
TOKENS = 77
"""Of a text, start and end among them, as LAION's code cuts it."""
PROMPT = "This is a sound of {}."
"""By which a label becomes a text, after LAION's zero-shot evaluation."""
MOST_ALIKE = 0.99
"""Mean cosine between embeddings of different inputs above which a tower is broken. LAION's working text towers have
0.18 and 0.29, the collapsed one of larger_clap_music 0.9993 (mteb#5069)."""

_PROBES = ("a dog barks", "piano music", "heavy rain on a roof", "an engine starts")
_PADDING, _PADDING_TOKEN = 1, "<pad>"
"""RoBERTa's, from which the network tells positions."""


class _CLAP:
    """What the encoders of both sides share."""

    part: ClassVar[str]
    note: ClassVar[str]
    package: ClassVar[str] = "transformers"
    _files: ClassVar[tuple[str, ...]] = FOLDER_FILES

    def __init__(
        self,
        path: str | None,
        repository: str,
        tokenizer: str | None,
        batch_size: int,
        device: str,
        precision: Precision,
    ) -> None:
        check_running(batch_size, precision)
        self.path = path
        self.repository = repository
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.device = device
        self.precision = precision

    def describe(self) -> ModelCard:
        """Says what it is and where its files are looked for; loads and downloads nothing."""
        found = [find_weights(self.part, *place) for place in self._places()]
        licence = "LAION's: CC0-1.0 (.pt), Apache-2.0 (hub); AudioLDM's: CC-BY-NC-SA-4.0"
        return ModelCard(self.part, self._model, licence, joined(*found), self.note)

    @cached_property
    def width(self) -> int:
        """Numbers in an embedding."""
        return self._towers.width

    @property
    def towers(self) -> Towers:
        """Both towers, for who needs more of them than embeddings; one network for all that use the same files."""
        return self._towers

    @property
    def _model(self) -> str:
        return f"{self.package}/CLAP"

    def _places(self) -> list[tuple[str | None, str, tuple[str, ...]]]:
        """Path, repository and names of the files that it needs: of the network, then of the tokenizer."""
        names = files_at(self.path, self._files)
        network = (self.path, self.repository, names)
        if not self._reads_texts():
            return [network]
        if self.tokenizer is not None or len(names) == 1:  # beside a single file of weights there is none
            return [network, (self.tokenizer, TOKENIZER_REPOSITORY, (TOKENIZER_FILE,))]
        return [network, (self.path, self.repository, (TOKENIZER_FILE,))]

    def _reads_texts(self) -> bool:
        raise NotImplementedError

    @cached_property
    def _weights(self) -> list[WeightsStatus]:
        return [obtain_weights(self.part, *place) for place in self._places()]

    def _load(self, source: Path) -> Towers:
        return load_clap_towers(source, self.part)

    @cached_property
    def _towers(self) -> Towers:
        source = self._weights[0].location
        key = (self.package, str(source), self.device)
        return load_once(key, lambda: self._load(source).to(usable_device(self.device)))

    @cached_property
    def _tokenizer(self) -> Any:
        return _load_tokenizer(self._weights[-1].found[0], self._towers.vocabulary)

    @cached_property
    def _checked_reader(self) -> Towers:
        """The towers, of which that for texts is known to tell texts apart."""
        embeddings, _, _ = self._read(self._towers, _PROBES)
        _check_spread(embeddings, f"{self.part}: {self._weights[0].where}: its text tower")
        return self._towers

    @torch.inference_mode()
    def _read(self, towers: Towers, texts: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        encoded = self._tokenizer.encode_batch(list(texts))
        tokens = torch.tensor([text.ids for text in encoded])  # [texts, 77]
        mask = torch.tensor([text.attention_mask for text in encoded])
        with autocast(self.device, self.precision):
            embeddings, hidden = towers.read(tokens.to(self.device), mask.to(self.device))
        return embeddings.float().cpu(), hidden.float().cpu(), mask.bool()

    def _features(self, texts: Sequence[str]) -> TextFeatures:
        found = [self._read(self._checked_reader, batch) for batch in batches(texts or [""], self.batch_size)]
        embeddings, hidden, mask = (torch.cat(parts)[: len(texts)] for parts in zip(*found, strict=True))
        return TextFeatures(tuple(texts), embeddings, hidden, mask)


class CLAPAudioEncoder(_CLAP):
    """Encodes sounds with transformers' ClapModel: unit vectors of their first 10 s.

    A sound is cut to its first 10 s, resampled to 48 kHz with a polyphase filter, repeated as often as it fits whole
    and filled up with silence; then LAION's log-mel spectrogram (50 to 14,000 Hz, Slaney) is computed.

    Args:
        path: LAION's ``.pt``, AudioLDM's original ``.ckpt``, or a folder that transformers saved (``config.json`` and
            ``model.safetensors``); None: the hub's. diffusers' AudioLDM folder will not do: it has the text half only.
        repository: on the hub, with the files of such a folder. The default is LAION's, not AudioLDM's.
        labels: file with names of labels, of which the text tower makes the label head: a csv file with a column
            ``display_name``, as AudioSet's and YAMNet's are, or a label head in safetensors; None: no label head.
        tokenizer: RoBERTa's ``tokenizer.json`` or its folder, needed with ``labels``; None: that beside the weights,
            and with a single file of weights the hub's.
        sample_rate: samples per second that it is given; 16,000 is what AudioLDM was trained to hear.
        peak: bring each sound's mean to zero and its highest sample to this first, 0.5 as AudioLDM was trained; None:
            leave it as loud as it is.
        batch_size: sounds at once.
        device: where it runs, such as ``cuda:0``.
        precision: of matrix products; the spectrogram is always computed in float32. It is no part of the identity.

    Raises:
        InputError: the batch size or the sample rate is below 1; once used, too: a package or a file is missing or not
            what it should be, or a tower gives different inputs nearly the same embedding.
    """

    part = "audio encoder"
    note = "hears the first 10 s; generation needs the CLAP of AudioLDM's own checkpoint, another space than LAION's"

    def __init__(
        self,
        path: str | None = None,
        repository: str = REPOSITORY,
        labels: str | None = None,
        tokenizer: str | None = None,
        sample_rate: int = SAMPLE_RATE,
        peak: float | None = None,
        batch_size: int = 16,
        device: str = "cpu",
        precision: Precision = "float32",
    ) -> None:
        super().__init__(path, repository, tokenizer, batch_size, device, precision)
        if sample_rate < 1:
            raise InputError(f"sample_rate is {sample_rate}, needs at least 1")
        self.labels = labels
        self.sample_rate = sample_rate
        self.peak = peak

    @cached_property
    def identity(self) -> str:
        """Model, weights and preparation."""
        level = "" if self.peak is None else f"-peak{self.peak:g}"
        digest = self._weights[0].sha256() or ""  # a tokenizer, which labels need, has no part in embeddings of sounds
        return identify(self._model, digest, f"first10s-{self.sample_rate}hz{level}-v1")

    def prepare(self, waveform: np.ndarray) -> Tensor:
        """Prepares a mono sound, float32 [samples], for the network: float32 [480000], 10 s at 48 kHz.

        Raises:
            InputError: it is empty.
        """
        return prepare_sound(waveform, self.sample_rate, self.peak)

    def encode(self, waveforms: Sequence[np.ndarray]) -> Tensor:
        """Embeds mono sounds, float32 [samples] each, of any length, within -1 to 1: float32 [sounds, width]."""
        sounds = (torch.stack([self.prepare(one) for one in batch]) for batch in batches(waveforms, self.batch_size))
        found = [self._hear(self._checked_hearer, batch) for batch in sounds]
        return torch.cat(found) if found else torch.empty(0, self.width)

    def label_head(self) -> LabelHead | None:
        """Gives text prototypes of the labels: a label's score is the cosine of the sound with the label's text.

        Raises:
            InputError: the file of labels holds none.
        """
        if self.labels is None:
            return None
        names = read_labels(to_path(self.labels))
        prototypes = normalize(self._features([PROMPT.format(name) for name in names]).embeddings, dim=-1)
        return LabelHead(prototypes, torch.zeros(len(names)), names)

    def _reads_texts(self) -> bool:
        return self.labels is not None

    @cached_property
    def _checked_hearer(self) -> Towers:
        """The towers, of which that for sounds is known to tell sounds apart."""
        embeddings = self._hear(self._towers, _probe_sounds())
        _check_spread(embeddings, f"{self.part}: {self._weights[0].where}: its audio tower")
        return self._towers

    @torch.inference_mode()
    def _hear(self, towers: Towers, sounds: Tensor) -> Tensor:
        with autocast(self.device, self.precision):
            embeddings = towers.hear(sounds.to(self.device))
        return normalize(embeddings.float(), dim=-1).cpu()


class CLAPTextEncoder(_CLAP):
    """Encodes texts with transformers' ClapModel: unit vectors. A text is cut after 77 tokens.

    Args:
        path: see :class:`CLAPAudioEncoder`, as the others; with the same files both encoders share one network.
        repository: on the hub.
        tokenizer: RoBERTa's ``tokenizer.json`` or its folder; None: that beside the weights, and with a single file of
            weights the hub's.
        batch_size: texts at once.
        device: where it runs.
        precision: of matrix products.

    Raises:
        InputError: see :class:`CLAPAudioEncoder`.
    """

    part = "text encoder"
    note = "English captions of sounds; the same space as the sounds of the same file"

    def __init__(
        self,
        path: str | None = None,
        repository: str = REPOSITORY,
        tokenizer: str | None = None,
        batch_size: int = 64,
        device: str = "cpu",
        precision: Precision = "float32",
    ) -> None:
        super().__init__(path, repository, tokenizer, batch_size, device, precision)

    @cached_property
    def identity(self) -> str:
        """Model, weights and preparation."""
        return identify(self._model, joined(*self._weights).sha256() or "", f"bpe{TOKENS}-v1")

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Embeds texts: unit vectors, float32 [texts, width]."""
        return normalize(self.features(texts).embeddings, dim=-1)

    def features(self, texts: Sequence[str]) -> TextFeatures:
        """Gives projected embeddings [texts, width], last hidden states [texts, 77, hidden width] and their mask."""
        return self._features(texts)

    def _reads_texts(self) -> bool:
        return True


class LaionCLAPAudioEncoder(CLAPAudioEncoder):
    """Encodes sounds with LAION's own package: the same as :class:`CLAPAudioEncoder` by another implementation.

    Needs ``laion_clap``, which wants numpy 1. It reads LAION's ``.pt`` and AudioLDM's ``.ckpt``, not folders.
    """

    package = "laion_clap"
    _files = ("630k-audioset-best.pt",)

    def __init__(
        self,
        path: str | None = None,
        repository: str = "lukewys/laion_clap",
        labels: str | None = None,
        tokenizer: str | None = None,
        sample_rate: int = SAMPLE_RATE,
        peak: float | None = None,
        batch_size: int = 16,
        device: str = "cpu",
    ) -> None:
        super().__init__(path, repository, labels, tokenizer, sample_rate, peak, batch_size, device)

    def _load(self, source: Path) -> Towers:
        return load_laion_towers(source, self.part)


class LaionCLAPTextEncoder(CLAPTextEncoder):
    """Encodes texts with LAION's own package: the same as :class:`CLAPTextEncoder` by another implementation."""

    package = "laion_clap"
    _files = ("630k-audioset-best.pt",)

    def __init__(
        self,
        path: str | None = None,
        repository: str = "lukewys/laion_clap",
        tokenizer: str | None = None,
        batch_size: int = 64,
        device: str = "cpu",
    ) -> None:
        super().__init__(path, repository, tokenizer, batch_size, device)

    def _load(self, source: Path) -> Towers:
        return load_laion_towers(source, self.part)


def read_labels(path: Path) -> tuple[str, ...]:
    """Reads the names of labels, see :class:`CLAPAudioEncoder`.

    Raises:
        InputError: the file cannot be read, or holds none.
    """
    try:
        if path.suffix == ".safetensors":
            return LabelHead.from_bytes(path.read_bytes(), str(path)).labels
        with path.open(encoding="utf-8", newline="") as file:
            names = tuple(row["display_name"].strip() for row in csv.DictReader(file))
    except OSError as error:
        raise InputError(f"audio_encoder.labels: {path}: cannot be read ({error.strerror})") from error
    except (KeyError, AttributeError, UnicodeDecodeError, csv.Error) as error:
        reason = "needs a column display_name" if isinstance(error, KeyError) else one_line(error)
        raise InputError(f"audio_encoder.labels: {path}: not a csv file of labels ({reason})") from error
    if not names:
        raise InputError(f"audio_encoder.labels: {path}: holds no labels")
    return names


def _load_tokenizer(file: Path, vocabulary: int) -> Any:
    """Loads a tokenizer that gives 77 tokens of every text."""
    try:
        tokenizer = media_package("tokenizers").Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises plain Exception
        raise InputError(f"{file}: not a tokenizer ({one_line(error)})") from error
    known, padding = tokenizer.get_vocab_size(), tokenizer.token_to_id(_PADDING_TOKEN)
    if padding != _PADDING or known > vocabulary:
        raise InputError(
            f"{file}: not the tokenizer of this CLAP: {known} tokens, {_PADDING_TOKEN} is {padding}; "
            f"needs RoBERTa's, at most {vocabulary}, and {_PADDING}"
        )
    tokenizer.enable_truncation(TOKENS)
    tokenizer.enable_padding(length=TOKENS, pad_id=_PADDING, pad_token=_PADDING_TOKEN)
    return tokenizer


def _probe_sounds() -> Tensor:
    """Makes noise, a tone and clicks: [3, 480000]."""
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, SAMPLE_RATE)
    clicks = np.where(np.arange(SAMPLE_RATE) % (SAMPLE_RATE // 4), 0.0, 1.0)
    sounds = (noise, 0.5 * np.sin(2 * np.pi * 440 * time), clicks)
    return torch.stack([prepare_sound(sound, SAMPLE_RATE, None) for sound in sounds])


def _check_spread(embeddings: Tensor, where: str) -> None:
    """Refuses a tower that gives different inputs nearly the same embedding: [inputs, width]."""
    units = normalize(embeddings, dim=-1)
    number = len(units)
    alike = float(((units @ units.T).sum() - number) / (number * (number - 1)))
    if not alike <= MOST_ALIKE:  # NaN, too
        raise InputError(
            f"{where} gives different inputs nearly the same embedding (mean cosine {alike:.4f}, "
            f"at most {MOST_ALIKE}): its weights are broken; take another file"
        )
