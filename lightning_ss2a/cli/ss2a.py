"""``ss2a``: everything but training. Each verb is a function whose arguments are the options."""

from collections.abc import Callable, Sequence

from jsonargparse import ArgumentParser, Namespace

from lightning_ss2a.cli.errors import run_reporting_errors
from lightning_ss2a.cli.shards import SHARD_VERBS

Verb = Callable[..., int | None]
VERBS: dict[str, dict[str, Verb]] = {"shards": SHARD_VERBS}


def build_parser() -> tuple[ArgumentParser, dict[tuple[str, str], Verb]]:
    """The parser of ``ss2a NOUN VERB --option ...``, and the function behind each verb."""
    parser = ArgumentParser(prog="ss2a", description="Shards of embeddings: build, pack, inspect, validate.")
    nouns = parser.add_subcommands(dest="noun", metavar="NOUN")
    functions = {}
    for noun, verbs in VERBS.items():
        noun_parser = ArgumentParser(prog=f"ss2a {noun}")
        subcommands = noun_parser.add_subcommands(dest="verb", metavar="VERB")
        for verb, function in verbs.items():
            verb_parser = ArgumentParser(prog=f"ss2a {noun} {verb}", description=(function.__doc__ or "").split("\n")[0])
            verb_parser.add_argument("-c", "--config", action="config", help="YAML file with these options.")
            verb_parser.add_function_arguments(function, as_positional=True)
            subcommands.add_subcommand(verb, verb_parser, help=(function.__doc__ or "").split("\n")[0])
            functions[noun, verb] = function
        nouns.add_subcommand(noun, noun_parser)
    return parser, functions


def main(args: Sequence[str] | None = None) -> None:
    """Run the ``ss2a`` command with these arguments (None: those of the process)."""

    def run(arguments: list[str]) -> int | None:
        parser, functions = build_parser()
        options = parser.instantiate_classes(parser.parse_args(arguments))
        chosen = options[options.noun]
        given: Namespace = chosen[chosen.verb]
        given.pop("config", None)
        return functions[options.noun, chosen.verb](**vars(given))

    raise SystemExit(run_reporting_errors("ss2a", run, args) or 0)


