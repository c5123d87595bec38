"""Training batches of ragged rows: the same as row by row, and the host never waits for the device."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lightning_ss2a.data.loading.batch_order import MemoryPlan
from lightning_ss2a.data.loading.in_memory import MemoryRows, MemorySource
from lightning_ss2a.data.loading.tensors import (
    Batch,
    RaggedRows,
    count,
    gather,
    host_lengths,
    longest_rows,
    move,
    to_batch,
)

BATCH = 4
META = torch.device("meta")
SOURCES = {
    "all rows": {},
    "selected": {"selected": np.array([0, 2, 3, 7, 11, 12, 15, 18, 19])},
    "one row of each group": {"by_group": True},
    "selected groups": {"by_group": True, "selected": np.arange(1, 20)},
    "shuffled pairs": {"shuffle_pairs": True},
    "half of the batch": {"share": slice(2, 4)},
}
EVERY_SOURCE = pytest.mark.parametrize("options", SOURCES.values(), ids=SOURCES)


def ragged(lengths: list[int], dtype: torch.dtype, *inner: int, seed: int = 0) -> RaggedRows:
    values = torch.randint(0, 100, (sum(lengths), *inner), generator=torch.Generator().manual_seed(seed)).to(dtype)
    return RaggedRows(values, torch.tensor([0, *lengths]).cumsum(0))


def listed(column: RaggedRows) -> list[Tensor]:
    return [column.values[a:b] for a, b in zip(column.offsets[:-1], column.offsets[1:], strict=True)]


def row_by_row(column: RaggedRows, index: Tensor, fill: int) -> tuple[Tensor, Tensor]:
    """What batches of ragged rows are, computed as ``take`` and ``padded`` used to."""
    rows = [listed(column)[i] for i in index.tolist()]
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
    valid = torch.arange(max([1, *lengths.tolist()])) < lengths[:, None]
    items = column.values.new_full((*valid.shape, *column.values.shape[1:]), fill)
    items[valid] = torch.cat([column.values[:0], *rows])
    return items, valid


def exactly(found: Tensor, expected: Tensor) -> bool:
    return found.dtype == expected.dtype and found.shape == expected.shape and torch.equal(found, expected)


def scenes(seed: int, rows: int = 20) -> dict:
    random = np.random.default_rng(seed)
    return {
        "sources": ragged(random.integers(1, 6, rows).tolist(), torch.float16, 3, seed=seed),
        "classes": ragged((random.integers(0, 5, rows) * (seed % 3 > 0)).tolist(), torch.int32, seed=seed),  # or none
        "audio": torch.arange(rows * 2).reshape(rows, 2).half(),
        "global_visual": torch.arange(rows * 6).reshape(rows, 3, 2).half(),
        "pair_origin": torch.arange(rows).byte(),
        "group": torch.arange(rows) // 3,
        "key": np.array([b"row"] * rows),
    }


def source(
    rows: dict,
    bounds: tuple[int, ...] = (0, 8, 20),
    selected: np.ndarray | None = None,
    share: slice = slice(0, BATCH),
    **options: bool,
) -> MemorySource:
    table = MemoryRows(rows, {"global_visual": 3}, np.array(bounds))
    table = table if selected is None else table.select(selected)
    units = table.units(options.get("by_group", False))
    return MemorySource(table, MemoryPlan(units, [1.0] * len(units), BATCH, seed=0), share, **options)


# -------------------------------------------------------------------- values


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 4), min_size=1, max_size=8),
    numbers=st.lists(st.integers(0, 7), max_size=8),
    kind=st.sampled_from([(torch.float16, 3), (torch.float32, 2, 2), (torch.float32,), (torch.int32,), (torch.int64,)]),
)
def test_padded_rows_are_those_of_a_loop(lengths, numbers, kind):
    column, index = ragged(lengths, *kind), torch.tensor([n % len(lengths) for n in numbers], dtype=torch.int64)
    fill = 0 if kind[0].is_floating_point else -1
    expected = row_by_row(column, index, fill)
    (longest,) = longest_rows(host_lengths({"x": column}), index[None].numpy())
    assert all(map(exactly, column.take_padded(index, longest["x"], fill), expected))
    assert all(map(exactly, column.take(index).padded(fill), expected))
    every = torch.arange(len(lengths))
    assert all(map(exactly, column.padded(fill), row_by_row(column, every, fill)))


def test_what_is_not_a_number_stays_in_its_row():
    column = RaggedRows(torch.tensor([1.0, torch.nan, torch.inf]), torch.tensor([0, 1, 3]))
    items, _ = column.take_padded(torch.tensor([0, 0]), 2)
    assert items.tolist() == [[1, 0], [1, 0]]


@EVERY_SOURCE
@pytest.mark.parametrize("seed", range(4))
def test_training_batches_are_those_of_a_loop(options, seed):
    rows, drawn = scenes(seed), []
    for batch in source(rows, **options).iterate(epoch=seed, first=0):
        check(batch, rows)
        assert ("shuffle_pairs" in options) != exactly(batch["audio"], rows["audio"][batch["index"]].float())
        drawn += batch["index"].tolist()
    assert len(drawn) == len(set(drawn)) > 0
    assert set(drawn) <= set(options.get("selected", np.arange(20)).tolist())


def check(batch: Batch, rows: dict) -> None:
    items, valid = row_by_row(rows["sources"], batch["index"], fill=0)
    assert exactly(batch["valid"], valid)
    assert exactly(batch["sources"], items.float())
    assert exactly(batch["classes"], row_by_row(rows["classes"], batch["index"], fill=-1)[0].long())
    assert exactly(batch["pair_origin"], batch["index"])
    shown = rows["global_visual"][batch["index"]].float() == batch["global_visual"][:, None]
    assert shown.all(-1).any(1).all()
    assert batch.keys() == rows.keys() - {"group", "key"} | {"valid", "index"}


def test_a_batch_is_padded_to_its_own_longest_row():
    rows = scenes(1)
    widths = {batch["classes"].shape[1] for batch in source(rows).iterate(0, 0)}
    assert len(widths) > 1
    (one,) = longest_rows({"x": np.array([0, 5, 0])}, np.array([[0, 2]]))
    assert one == {"x": 1}
    assert longest_rows({"x": np.array([0, 5])}, np.zeros((0, 2), np.int64)) == []


def test_a_batch_without_rows():
    rows = {name: column for name, column in scenes(1).items() if name != "key"}
    none = torch.zeros(0, dtype=torch.int64)
    batch = gather(rows, none, {"global_visual": none}, {"sources": 1, "classes": 1})
    assert batch["sources"].shape == (0, 1, 3)
    assert batch["valid"].shape == batch["classes"].shape == (0, 1)


# -------------------------------------------------------------------- waiting


class WaitingError(AssertionError):
    pass


class NothingWaits(TorchDispatchMode):
    """Fails on what makes the host wait for a GPU: a value or a shape from there, masks as indices, any copy."""

    READS = ("_local_scalar_dense", "nonzero", "masked_select", "repeat_interleave", "equal", "unique")

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name, kwargs = function.overloadpacket.__name__, kwargs or {}
        indices = args[1] if name in ("index", "index_put", "index_put_") else ()
        if name.startswith(self.READS) or any(i is not None and i.dtype == torch.bool for i in indices):
            raise WaitingError(name)
        result = function(*args, **kwargs)
        if any(isinstance(x, Tensor) and x.device != META for x in tree_leaves((args, kwargs, result))):
            raise WaitingError(f"{name} of a tensor of the host")
        return result


@EVERY_SOURCE
def test_batches_are_made_without_waiting_for_the_device(options, monkeypatch):
    rows = scenes(1)
    expected = list(source(rows, **options).iterate(0, 0))
    here = source(rows, **options)
    # The meta device has no values at all: what needs one fails there. What is read once a table comes from the host.
    for name in ("lengths", "groups", "numbers"):
        monkeypatch.setattr(MemoryRows, name, getattr(here.table, name))
    there = MemoryRows(move(rows, META), here.table.views, here.table.bounds, here.table.subset)
    batches = MemorySource(there, here.plan, here.share, here.by_group, here.shuffle_pairs).iterate(0, 0)
    found = [next(batches)]  # its numbers go to the device with the first batch
    with NothingWaits():
        found += list(batches)
    assert len(found) == len(expected) > 1
    for one, other in zip(found, expected, strict=True):
        assert {name: (x.shape, x.dtype) for name, x in one.items()} == {
            name: (x.shape, x.dtype) for name, x in other.items()
        }
        assert {x.device for x in one.values()} == {META}


WAITS = {
    "take": lambda rows, index: rows["sources"].take(index),
    "padded": lambda rows, index: rows["sources"].padded(),
    "to_batch": lambda rows, index: to_batch({"classes": rows["classes"]}),
    "put by mask": lambda rows, index: torch.zeros_like(rows["audio"]).index_put_(
        [rows["audio"][:, 0] > 0], rows["audio"]
    ),
    "mask": lambda rows, index: rows["audio"][rows["audio"] > 0],
    "value": lambda rows, index: int(index[0]),
    "slice": lambda rows, index: rows["audio"][index[0] : index[1]],
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_waiting_would_be_noticed(wait):
    rows, index = move(scenes(1), META), torch.arange(count(scenes(1)), device=META)
    with NothingWaits(), pytest.raises(WaitingError):
        wait(rows, index)


@pytest.mark.parametrize("wait", [lambda index: index + 1, lambda index: index.to(META)], ids=["computed", "moved"])
def test_host_tensors_would_be_noticed(wait):
    index = torch.arange(4)
    with NothingWaits(), pytest.raises(WaitingError, match="tensor of the host"):
        wait(index)
