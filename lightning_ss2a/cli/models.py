"""``ss2a models list``: all models, where their weights are looked for, and whether they are there."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser
from rich.console import Console
from rich.table import Table

from lightning_ss2a.cli.errors import explain
from lightning_ss2a.config_files import read_config
from lightning_ss2a.data.tools.inspect import TABLE_WIDTH
from lightning_ss2a.errors import InputError
from lightning_ss2a.evaluation.protocols import SyncEstimator, WaveformEncoder
from lightning_ss2a.generation.protocols import SoundGenerator
from lightning_ss2a.perception.detectors.protocols import Detector
from lightning_ss2a.perception.encoders.protocols import (
    AudioEncoder,
    ImageEncoder,
    TextEncoder,
    TextToAudioPrior,
    TextToImagePrior,
)
from lightning_ss2a.perception.identity import DIGITS
from lightning_ss2a.perception.weights import Described, ModelCard

PARTS: dict[str, type] = {
    "image_encoder": ImageEncoder,
    "audio_encoder": AudioEncoder,
    "detector": Detector,
    "text_encoder": TextEncoder,
    "prior": TextToImagePrior,
    "sound_prior": TextToAudioPrior,
    "generator": SoundGenerator,
    "encoder": WaveformEncoder,
    "sync": SyncEstimator,
}
"""Options that name the parts of a stack; of what evaluates, ``encoders`` names several of the sort ``encoder``."""
INNER_PARTS = ("text_encoder", "clap", "encoder")
"""Options of parts that name further ones."""

CONFIGS = Path("configs")
STACKS = (CONFIGS / "perception", CONFIGS / "generation", CONFIGS / "evaluation")
_ROOT = Path(__file__).parents[2]


def list_models(config: list[str] | None = None, width: int | None = None) -> None:
    """Print a table of all models: licence, where each is looked for, whether it is there, its sha256.

    Nothing is loaded or downloaded; files that are there are read, for their sha256. What each model is and is not
    good for comes below the table.

    Args:
        config: YAML files of stacks; default: all in configs/perception, generation and evaluation.
        width: characters in a line; default: the terminal's.
    """
    table = Table(title="Models", title_justify="left")
    for name in ("stack", "part", "model", "licence", "looked for", "there", "sha256"):
        table.add_column(name, overflow="fold")
    notes: dict[str, None] = {}  # each once, in order
    for file in map(Path, config or shipped_stacks()):
        for part, cells, note in _rows(file):
            table.add_row(file.stem, part, *cells)
            notes[f"{cells[0]} ({part}): {note}"] = None
        table.add_section()
    console = Console(width=width or max(TABLE_WIDTH, Console().width), markup=False, emoji=False, highlight=False)
    console.print(table)
    for note in notes:
        console.print(note)


def shipped_stacks() -> list[str]:
    """Finds the stacks of this project: in the working directory, or beside the package.

    Raises:
        InputError: they are in neither place.
    """
    for root in (Path(), _ROOT):
        if files := [str(path) for folder in STACKS for path in sorted((root / folder).glob("*.yaml"))]:
            return files
    raise InputError(f"no stacks in {' or '.join(map(str, STACKS))}; name one with -c")


def shipped_config(name: str) -> Path:
    """Finds a configuration by its name below ``configs/``: in the working directory, or beside the package.

    Raises:
        InputError: it is in neither place.
    """
    for folder in (Path(), _ROOT):
        if (file := folder / CONFIGS / name).is_file():
            return file
    raise InputError(f"this project's configurations are not here, {name} among them; name one with -c")


def load_part(name: str, value: Any, file: Path) -> Any:
    """Makes a part of a stack as the options say, which loads no weights.

    Raises:
        InputError: the options are wrong, or a package is missing.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument(f"--{name}", type=PARTS[name])
    try:
        return parser.instantiate(parser.parse_object({name: value}))[name]
    except ArgumentError as error:
        raise InputError(f"{file}: {explain(error, parser, [])}") from error


def _rows(file: Path) -> Iterator[tuple[str, list[str], str]]:
    """Gives (part, cells, note) of each model of a stack."""
    stack = read_config(file)
    cards: list[ModelCard] = []
    parts = [(name, name, stack[name]) for name in PARTS if name in stack]
    parts += [(f"encoders.{name}", "encoder", value) for name, value in stack.get("encoders", {}).items()]
    for place, name, value in parts:
        try:
            model = load_part(name, value, file)
        except InputError as error:
            yield place, [str(value.get("class_path")), "", "", "no", ""], str(error)
            continue
        inner = [(f"{place}.{part}", getattr(model, part, None)) for part in INNER_PARTS]
        for part, each in ((place, model), *inner):
            card = each.describe() if isinstance(each, Described) else None
            if card and card not in cards:  # a prior's text encoder mostly is the stack's
                cards.append(card)
                yield part, _cells(card), card.problem or card.note


def _cells(card: ModelCard) -> list[str]:
    weights = card.weights
    there = "yes" if weights.present else "no" if weights.problem else "no, will be downloaded"
    return [card.model, card.licence, weights.where, there, (weights.sha256() or "")[:DIGITS]]


MODEL_VERBS: dict[str, Callable[..., int | None]] = {"list": list_models}
