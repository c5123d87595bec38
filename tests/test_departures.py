"""docs/departures.md: every option that its table names is one, and has the default that it states."""

import importlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from jsonargparse import ArgumentParser

import lightning_ss2a.training
from lightning_ss2a.cli.build import build
from lightning_ss2a.cli.generate import generate
from lightning_ss2a.options import plain

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "departures.md").read_text(encoding="utf-8")
STAGES = ("Manifold", "Remixer", "TemporalAggregation", "AudioToVisual", "V2AMapper")
PACKAGES = ("builders.listing", "callbacks", "evaluation", "generation", "metrics", "perception", "training")
VERBS: dict[str, Callable] = {"`ss2a generate`": generate, "`ss2a shards build`": build}
ROWS = [[cell.strip() for cell in row.split(" | ")] for row in re.findall(r"^\| (.+) \|$", PAGE, re.M)]
OPTIONS = [row[:3] for row in ROWS if len(row) == 6 and row[1].startswith("`")]


def parts_of(name: str) -> list[Callable]:
    """Finds the classes or the function of a cell of the first column."""
    if name == "all stages":
        return [getattr(lightning_ss2a.training, f"{stage}Module") for stage in STAGES]
    if name in VERBS:
        return [VERBS[name]]
    packages = [importlib.import_module(f"lightning_ss2a.{package}") for package in PACKAGES]
    return [next(getattr(package, name.strip("`")) for package in packages if hasattr(package, name.strip("`")))]


def defaults_of(part: Callable, prefix: str | None) -> dict:
    parser = ArgumentParser()
    if isinstance(part, type):
        parser.add_class_arguments(part, prefix, fail_untyped=False)
    else:
        parser.add_function_arguments(part, fail_untyped=False)
    return parser.get_defaults()


@pytest.mark.parametrize(("part", "option", "default"), OPTIONS, ids=[option.strip("`") for _, option, _ in OPTIONS])
def test_an_option_of_the_table_exists_and_has_the_default_that_is_stated(part: str, option: str, default: str):
    name = option.strip("`")
    prefix = name.split(".")[0] if "." in name else None
    for each in parts_of(part):
        found = defaults_of(each, prefix)
        assert name in found
        assert plain(found[name]) == yaml.safe_load(default.strip("`"))


def test_every_row_of_the_table_has_all_its_cells():
    table = PAGE[PAGE.index("| part |") :].split("\n\n")[0].splitlines()
    assert len(OPTIONS) > 30
    assert all(len(re.split(r"(?<!\\) \| ", row)) == 6 and "|  |" not in row for row in table), table


def test_links_of_the_page_lead_somewhere():
    for file, anchor in re.findall(r"\]\(([\w/]*(?:\.md)?)(?:#([\w-]+))?\)", PAGE):
        text = (DOCS / file).read_text(encoding="utf-8") if file else PAGE
        headings = [re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in re.findall(r"^#+ (.+)$", text, re.M)]
        assert not anchor or anchor in headings, (file, anchor)
