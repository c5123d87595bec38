"""RemixerFigures: that they show what was measured, when they are due, and that ranks make no difference."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_ss2a.callbacks import RemixerFigures
from lightning_ss2a.callbacks.figures.attention import attention_figure, example_scenes, fitted
from lightning_ss2a.callbacks.figures.remixer import cycle_mix_figure, ssms_figure
from lightning_ss2a.callbacks.figures.scene_record import MEANS, SceneRecord, scene_rows
from lightning_ss2a.models import CycleMixOptions
from tests.callbacks.figures.scene_batches import NAMES, REMIXER, StubData, StubRemixer, make_scenes
from tests.callbacks.figures.test_manifold import labels, overlaps
from tests.callbacks.test_hyperparameters import events_of
from tests.distributed import run_distributed
from tests.manifold_examples import make_trainer

ALL = {"figures/attention", "figures/cycle_mix", "figures/ssms_by_sources"}
SSMS = {"prediction": torch.tensor([5.0, 4.0, float("nan"), 2.0, 1.0]), "chance": torch.full((5,), 0.5)}


def record_of(*batches, max_rows: int = 100, use_global: bool = True, **options) -> SceneRecord:
    record = SceneRecord(max_rows)
    for outputs, batch in batches:
        record.add(scene_rows(outputs, batch, use_global, replace(REMIXER, **options)))
    return record


def two_scenes(**options) -> SceneRecord:
    """One source of class 1; two of classes 0 and unknown."""
    outputs = {"attention": torch.tensor([[0.25, 0.5, 0.0], [0.125, 0.5, 0.125]])}
    valid, classes = torch.tensor([[True, False], [True, True]]), torch.tensor([[1], [0]])
    batch = {"valid": valid, "classes": classes, "key": ["one", "$two$"], "index": torch.tensor([4, 9])}
    return record_of((outputs, batch), **options)


def table_of(figure):
    """Powers of two from uniform, and the cells' texts by (row, column)."""
    axes = figure.subfigs[1].axes[0]
    texts = {(int(text.get_position()[1]), int(text.get_position()[0])): text.get_text() for text in axes.texts}
    return axes.images[0].get_array(), texts


# ---------------------------------------------------------------- attention


def test_cells_show_each_share_and_its_colour_how_far_it_is_from_uniform():
    figure = attention_figure(two_scenes(), NAMES, 24, use_global=True)
    matrix, texts = table_of(figure)
    assert texts == {  # the scene of two sources alone; four tokens
        (0, 0): "cat\n50 %",
        (0, 1): "?\n12 %",
        (0, 2): "if uniform 50 %\n62 %",
        (0, 3): "12 %",
        (0, 4): "25 %",
    }
    assert matrix[0].tolist() == pytest.approx([1, -1, np.log2(1.25), -1, 0], abs=1e-6)
    axes = figure.subfigs[1].axes[0]
    assert labels(axes.get_yticklabels()) == ["$two$"]
    headings = ["source 1", "source 2", "all sources", "global", "[cls]"]
    assert labels(axes.get_xticklabels()) == 2 * headings  # below and above


def test_means_by_number_of_sources():
    figure = attention_figure(two_scenes(), NAMES, 24, use_global=True)
    shares, effective = figure.subfigs[0].axes
    assert [bar.get_height() for bar in shares.patches] == pytest.approx([50, 62.5, 25, 12.5, 25, 25])
    assert [bar.get_y() for bar in shares.patches] == pytest.approx([0, 0, 50, 62.5, 75, 75])
    uniform = [segment[0][1] for segment in shares.collections[0].get_segments()]
    assert uniform == pytest.approx([100 / 3, 50])
    assert labels(shares.get_xticklabels()) == ["1\n(1)", "2\n(1)"]
    legend = labels(shares.get_legend().get_texts())
    assert {"sources: 56 %", "global: 19 %", "[cls]: 25 %"} <= set(legend)
    entropy = -(0.8 * np.log(0.8) + 0.2 * np.log(0.2))
    line = effective.lines[1]
    assert list(line.get_xdata()) == [1, 2]
    assert list(line.get_ydata()) == pytest.approx([1, np.exp(entropy)])


def test_padding_that_is_attended_to_counts_as_tokens():
    means = two_scenes(mask_padding=False).mean("means")
    assert means[:2, MEANS.index("uniform")].tolist() == pytest.approx([1 / 17, 2 / 17])


def test_without_a_global_embedding_slot_0_is_a_source():
    record = record_of(make_scenes([2, 3], use_global=False), use_global=False)
    figure = attention_figure(record, NAMES, 24, use_global=False)
    headings = labels(figure.subfigs[1].axes[0].get_xticklabels())
    assert headings[:5] == ["source 1", "source 2", "source 3", "all sources", "[cls]"]
    outputs, _ = make_scenes([2, 3], use_global=False)
    assert table_of(figure)[0][1, :3].tolist() == pytest.approx((outputs["attention"][1] * 4).log2().tolist(), abs=1e-5)
    assert "global" not in " ".join(labels(figure.subfigs[0].axes[0].get_legend().get_texts()))


def test_sources_without_a_slot_or_a_column():
    outputs, batch = make_scenes([9])
    outputs["attention"] = outputs["attention"][:, :9]  # the ninth source had no slot
    record = record_of((outputs, batch))
    assert record.mean("means")[4, MEANS.index("slots")] == 8
    matrix, texts = table_of(attention_figure(record, NAMES, 24, use_global=True))
    others = 100 * float(outputs["attention"][0, 7:].sum())
    assert texts[0, 6] == f"2 more\n{others:.0f} %"
    assert matrix[0, 6] == pytest.approx(np.log2(others / 100 / 2 * 10), abs=1e-5)


def test_examples_lie_evenly_and_have_two_sources_where_any_scene_has():
    rows = record_of(make_scenes([1, 2] * 50)).rows()
    assert example_scenes(rows, 5)["index"].tolist() == [1, 25, 49, 75, 99]
    assert len(example_scenes(rows, 80)["index"]) == 50
    assert len(example_scenes(record_of(make_scenes([1] * 7)).rows(), 5)["index"]) == 5


@pytest.mark.parametrize("most", [1, 3, 11])
def test_texts_never_overlap(most):
    counts = [1 + i % most for i in range(60)]
    outputs, batch = make_scenes(counts)
    batch["key"] = [f"a folder/with long names/{'W' * 30}{key}.jpg" for key in batch["key"]]
    batch["classes"] = batch["classes"].masked_fill(batch["classes"] >= 0, 3)
    figure = attention_figure(record_of((outputs, batch)), NAMES, 24, use_global=True)
    axes = figure.subfigs[1].axes[0]
    panels = [panel.get_xticklabels() for panel in figure.subfigs[0].axes]
    assert not overlaps(figure, [*axes.get_yticklabels(), *axes.texts], axes.get_xticklabels(), *panels)


def test_texts_are_cut_to_the_width_of_a_cell():
    assert fitted("owl", 0.9) == "owl"
    assert fitted(NAMES[3], 0.9).startswith("a class who")
    assert fitted(NAMES[3], 0.9).endswith("…")
    assert fitted("folder/scene7", 0.5, keep="end").startswith("…")
    assert fitted("folder/scene7", 0.5, keep="end").endswith("scene7")


# ---------------------------------------------------------------- Cycle Mix, SSMS


@pytest.mark.parametrize("iterations", [1, 8, 20])
def test_lines_are_means_and_bands_are_quantiles_of_the_best_scores(iterations):
    outputs, batch = make_scenes([2, 7, 2, 5, 2], iterations=iterations)
    figure = cycle_mix_figure(record_of((outputs, batch)), "cosine")
    axes, history = figure.axes[0], outputs["history"].numpy()
    assert axes.get_xscale() == ("log" if iterations > 8 else "linear")
    assert axes.get_ylabel() == "cosine"
    for line, band, rows in zip(axes.lines, axes.collections, ([0, 2, 4], [1, 3]), strict=True):
        assert list(line.get_xdata()) == list(range(1, iterations + 1))
        assert list(line.get_ydata()) == pytest.approx(history[rows].mean(0).tolist())
        edges = band.get_paths()[0].vertices[:, 1]
        assert edges.min() == pytest.approx(np.quantile(history[rows], 0.1, axis=0).min(), abs=1e-6)
        assert edges.max() == pytest.approx(np.quantile(history[rows], 0.9, axis=0).max(), abs=1e-6)
    assert labels(figure.legends[0].get_texts()) == ["2 (3)", "5 or more (2)"]


def test_bars_are_the_scores_of_the_groups_that_have_scenes():
    figure = ssms_figure(SSMS, torch.tensor([3, 7, 0, 1, 2000]))
    axes = figure.axes[0]
    assert [bar.get_height() for bar in axes.patches] == [5, 4, 2, 1, 0.5, 0.5, 0.5, 0.5]
    assert labels(axes.get_xticklabels()) == ["1\n(3)", "2\n(7)", "4\n(1)", "5 or more\n(2,000)"]
    assert labels(figure.legends[0].get_texts()) == ["prediction", "baseline: chance"]


def test_bars_of_all_predictions_and_baselines_have_room():
    names = ("prediction", "draw", "cycle_mix", "chance", "mean_audio", "ridge", "source_mean", "global")
    figure = ssms_figure(dict.fromkeys(names, torch.full((5,), 10.0)), torch.full((5,), 123456))
    axes = figure.axes[0]
    assert not overlaps(figure, [*axes.texts, *axes.get_xticklabels(), axes.title])
    assert len({bar.get_facecolor() for bar in axes.patches}) == len(names)


# ---------------------------------------------------------------- what is kept


def test_many_scenes_are_thinned_evenly_but_summed_whole():
    counts = [1 + i % 4 for i in range(1000)]
    whole = record_of(make_scenes(counts, iterations=3), max_rows=1000)
    batches = [make_scenes(counts[i : i + 7], iterations=3, first=i) for i in range(0, 1000, 7)]
    record = record_of(*batches, max_rows=50)
    assert sum(len(part["index"]) for part in record.parts) <= 100
    rows = record.rows()
    assert len(rows["index"]) == 50
    assert rows["index"].diff().min() > 10
    assert rows["index"].diff().max() < 40
    assert torch.bincount(rows["group"]).min() >= 10  # whose period is a power of two
    shuffled = record_of(*reversed(batches), max_rows=50).rows()
    assert torch.equal(shuffled["index"], rows["index"])
    assert record.totals["scenes"].tolist() == [250, 250, 250, 250, 0]
    for name in ("means", "history"):
        assert torch.allclose(record.totals[name], whole.totals[name], rtol=1e-6)


COUNTS = [1 + (7 * i) % 6 for i in range(40)]


def rank_batches(rank: int, world_size: int):
    """Every rank its part, ragged in rows and sources; the last of three has nothing."""
    parts = {1: [range(0, 40)], 2: [range(0, 9), range(9, 40)], 3: [range(0, 9), range(9, 40), range(0)]}
    part = parts[world_size][rank]
    return [make_scenes([COUNTS[i] for i in part], iterations=4, first=part.start)] if part else []


def drawn_on_this_rank():
    record = record_of(*rank_batches(dist.get_rank(), dist.get_world_size()), max_rows=16).gathered()
    return drawn(record)


def drawn(record: SceneRecord):
    matrix, texts = table_of(attention := attention_figure(record, NAMES, 10, use_global=True))
    history = cycle_mix_figure(record, "cosine").axes[0]
    bars = [bar.get_height() for bar in attention.subfigs[0].axes[0].patches]
    lines = [list(line.get_ydata()) for line in history.lines]
    bands = [band.get_paths()[0].vertices for band in history.collections]
    return matrix.filled(-9), texts, bars, lines, bands


@pytest.mark.parametrize("world_size", [2, 3])
def test_all_ranks_draw_what_one_process_draws(world_size):
    one = drawn(record_of(*rank_batches(0, 1), max_rows=16))
    for several in run_distributed(drawn_on_this_rank, world_size=world_size):
        assert np.allclose(several[0], one[0], atol=1e-6)
        assert several[1] == one[1]
        assert several[2] == pytest.approx(one[2])
        for ours, theirs in zip(several[3] + several[4], one[3] + one[4], strict=True):
            assert np.allclose(ours, theirs, atol=1e-6)


# ---------------------------------------------------------------- in a trainer


def fit(folder: Path, batches, ssms, epochs: int = 11, callback: RemixerFigures | None = None, **stub):
    """Events of a run whose validation batches are these."""
    outputs, data = zip(*batches, strict=True)
    logger = TensorBoardLogger(folder, name="run", version=0)
    options = {"logger": logger, "callbacks": [callback or RemixerFigures()], "max_epochs": epochs}
    make_trainer(folder, num_sanity_val_steps=1, **options).fit(
        StubRemixer(list(outputs), ssms, **stub), datamodule=StubData(list(data))
    )
    return events_of(folder / "run" / "version_0")


def test_figures_come_when_the_epoch_has_doubled_and_at_the_end(tmp_path: Path):
    batches = [make_scenes([1, 2, 3], iterations=2), ({}, make_scenes([])[1])]
    events = fit(tmp_path, batches, SSMS)
    assert set(events.Tags()["images"]) == ALL
    for name in ALL:
        assert [event.step for event in events.Images(name)] == [2 * (epoch + 1) for epoch in (0, 1, 2, 4, 8, 10)]


def test_only_what_was_measured_is_drawn(tmp_path: Path):
    assert fit(tmp_path / "one", [make_scenes([1, 2])], {}, epochs=1).Tags()["images"] == ["figures/attention"]
    assert fit(tmp_path / "two", [({}, make_scenes([])[1])], SSMS, epochs=1).Tags()["images"] == []


def test_a_figure_shows_its_own_validation_only(tmp_path: Path, monkeypatch):
    drawn = []
    monkeypatch.setattr(RemixerFigures, "_draw", lambda self, record, *_: drawn.append(record) or {})
    fit(tmp_path, [make_scenes([1, 2]), make_scenes([3], first=2)], SSMS, epochs=2)
    assert [record.totals["scenes"].tolist() for record in drawn] == [[1, 1, 1, 0, 0]] * 2
    assert [record.rows()["index"].tolist() for record in drawn] == [[0, 1, 2]] * 2


def test_the_score_and_the_rest_are_named_after_the_hyperparameters(tmp_path: Path, monkeypatch):
    drawn = {}
    original = RemixerFigures._draw
    monkeypatch.setattr(RemixerFigures, "_draw", lambda *args: drawn.update(original(*args)) or {})
    fit(
        tmp_path,
        [make_scenes([2], iterations=2)],
        SSMS,
        epochs=1,
        cycle_mix=CycleMixOptions(score="std"),
        remixer=replace(REMIXER, mask_padding=False),
    )
    assert "lower is better" in drawn["cycle_mix"].axes[0].get_ylabel()
    assert labels(drawn["attention"].subfigs[1].axes[0].get_xticklabels())[-1] == "[cls], padding"


def test_when_the_next_figures_are_due_goes_with_the_checkpoint():
    figures, resumed = RemixerFigures(), RemixerFigures()
    figures._next_epoch = 16
    resumed.load_state_dict(figures.state_dict())
    assert resumed._next_epoch == 16
