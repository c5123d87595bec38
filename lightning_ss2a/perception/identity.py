"""Names models so that other weights or another preparation have another name."""

import hashlib
from pathlib import Path

from lightning_ss2a.errors import InputError

DIGITS = 12
"""Of a sha256 in an identity."""


def identify(model: str, weights_sha256: str, preparation: str) -> str:
    """Makes the identity of a model: ``MODEL@SHA256+PREPARATION``, the sha256 shortened to 12 digits.

    Args:
        model: package and architecture, such as ``open_clip/ViT-L-14-quickgelu``.
        weights_sha256: of the file, or of all files (see :func:`sha256_of`).
        preparation: how inputs are prepared, with a version: such as ``crop224-v1``.
    """
    return f"{model}@{weights_sha256[:DIGITS]}+{preparation}"


def sha256_of(*files: Path) -> str:
    """Computes the sha256 of a file; of several, that of their sha256s in the order given.

    Raises:
        InputError: a file cannot be read.
    """
    digests = [_sha256(file) for file in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def check_sha256(file: Path, wanted: str, model: str, advice: str) -> None:
    """Checks that a file is the one that an identity without a sha256 stands for.

    Args:
        file: the weights.
        wanted: their sha256, hexadecimal.
        model: what it should hold, for the message.
        advice: how to get it.

    Raises:
        InputError: it is another file, or cannot be read.
    """
    found = sha256_of(file)
    if found != wanted:
        raise InputError(f"{file}: not {model}: its sha256 is {found[:DIGITS]}, needs {wanted[:DIGITS]}; {advice}")


def exactly(value: float) -> str:
    """Writes a number for an identity: as short as may be, but no two numbers alike."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    try:
        with file.open("rb") as opened:
            while part := opened.read(1 << 22):
                digest.update(part)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from error
    except ValueError as error:  # no file has such a name
        raise InputError(f"{str(file)!r}: cannot be read ({error})") from error
    return digest.hexdigest()
