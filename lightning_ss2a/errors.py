"""Defines the exceptions that mean "the user's input is wrong", and finds the nearest right word for their messages."""

import errno
from collections.abc import Iterable, Iterator
from difflib import get_close_matches

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The system's numbers of a full disk, a quota, a limit."""


class InputError(ValueError):
    """Bad input: a file, a row, a field or an option.

    The message is one line that names the place and says what to do about it. The command line prints it without a
    traceback and exits with status 2 (``--debug`` shows the traceback).
    """


class ShardError(InputError):
    """A shard, a manifest or rows to be written are not what they should be; names file, row and field."""


def one_line(error: BaseException) -> str:
    """Gives an exception's message as one line, or its type where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Lists an error and those that it was raised from, the first last."""
    while error is not None:
        yield error
        error = error.__cause__


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """Finds the known name that is most like a wrong one; None if none is alike."""
    return next(iter(get_close_matches(name, list(known), n=1)), None)


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "there are") -> str:
    """Advises on a wrong name: the nearest right one, or all that there are, after the word ``otherwise``."""
    names = list(known)
    close = nearest_name(name, names)
    return f"did you mean {close}?" if close else f"{otherwise} {', '.join(names) or 'none'}"
