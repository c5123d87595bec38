"""``ss2a``: everything but training itself. Each verb is a function whose arguments are the options."""

import inspect
from collections.abc import Sequence

from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings

from lightning_ss2a.cli.arguments import files_first
from lightning_ss2a.cli.bank import BANK_VERBS
from lightning_ss2a.cli.based_parser import BasedArgumentParser
from lightning_ss2a.cli.checkpoint import CHECKPOINT_VERBS, import_checkpoint
from lightning_ss2a.cli.errors import explain, run_reporting_errors
from lightning_ss2a.cli.evaluate import evaluate
from lightning_ss2a.cli.generate import generate
from lightning_ss2a.cli.models import MODEL_VERBS, list_models
from lightning_ss2a.cli.references import references
from lightning_ss2a.cli.shards import SHARD_VERBS, Verb
from lightning_ss2a.cli.sweep import sweep
from lightning_ss2a.cli.table import table
from lightning_ss2a.errors import InputError

VERBS: dict[str, Verb | dict[str, Verb]] = {
    "shards": SHARD_VERBS,
    "models": MODEL_VERBS,
    "checkpoint": CHECKPOINT_VERBS,
    "bank": BANK_VERBS,
    "generate": generate,
    "sweep": sweep,
    "references": references,
    "evaluate": evaluate,
    "table": table,
}
"""Verbs, and verbs by noun."""

FLAGS: dict[Verb, dict[str, str]] = {
    sweep: {"dry_run": "Print the first trials' configurations; write nothing and run nothing."},
    references: {
        "videos": "Link whole videos, too; items.csv then asks for their sounds instead of their middle frames'."
    },
    generate: {
        "sources": "Print and save what is perceived (KEY.scene.yaml, pictures with boxes), and make no sound.",
        "tracks": "Sound each source alone, too (KEY.track01.LABEL.wav).",
    },
}
"""Options of verbs that take no value."""

SEVERAL: dict[Verb, dict[str, str]] = {
    evaluate: {"generated": "A folder of sounds for each method, DIR or NAME=DIR; one or more."}
}
"""Options of verbs that take several values."""

REPEATED: dict[Verb, dict[str, str]] = {
    generate: {
        "image": "Picture, whose sources are detected; may be repeated.",
        "text": "A source in words; may be repeated.",
        "audio": "A source that is a sound; may be repeated.",
        "video": "Video that gets a sound.",
        "weight": "How loud a source is, NAME=NUMBER: its label (--sources lists them), text or file, and a number of "
        "at least 0; 1 for those not named, and only their proportions count. May be repeated.",
    }
}
"""Options of verbs that may be given several times."""

SUMMARIES = {
    "shards": "Data sets of embeddings: build, compose, pack, simulate, inspect, validate.",
    "models": "Models that perceive: which there are, and where their weights are.",
    "checkpoint": "Checkpoints: from the authors' released weights, to a model hub and back.",
    "bank": "Banks of labelled real sounds, which are played where nothing is synthesised: build.",
}

READERS: dict[Verb, str] = {
    list_models: "YAML file of a stack; several may be.",
    import_checkpoint: "The authors' ssv2a.json; not for a folder.",
}
"""Verbs that are given their configuration files, instead of the options in these, and what the files are."""


def build_parser() -> ArgumentParser:
    """The parser of ``ss2a VERB ...`` and ``ss2a NOUN VERB ARGUMENT --option ...``."""
    set_parsing_settings(add_print_completion_argument=True)
    summary = "Sound-source-aware audio generation: everything but training."
    parser = ArgumentParser(prog="ss2a", description=summary, exit_on_error=False, allow_abbrev=False)
    words = parser.add_subcommands(dest="noun", metavar="VERB")
    for word, verbs in VERBS.items():
        if not isinstance(verbs, dict):
            words.add_subcommand(word, _verb_parser(verbs), help=_summary(verbs))
            continue
        noun_parser = ArgumentParser(description=SUMMARIES[word])
        words.add_subcommand(word, noun_parser, help=SUMMARIES[word])
        subcommands = noun_parser.add_subcommands(dest="verb", metavar="VERB")
        for verb, function in verbs.items():
            subcommands.add_subcommand(verb, _verb_parser(function), help=_summary(function))
    return parser


def _verb_parser(function: Verb) -> ArgumentParser:
    # The base of a sweep is what its trials start from.
    parser = (ArgumentParser if function is sweep else BasedArgumentParser)(description=_summary(function))
    flags, several, repeated = (options.get(function, {}) for options in (FLAGS, SEVERAL, REPEATED))
    skipped: set[str | int] = {*flags, *several, *repeated, "config"}
    if function in READERS:
        parser.add_argument("-c", "--config", action="append", type=str, help=READERS[function])
    else:
        parser.add_argument("-c", "--config", action="config", help="YAML file with these options.")
    parser.add_function_arguments(function, as_group=False, as_positional=True, skip=skipped)
    for name, text in several.items():
        parser.add_argument(f"--{name.replace('_', '-')}", nargs="+", type=str, required=True, help=text)
    for name, text in repeated.items():
        parser.add_argument(f"--{name}", action="append", type=str, help=text)
    for name, text in flags.items():
        parser.add_argument(f"--{name.replace('_', '-')}", action="store_true", help=text)
    return parser


def _summary(function: Verb) -> str:
    return (inspect.getdoc(function) or "").partition("\n")[0]


def run(arguments: list[str]) -> int | None:
    """Parse and call the verb; returns its exit status.

    Raises:
        InputError: arguments or input are wrong.
    """
    parser = build_parser()
    arguments = files_first(arguments, {*VERBS, *SHARD_VERBS, *MODEL_VERBS, *CHECKPOINT_VERBS, *BANK_VERBS})
    try:
        options = parser.parse_args(arguments)
    except ArgumentError as error:
        raise InputError(explain(error, parser, arguments)) from error
    options = parser.instantiate(options)
    verb, given = VERBS[options.noun], options[options.noun]
    if isinstance(verb, dict):
        verb, given = verb[given.verb], given[given.verb]
    if verb not in READERS:
        given.pop("config", None)
    return verb(**given.as_dict())  # vars() would give names such as items, which namespaces use, in a mangled form


def main(args: Sequence[str] | None = None) -> None:
    """Run the ``ss2a`` command with these arguments (None: those of the process)."""
    raise SystemExit(run_reporting_errors("ss2a", run, args) or 0)
