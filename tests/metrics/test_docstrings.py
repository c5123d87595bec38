"""The examples in the docstrings of losses, models and metrics say what the code does."""

import doctest
import importlib
import pkgutil

import pytest

import lightning_ss2a.losses
import lightning_ss2a.metrics
import lightning_ss2a.models

PACKAGES = (lightning_ss2a.losses, lightning_ss2a.metrics, lightning_ss2a.models)
MODULES = [
    module.name
    for package in PACKAGES
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if not module.ispkg
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str):
    assert doctest.testmod(importlib.import_module(name)).failed == 0
