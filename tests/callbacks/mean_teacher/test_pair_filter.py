"""PairFilter: what it drops, what then trains, what people see of it, and what a checkpoint brings back."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from torch.nn.functional import cosine_similarity

from lightning_ss2a.callbacks import EMATeacher, PairFilter
from lightning_ss2a.callbacks.mean_teacher import pair_filter
from lightning_ss2a.callbacks.mean_teacher.two_groups import fit_two_groups
from lightning_ss2a.errors import InputError
from tests.callbacks.mean_teacher.mixtures import STRONG, bells, unlimited
from tests.callbacks.test_hyperparameters import events_of
from tests.manifold_examples import (
    Recorder,
    largest_difference,
    make_data,
    make_module,
    make_trainer,
    parameters_of,
    write_learnable_pairs,
)

ROWS, BATCH = 240, 16
CLASSES = ("cat, tabby", "dog", "owl")
similarities = np.concatenate([np.linspace(-0.5, 0.4, 60), np.linspace(0.7, 0.8, 180)]).astype(np.float32)
"""By row: of the rows from 60 on, those that are not annotated are kept, and a few of the first of them dropped."""
numbers = np.arange(ROWS)
ANNOTATED = numbers // 2 % 3 == 0
NOISY = np.flatnonzero(~ANNOTATED)
GROUPS = fit_two_groups(similarities[NOISY].astype(np.float64))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A third of the rows of each origin; class 2, owl, has no annotated row."""
    folder = tmp_path_factory.mktemp("pairs")
    return write_learnable_pairs(folder, {"train": ROWS, "validation": 10}, classes=CLASSES, origins=3)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The teacher finds what ``similarities`` says; the list grows by the epoch of each filtering."""
    epochs = []

    def similarity(trainer, pl_module, rows, total):
        epochs.append(trainer.current_epoch)
        return similarities[rows]

    monkeypatch.setattr(pair_filter, "teacher_similarity", similarity)
    return epochs


def fit(folder: Path, dataset: str, chosen: PairFilter, *, teacher: EMATeacher | None = None, **options: Any):
    recorder, checkpoint = Recorder(keep_batches=True), options.pop("ckpt_path", None)
    callbacks = [teacher or EMATeacher(teacher_epochs=1), chosen, recorder, *options.pop("callbacks", [])]
    module = options.pop("module", None) or make_module()
    data = make_data(dataset, **{"batch_size": BATCH, **options.pop("data", {})})
    trainer = make_trainer(folder, callbacks=callbacks, **{"max_epochs": 3, "limit_val_batches": 0, **options})
    trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    recorder.trainer, recorder.module = trainer, module
    return recorder


def trained_rows(recorder: Recorder, epoch: int) -> np.ndarray:
    batches = [e for e, _ in recorder.training]
    return np.concatenate([b["index"].numpy() for b, e in zip(recorder.batches, batches, strict=True) if e == epoch])


def kept_by(chosen: PairFilter) -> np.ndarray:
    return chosen.kept.numpy()


# -------------------------------------------------------------------- what is dropped


@pytest.mark.parametrize("residency", ["memory", "stream"])
def test_dropped_rows_do_not_train_and_annotated_rows_do(tmp_path: Path, dataset: str, known: list[int], residency):
    chosen = PairFilter()
    recorder = fit(tmp_path, dataset, chosen, data={"residency": residency})
    kept, threshold = kept_by(chosen), chosen.threshold
    assert 0.4 < threshold < 0.75
    assert known == [1]
    owls = numbers % 3 == 2
    assert np.array_equal(kept, ANNOTATED | (similarities >= threshold))
    assert kept[owls].any()  # so that the class needs no rescue
    assert set(trained_rows(recorder, 0)) <= set(numbers[ANNOTATED])
    for epoch in (1, 2):
        rows = trained_rows(recorder, epoch)
        assert kept[rows].all()
        assert len(set(rows)) == len(rows) == kept.sum() // BATCH * BATCH


def test_a_class_that_would_lose_all_its_pairs_keeps_them(tmp_path: Path, dataset: str, monkeypatch):
    owls = numbers % 3 == 2
    similarity = np.where(owls, np.linspace(-0.6, 0.1, ROWS, dtype=np.float32), similarities[::-1])
    monkeypatch.setattr(pair_filter, "teacher_similarity", lambda trainer, teacher, rows, total: similarity[rows])
    chosen = PairFilter()
    with pytest.warns(UserWarning, match=r"training pair of 1 classes is below .* their pairs are kept: owl$"):
        fit(tmp_path, dataset, chosen)
    kept = kept_by(chosen)
    assert kept[owls].all()
    assert not kept[~owls & ~ANNOTATED & (similarities[::-1] < 0.4)].any()


def test_many_rescued_classes_are_counted():
    classes = [f"class{i}" for i in range(9)]
    columns = {"key": np.array([b"k"] * 90), "pair_origin": np.ones(90, np.uint8), "class_index": np.arange(90) // 10}
    similarity = np.concatenate([np.linspace(-0.5, 0, 80), np.linspace(0.8, 0.9, 10)])
    report = pair_filter.decide(
        columns, np.arange(90), similarity, classes, unlimited(floor_threshold=0.7, curve="convex")
    )
    assert report.kept[:70].all()
    assert not report.kept[70:79].any()  # class 7 has one pair at the threshold, which stays without help
    message = pair_filter.rescue_warning(report)
    assert "of 7 classes" in message
    assert message.endswith("kept: class0, class1, class2, class3, class4 and 2 more")


def test_no_noisy_rows_nothing_to_filter_said_once(tmp_path: Path, tmp_path_factory, caplog):
    dataset = write_learnable_pairs(tmp_path_factory.mktemp("annotated"))
    chosen = PairFilter(every_n_epochs=1)
    with caplog.at_level("INFO"):
        recorder = fit(tmp_path, dataset, chosen)
    assert sum("nothing to filter" in message for message in caplog.messages) == 1
    assert kept_by(chosen).all()
    assert len(trained_rows(recorder, 2)) == 48
    assert not (tmp_path / "pair_filter").exists()


@pytest.mark.parametrize(
    ("similarity", "options", "reason"),
    [
        (similarities, {"min_pairs": 161}, "160 pairs are fewer than min_pairs, 161"),
        (np.full(ROWS, 0.5, np.float32), {}, "the similarities are all equal"),
        (np.linspace(0, 1, ROWS) ** 3, {"least_separation": None}, "the sorted curve has no knee"),
        (np.linspace(0, 1, ROWS) ** 3, {}, "nothing tells good pairs from bad: the similarities are not two groups"),
    ],
)
def test_without_an_elbow_everything_is_kept(tmp_path, dataset, monkeypatch, similarity, options, reason):
    monkeypatch.setattr(pair_filter, "teacher_similarity", lambda trainer, teacher, rows, total: similarity[rows])
    chosen = PairFilter(**options)
    logger = TensorBoardLogger(tmp_path, name="run", version=0)
    with pytest.warns(UserWarning, match=f"PairFilter keeps all pairs: {reason}"):
        recorder = fit(tmp_path, dataset, chosen, logger=logger)
    assert kept_by(chosen).all()
    assert chosen.threshold is None
    assert len(trained_rows(recorder, 1)) == ROWS
    scalars = events_of(tmp_path / "run" / "version_0").Tags()["scalars"]
    assert "pair_filter/kept_noisy_rows" in scalars
    assert "pair_filter/threshold" not in scalars


def test_where_the_elbow_is_below_both_groups_their_boundary_drops_and_both_are_named(tmp_path, dataset, monkeypatch):
    similarity = bells(ROWS, 0.9, 0, STRONG)[0]
    monkeypatch.setattr(pair_filter, "teacher_similarity", lambda trainer, teacher, rows, total: similarity[rows])
    chosen = PairFilter(min_kept_fraction=0.0)
    with pytest.warns(
        UserWarning, match=r"two groups, about 0\.\d+ and 0\.\d+, and the elbow, (-0\.\d+), is not between"
    ):
        fit(tmp_path, dataset, chosen, max_epochs=2)
    assert chosen.threshold == pytest.approx(fit_two_groups(np.sort(similarity[NOISY].astype(float))).boundary)
    assert np.array_equal(kept_by(chosen), ANNOTATED | (similarity >= chosen.threshold))


def test_a_similarity_that_is_no_number_names_its_row(tmp_path: Path, dataset: str, monkeypatch):
    similarity = np.where(numbers == NOISY[3], np.nan, similarities)
    monkeypatch.setattr(pair_filter, "teacher_similarity", lambda trainer, teacher, rows, total: similarity[rows])
    with pytest.raises(InputError, match=rf"similarity of row 'row{NOISY[3]}' is nan \(1 such rows\).*learning_rate"):
        fit(tmp_path, dataset, PairFilter())


@settings(deadline=None, max_examples=100)
@given(st.integers(3, 300), st.integers(0, 2**32 - 1), st.floats(0, 1), st.sampled_from(["concave", "convex"]))
def test_whatever_is_decided(pairs: int, seed: int, fraction: float, curve: str):
    """Enough is kept, every class too, what is kept is most similar, and the order of rows does not matter."""
    random = np.random.default_rng(seed)
    columns = {
        "key": np.arange(pairs).astype("S"),
        "pair_origin": random.integers(0, 3, pairs),
        "class_index": random.integers(0, 20, pairs),
    }
    rows, options = np.flatnonzero(columns["pair_origin"]), unlimited(min_kept_fraction=fraction, curve=curve)
    similarity = random.normal(size=len(rows)).astype(np.float32)
    report = pair_filter.decide(columns, rows, similarity, ["name"] * 20, options)
    assert report.kept.mean() >= fraction - 1e-9 if len(rows) else True
    kept_rows = np.setdiff1d(np.arange(pairs), rows[~report.kept])
    assert set(columns["class_index"][kept_rows]) == set(columns["class_index"])
    by_threshold = report.kept & ~np.isin(report.class_index, report.rescued)
    if by_threshold.any() and not report.kept.all():
        assert similarity[by_threshold].min() > similarity[~report.kept].max()
    order = random.permutation(pairs)  # row i of the other data is row order[i] of this
    other_rows = np.flatnonzero(columns["pair_origin"][order])
    other_similarity = similarity[np.searchsorted(rows, order[other_rows])]
    shuffled = {name: column[order] for name, column in columns.items()}
    other = pair_filter.decide(shuffled, other_rows, other_similarity, ["name"] * 20, options)
    assert dict(zip(other.keys, other.kept, strict=True)) == dict(zip(report.keys, report.kept, strict=True))


# -------------------------------------------------------------------- the similarity


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_similarity_is_the_cosine_of_the_teachers_means_in_float32(tmp_path: Path, dataset: str, precision: str):
    found = {}

    class Measure(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if pl_module.teacher is not None:
                rows = NOISY[5:120]  # the last of the batches of 50 has 15 rows
                pl_module.train()
                found[0] = pair_filter.teacher_similarity(trainer, pl_module.teacher, rows, ROWS)
                everything = next(iter(make_data(dataset, evaluation_batch_size=ROWS).training_rows_loader()))
                visual, audio = everything["visual"][rows], everything["audio"][rows]
                teacher = pl_module.teacher.eval()
                with torch.no_grad(), torch.autocast("cpu", enabled=False):
                    means = teacher.project_visual(visual).mean, teacher.project_audio(audio).mean
                found[1] = cosine_similarity(*means).numpy()

    options = {"precision": precision, "data": {"evaluation_batch_size": 50}, "callbacks": [Measure()]}
    fit(tmp_path, dataset, PairFilter(), max_epochs=2, **options)
    assert found[0].dtype == np.float32
    assert np.allclose(found[0], found[1], atol=1e-6)
    assert np.ptp(found[0]) > 0.1


# -------------------------------------------------------------------- what people see


def test_the_table_lists_all_noisy_pairs_the_worst_first(tmp_path: Path, dataset: str, known, caplog):
    chosen = PairFilter()
    with caplog.at_level("INFO"):
        fit(tmp_path, dataset, chosen)
    file = tmp_path / "pair_filter" / "epoch-0001.csv"
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    with open(file, newline="") as opened:
        lines = list(csv.DictReader(opened))
    assert list(lines[0]) == ["key", "pair_origin", "class", "index", "similarity", "kept"]
    assert [int(line["index"]) for line in lines] == NOISY.tolist()  # which similarities has in order
    kept = kept_by(chosen)
    for line in lines:
        row = int(line["index"])
        assert line["key"] == f"row{row}"
        assert line["pair_origin"] == ("annotated", "curated", "translated")[row // 2 % 3]
        assert line["class"] == CLASSES[row % 3]
        assert float(line["similarity"]) == pytest.approx(similarities[row], abs=1e-6)
        assert line["kept"] == ("true" if kept[row] else "false")
    counts = [
        f"{kept[numbers // 2 % 3 == o].sum()} of 80 {name} pairs" for o, name in ((1, "curated"), (2, "translated"))
    ]
    (line,) = (message for message in caplog.messages if message.startswith("PairFilter: kept"))
    assert all(count in line for count in counts)
    assert line.endswith(f"threshold {chosen.state_dict()['threshold']:.3f}; see {file}")


def test_tensorboard_has_fractions_threshold_and_figure(tmp_path: Path, dataset: str, known: list[int]):
    chosen = PairFilter(every_n_epochs=2)
    fit(tmp_path, dataset, chosen, logger=TensorBoardLogger(tmp_path, name="run", version=0), max_epochs=5)
    assert known == [1, 3]
    folder, kept = tmp_path / "run" / "version_0", kept_by(chosen)
    events = events_of(folder)
    last = {tag: events.Scalars(tag)[-1].value for tag in events.Tags()["scalars"] if tag.startswith("pair_filter/")}
    assert last == {
        "pair_filter/threshold": pytest.approx(chosen.state_dict()["threshold"]),
        "pair_filter/elbow": pytest.approx(chosen.state_dict()["threshold"]),
        "pair_filter/boundary": pytest.approx(GROUPS.boundary),
        "pair_filter/separation": pytest.approx(GROUPS.separation),
        "pair_filter/kept_noisy_rows": kept[NOISY].sum(),
        "pair_filter/kept_fraction/curated": pytest.approx(kept[numbers // 2 % 3 == 1].mean()),
        "pair_filter/kept_fraction/translated": pytest.approx(kept[numbers // 2 % 3 == 2].mean()),
    }
    stage_one, stage_two = 80 // BATCH, kept.sum() // BATCH
    steps = [event.step for event in events.Images("figures/pair_filter")]
    assert steps == [stage_one, stage_one + 2 * stage_two]
    assert sorted(path.name for path in (folder / "pair_filter").iterdir()) == ["epoch-0001.csv", "epoch-0003.csv"]


def test_a_trial_run_writes_nothing(tmp_path: Path, dataset: str, known: list[int]):
    fit(tmp_path, dataset, PairFilter(), teacher=EMATeacher(teacher_epochs=0), fast_dev_run=True)
    assert known == [0]
    assert not any(tmp_path.iterdir())


# -------------------------------------------------------------------- set-up and options


def test_a_teacher_must_be_listed_before(tmp_path: Path, dataset: str):
    for callbacks, message in (
        ([PairFilter()], "list the callback EMATeacher before"),
        ([PairFilter(), EMATeacher()], "EMATeacher is listed after PairFilter"),
    ):
        with pytest.raises(InputError, match=message):
            make_trainer(tmp_path, callbacks=callbacks).fit(make_module(), datamodule=make_data(dataset))
    make_trainer(tmp_path, callbacks=[PairFilter()]).validate(make_module(), make_data(dataset), verbose=False)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("sensitivity", -1.0),
        ("curve", "straight"),
        ("quantiles", 9),
        ("floor_threshold", 1.1),
        ("min_kept_fraction", 1.01),
        ("min_pairs", 0),
        ("least_separation", -0.5),
        ("every_n_epochs", 0),
    ],
)
def test_options_out_of_range_are_named(option: str, value: Any):
    with pytest.raises(InputError, match=rf"^PairFilter\.{option} must be .*, found {value!r}$"):
        PairFilter(**{option: value})


# -------------------------------------------------------------------- checkpoints


class SaveEverywhere(Callback):
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        trainer.save_checkpoint(self.folder / f"{trainer.current_epoch}-{batch_idx}.ckpt")


def test_a_run_resumed_anywhere_goes_on_with_the_same_bits(tmp_path: Path, dataset: str, known: list[int]):
    """In stage 1, at its end, right after the filtering, and in an epoch filtered for the second time."""
    whole = fit(tmp_path, dataset, PairFilter(every_n_epochs=2), max_epochs=4, callbacks=[SaveEverywhere(tmp_path)])
    assert known == [1, 3]
    last = int(kept_by(whole.trainer.callbacks[1]).sum()) // BATCH - 1
    for name, filtered in (("0-2", [1, 3]), ("0-4", [1, 3]), ("1-0", [3]), (f"1-{last}", [3]), ("3-2", [])):
        known.clear()
        chosen = PairFilter(every_n_epochs=2)
        path = tmp_path / f"{name}.ckpt"
        resumed = fit(tmp_path / name, dataset, chosen, max_epochs=4, ckpt_path=path)
        assert known == filtered, name
        assert largest_difference(parameters_of(resumed.module), parameters_of(whole.module)) == 0, name
        assert np.array_equal(resumed.batches[-1]["index"], whole.batches[-1]["index"]), name
        for state in (chosen.state_dict(), torch.load(path, weights_only=True)["callbacks"]["PairFilter"]):
            assert state.keys() == whole.trainer.callbacks[1].state_dict().keys()


def test_the_state_is_plain(tmp_path: Path, dataset: str, known: list[int]):
    chosen, other = PairFilter(), PairFilter()
    for one in (other, chosen):  # before any filtering, and after
        torch.save(one.state_dict(), tmp_path / "state")
        loaded = torch.load(tmp_path / "state", weights_only=True)
        assert loaded.keys() == one.state_dict().keys()
        if one is other:
            fit(tmp_path, dataset, chosen)
    other.load_state_dict(loaded)
    state = other.state_dict()
    assert torch.equal(state.pop("kept"), chosen.state_dict()["kept"])
    assert state == {name: value for name, value in chosen.state_dict().items() if name != "kept"}
    assert (state["first_epoch"], state["last_epoch"]) == (1, 1)


def test_a_checkpoint_of_other_data_is_one_clear_line(tmp_path: Path, dataset: str, known, tmp_path_factory):
    recorder = fit(tmp_path, dataset, PairFilter())
    recorder.trainer.save_checkpoint(tmp_path / "last.ckpt")
    fewer = write_learnable_pairs(tmp_path_factory.mktemp("fewer"), {"train": 90, "validation": 9}, origins=3)
    with pytest.raises(InputError, match=r"over 240 other training rows than the 90 of the data"):
        fit(tmp_path, fewer, PairFilter(), ckpt_path=tmp_path / "last.ckpt", max_epochs=5)
    others = write_learnable_pairs(
        tmp_path_factory.mktemp("others"), {"other": 9, "train": 240, "validation": 9}, origins=3
    )
    with pytest.raises(InputError, match=r"over 240 other training rows than the 240 of the data"):
        fit(tmp_path, others, PairFilter(), ckpt_path=tmp_path / "last.ckpt", max_epochs=5)


def test_a_second_fit_begins_anew(tmp_path: Path, dataset: str, known: list[int]):
    chosen = PairFilter()
    fit(tmp_path, dataset, chosen)
    recorder = fit(tmp_path, dataset, chosen)
    assert known == [1, 1]
    assert set(trained_rows(recorder, 0)) <= set(numbers[ANNOTATED])
