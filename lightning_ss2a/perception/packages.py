"""Imports media packages when they are first used: they are optional, training needs none of them."""

from importlib import import_module
from types import ModuleType

from lightning_ss2a.errors import InputError


def media_package(name: str, extra: str = "media") -> ModuleType:
    """Imports an optional package.

    Args:
        name: of the package, or of a module in it.
        extra: of this project, that it belongs to.

    Raises:
        InputError: it is not installed; says how to install it.
    """
    try:
        return import_module(name)
    except (ImportError, OSError) as error:  # OSError: the C library under it is missing
        raise InputError(f"{name}: cannot be used ({error}); pip install 'lightning-ss2a[{extra}]'") from error
