"""The order of arguments: options win over configuration files, wherever they stand."""

from collections.abc import Container, Sequence


def files_first(arguments: Sequence[str], verbs: Container[str]) -> list[str]:
    """Puts configuration files before all options, each kind in its order.

    The parser takes arguments one after the other, so that a file would undo the options before it without a word.

    Args:
        arguments: of a command line.
        verbs: the words that it may begin with, which stay where they are.
    """
    files: list[str] = []
    others: list[str] = []
    start = place = _length_of_verb(arguments, verbs)
    while place < len(arguments):
        end = place + (_length_of_file_option(arguments[place]) or 1)
        (files if _length_of_file_option(arguments[place]) else others).extend(arguments[place:end])
        place = end
    return [*arguments[:start], *files, *others]


def after_config_files(arguments: Sequence[str]) -> int:
    """The place after the last configuration file: what stands there wins over all files, and loses to options."""
    ends = [place + length for place, argument in enumerate(arguments) if (length := _length_of_file_option(argument))]
    return max(ends, default=1)


def _length_of_verb(arguments: Sequence[str], verbs: Container[str]) -> int:
    """How many arguments name the verb, with the files before it."""
    place = 0
    while place < len(arguments) and (arguments[place] in verbs or _length_of_file_option(arguments[place])):
        place += _length_of_file_option(arguments[place]) or 1
    return place


def _length_of_file_option(argument: str) -> int:
    """How many arguments name a configuration file, from this one on; 0: this is another option."""
    if argument in ("-c", "--config"):
        return 2
    return int(argument.startswith("--config=") or (argument.startswith("-c") and not argument.startswith("--")))
