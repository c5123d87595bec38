"""``ss2a bank VERB``: folders of labelled real sounds that generation plays without any weights."""

import logging
from collections.abc import Sequence
from shlex import quote
from typing import Any

from lightning_ss2a.builders.sound_bank.build import build_bank
from lightning_ss2a.builders.sound_bank.demo_bank import build_demo_bank
from lightning_ss2a.cli.shards import Verb
from lightning_ss2a.errors import InputError
from lightning_ss2a.files import to_path
from lightning_ss2a.perception import AudioEncoder, ImageEncoder
from lightning_ss2a.perception.detectors.protocols import Detector
from lightning_ss2a.perception.encoders.protocols import TextEncoder, TextToAudioPrior, TextToImagePrior


def build(
    source: str,
    output: str,
    audio_encoder: AudioEncoder | None = None,
    image_encoder: ImageEncoder | None = None,
    image_views: int | None = None,
    detector: Detector | None = None,
    text_encoder: TextEncoder | None = None,
    prior: TextToImagePrior | None = None,
    sound_prior: TextToAudioPrior | None = None,
    **options: Any,  # the parser reads them, and their help, off build_bank
) -> None:
    """Build a bank from labelled sounds: cut, encoded as Ogg, embedded.

    Args:
        source: CSV file with the columns file, label and optionally author, licence, source, group, split; or a folder
            in which each sub-folder is a label.
        output: folder of the bank.
        audio_encoder: turns sounds into embeddings; see configs/perception/.
        image_encoder: has no effect, as nothing is seen; taken so that configuration files of stacks serve here.
        image_views: has no effect, either.
        detector: has no effect, either.
        text_encoder: has no effect, either.
        prior: has no effect, either.
        sound_prior: has no effect, either.
        options: see ``build_bank``.
    """
    if audio_encoder is None:
        raise InputError("audio_encoder is missing: name it, for example with -c configs/perception/lite.yaml")
    print(f"{output}: {build_bank(source, output, audio_encoder, **options)}")
    print(f"What is in it: {quote(str(to_path(output) / 'sounds.csv'))}")


def demo(
    output: str = "shards/bank",
    cache: str = ".cache/demo",
    pairs: str = "shards/demo/pairs.csv",
    dataset: str = "shards/demo",
    sounds: Sequence[str] = ("shards/demo/sounds.csv", "shards/bank/more_sounds.csv"),
) -> None:
    """Build the bank of the repository again from the sounds of seven packages (needs apt-get, dpkg and a network).

    Args:
        output: folder of the bank.
        cache: keeps packages and media; about 1 GB.
        pairs: list of the demo's pairs and their credits.
        dataset: data set that was built from it, which gives the folds.
        sounds: lists of further labelled sounds and their credits.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    place, kept, listed, read = map(to_path, (output, cache, pairs, dataset))
    report = build_demo_bank(place, kept, listed, read, [*map(to_path, sounds)])
    print(f"{output}: {report}")


BANK_VERBS: dict[str, Verb] = {"build": build, "demo": demo}
