"""Configuration files and their bases: what is merged, in which order, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_ss2a.config_files import names_bases, read_config, with_bases
from lightning_ss2a.errors import InputError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(**files: Any) -> None:
    for name, content in files.items():
        Path(f"{name}.yaml").write_text(content if isinstance(content, str) else yaml.safe_dump(content))


def test_a_file_wins_over_its_bases_and_these_over_their_own():
    write(a={"x": 1, "y": {"p": 1, "q": 1, "r": 1}}, b={"base": "a.yaml", "y": {"q": 2, "r": 2}})
    write(c={"base": "b.yaml", "y": {"r": 3}}, d={"y": None})
    assert read_config("c.yaml") == {"x": 1, "y": {"p": 1, "q": 2, "r": 3}}
    write(e={"base": ["c.yaml", "d.yaml"]})
    assert read_config("e.yaml") == {"x": 1, "y": None}
    assert read_config("a.yaml") == {"x": 1, "y": {"p": 1, "q": 1, "r": 1}}


def test_a_base_that_several_files_name_comes_once():
    write(a={"callbacks": [1]}, b={"base": "a.yaml", "callbacks+": [2]}, c={"base": "./a.yaml", "callbacks+": [3]})
    write(d={"base": ["b.yaml", "c.yaml"], "callbacks+": 4})
    assert [path.name for path in with_bases("d.yaml")] == ["a.yaml", "b.yaml", "c.yaml", "d.yaml"]
    assert read_config("d.yaml") == {"callbacks": [1, 2, 3, 4]}


@pytest.mark.parametrize(
    ("base", "own", "merged"),
    [
        ({"k": [1]}, {"k": [2]}, {"k": [2]}),
        ({"k": [1]}, {"k+": [2]}, {"k": [1, 2]}),
        ({"k": 1}, {"k+": 2}, {"k": [1, 2]}),
        ({"k": None}, {"k+": [2]}, {"k": [2]}),
        ({"k+": [1]}, {"k+": [2]}, {"k+": [1, 2]}),
        ({"k+": [1]}, {"k": [2]}, {"k": [2]}),
        ({}, {"k+": [2], "k": [1]}, {"k": [1, 2]}),
        ({}, {"in": {"k+": [2], "k": [1]}}, {"in": {"k": [1, 2]}}),
    ],
)
def test_lists_are_replaced_or_appended_to(base, own, merged):
    write(a=base, b={"base": "a.yaml", **own})
    assert read_config("b.yaml") == merged


@pytest.mark.parametrize(
    ("base", "own", "options"),
    [
        ("Remixer", "Manifold", {"y": 2}),
        ("Remixer", "models.Remixer", {"x": 1, "y": 2}),
        (None, "Remixer", {"x": 1, "y": 2}),
        ("Remixer", None, {"x": 1, "y": 2}),
    ],
)
def test_options_of_another_class_are_dropped(base, own, options):
    written = [{"class_path": name} if name else {} for name in (base, own)]
    write(
        a={"model": written[0] | {"init_args": {"x": 1}}},
        b={"base": "a.yaml", "model": written[1] | {"init_args": {"y": 2}}},
    )
    assert read_config("b.yaml")["model"]["init_args"] == options
    assert read_config("b.yaml")["model"]["class_path"] == (own or base)


def test_paths_are_relative_to_the_file_that_names_them_also_where_it_is_a_link(folder: Path):
    Path("configs/paper").mkdir(parents=True)
    Path("configs/trainer.yaml").write_text("x: 1")
    Path("configs/paper/manifold.yaml").write_text("base: ../trainer.yaml")
    Path("paper").symlink_to("configs/paper")
    Path("mine.yaml").symlink_to("configs/paper/manifold.yaml")
    write(absolute={"base": str(folder / "configs/trainer.yaml")})
    for file in ("configs/paper/manifold.yaml", "paper/manifold.yaml", "mine.yaml", "absolute.yaml"):
        assert with_bases(file) == [Path("configs/trainer.yaml"), Path(file)]
        assert read_config(file) == {"x": 1}


def test_what_is_no_configuration_has_no_bases():
    write(broken="base: [", text="hello", plain={"x": 1})
    Path("rows.csv").write_text("base: a.yaml")
    for file in ("broken.yaml", "text.yaml", "plain.yaml", "nowhere.yaml", "rows.csv", '{"x": ' + "1" * 5000):
        assert with_bases(file) == [Path(file)]
        assert not names_bases(file)


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("trainr.yaml", r"^own.yaml: base: trainr.yaml is no file; did you mean trainer.yaml\?$"),
        ("unheard/of.yaml", r"^own.yaml: base: unheard/of.yaml is no file$"),
        (["trainer.yaml", 3], r"^own.yaml: base: expected a file or a list of files, found \['trainer.yaml', 3\]$"),
        ({"a": 1}, r"^own.yaml: base: expected a file or a list of files, found \{'a': 1\}$"),
        ("broken.yaml", r"^own.yaml: base: broken.yaml holds no YAML mapping of options$"),
        ("own.yaml", r"^own.yaml: base: own.yaml builds on this file itself$"),
        ("one.yaml", r"^two.yaml: base: one.yaml builds on this file itself$"),
        ("wrong.yaml", r"^wrong.yaml: base: nowhere/x.yaml is no file$"),
    ],
)
def test_a_base_that_is_wrong_is_named_with_its_file(base, message):
    write(trainer={"x": 1}, broken="x: [", one={"base": "two.yaml"}, two={"base": "one.yaml"})
    write(wrong={"base": "nowhere/x.yaml"}, own={"base": base})
    with pytest.raises(InputError, match=message):
        read_config("own.yaml")


def test_a_file_without_options_is_refused_unless_it_is_empty():
    write(empty="# nothing yet", own={"base": "empty.yaml", "x": 1})
    assert read_config("empty.yaml") == {}
    assert read_config("own.yaml") == {"x": 1}
    with pytest.raises(InputError, match=r"^nowhere.yaml: no YAML mapping of options$"):
        read_config("nowhere.yaml")
