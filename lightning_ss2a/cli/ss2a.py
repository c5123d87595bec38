"""``ss2a``: everything but training. Each verb is a function whose arguments are the options."""

import inspect
from collections.abc import Callable, Sequence

from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings

from lightning_ss2a.cli.errors import explain, run_reporting_errors
from lightning_ss2a.cli.shards import SHARD_VERBS
from lightning_ss2a.errors import InputError

Verb = Callable[..., int | None]
VERBS: dict[str, dict[str, Verb]] = {"shards": SHARD_VERBS}
SUMMARIES = {"shards": "Data sets of embeddings: build, compose, pack, simulate, inspect, validate."}


def build_parser() -> ArgumentParser:
    """The parser of ``ss2a NOUN VERB ARGUMENT --option ...``."""
    set_parsing_settings(add_print_completion_argument=True)
    summary = "Sound-source-aware audio generation: everything but training."
    parser = ArgumentParser(prog="ss2a", description=summary, exit_on_error=False)
    nouns = parser.add_subcommands(dest="noun", metavar="NOUN")
    for noun, verbs in VERBS.items():
        noun_parser = ArgumentParser(description=SUMMARIES[noun])
        nouns.add_subcommand(noun, noun_parser, help=SUMMARIES[noun])
        subcommands = noun_parser.add_subcommands(dest="verb", metavar="VERB")
        for verb, function in verbs.items():
            summary = (inspect.getdoc(function) or "").partition("\n")[0]
            verb_parser = ArgumentParser(description=summary)
            verb_parser.add_argument("-c", "--config", action="config", help="YAML file with these options.")
            verb_parser.add_function_arguments(function, as_group=False, as_positional=True)
            subcommands.add_subcommand(verb, verb_parser, help=summary)
    return parser


def run(arguments: list[str]) -> int | None:
    """Parse and call the verb; returns its exit status.

    Raises:
        InputError: arguments or input are wrong.
    """
    parser = build_parser()
    try:
        options = parser.parse_args(arguments)
    except ArgumentError as error:
        raise InputError(explain(error, parser, arguments)) from error
    options = parser.instantiate_classes(options)
    given = options[options.noun]
    verb, given = given.verb, given[given.verb]
    given.pop("config", None)
    return VERBS[options.noun][verb](**vars(given))


def main(args: Sequence[str] | None = None) -> None:
    """Run the ``ss2a`` command with these arguments (None: those of the process)."""
    raise SystemExit(run_reporting_errors("ss2a", run, args) or 0)
