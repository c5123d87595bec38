"""Steps that trials build on: once for what they depend on, in the right order."""

from pathlib import Path

import pytest

from lightning_ss2a.errors import InputError
from lightning_ss2a.sweeps.definition import Repeat
from lightning_ss2a.sweeps.prepare import Preparation, fill, placeholders

COMMANDS = {
    "world": "ss2a shards simulate {output} --seed={seed}",
    "manifold": "lightning fit -c base.yaml --data.datasets={world} --data.fold={fold} --note='two words'",
    "other": "ss2a shards pack {output}",
}


def repeat(seed: int, fold: int = 0) -> Repeat:
    return Repeat({"seed_everything": seed, "data.fold": fold})


@pytest.fixture
def preparation(tmp_path: Path) -> Preparation:
    return Preparation(COMMANDS, tmp_path)


def test_what_a_step_builds_on_comes_first_and_nothing_else_is_done(preparation: Preparation, tmp_path: Path):
    world, manifold = preparation.steps(["{manifold}/checkpoints/last.ckpt", "{seed}"], repeat(3, 1))
    assert [world.name, manifold.name] == ["world", "manifold"]
    assert world.arguments == ("ss2a", "shards", "simulate", str(world.output), "--seed=3")
    assert manifold.arguments[-3:] == (f"--data.datasets={world.output}", "--data.fold=1", "--note=two words")
    assert (world.needs, manifold.needs) == ((), (world.output,))
    assert world.output.parent == tmp_path
    assert preparation.values(repeat(3, 1))["manifold"] == str(manifold.output)
    assert preparation.steps(["no step"], repeat(0)) == []


def test_a_step_is_ready_when_what_it_needs_is_done(preparation: Preparation):
    world, manifold = preparation.steps(["{manifold}"], repeat(0))
    assert world.is_ready
    assert not manifold.is_ready
    world.mark.touch()
    assert world.is_done
    assert manifold.is_ready


def test_an_output_depends_on_the_command_and_what_it_builds_on_alone(preparation: Preparation, tmp_path: Path):
    def outputs(of: Preparation, at: Repeat) -> list[Path]:
        return [step.output for step in of.steps(["{manifold}"], at)]

    same = outputs(preparation, repeat(0, 0))
    assert outputs(preparation, repeat(0, 1))[0] == same[0]  # the world knows no fold
    assert outputs(preparation, repeat(0, 1))[1] != same[1]
    assert set(outputs(preparation, repeat(1, 0))).isdisjoint(same)
    changed = Preparation({**COMMANDS, "world": COMMANDS["world"] + " --more"}, tmp_path)
    assert set(outputs(changed, repeat(0, 0))).isdisjoint(same)
    unrelated = Preparation({**COMMANDS, "other": "ss2a shards inspect {output}"}, tmp_path)
    assert outputs(unrelated, repeat(0, 0)) == same


def test_an_output_depends_on_the_files_that_its_command_names(tmp_path: Path):
    config = tmp_path / "base.yaml"
    config.write_text("base: shared.yaml")
    (tmp_path / "shared.yaml").write_text("a: 1")
    data = tmp_path / "data"
    data.mkdir()
    (data / "manifest.json").write_text("{}")
    commands = {"manifold": f"lightning fit -c {config} --data.datasets={data}"}
    seen = set()
    for file in (config, config, tmp_path / "shared.yaml", data / "manifest.json"):
        seen.add(Preparation(commands, tmp_path).steps(["{manifold}"], repeat(0))[0].output)
        file.write_text(file.read_text() + " ")
    seen.add(Preparation(commands, tmp_path).steps(["{manifold}"], repeat(0))[0].output)
    assert len(seen) == 5


@pytest.mark.parametrize(
    ("commands", "message"),
    [
        ({"a": ""}, "prepare.a: a command begins with lightning or ss2a, found ''"),
        ({"a": "python x.py"}, "prepare.a: a command begins with lightning or ss2a, found 'python x.py'"),
        ({"a": "ss2a {a}"}, "prepare.a: waits for itself, through a"),
        ({"a": "ss2a {b}", "b": "ss2a {c}", "c": "ss2a {a}"}, "prepare.a: waits for itself, through a and b and c"),
    ],
)
def test_steps_that_are_none(tmp_path: Path, commands, message):
    with pytest.raises(InputError) as error:
        Preparation(commands, tmp_path)
    assert str(error.value) == message


def test_placeholders():
    assert placeholders('{a} {"b": 1} {c_1} {} {2}') == ["a", "c_1"]
    assert fill('{a}-{a} {"b": 1}', {"a": "x"}, "here") == 'x-x {"b": 1}'
    with pytest.raises(InputError, match=r"here: \{sed\} stands for nothing; did you mean seed\?"):
        fill("{sed}", {"seed": "1"}, "here")
