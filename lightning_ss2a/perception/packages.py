"""Imports media packages when they are first used: they are optional, training needs none of them."""

from importlib import import_module
from types import ModuleType

from lightning_ss2a.errors import InputError


def media_package(name: str) -> ModuleType:
    """Imports a package of the extra ``media``.

    Raises:
        InputError: it is not installed; says how to install it.
    """
    try:
        return import_module(name)
    except (ImportError, OSError) as error:  # OSError: the C library under it is missing
        raise InputError(f"{name}: cannot be used ({error}); pip install 'lightning-ss2a[media]'") from error
