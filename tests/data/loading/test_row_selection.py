"""Training on some of the rows: those and no others, in an order that depends on nothing else."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import Callback

from lightning_ss2a.data import ShardDataModule, ShardReader
from lightning_ss2a.data.loading.batch_order import MemoryPlan, StreamPlan
from lightning_ss2a.data.loading.tensors import Batch
from lightning_ss2a.errors import InputError
from tests.data.loading.test_datamodule import DEVICE, EVERYWHERE, MEMORY, STREAM, epoch_rows, module
from tests.data.loading.test_loaders import KillAt, KilledError, Recorder, new, records, trainer
from tests.data.shard_examples import make_dataset
from tests.data.shards import write_pairs

SELECTIONS = {
    "every third": np.arange(0, 100, 3),
    "one run": np.arange(37, 71),
    "scattered": np.flatnonzero(np.random.default_rng(0).random(100) < 0.6),
}
SELECTED = pytest.mark.parametrize("rows", SELECTIONS.values(), ids=SELECTIONS)


def selected(path, rows: np.ndarray | None, **options) -> ShardDataModule:
    data = module(path, **{"batch_size": 12, **options})
    data.select_training_rows(rows)
    return data


def batches(data: ShardDataModule, epoch: int = 0) -> list[Batch]:
    loader = data.train_dataloader()
    loader.load_state_dict({"epoch": epoch, "batch": 0})
    return list(loader)


def same(one: Batch, other: Batch) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(x, other[name]) if isinstance(x, torch.Tensor) else x == other[name] for name, x in one.items()
    )


# -------------------------------------------------------------------- without a selection nothing changes


def test_without_a_selection_memory_follows_its_plan(hundred_pairs):
    order = MemoryPlan([100], [1.0], 12, seed=0).order(3).reshape(-1, 12).tolist()
    for place in (MEMORY, DEVICE):
        assert epoch_rows(selected(hundred_pairs, None, **place), 3) == order


def test_without_a_selection_a_stream_follows_its_plan(hundred_pairs):
    data = selected(hundred_pairs, None, **STREAM)
    shards = [(0, 40), (40, 80), (80, 100)]
    plan = StreamPlan([np.array(shards)], [1.0], 12, 40, seed=0)
    sequence, expected = plan.sequence(3), []
    for window in range(plan.windows):
        ranges = plan.window_rows(sequence, window, 0, 1)
        rows = np.concatenate([np.arange(*pair) for pair in ranges])
        expected += rows[plan.window_order(3, window, 0, 1)].tolist()
    assert epoch_rows(data, 3) == expected


@EVERYWHERE
def test_without_a_selection_checkpoints_say_what_they_always_said(hundred_pairs, place):
    state = selected(hundred_pairs, None, **place).train_dataloader().state_dict()
    kind = {"shuffle_rows"} if place is STREAM else {"rows_per_group", "shuffle_pairs"}
    assert (
        state.keys() == {"split train", "epoch", "batch", "residency", "batch_size", "seed", "rows", "weights"} | kind
    )


@EVERYWHERE
def test_all_rows_selected_are_none_selected(hundred_pairs, place):
    everything = batches(selected(hundred_pairs, np.arange(100), **place), 2)
    assert all(map(same, everything, batches(selected(hundred_pairs, None, **place), 2)))


# -------------------------------------------------------------------- which rows an epoch draws


@EVERYWHERE
@settings(max_examples=15, deadline=None)
@given(mask=st.lists(st.booleans(), min_size=100, max_size=100).filter(any))
def test_an_epoch_draws_each_selected_row_once_and_no_other(hundred_pairs, place, mask):
    rows = np.flatnonzero(mask)
    data = selected(hundred_pairs, rows, batch_size=1, **place)
    for epoch in range(2):
        drawn = batches(data, epoch)
        index = torch.cat([batch["index"] for batch in drawn])
        assert sorted(index.tolist()) == rows.tolist()
        for name in ("visual", "audio"):
            assert torch.equal(torch.cat([batch[name][:, 0] for batch in drawn]).long(), index)
        assert torch.equal(torch.cat([batch["class_index"] for batch in drawn]), index % 3)


@EVERYWHERE
@SELECTED
def test_less_than_a_batch_is_left_out_other_rows_each_epoch(hundred_pairs, place, rows):
    data, left_out = selected(hundred_pairs, rows, batch_size=8, **place), set()
    for epoch in range(4):
        drawn = np.concatenate(epoch_rows(data, epoch))
        assert len(set(drawn)) == len(drawn) == len(rows) // 8 * 8
        assert set(drawn) <= set(rows)
        left_out.add(frozenset(rows) - set(drawn))
    assert len(left_out) > 1 or not len(rows) % 8


@SELECTED
def test_an_epoch_in_memory_is_that_of_data_without_the_other_rows(hundred_pairs, rows):
    order = MemoryPlan([len(rows)], [1.0], 12, seed=0).order(1).reshape(-1, 12)
    for place in (MEMORY, DEVICE):
        assert epoch_rows(selected(hundred_pairs, rows, **place), 1) == rows[order].tolist()


@EVERYWHERE
@SELECTED
def test_an_epoch_is_the_same_on_any_number_of_ranks(hundred_pairs, place, rows):
    whole = batches(selected(hundred_pairs, rows, **place))
    for world in (2, 3):
        ranks = [batches(selected(hundred_pairs, rows, rank=rank, world=world, **place)) for rank in range(world)]
        for batch, parts in zip(whole, zip(*ranks, strict=True), strict=True):
            assert same({name: torch.cat([part[name] for part in parts]) for name in batch}, batch)


@SELECTED
def test_workers_do_not_change_the_order(hundred_pairs, rows):
    alone = batches(selected(hundred_pairs, rows, **STREAM))
    helped = batches(selected(hundred_pairs, rows, **STREAM, num_workers=2))
    assert len(alone) == len(helped) == len(rows) // 12
    assert all(map(same, alone, helped))


@EVERYWHERE
def test_every_view_is_drawn(hundred_pairs, place):
    rows = SELECTIONS["every third"]
    data = selected(hundred_pairs, rows, batch_size=1, **place)
    seen = {(int(b["index"]), int(b["visual"][0, 1])) for epoch in range(25) for b in batches(data, epoch)}
    assert seen == {(row, view) for row in rows for view in range(3)}


@EVERYWHERE
def test_fractional_weights_give_every_selected_row_its_turn(two_data_sets, place):
    rows = np.concatenate([np.arange(0, 100, 3), np.arange(100, 160, 2)])
    data = selected(two_data_sets, rows, weights=[1.5, 0.25], batch_size=1, **place)
    total = np.zeros(160, int)
    for epoch in range(8):
        drawn = np.bincount(np.concatenate(epoch_rows(data, epoch)), minlength=160)
        assert drawn[:100].max() <= 2
        assert drawn[100:].max() <= 1
        total += drawn
    assert set(np.flatnonzero(total)) == set(rows)
    assert abs(total[:100].sum() - 1.5 * 8 * 34) <= 8
    assert abs(total[100:].sum() - 0.25 * 8 * 30) <= 8
    assert total[rows[rows >= 100]].min() >= 1


@EVERYWHERE
@pytest.mark.parametrize(("first", "stop"), [(0, 100), (100, 160)])
def test_a_data_set_may_lose_all_its_rows(two_data_sets, place, first, stop):
    data = selected(two_data_sets, np.arange(first, stop), **place)
    loader = data.train_dataloader()
    assert loader.source.identity["rows"] == [min(stop, 100) - first if first < 100 else 0, max(stop - 100, 0)]
    drawn = list(loader)
    index = torch.cat([batch["index"] for batch in drawn])
    assert len(index) == len(index.unique()) == (stop - first) // 12 * 12
    assert first <= index.min() <= index.max() < stop
    held = torch.cat([batch["visual"][:, 0] for batch in drawn]).long()
    assert torch.equal(held, torch.where(index < 100, index, index + 900))


@EVERYWHERE
@pytest.mark.parametrize("kind", ["pairs", "scenes", "videos"])
@pytest.mark.parametrize("layout", ["blocks", "samples"])
def test_rows_of_every_kind_and_layout(tmp_path: Path, place, kind, layout):
    path = str(make_dataset(tmp_path, kind, layout=layout))
    everything = {int(b["index"]): b for b in batches(module(path, batch_size=1, **place))}
    rows = np.array([0, 2, 3, 4, 7, 8, 13, 19])
    drawn = batches(selected(path, rows, batch_size=1, **place))
    assert sorted(int(batch["index"]) for batch in drawn) == rows.tolist()
    for batch in drawn:
        for name in batch.keys() - {"visual"}:  # of two views, either
            assert torch.equal(batch[name], everything[int(batch["index"])][name])


# -------------------------------------------------------------------- groups and shuffled pairs


def test_one_row_of_each_group_that_has_selected_rows(tmp_path: Path):
    path = write_pairs(tmp_path, group_size=4)
    rows = np.array([row for row in range(100) if row % 8 in (1, 3, 6)])  # 2 rows of even groups, 1 of odd ones
    data = selected(path, rows, rows_per_group="one", batch_size=5, **MEMORY)
    seen = set()
    for epoch in range(10):
        drawn = np.concatenate(epoch_rows(data, epoch))
        assert sorted(drawn // 4) == list(range(25))
        seen |= set(drawn.tolist())
    assert seen == set(rows)
    data.select_training_rows(rows[rows < 40])
    assert sorted(np.concatenate(epoch_rows(data)) // 4) == list(range(10))


def test_groups_of_several_data_sets_stay_apart(two_data_sets):
    rows = np.concatenate([np.arange(40, 60), np.arange(100, 109)])
    data = selected(two_data_sets, rows, rows_per_group="one", batch_size=1, **MEMORY)
    assert data.train_dataloader().source.identity["rows"] == [10, 5]
    assert sorted(row[0] // 2 for row in epoch_rows(data)) == [*range(20, 30), *range(50, 55)]


def test_partners_of_shuffled_pairs_are_selected_too(hundred_pairs):
    rows = SELECTIONS["scattered"]
    data, partner = selected(hundred_pairs, rows, shuffle_pairs=True, **MEMORY), {}
    for epoch in range(4):
        for batch in batches(data, epoch):
            for row, visual, audio in zip(batch["index"], batch["visual"][:, 0], batch["audio"][:, 0], strict=True):
                assert int(row) == int(visual) != int(audio)
                assert partner.setdefault(int(row), int(audio)) == int(audio)
    assert set(partner) == set(partner.values()) == set(rows)


def test_one_row_has_no_partner(hundred_pairs):
    data = selected(hundred_pairs, np.array([7]), shuffle_pairs=True, batch_size=1, **MEMORY)
    with pytest.raises(InputError, match="shuffle_pairs needs at least 2 rows to train on, found 1"):
        data.train_dataloader()


def test_partners_are_drawn_anew_for_each_selection(hundred_pairs):
    def partners(rows: np.ndarray) -> dict[int, int]:
        data = selected(hundred_pairs, rows, shuffle_pairs=True, batch_size=1, **MEMORY)
        return {int(batch["index"]): int(batch["audio"][0, 0]) for batch in batches(data)}

    all_rows, some = partners(np.arange(100)), partners(np.arange(90))
    assert any(some[row] != all_rows[row] for row in some if all_rows[row] in some)


# -------------------------------------------------------------------- changing the selection, and resuming


@EVERYWHERE
def test_another_selection_takes_effect_with_the_next_loader(hundred_pairs, place):
    data = selected(hundred_pairs, np.arange(50), **place)
    loader = data.train_dataloader()
    data.select_training_rows(np.arange(50, 100))
    assert max(row for batch in loader for row in batch["index"].tolist()) < 50
    assert min(row for batch in batches(data, 1) for row in batch["index"].tolist()) >= 50
    data.select_training_rows(None)
    assert data.selected_training_rows is None
    assert all(map(same, batches(data, 2), batches(selected(hundred_pairs, None, **place), 2)))


@EVERYWHERE
def test_a_state_resumes_with_the_next_batch(hundred_pairs, place):
    rows = SELECTIONS["scattered"]
    whole = batches(selected(hundred_pairs, rows, **place))
    for stop in range(1, len(whole)):
        loader = selected(hundred_pairs, rows, **place).train_dataloader()
        iterator = iter(loader)
        for _ in range(stop):
            next(iterator)
        resumed = selected(hundred_pairs, rows, **place).train_dataloader()
        resumed.load_state_dict(loader.state_dict())
        rest = list(resumed)
        assert len(rest) == len(whole) - stop
        assert all(map(same, rest, whole[stop:]))


@EVERYWHERE
@pytest.mark.parametrize("now", [None, np.arange(100)[::2] + 1, np.arange(100)], ids=["none", "other", "all"])
def test_another_selection_in_the_middle_of_an_epoch_is_refused(hundred_pairs, place, now):
    state = selected(hundred_pairs, np.arange(0, 100, 2), **place).train_dataloader().state_dict()
    loader = selected(hundred_pairs, now, **place).train_dataloader()
    message = r"batch 3 of an epoch with data selected_rows=.*: resume with the same callbacks .*EMATeacher, PairFilter"
    with pytest.raises(InputError, match=message):
        loader.load_state_dict({**state, "batch": 3})
    loader.load_state_dict(state)


def test_a_selection_with_as_many_groups_is_another_one(hundred_pairs):
    options = {"rows_per_group": "one", **MEMORY}
    first = selected(hundred_pairs, np.arange(0, 100, 2), **options).train_dataloader()
    every = selected(hundred_pairs, None, **options).train_dataloader()
    assert first.source.identity["rows"] == every.source.identity["rows"] == [50]
    message = r"data selected_rows=50 of 100 \(sha256 [0-9a-f]{16}\); now it is None"
    with pytest.raises(InputError, match=message):
        every.load_state_dict({**first.state_dict(), "batch": 1})
    with pytest.raises(InputError, match=r"selected_rows=None; now it is 50 of 100"):
        first.load_state_dict({**every.state_dict(), "batch": 1})


class SelectionOfEachEpoch(Callback):
    """Trains each epoch on another selection; as a callback that filters rows does."""

    selections = (np.arange(0, 100, 2), np.arange(60), None)

    def __init__(self) -> None:
        self.epoch = 0

    def on_fit_start(self, trainer, *_):
        trainer.datamodule.select_training_rows(self.selections[self.epoch])

    def on_train_epoch_end(self, trainer, *_):
        self.epoch = min(self.epoch + 1, 2)
        trainer.datamodule.select_training_rows(self.selections[self.epoch])

    def state_dict(self):
        return {"epoch": self.epoch}

    def load_state_dict(self, state):
        self.epoch = state["epoch"]


@pytest.mark.parametrize("place", [MEMORY, STREAM], ids=["memory", "stream"])
def test_a_trainer_resumes_in_the_middle_of_an_epoch_on_a_selection(hundred_pairs, tmp_path: Path, place):
    def fit(folder: Path, *callbacks: Callback, **options) -> None:
        fitter = trainer(folder, callbacks=[SelectionOfEachEpoch(), *callbacks], reload_dataloaders_every_n_epochs=1)
        data = ShardDataModule(hundred_pairs, batch_size=16, evaluation_batch_size=50, **place)
        fitter.fit(Recorder(folder), datamodule=data, **options)

    fit(whole := new(tmp_path / "whole"))
    expected = records(whole)
    assert [epoch for epoch, *_ in expected] == [0] * 3 + [1] * 3 + [2] * 6
    assert {row for epoch, _, rows in expected if epoch == 0 for row in rows} <= set(range(0, 100, 2))
    assert {row for epoch, _, rows in expected if epoch == 1 for row in rows} <= set(range(60))
    for stop in (2, 4, 8):
        folder = new(tmp_path / f"stop{stop}")
        with pytest.raises(KilledError):
            fit(folder, KillAt(stop))
        fit(folder, ckpt_path=folder / "killed.ckpt")
        assert records(folder) == expected


# -------------------------------------------------------------------- memory and files read


def test_embeddings_in_memory_are_not_copied(hundred_pairs):
    data = selected(hundred_pairs, np.arange(50), **MEMORY)
    table = data.train_dataloader().source.table
    assert table.rows is data._rows("train").rows


def test_a_stream_reads_no_block_without_selected_rows(hundred_pairs, monkeypatch):
    read, original = [], ShardReader.read
    monkeypatch.setattr(ShardReader, "read", lambda *a: read.append(a[2:5]) or original(*a))
    batches(selected(hundred_pairs, np.arange(42, 46), batch_size=4, **STREAM))
    assert {shard for shard, *_ in read} == {1}
    assert all(2 <= start < stop <= 6 for _, start, stop in read)
