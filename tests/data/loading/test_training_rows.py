"""Training rows by their numbers: columns, subsets as evaluation reads them, and what cannot be selected."""

import numpy as np
import pytest
import torch

from lightning_ss2a.data import ShardReader
from lightning_ss2a.data.loading.row_selection import checked_rows, selection_identity
from lightning_ss2a.errors import InputError
from tests.data.loading.test_datamodule import DEVICE, EVERYWHERE, MEMORY, STREAM, module
from tests.data.loading.test_row_selection import SELECTIONS, batches, same, selected


@EVERYWHERE
def test_evaluation_reads_all_rows_whatever_is_selected(hundred_pairs, place):
    plain, chosen = selected(hundred_pairs, None, **place), selected(hundred_pairs, np.arange(30), **place)
    batches(chosen)
    for name in ("training_rows_loader", "val_dataloader", "predict_dataloader"):
        ours, theirs = list(getattr(chosen, name)()), list(getattr(plain, name)())
        assert len(ours) == len(theirs)
        assert all(map(same, ours, theirs))


@pytest.mark.parametrize("place", [MEMORY, STREAM, DEVICE, {**MEMORY, "rows_per_group": "one"}])
def test_a_subset_is_read_in_order_with_the_mean_of_its_views(hundred_pairs, place):
    rows = SELECTIONS["scattered"]
    data = selected(hundred_pairs, np.arange(0, 100, 5), **place)
    read = list(data.training_rows_subset_loader(rows))
    assert [len(batch["key"]) for batch in read[:-1]] == [5] * (len(read) - 1)
    assert torch.cat([batch["index"] for batch in read]).tolist() == rows.tolist()
    assert [key for batch in read for key in batch["key"]] == [f"row{row}" for row in rows]
    assert torch.cat([batch["visual"][:, 0] for batch in read]).tolist() == rows.tolist()
    assert torch.cat([batch["visual"][:, 1] for batch in read]).unique().tolist() == [1.0]  # mean of views 0, 1, 2
    assert torch.cat([batch["group"] for batch in read]).tolist() == (rows // 2).tolist()


@EVERYWHERE
def test_a_subset_is_dealt_to_the_ranks_with_empty_batches_at_the_end(hundred_pairs, place):
    rows = np.arange(3, 100, 15)  # two batches
    ranks = [list(module(hundred_pairs, r, 3, **place).training_rows_subset_loader(rows)) for r in range(3)]
    assert [[batch["index"].tolist() for batch in rank] for rank in ranks] == [[[3, 18, 33, 48, 63]], [[78, 93]], [[]]]
    assert ranks[2][0]["visual"].shape == (0, 6)
    assert list(module(hundred_pairs, **place).training_rows_subset_loader(rows[:0])) == []


@EVERYWHERE
def test_a_subset_of_several_data_sets(two_data_sets, place):
    rows = np.array([0, 99, 100, 159])
    (batch,) = module(two_data_sets, **place).training_rows_subset_loader(rows)
    assert batch["key"] == ["row0", "row99", "row1000", "row1059"]
    assert batch["index"].tolist() == rows.tolist()


@EVERYWHERE
@pytest.mark.parametrize("loaded", [False, True], ids=["on disk", "loaded"])
def test_columns_of_all_training_rows(two_data_sets, place, loaded):
    data = selected(two_data_sets, np.arange(50), **place)
    if loaded:
        data.train_dataloader()
    columns = data.training_columns(["key", "pair_origin", "class_index", "group", "audio"])
    numbers = np.r_[:100, 1000:1060]
    assert list(columns) == ["key", "pair_origin", "class_index", "group", "audio"]
    assert columns["key"].dtype.kind == "S"
    assert columns["key"].tolist() == [f"row{number}".encode() for number in numbers]
    assert (columns["pair_origin"].dtype, columns["class_index"].dtype) == (torch.uint8, torch.int32)
    assert columns["pair_origin"].tolist() == (numbers % 2).tolist()
    assert columns["class_index"].tolist() == (numbers % 3).tolist()
    assert columns["group"].tolist() == (numbers // 2).tolist()
    assert columns["audio"][:, 0].tolist() == numbers.tolist()


def test_columns_are_read_alone_where_rows_are_not_loaded_and_not_read_where_they_are(hundred_pairs, monkeypatch):
    read, original = [], ShardReader.read
    monkeypatch.setattr(ShardReader, "read", lambda *a: read.append(list(a[-1])) or original(*a))
    data = module(hundred_pairs, **MEMORY)
    data.training_columns(["pair_origin", "key"])
    assert all(names == ["pair_origin", "key"] for names in read)
    data.train_dataloader()
    read.clear()
    data.training_columns(["pair_origin", "key"])
    assert not read
    with pytest.raises(InputError, match=r"no column 'pair_orgin', only .*pair_origin"):
        data.training_columns(["pair_orgin"])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no training row is selected"),
        ([3, 100], "training row 100 does not exist: the data has rows 0 to 99"),
        ([-1, 3], "training row -1 does not exist"),
        ([3, 3], "strictly increasing, but 3 comes after 3"),
        ([1, 5, 4], "strictly increasing, but 4 comes after 5"),
        ([True, False], r"list of row numbers \(integers\), found bool \[2\]; np.flatnonzero"),
        ([0.5], r"found float64 \[1\]"),
        ([[1, 2]], r"found int64 \[1, 2\]"),
    ],
)
def test_rows_that_cannot_be_selected_are_named(hundred_pairs, rows, message):
    data = module(hundred_pairs, **MEMORY)
    rows = np.array(rows)
    with pytest.raises(InputError, match=message) as caught:
        data.select_training_rows(rows)
    assert "\n" not in str(caught.value)
    assert data.selected_training_rows is None
    if len(rows):
        with pytest.raises(InputError, match=message):
            data.training_rows_subset_loader(rows)


def test_an_empty_list_is_a_subset_of_no_rows(hundred_pairs):
    assert len(module(hundred_pairs, **MEMORY).training_rows_subset_loader([])) == 0


@EVERYWHERE
def test_too_few_rows_for_a_batch_say_that_a_selection_is_active(hundred_pairs, place):
    data = selected(hundred_pairs, np.arange(10), **place)
    with pytest.raises(InputError, match=r"draws only 10 .*; 10 of 100 training rows are selected$") as caught:
        data.train_dataloader()
    assert "\n" not in str(caught.value)


def test_a_selection_is_a_copy_that_nobody_writes_to(hundred_pairs):
    data, rows = module(hundred_pairs, **MEMORY), np.arange(50)
    data.select_training_rows(rows)
    rows += 1
    assert data.selected_training_rows.tolist() == list(range(50))
    with pytest.raises(ValueError, match="read-only"):
        data.selected_training_rows[0] = 1


def test_digests_tell_rows_apart_whatever_their_type():
    rows = checked_rows(np.array([1, 2, 5], np.int32), 10)
    assert rows.dtype == np.int64
    assert selection_identity(rows, 10) == selection_identity(np.array([1, 2, 5]), 10)
    assert selection_identity(rows, 10) != selection_identity(np.array([1, 2, 6]), 10)
    assert selection_identity(None, 10) == {}
