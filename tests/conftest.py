"""Names of tests: plain, short, and the same in every process, or nothing is collected; and a short way for gc."""

import gc
import re
from collections.abc import Generator
from pathlib import Path

import pytest

ROOT = str(Path(__file__).parents[1])
LONGEST_PARAMETER, LONGEST_NAME = 60, 200  # characters


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Names a parameter where pytest would write out its content.

    Bytes are named by their length and text (often a regular expression) by its beginning. xdist's workers must collect
    the same names: they are processes with hash seeds of their own, at different times.
    """
    if isinstance(val, bytes):
        return f"{len(val)} bytes"
    if isinstance(val, str):
        text = re.sub(r"\\([^\w\s])", r"\1", val.replace(ROOT + "/", ""))  # \[ of a regular expression is [
        return re.sub(r"[^ -~]+|\\", "_", text)[:LONGEST_PARAMETER]
    return argname if getattr(val, "__name__", None) == "<lambda>" else None


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Fails the collection of a file with a test whose name is not plain."""
    report = yield
    for node in report.result or []:
        reason = _what_is_wrong(node.name) if isinstance(node, pytest.Item) else None
        if reason:
            report.outcome, report.result = "failed", []
            report.longrepr = f"{node.nodeid}: the test's name {reason}; name its parameters: pytest.param(id=…)"
            break
    return report


def pytest_collection_finish() -> None:
    """Leaves all that imports have made to itself: a third of a second of each gc.collect, which every run calls."""
    gc.collect()
    gc.freeze()


def _what_is_wrong(name: str) -> str | None:
    if not re.fullmatch(r"[ -~]*", name) or re.search(r"\\[xnrtu0-9]", name):
        return "is not printable ASCII"
    if len(name) > LONGEST_NAME:
        return f"has {len(name)} characters, more than {LONGEST_NAME}"
    if re.search(r"\bat 0x[0-9a-f]+|<lambda>", name):
        return "holds what Python prints of an object"
    return "holds a folder of this machine" if ROOT in name else None
