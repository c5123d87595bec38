"""What docs/claims.md is measured with: its pure parts, and the configs that it names."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from benchmarks.claims.measures import (
    area_under_curve,
    class_linkage,
    modality_accuracy,
    precision_and_recall,
    rank_correlation,
)
from benchmarks.claims.runs import CONFIGS
from benchmarks.claims.tables import fill_page, markdown_table, mean_and_spread
from lightning_ss2a.cli.lightning import build_cli
from lightning_ss2a.cli.ss2a import run as ss2a


def test_rank_correlation_is_spearmans_also_with_ties():
    random = np.random.default_rng(0)
    x = random.integers(0, 5, 50).astype(float)
    y = x + random.integers(0, 9, 50)
    assert rank_correlation(x, y) == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)
    assert rank_correlation(x, -x) == pytest.approx(-1)
    with pytest.raises(ValueError, match=r"one shape \[n\]"):
        rank_correlation(x, y[:-1])


def test_class_linkage_is_the_mean_cosine_of_rows():
    x, y = torch.randn(2, 20, 6, generator=torch.Generator().manual_seed(0))
    classes = torch.arange(20) % 3
    linkage = class_linkage(x, y, classes, num_classes=4)
    cosine = torch.cosine_similarity(x[:, None], y[None], dim=2)
    expected = cosine[classes == 0][:, classes == 2].mean()
    assert linkage[0, 2] == pytest.approx(float(expected), abs=1e-6)
    assert np.isnan(linkage[3]).all()


def test_modality_accuracy_is_chance_for_one_distribution_and_full_for_two():
    x, y = torch.randn(2, 200, 8, generator=torch.Generator().manual_seed(0))
    assert abs(modality_accuracy(x, y) - 0.5) < 0.1
    assert modality_accuracy(x + 2, y - 2) == 1


def test_precision_recall_and_area():
    dropped, mismatched = np.array([1, 1, 0, 0], bool), np.array([1, 0, 1, 0], bool)
    assert precision_and_recall(dropped, mismatched) == {"dropped": 0.5, "precision": 0.5, "recall": 0.5}
    assert precision_and_recall(~dropped & dropped, mismatched & ~mismatched) == {"dropped": 0.0}
    assert area_under_curve(np.array([3.0, 2.0]), np.array([1.0, 2.0])) == 0.875


def test_tables():
    assert mean_and_spread([1.0, 2.0, 3.0], 2) == "2.00 ± 1.00"
    assert (mean_and_spread([1.0]), mean_and_spread([])) == ("1.000", "")
    assert markdown_table(["a", "b"], [["x", "1"]]) == "| a | b |\n| --- | ---: |\n| x | 1 |"
    with pytest.raises(ValueError, match="has 1 cells, the header has 2"):
        markdown_table(["a", "b"], [["x"]])


def test_page_is_filled_between_its_marks(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- gap -->\nold\n<!-- /gap -->\nafter\n")
    fill_page(page, {"gap": "new\ntable"})
    assert page.read_text() == "before\n<!-- gap -->\nnew\ntable\n<!-- /gap -->\nafter\n"
    with pytest.raises(ValueError, match="<!-- depth -->"):
        fill_page(page, {"depth": "x"})


PAIRS = {"claims_world": "claims_data", "claims_teacher": "claims_teacher_data"}


@pytest.mark.parametrize("config", PAIRS)
def test_configs_and_their_data_go_together(config, tmp_path):
    splits = "--splits={train: 300, small: 300, large: 300, validation: 64}"
    data = CONFIGS / "sweeps" / f"{PAIRS[config]}.yaml"
    ss2a(["shards", "simulate", "-c", str(data), str(tmp_path / "world"), splits])
    arguments = ["-c", str(CONFIGS / "sweeps" / f"{config}.yaml"), f"--data.datasets={tmp_path / 'world'}"]
    cli = build_cli([*arguments, f"--trainer.logger.save_dir={tmp_path}"], run=False)
    cli.datamodule.setup("fit")
    assert cli.model.hparams.visual_width == cli.datamodule.manifest.fields["visual"].width
