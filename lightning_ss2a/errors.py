"""The one exception that means "the user's input is wrong"."""


class InputError(ValueError):
    """Bad input: a file, a row, a field or an option.

    The message is one line that names the place and says what to do about it. The command line prints it without a
    traceback and exits with status 2 (``--debug`` shows the traceback).
    """
