"""What a sweep file says, and which files are refused."""

from pathlib import Path

import pytest

from lightning_ss2a.errors import InputError
from lightning_ss2a.sweeps.base_files import ConfigFile
from lightning_ss2a.sweeps.definition import NOT_PART_OF_THE_QUESTION, Base, Repeat, Sweep
from lightning_ss2a.sweeps.space import Parameter
from tests.sweeps.running.coordinators import make_sweep

CHANGES = {
    "name": "other",
    "trials": 2,
    "first": [{"model.x": 1}],
    "sampler": {"class_path": "TPESampler", "init_args": {"seed": 3}},
    "pruner": "MedianPruner",
    "storage": "sqlite:///other.db",
    "folder": "elsewhere",
    "workers": 3,
    "gpus_per_worker": 1,
    "retries": 5,
    "max_minutes": 3.0,
    "max_trial_minutes": 5.0,
    "max_silent_minutes": 5.0,
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_may_change_is_not_part_of_the_question(tmp_path: Path, name):
    assert make_sweep(tmp_path, **{"trials": 1, name: CHANGES[name]}).question() == make_sweep(tmp_path).question()


def test_every_option_that_may_change_is_tried_here():
    assert set(CHANGES) | {"table"} == set(NOT_PART_OF_THE_QUESTION)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("parameters", {"model.x": Parameter(choices=[1, 2])}),
        ("overrides", {"model.y": 1}),
        ("metric", "val/y"),
        ("direction", "minimize"),
        ("seeds", 2),
        ("repeats", {"data.fold": [0, 1]}),
        ("command", "test"),
        ("prepare", {"world": "ss2a shards simulate {output}"}),
    ],
)
def test_what_makes_another_question(tmp_path: Path, name, value):
    changed, plain = make_sweep(tmp_path, **{name: value}).question(), make_sweep(tmp_path).question()
    assert [key for key in plain if plain[key] != changed[key]] == [name]


def test_the_base_counts_by_what_it_holds(tmp_path: Path):
    sweep = make_sweep(tmp_path)
    before = sweep.question()
    (tmp_path / "copy.yaml").write_bytes((tmp_path / "base.yaml").read_bytes())
    assert make_sweep(tmp_path, base=str(tmp_path / "copy.yaml")).question() == before
    (tmp_path / "base.yaml").write_text("trainer: {max_epochs: 2}\n")
    assert {key for key in before if sweep.question()[key] != before[key]} == {"base"}


def test_the_files_that_the_base_builds_on_count_too(tmp_path: Path):
    sweep = make_sweep(tmp_path)
    (tmp_path / "base.yaml").write_text("base: shared.yaml")
    (tmp_path / "shared.yaml").write_text("trainer: {max_epochs: 1}")
    before = sweep.question()
    (tmp_path / "shared.yaml").write_text("trainer: {max_epochs: 2}")
    assert {key for key in before if sweep.question()[key] != before[key]} == {"base"}


def test_a_named_base_counts_with_its_overrides_and_values(tmp_path: Path):
    def question(*parts: dict) -> dict[str, str]:
        return make_sweep(tmp_path, base="a", bases={"a": Base(str(tmp_path / "base.yaml"), *parts)}).question()

    make_sweep(tmp_path)
    plain = question()
    assert plain == make_sweep(tmp_path).question()
    assert question({"data.fold": 1})["overrides"] != plain["overrides"]
    assert question({}, {"deep": "[3]"})["values"] != plain["values"]


def test_overrides_of_the_sweep_win_over_those_of_its_base(tmp_path: Path):
    base = Base(str(tmp_path / "base.yaml"), {"data.fold": 1, "data.x": 2})
    sweep = make_sweep(tmp_path, base="a", bases={"a": base}, overrides={"data.fold": 3})
    assert sweep.all_overrides() == {"data.fold": 3, "data.x": 2}


def test_repeats(tmp_path: Path):
    repeats = make_sweep(tmp_path, seeds=[7, 9], repeats={"data.fold": [0, "a/b"]}).all_repeats
    assert [repeat.label for repeat in repeats] == [
        "seed_7-fold_0", "seed_7-fold_a_b", "seed_9-fold_0", "seed_9-fold_a_b"
    ]  # fmt: skip
    assert repeats[1].placeholders == {"seed": "7", "fold": "a/b"}
    assert Repeat({"seed_everything": 0}).label == "seed_0"


def test_the_folder_may_be_a_url_of_this_machine(tmp_path: Path):
    assert make_sweep(tmp_path, folder=f"file://{tmp_path}", name="s").root == tmp_path / "s"
    with pytest.raises(InputError, match="only a path of this machine"):
        _ = make_sweep(tmp_path, folder="s3://bucket").root


def test_objectives(tmp_path: Path):
    several = make_sweep(tmp_path, metric=["a", "b"], direction=["maximize", "minimize"]).objectives
    assert [(o.metric, o.maximize) for o in several] == [("a", True), ("b", False)]
    assert [o.direction for o in make_sweep(tmp_path, metric=["a", "b"]).objectives] == ["maximize"] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "two words"}, "name: a sweep needs one"),
        ({"folder": "not\udcff"}, r"folder: 'not\\udcff' cannot be written as UTF-8"),
        ({"name": ".hidden"}, "name: a sweep needs one"),
        ({"gpus_per_worker": -1}, "gpus_per_worker is -1, needs at least 0"),
        ({"trials": 0}, "trials is 0, needs at least 1"),
        ({"max_minutes": float("inf")}, "max_minutes is inf"),
        ({"metric": []}, r"metric: needs one or several different names, found \[\]"),
        ({"direction": []}, "direction: 1 metrics need as many directions"),
        ({"seeds": []}, "no run is left of a trial"),
        ({"repeats": {"data.fold": []}}, "no run is left of a trial"),
        ({"repeats": {"data.fold": ["a/b", "a:b"]}}, "two runs of a trial are the same"),
        ({"repeats": {"seed_everything": [1]}, "parameters": {"seed_everything": Parameter(choices=[1])}}, "both a"),
        ({"overrides": {"data.fold": 1}, "repeats": {"data.fold": [1]}}, "data.fold has no effect, it is repeated"),
        ({"prepare": {"output": "ss2a shards"}}, "prepare.output: the name is taken"),
    ],
)
def test_refusals(tmp_path: Path, options, message):
    with pytest.raises(InputError, match=message):
        make_sweep(tmp_path, **options)


def test_a_base_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "manifold.yaml").touch()
    for base in (str(tmp_path / "manifld.yaml"), [str(tmp_path / "manifold.yaml"), str(tmp_path / "manifld.yaml")]):
        with pytest.raises(InputError, match=r"manifld.yaml is no file; did you mean .*/manifold.yaml\?"):
            make_sweep(tmp_path, base=base).config_files()
    with pytest.raises(InputError, match=r"base: demmo is no file and no name in bases; did you mean demo\?"):
        make_sweep(tmp_path, base="demmo", bases={"demo": Base("x.yaml")}).config_files()
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=rf"base: manifld.yaml is no file relative to {tmp_path}; did you mean mani"):
        make_sweep(tmp_path, base=ConfigFile("manifld.yaml")).config_files()
    monkeypatch.chdir(tmp_path / "sub")  # as while a file in it is read
    named = Base([ConfigFile("../base.yaml"), ConfigFile("manifold.yaml")])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=rf"bases.a.configs: .* relative to {tmp_path}/sub; did you mean ../manifold"):
        make_sweep(tmp_path, base="a", bases={"a": named}).config_files()
    with pytest.raises(InputError, match="base is missing"):
        Sweep(name="s", trials=1, parameters={"x": Parameter(choices=[1])}).config_files()


def test_what_a_base_needs(tmp_path: Path):
    make_sweep(tmp_path)
    base = Base(str(tmp_path / "base.yaml"), needs={str(tmp_path / "audioset"): "the paper's data, see docs"})
    with pytest.raises(InputError, match="audioset is not there: the paper's data, see docs"):
        make_sweep(tmp_path, base="a", bases={"a": base}).config_files()
