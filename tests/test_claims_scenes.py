"""What the claims about the Remixer in docs/claims.md are measured with, and that its tables hold the numbers."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from benchmarks.claims import command, cycle_mix, figures, paper_tables, remixer
from benchmarks.claims.runs import CONFIGS, Results
from benchmarks.claims.scenes import (
    DATA,
    MANIFOLD,
    MAPPER,
    REMIXER,
    BestGuess,
    SceneScores,
    held_out_ridge,
    manifold_run,
    scene_runs,
)
from lightning_ss2a.cli.lightning import build_cli
from lightning_ss2a.cli.ss2a import run as ss2a
from lightning_ss2a.data import ShardDataset
from lightning_ss2a.data.format.label_head import LabelHead
from lightning_ss2a.data.simulation.truth import read_world
from lightning_ss2a.models.ridge import RidgeRegression

CLAIMS = {"remixer": remixer, "cycle_mix": cycle_mix}
QUIET = ["--trainer.logger=false", "--trainer.callbacks=[]", "--trainer.enable_checkpointing=false"]
QUIET += ["--trainer.enable_progress_bar=false"]


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """Folders of small pairs and scenes, as the claims draw them."""
    folder = tmp_path_factory.mktemp("worlds")
    sizes = "--splits={train: 300, small: 300, large: 300, validation: 64}"
    for name, data in (("pairs", MANIFOLD[1]), ("scenes", DATA)):
        ss2a(["shards", "simulate", "-c", str(CONFIGS / data), str(folder / name), sizes])
    return folder


def fit(config, *arguments):
    cli = build_cli(["-c", str(CONFIGS / config), *QUIET, *arguments], run=False)
    cli.trainer.fit(cli.model, cli.datamodule)
    return cli


def test_scenes_are_of_the_world_that_the_manifold_knows(worlds):
    pairs, scenes = read_world(worlds / "pairs"), read_world(worlds / "scenes")
    for modality in ("visual", "audio"):
        one, other = getattr(pairs, modality), getattr(scenes, modality)
        np.testing.assert_array_equal(one.class_means, other.class_means)
        np.testing.assert_array_equal(one.instance, other.instance)


def test_configs_train_one_after_the_other(worlds, tmp_path):
    root = f"--trainer.default_root_dir={tmp_path}"
    config, _, overrides = MANIFOLD
    short = ["--trainer.max_epochs=1", "--data.batch_size=100"]
    manifold = fit(config, f"--data.datasets={worlds / 'pairs'}", root, *overrides, *short)
    manifold.trainer.save_checkpoint(tmp_path / "manifold.ckpt")
    scenes = [f"--data.datasets={worlds / 'scenes'}", root, *short]
    fit(REMIXER["simulated"], *scenes, f"--model.manifold_checkpoint={tmp_path / 'manifold.ckpt'}")
    fit(MAPPER["simulated"], *scenes, "--model.sample_steps=2")


def test_scores_are_told_apart_by_the_number_of_sources():
    head = LabelHead(torch.eye(3), torch.zeros(3), ("a", "b", "c"))
    statistics = SimpleNamespace(audio_norm=torch.tensor(1.0))
    model = SimpleNamespace(_label_head=head, statistics=statistics, hparams=SimpleNamespace(top_n=1))
    visible = torch.tensor([[True, False], [True, True]])
    scores = SceneScores(model)
    scores.add(SimpleNamespace(audio=torch.eye(3)[:2], visible=visible), {"x": torch.eye(3)[[0, 2]] * 5})
    assert scores.numbers() == {
        "x/ssms/single": 10,
        "x/ssms/several": 0,
        "x/ssms/all": 5,
        "x/ssms/1": 10,
        "x/ssms/2": 0,
        "x/cosine/single": 1,
        "x/cosine/several": 0,
        "x/cosine/all": 0.5,
    }


def test_best_guess_is_the_truth_where_nothing_is_hidden(tmp_path):
    clear = [
        f"--world.{m}={{width: 40, cone: 0.5, class_share: 0.3, instance_share: 0.2}}" for m in ("visual", "audio")
    ]
    other = ["--world.mixture_noise=0", "--world.scene_sources=3", "--world.instance_width=4", "--dtype=float32"]
    mismatch = "--mismatch={annotated: 0, curated: 0, translated: 0}"
    arguments = ["--kind=scenes", "--splits={validation: 50}", "--num_classes=12", mismatch, *clear, *other]
    ss2a(["shards", "simulate", str(tmp_path), *arguments])
    rows = ShardDataset(str(tmp_path), "validation").columns()
    guess, audio = BestGuess(str(tmp_path)), rows["audio"]
    with_gains, without = (
        torch.cosine_similarity(guess(np.arange(50), rows["sources"].numpy(), use), audio) for use in (True, False)
    )
    assert with_gains.min() > 0.95
    assert with_gains.mean() > without.mean()


def test_ridge_by_rows_is_the_ridge_by_features():
    random = torch.Generator().manual_seed(0)
    features, audio = torch.randn(20, 30, generator=random), torch.randn(20, 5, generator=random)
    keys = [f"scene-fold{row % 4}-{row:06d}" for row in range(20)]
    batch = {"visual": features, "audio": audio, "key": keys, "index": torch.arange(20)}
    predict = held_out_ridge(SimpleNamespace(training_rows_loader=lambda: [batch]), penalties=[0.7])
    ridge = RidgeRegression(30, 5, penalty=0.7)
    ridge.update(normalize(features, dim=1), normalize(audio, dim=1))
    expected = ridge.fit()(normalize(features.double(), dim=1))
    torch.testing.assert_close(predict(normalize(features, dim=1)), expected, rtol=1e-4, atol=1e-5)


def test_runs_of_an_arm_share_manifolds_and_worlds_without_arguments_are_left_out():
    made = scene_runs("arm", REMIXER, remixer.remixer_measures, {"demo": ()}, seeds=3, demo_seeds=2)
    assert [(run.world, run.seed, run.fold) for run in made] == [("demo", s, f) for s in (0, 1) for f in range(5)]
    assert made[7].manifold.checkpoint == manifold_run("demo", 1, 2).checkpoint
    assert made[7].manifold.checkpoint != made[6].manifold.checkpoint


@pytest.mark.parametrize("name", CLAIMS)
def test_page_shows_the_numbers(name, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "FIGURES", tmp_path)
    claim, page = CLAIMS[name], command.PAGE.read_text()
    assert len(Results(claim.FILE).of(claim.runs(3))) == len(claim.runs(3))
    for block, table in claim.report(3).items():
        assert f"<!-- {block} -->\n{table}\n<!-- /{block} -->" in page, block


def test_page_shows_the_tables_that_sweeps_made():
    page, blocks = command.PAGE.read_text(), paper_tables.report()
    assert len(blocks) == len(paper_tables.TABLES) * len(paper_tables.WORLDS)
    for block, table in blocks.items():
        assert f"<!-- {block} -->\n{table}\n<!-- /{block} -->" in page, block


def test_tables_of_sweeps_are_kept_as_page_and_as_csv(tmp_path, monkeypatch):
    monkeypatch.setattr(paper_tables, "RESULTS", tmp_path / "kept")
    (tmp_path / "kept").mkdir()
    study = tmp_path / "demo" / "paper_table_3"
    study.mkdir(parents=True)
    (study / "table.md").write_text("# A title\n\n| a |\n| --- |\n| 1 |\n")
    (study / "table.csv").write_text("a\n1\n")
    assert [file.name for file in paper_tables.collect(tmp_path)] == ["paper_table_3_demo.md", "paper_table_3_demo.csv"]
    assert paper_tables.report() == {"paper_table_3 demo": "| a |\n| --- |\n| 1 |"}


def test_commands_of_the_page_exist():
    named = set(re.findall(r"`python benchmarks/claims.py (\w+)`", command.PAGE.read_text()))
    assert set(CLAIMS) <= named <= set(command.CLAIMS)
