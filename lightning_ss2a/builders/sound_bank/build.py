"""Builds a sound bank from labelled sounds."""

import hashlib
import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lightning_ss2a.builders.pairs import media_folder
from lightning_ss2a.builders.sound_bank.bank import FOLDER, BankSound, check_place, write_bank, writing
from lightning_ss2a.builders.sound_bank.listing import ListedSound, list_sounds
from lightning_ss2a.builders.sound_bank.ogg import encode_ogg
from lightning_ss2a.errors import InputError
from lightning_ss2a.files import to_path
from lightning_ss2a.options import OptionCheck
from lightning_ss2a.perception.encoders.protocols import AudioEncoder
from lightning_ss2a.perception.encoding import checked_embeddings, tracked, view_generator
from lightning_ss2a.perception.media.files import load_audio, read_media
from lightning_ss2a.perception.media.loudness import loudness
from lightning_ss2a.perception.media.stretch import FADE_SECONDS, faded, loudest_stretch
from lightning_ss2a.perception.media.views import audio_views
from lightning_ss2a.perception.media.waveform import SAMPLE_RATES, at_rate
from lightning_ss2a.perception.weights import Described, check_weights

logger = logging.getLogger(__name__)

SAMPLE_RATE = 32_000
"""Of a bank's sounds, in hertz. Real sounds are there to be heard: 16 kHz, which is what synthesis gives, would cut off
what makes birds, bells and crickets bright; above 16 kHz few of the demo's recordings hold anything."""
LOUDEST_PEAK = 0.98
"""Of a sound before it is encoded, since what is decoded overshoots a little."""


@dataclass(frozen=True)
class BankReport:
    """What a build did.

    Attributes:
        sounds: number of sounds.
        labels: number of labels.
        seconds: of all sounds together.
        size: bytes of all files.
        problems: a line for each sound that was left out.
    """

    sounds: int
    labels: int
    seconds: float
    size: int
    problems: tuple[str, ...]

    def __str__(self) -> str:
        left_out = f"; left out {len(self.problems)}" if self.problems else ""
        return (
            f"{self.sounds} sounds, {self.labels} labels, {self.seconds / 60:.1f} minutes, "
            f"{self.size / 1e6:.1f} MB{left_out}"
        )


@dataclass(frozen=True)
class _Made:
    sound: BankSound
    ogg: bytes
    seconds: float
    embeddings: np.ndarray


def build_bank(
    source: str,
    output: str,
    audio_encoder: AudioEncoder,
    *,
    media_root: str | None = None,
    sample_rate: int = SAMPLE_RATE,
    longest: float = 10.0,
    quality: float = 0.2,
    audio_views: int = 6,
    seed: int = 0,
    skip_bad: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> BankReport:
    """Builds a bank of real sounds from a list or folder of labelled ones.

    What is embedded is the sound as the bank holds it, cut and encoded. A sound that is listed twice, by content, is
    taken once.

    Args:
        source: a CSV file with the columns file, label and optionally author, licence, source, group, split; or a
            folder in which each sub-folder is a label.
        output: folder of the bank.
        audio_encoder: turns sounds into embeddings.
        media_root: folder that relative paths start from; default: the CSV file's, or the folder.
        sample_rate: samples per second of the bank's sounds.
        longest: seconds; of a longer sound the loudest stretch is taken.
        quality: of Ogg Vorbis, 0 to 1: at 32 kHz about 40 to 90 kbit/s.
        audio_views: embeddings of each sound: of itself, then of random segments, louder or quieter.
        seed: of the views.
        skip_bad: leave out sounds that cannot be used, instead of stopping once all are read.
        overwrite: replace a bank in the output folder; other files there stay.
        progress: show a progress bar.

    Returns:
        what was written and what was left out.

    Raises:
        InputError: bad input, or a file of the encoder is missing. Sounds that cannot be used are logged one by one,
            all of them, before it is raised.
    """
    listing = to_path(source)
    if isinstance(audio_encoder, Described):
        check_weights([audio_encoder.describe()])
    return build_listed(
        list_sounds(listing),
        media_folder(listing, media_root),
        to_path(output),
        audio_encoder,
        sample_rate=sample_rate,
        longest=longest,
        quality=quality,
        audio_views=audio_views,
        seed=seed,
        skip_bad=skip_bad,
        overwrite=overwrite,
        progress=progress,
    )


def build_listed(
    listed: Sequence[ListedSound],
    root: Path,
    output: Path,
    audio_encoder: AudioEncoder,
    *,
    sample_rate: int = SAMPLE_RATE,
    longest: float = 10.0,
    quality: float = 0.2,
    audio_views: int = 6,
    seed: int = 0,
    skip_bad: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> BankReport:
    """Builds a bank from sounds that were listed; see :func:`build_bank`."""
    check = OptionCheck()
    check.within(*SAMPLE_RATES, sample_rate=sample_rate)
    check.at_least(0.1, longest=longest)
    check.within(0, 1, quality=quality)
    check.at_least(1, audio_views=audio_views)
    check.at_least(0, seed=seed)
    check_place(output, overwrite)
    maker = _Maker(root, audio_encoder, sample_rate, longest, quality, audio_views, seed)
    made: dict[str, _Made] = {}
    problems = []
    for sound in tracked(listed, "sounds" if progress else ""):
        try:
            content = read_media(root, sound.about.file)
            digest = hashlib.sha256(content).hexdigest()
            if digest not in made:
                made[digest] = maker.make(sound.about, content, digest)
        except InputError as error:
            problems.append(f"{sound.place}: {error}")
            logger.warning(problems[-1])
    if (problems and not skip_bad) or not made:
        raise InputError(
            f"{len(problems)} of {len(listed)} sounds cannot be used (each is named above), the first: {problems[0]}; "
            "mend them" + (", or leave them out with skip_bad" if made else "")
        )
    bank = list(made.values())
    with writing(output) as folder:
        write_bank(
            folder,
            [each.sound for each in bank],
            {each.sound.file: each.ogg for each in bank},
            np.stack([each.embeddings for each in bank]).astype(np.float16),
            audio_encoder.identity,
            sample_rate,
        )
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    labels = {each.sound.label for each in bank}
    return BankReport(len(bank), len(labels), math.fsum(each.seconds for each in bank), size, tuple(problems))


@dataclass(frozen=True)
class _Maker:
    """Makes a sound of a bank from a listed one."""

    root: Path
    encoder: AudioEncoder
    sample_rate: int
    longest: float
    quality: float
    views: int
    seed: int

    def make(self, about: BankSound, content: bytes, digest: str) -> _Made:
        """Cuts, encodes and embeds a sound.

        Raises:
            InputError: it cannot be used.
        """
        whole = load_audio(content, about.file, self.sample_rate)
        waveform = loudest_stretch(whole, round(self.longest * self.sample_rate))
        if len(waveform) < len(whole):
            waveform = faded(waveform, round(FADE_SECONDS * self.sample_rate))
        peak = float(np.abs(waveform).max())
        if not math.isfinite(loudness(waveform / peak, self.sample_rate)):
            raise InputError(f"{about.file}: nothing in the sound can be heard")
        ogg = encode_ogg(waveform * min(1.0, LOUDEST_PEAK / peak), self.sample_rate, self.quality)
        file = f"{FOLDER}/{re.sub('[^A-Za-z0-9]+', '_', about.label).strip('_').lower() or 'sound'}-{digest[:10]}.ogg"
        heard = at_rate(load_audio(ogg, file, self.sample_rate), self.sample_rate, self.encoder.sample_rate)
        views = audio_views(heard, self.encoder.sample_rate, self.views, view_generator(digest, self.seed))
        embeddings = checked_embeddings(self.encoder.encode(views).numpy(), self.views, self.encoder)
        return _Made(replace(about, file=file), ogg, len(waveform) / self.sample_rate, embeddings)
