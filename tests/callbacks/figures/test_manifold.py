"""ManifoldFigures: when they are due, and what is in them."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from lightning_ss2a.callbacks import ManifoldFigures
from lightning_ss2a.callbacks.figures.manifold import class_bars_figure, map_figure, similarity_figure
from tests.callbacks.test_hyperparameters import events_of
from tests.manifold_examples import make_data, make_module, make_trainer, write_learnable_pairs

NAMES = ["cat", "dog", "owl", "unused"]


def some_rows(pairs: int = 30, classes: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    rows = {
        name: torch.nn.functional.normalize(torch.randn(pairs, 5, generator=generator), dim=-1)
        for name in ("visual_embedding", "audio_embedding")
    }
    return rows | {"class_index": torch.arange(pairs) % classes, "index": torch.arange(pairs)}


def labels(ticks) -> list[str]:
    return [tick.get_text() for tick in ticks]


def overlaps(figure, *groups) -> bool:
    """Whether two texts of a group do, once the figure is laid out (which takes a second)."""
    figure.draw_without_rendering()  # canvas.draw() would not lay anything out: the canvas has no renderer
    for texts in groups:
        boxes = [text.get_window_extent() for text in texts if text.get_text()]
        if any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i]):
            return True
    return False


def test_similarity_is_the_cosine_ordered_by_class():
    rows = some_rows()
    figure = similarity_figure(rows, NAMES)
    shown = figure.axes[0].images[0].get_array()
    order = sorted(range(30), key=lambda i: (i % 3, i))
    for row in (0, 7, 29):
        for column in (0, 13, 29):
            cosine = float(rows["visual_embedding"][order[row]] @ rows["audio_embedding"][order[column]])
            assert shown[row, column] == pytest.approx(cosine, abs=1e-6)
    axes = figure.axes[0]
    assert labels(axes.get_yticklabels()) == labels(axes.get_xticklabels()) == ["cat", "dog", "owl"]
    assert (axes.get_xlabel(), axes.get_ylabel(), figure.axes[1].get_ylabel()) == ("audio", "visual", "cosine")


@pytest.mark.parametrize("classes", [6, 40])
def test_labels_never_overlap(classes):
    rows = some_rows(200, classes)
    rows["class_index"] = (torch.linspace(0, 0.999, 200) ** 3 * classes).long()  # many rare classes side by side
    names = [f"a rather long name {i}" for i in range(classes)]
    axes = (figure := similarity_figure(rows, names)).axes[0]
    assert len(labels(axes.get_xticklabels())) >= 5
    assert not overlaps(figure, axes.get_xticklabels(), axes.get_yticklabels())
    figure = class_bars_figure(torch.rand(classes), [1] * classes, names)
    assert not overlaps(figure, figure.axes[0].get_yticklabels())


def test_the_map_keeps_what_a_principal_component_analysis_keeps():
    from sklearn.decomposition import PCA

    rows = some_rows()
    figure = map_figure(rows, NAMES)
    visual, audio = (torch.tensor(points.get_offsets().tolist()) for points in figure.axes[0].collections)
    both = torch.cat([rows["visual_embedding"], rows["audio_embedding"]]).numpy()
    pca = PCA(2).fit(both)
    expected = torch.from_numpy(pca.transform(both))
    assert torch.allclose(torch.cat([visual, audio]).abs(), expected.abs().float(), atol=1e-5)
    line = torch.from_numpy(figure.axes[0].lines[0].get_xydata()).reshape(-1, 3, 2)  # broken after each pair
    assert torch.equal(line[:, :2].float(), torch.stack([visual, audio], dim=1).float())
    assert line[:, 2].isnan().all()
    shares = [f"{100 * share:.0f} %" for share in pca.explained_variance_ratio_]
    assert shares[0] in figure.axes[0].get_xlabel()
    assert shares[1] in figure.axes[0].get_ylabel()
    assert labels(figure.legends[0].get_texts()) == ["visual", "audio", "cat", "dog", "owl"]
    colours = figure.axes[0].collections[0].get_facecolors()
    assert len({tuple(colour) for colour in colours}) == 3
    assert tuple(colours[0]) == tuple(colours[3]) != tuple(colours[1])


def test_bars_from_the_highest_without_classes_that_have_no_pairs():
    figure = class_bars_figure(torch.tensor([2.0, 5.0, 0.5, float("nan")]), [7, 1, 9, 0], NAMES)
    axes = figure.axes[0]
    assert labels(axes.get_yticklabels()) == ["dog (1)", "cat (7)", "owl (9)"]
    assert [bar.get_width() for bar in axes.patches] == [5.0, 2.0, 0.5]


def test_figures_come_when_the_epoch_has_doubled_and_at_the_end_where_the_projector_gets_its_export(tmp_path: Path):
    logger = TensorBoardLogger(tmp_path, name="run", version=0)
    trainer = make_trainer(tmp_path, logger=logger, callbacks=[ManifoldFigures()], max_epochs=11)
    data = make_data(write_learnable_pairs(tmp_path / "pairs"))
    trainer.fit(make_module(), datamodule=data)
    folder = tmp_path / "run" / "version_0"
    events = events_of(folder)
    assert set(events.Tags()["images"]) == {"figures/similarity", "figures/map", "figures/ssms_by_class"}
    steps = [event.step for event in events.Images("figures/map")]
    assert steps == [6 * (epoch + 1) for epoch in (0, 1, 2, 4, 8, 10)]  # 6 batches an epoch
    (metadata,) = folder.rglob("metadata.tsv")
    lines = metadata.read_text().splitlines()
    assert lines[0] == "modality\tclass"
    expected = [f"{side}\t{('cat', 'dog', 'owl')[row % 3]}" for side in ("visual", "audio") for row in range(54, 77)]
    assert lines[1:] == expected
    assert len((metadata.parent / "tensors.tsv").read_text().splitlines()) == 2 * 23


def test_a_run_that_ends_by_steps_exports_its_last_validation(tmp_path: Path):
    """max_epochs -1: no epoch is known to be the last, so figures keep to their rhythm and the export is fresh."""
    logger, module = TensorBoardLogger(tmp_path, name="run", version=0), make_module()
    data = make_data(write_learnable_pairs(tmp_path / "pairs"))
    make_trainer(tmp_path, logger=logger, callbacks=[ManifoldFigures()], max_epochs=-1, max_steps=24).fit(
        module, datamodule=data
    )
    folder = tmp_path / "run" / "version_0"
    assert [event.step for event in events_of(folder).Images("figures/map")] == [6, 12, 18]  # not 24: epoch 3
    (tensors,) = folder.rglob("tensors.tsv")
    exported = torch.tensor([[float(x) for x in line.split("\t")] for line in tensors.read_text().splitlines()])
    module.eval()
    visual = torch.cat([batch["visual"] for batch in data.val_dataloader()])
    expected = torch.nn.functional.normalize(module.manifold.project_visual(visual).mean, dim=-1)
    assert torch.allclose(exported[:23], expected, atol=1e-5)


def test_many_pairs_are_thinned_evenly_but_counted_whole(tmp_path: Path):
    figures = ManifoldFigures(max_pairs=5)
    order = torch.randperm(21)
    figures._rows = [
        {
            "visual_embedding": torch.randn(21, 3),
            "audio_embedding": torch.randn(21, 3),
            "class_index": order % 2,
            "index": order,
        }
    ]
    rows = figures._gather(classes=3)
    assert rows["index"].tolist() == [0, 5, 10, 15, 20]
    assert rows["class_index"].tolist() == [0, 1, 0, 1, 0]
    assert figures._class_counts == [11, 10, 0]
    assert torch.allclose(rows["visual_embedding"].norm(dim=1), torch.ones(5))


def test_when_the_next_figures_are_due_goes_with_the_checkpoint():
    figures, resumed = ManifoldFigures(), ManifoldFigures()
    figures._next_epoch = 16
    resumed.load_state_dict(figures.state_dict())
    assert resumed._next_epoch == 16


@pytest.mark.parametrize("names", [("a\tb", "c\nd", "e\r\nf"), (r"$\frac$", "5 $ and 6 $", "plain")])
def test_class_names_of_any_letters_are_drawn_and_projected(tmp_path: Path, names: tuple[str, ...]):
    data = make_data(write_learnable_pairs(tmp_path / "pairs", classes=names))
    logger = TensorBoardLogger(tmp_path, name="run", version=0)
    make_trainer(tmp_path, logger=logger, callbacks=[ManifoldFigures()], max_epochs=1).fit(
        make_module(), datamodule=data
    )
    (metadata,) = (tmp_path / "run").rglob("metadata.tsv")
    lines = [line.split("\t") for line in metadata.read_text().removesuffix("\n").split("\n")]
    assert lines[0] == ["modality", "class"]
    assert len(lines) == 1 + 2 * 23
    assert {modality for modality, _ in lines[1:]} == {"visual", "audio"}
    assert {name for _, name in lines[1:]} == {" ".join(name.split()) for name in names}
