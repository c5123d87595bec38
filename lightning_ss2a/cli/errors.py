"""How both commands fail: one clear line, exit status 2; the traceback only with ``--debug``."""

import argparse
import contextlib
import errno
import inspect
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import yaml

from lightning_ss2a.config_files import SUFFIXES, with_bases
from lightning_ss2a.errors import FULL, InputError, causes, nearest_name, one_line

Result = TypeVar("Result")

_NOISE = re.compile(r"Does not validate|Subtypes:|Errors:$|.*<class 'NoneType'>$|Given value( type)?:")
"""Lines of the parser's messages that tell a user nothing."""
_WRONG_NAME = re.compile(
    r"Option '(?P<option>[^']+)' is not accepted|(?:Group '(?P<group>[^']+)' does not )?accept option '(?P<key>[^']+)'"
    r"|[Uu]nrecognized arguments: (?P<argument>--[^\s=]+)|dot import path string: (?P<class>\S+)"
)
_OWNER = re.compile(r"class_path '(?P<path>[^']+)'")


def run_reporting_errors(command: str, call: Callable[[list[str]], Result], args: Sequence[str] | None) -> Result:
    """Call ``call(arguments)``; turn bad input into one line on standard error and exit status 2.

    Args:
        command: name of the command, for the message.
        call: what to run with the arguments (without ``--debug``).
        args: command-line arguments; None: those of the process.
    """
    arguments = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        with _any_name_printable():
            result = call(arguments)
            print(end="", flush=True)  # or a full disk would show where nobody can tell it any more
            return result
    except Exception as error:
        cause = _cause_of(error)
        if isinstance(cause, OSError) and cause.filename is None and cause.errno in (*FULL, errno.EPIPE):
            cause = output_error() or cause
        if cause is None or debug:
            raise
        if isinstance(cause, BrokenPipeError):
            if cause.filename is None:
                raise
            raise SystemExit(128 + signal.SIGPIPE) from None  # as others end, of whom ``head`` has read enough
        print(f"{command}: error: {one_line(cause)} (traceback: --debug)", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        if debug:
            raise
        print(f"{command}: interrupted", file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from None


@contextlib.contextmanager
def _any_name_printable() -> Iterator[None]:
    """Prints as escapes what standard output's encoding lacks, such as names of files that are not UTF-8.

    Or what was done would end as a failure, because it could not be told.
    """
    out = sys.stdout
    if not isinstance(out, io.TextIOWrapper) or out.errors != "strict":
        yield
        return
    out.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # it flushes
            out.reconfigure(errors="strict")


def output_error() -> OSError | None:
    """Finds out why standard output takes no more: its disk is full, or who read it is gone. None: it does.

    Python's own errors name nothing. An output that takes no more is closed, so that Python does not try again.
    """
    try:
        os.write(1, b"\n")
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return OSError(error.errno, error.strerror, "standard output")
    return None


def _cause_of(error: BaseException) -> BaseException | None:
    """Finds the error of input behind one that a library made of it, as Lightning's logger does of a full disk."""
    return next((cause for cause in causes(error) if isinstance(cause, _errors_of_input())), None)


def _errors_of_input() -> tuple[type[Exception], ...]:
    errors = (InputError, OSError)
    if "lightning.pytorch" not in sys.modules:  # ss2a does without, where it can: it starts seconds faster
        return errors
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    return (*errors, MisconfigurationException)


def explain(error: argparse.ArgumentError, parser: argparse.ArgumentParser, arguments: Sequence[str]) -> str:
    """A parser's message as one line: with the nearest right name for one that is wrong, and the file that holds it."""
    # An error that a link to the data's manifest met says everything itself.
    text = re.sub(r"Call to compute_fn of link .* failed: ", "", str(error), flags=re.DOTALL)
    lines = [line.strip(" -") for line in text.splitlines()]
    line = _shortened(" ".join(line for line in lines if not _NOISE.match(line)).strip())
    wrong = _WRONG_NAME.search(text)
    if wrong is None:
        return _named_broken_file(text, arguments) + line + _advice(text)
    name = _wrong_name(wrong)
    known = _class_names() if wrong["class"] else _options_of_class(text) or _options(parser)
    # Options of classes may be written without "init_args".
    nearest = _nearest_option(name.replace(".init_args", ""), known)
    advice = f"did you mean {nearest}?" if nearest else "--help lists what there is"
    files = [argument for argument in arguments if _mentions(argument, name.rpartition(".")[2])]
    if "NestedArg" in text:  # the parser's word for an option of the command line
        files = []
    return "".join(f"{file}: " for file in files[-1:]) + f"{line}; {advice}"


def explain_interpolation(error: Exception) -> str | None:
    """The message of a ``${...}`` that stands for nothing, with the option that it stands in; None: another error."""
    if type(error).__module__ != "omegaconf.errors":  # imported only where a configuration needs it
        return None
    option = str(getattr(error, "full_key", "")).partition(".")[2].replace(".init_args", "")
    return f"{option}: {str(error).partition(chr(10))[0]}"


def naming_base_files(arguments: Sequence[str]) -> list[str]:
    """The arguments, every configuration file after the files that it builds on: what is wrong may stand in these."""
    listed = []
    for argument in arguments:
        file = argument.removeprefix("--config=")
        listed += [str(path) for path in with_bases(file)] if Path(file).suffix in SUFFIXES else [argument]
    return listed


def _shortened(line: str) -> str:
    """The keys of nested messages in one: ``model.kl_weight: Expected a float. Got value: abc``."""
    line = re.sub(r"<class '([^']+)'>", r"\1", line).replace("typing.Literal", "one of ")
    # A list given as a whole, with what was tried for it and what any list may be.
    line = re.sub(r"Expected a path but \[.*\] either not accessible or invalid ", "", line)
    line = re.sub(r" Not a valid subclass of \w+ Subclass types expect one of:.*", "", line)
    if line.count("Problem with given class_path") > 1:  # alternatives, not levels
        return line
    keys = re.findall(r'Parser key "([^"]+)":', line)
    rest = re.sub(r"""Parser key "[^"]+":\s*|Problem with given class_path '[^']+':\s*""", "", line)
    return f"{'.'.join(keys)}: {rest}" if keys else line


def _advice(text: str) -> str:
    if "surrogates not allowed" in text:
        return "; a configuration holds UTF-8 only: rename the file or folder"
    no_model = re.search(r"arguments are required: \w+\.model", text)
    return "; name a configuration, for example -c configs/manifold.yaml" if no_model else ""


def _named_broken_file(text: str, arguments: Sequence[str]) -> str:
    """The first configuration file that holds no mapping; the parser does not tell which."""
    if not text.startswith(("Problems parsing config", "Unexpected config")):
        return ""
    for option, argument in pairwise(arguments):
        if option in ("-c", "--config") and Path(argument).is_file() and not _holds_mapping(Path(argument)):
            return f"{argument}: "
    return ""


def _holds_mapping(path: Path) -> bool:
    try:
        return isinstance(yaml.safe_load(path.read_bytes()), dict)
    except (yaml.YAMLError, UnicodeDecodeError):
        return False


def _mentions(argument: str, name: str) -> bool:
    """Whether an argument is a configuration file with this word in it."""
    path = Path(argument)
    if path.suffix not in SUFFIXES or not path.is_file():
        return False
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", path.read_text(errors="replace")) is not None


def _wrong_name(found: re.Match[str]) -> str:
    """The wrong name in a message, with the group that it was given to."""
    name = next(filter(None, (found[kind] for kind in ("option", "key", "argument", "class")))).removeprefix("--")
    return f"{found['group']}.{name}" if found["group"] else name


def _nearest_option(name: str, known: Iterable[str]) -> str | None:
    """The option most like a wrong one: of the same own name in another group, alike as a whole, or in its own name."""
    names = list(known)
    by_own_name = {option.rpartition(".")[2]: option for option in reversed(names)}
    own_name = name.rpartition(".")[2]
    alike = nearest_name(own_name, by_own_name)
    return by_own_name.get(own_name) or nearest_name(name, names) or (by_own_name[alike] if alike else None)


def _options_of_class(text: str) -> list[str]:
    """Options of the class that the message names, those of model and data with this word before them."""
    owner, key = _OWNER.search(text), re.search(r'Parser key "(model|data)"', text)
    if owner is None:
        return []
    module, _, name = owner["path"].rpartition(".")
    parameters = inspect.signature(getattr(import_module(module), name)).parameters
    prefix = f"{key[1]}." if key else ""
    return [f"{prefix}{option}" for parameter in parameters.values() for option in _options_of_parameter(parameter)]


def _options_of_parameter(parameter: inspect.Parameter) -> Iterator[str]:
    """The parameter's name, or those of the options in its group."""
    if is_dataclass(parameter.default):
        yield from (f"{parameter.name}.{field.name}" for field in fields(parameter.default))
    else:
        yield parameter.name


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Options of a parser and of all its subcommands."""
    for action in parser._actions:
        yield from (option.removeprefix("--") for option in action.option_strings if option.startswith("--"))
        if isinstance(action, argparse._SubParsersAction):
            for subparser in action.choices.values():
                yield from _options(subparser)


def _class_names() -> Iterator[str]:
    """Names of the classes that a config may name."""
    from lightning.pytorch import Callback, LightningDataModule, LightningModule

    pending: list[type] = [Callback, LightningDataModule, LightningModule]
    while pending:
        subclasses: list[type] = pending.pop().__subclasses__()
        yield from (subclass.__name__ for subclass in subclasses)
        pending += subclasses
