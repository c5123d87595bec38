"""How both commands fail: one clear line, exit status 2; the traceback only with ``--debug``."""

import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from lightning_ss2a.errors import InputError

Result = TypeVar("Result")


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
        return call(arguments)
    except (InputError, FileNotFoundError) as error:
        if debug:
            raise
        print(f"{command}: error: {error} (traceback: --debug)", file=sys.stderr)
        raise SystemExit(2) from None
