"""docs/measure_remixer.py: its tables hold the numbers of the csv files, and training starts where it says."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.nn.functional import normalize

from lightning_ss2a.models import RemixerOptions
from tests.scene_examples import save_manifold, write_learnable_scenes

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def measure_remixer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("measure_remixer", ROOT / "docs" / "measure_remixer.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["measure_remixer"] = module
    spec.loader.exec_module(module)
    return module


def test_the_page_holds_the_numbers_of_the_csv_files(measure_remixer: ModuleType, tmp_path: Path):
    page = tmp_path / "remixer.md"
    page.write_text(measure_remixer.PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    measure_remixer.fill(page)
    assert page.read_text(encoding="utf-8") == measure_remixer.PAGE.read_text(encoding="utf-8")


def test_a_table_pairs_differences_by_seed(measure_remixer: ModuleType):
    rows = [
        dict(zip(measure_remixer.COLUMNS, (seed, arm, rule, group, ssms, "0.5", "0.25"), strict=True))
        for seed, arm, rule, values in (
            ("0", "", "mean of χ(e)", ("8", "5")),
            ("1", "", "mean of χ(e)", ("6", "3")),
            ("0", "residual", "mean", ("8.5", "5.25")),
            ("1", "residual", "mean", ("7.5", "3.25")),
        )
        for group, ssms in zip(measure_remixer.GROUPS, values, strict=True)
    ]
    last = measure_remixer.table_of(rows).splitlines()[-1]
    assert last.startswith("| residual: mean | 2 | 8.00 ± 0.71 | 4.25 ± 1.41 | +1.00 ± 0.71 | +0.25 ± 0.00 | 0.5000 ± ")


def test_an_arm_that_does_not_move_is_the_mean_of_its_sources(measure_remixer: ModuleType, tmp_path: Path):
    scenes, manifold = write_learnable_scenes(tmp_path / "scenes"), save_manifold(tmp_path / "manifold.ckpt")
    world = measure_remixer.read_world_of(scenes, manifold, 0, ["train"], "validation", with_truth=False)
    small = RemixerOptions(width=8, num_heads=2, head_widths=(8,), residual="mean")
    still = measure_remixer.Arm("still", small, epochs=0, rules=measure_remixer.RULES)
    baselines = dict(measure_remixer.baselines_of(world))
    found = dict(measure_remixer.predictions_of(measure_remixer.train(world, still), still, world.held_out))
    expected = normalize(baselines["mean of χ(e)"], dim=1)
    for rule in ("mean", "to the optimum, radius 1", "to the optimum, no bound"):
        torch.testing.assert_close(normalize(found[rule], dim=1), expected, rtol=1e-4, atol=1e-5)
    (row, _) = measure_remixer.rows_of_prediction(world, "", "", world.held_out.batch["audio"])
    assert row["cosine"] == "1.00000"
