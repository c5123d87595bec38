"""The first trials' configurations; with real workers in tests/integration/test_sweep.py."""

from pathlib import Path

import pytest

from lightning_ss2a.errors import InputError
from lightning_ss2a.sweeps.dry_run import first_configurations
from lightning_ss2a.sweeps.running.messages import Failed
from lightning_ss2a.sweeps.space import Parameter
from tests.sweeps.running.coordinators import FakePool, learned, make_sweep


def test_one_document_a_trial_and_nothing_is_written(tmp_path: Path):
    sweep, pool = make_sweep(tmp_path, seeds=2), FakePool(learned)
    documents = first_configurations(sweep, 2, pool).split("\n---\n")
    options = f"-c {tmp_path}/base.yaml --seed_everything=0 --model.x=1"
    assert documents[0].splitlines() == [
        "# trial 0, run seed_0, one of 2",
        f"# lightning fit {options}",
        f"fit {options}",
    ]
    assert len(documents) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["base.yaml"]
    assert pool.is_stopped


def test_the_sampler_s_first_points_are_those_of_the_sweep(tmp_path: Path):
    ranges = {"parameters": {"model.x": Parameter(low=0.0, high=1.0)}, "sampler": "TPESampler", "trials": 4}
    sweep = make_sweep(tmp_path, **ranges, first=[{"model.x": 0.5}])
    text = first_configurations(sweep, 3, FakePool(learned))
    assert text.count("# trial ") == 3
    assert "--model.x=0.5" in text
    assert text == first_configurations(sweep, 3, FakePool(learned))


def test_steps_that_are_still_to_be_done(tmp_path: Path):
    prepare = {"world": "ss2a shards simulate {output}"}
    sweep = make_sweep(tmp_path, prepare=prepare, overrides={"data.datasets": "{world}"})
    pool = FakePool(learned)
    assert "# after these steps: world" in first_configurations(sweep, 1, pool)
    assert pool.tasks == []


def test_a_wrong_path_is_told(tmp_path: Path):
    pool = FakePool(lambda task: [Failed("did you mean model.x?", True)])
    with pytest.raises(InputError, match="did you mean"):
        first_configurations(make_sweep(tmp_path), 1, pool)
    assert pool.is_stopped
