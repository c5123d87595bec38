"""Who gets which row: the same batches on any machine, every row its turn."""

import numpy as np
import pytest

from lightning_ss2a.data.loading.batch_order import (
    MemoryPlan,
    StreamPlan,
    count_batches,
    derangement,
    draws,
    one_row_per_group,
    rank_slice,
    take_range,
    view_choices,
)
from lightning_ss2a.errors import InputError


def chunked(rows: int, chunk: int, offset: int = 0) -> np.ndarray:
    starts = np.arange(0, rows, chunk)
    return offset + np.stack([starts, np.minimum(starts + chunk, rows)], axis=1)


def expand(segments: np.ndarray) -> np.ndarray:
    return np.concatenate([np.arange(a, b) for a, b in segments] or [np.arange(0)])


def stream_batches(plan: StreamPlan, epoch: int, world_size: int = 1) -> list[np.ndarray]:
    """Global batches, put together from what each rank reads and orders."""
    sequence, batches = plan.sequence(epoch), []
    for window in range(plan.windows):
        ranks = [
            expand(plan.window_rows(sequence, window, rank, world_size))[
                plan.window_order(epoch, window, rank, world_size)
            ]
            for rank in range(world_size)
        ]
        batches += list(np.concatenate(ranks, axis=1))
    return batches


def memory_batches(plan: MemoryPlan, epoch: int) -> list[np.ndarray]:
    return list(plan.order(epoch).reshape(-1, plan.batch_size))


PLANS = {
    "memory": (MemoryPlan([1003], [1.0], 32, seed=3), memory_batches),
    "stream": (StreamPlan([chunked(1003, 50)], [1.0], 32, 200, seed=3), stream_batches),
    "stream, one chunk": (StreamPlan([chunked(1003, 5000)], [1.0], 32, 10**6, seed=3), stream_batches),
}


@pytest.mark.parametrize("name", PLANS)
def test_an_epoch_draws_each_row_at_most_once_and_leaves_out_less_than_a_batch_other_rows_each_time(name):
    plan, batches_of = PLANS[name]
    left_out = []
    for epoch in range(3):
        batches = batches_of(plan, epoch)
        assert len(batches) == plan.batches == 1003 // 32
        rows = np.concatenate(batches)
        assert len(np.unique(rows)) == len(rows)
        left_out.append(frozenset(range(1003)) - set(rows.tolist()))
        assert len(left_out[-1]) == 1003 % 32
    assert len(set(left_out)) == 3


@pytest.mark.parametrize("name", PLANS)
def test_order_is_a_function_of_seed_and_epoch(name):
    plan, batches_of = PLANS[name]
    assert np.array_equal(batches_of(plan, 1), batches_of(plan, 1))
    assert not np.array_equal(batches_of(plan, 1), batches_of(plan, 2))


@pytest.mark.parametrize("world_size", [2, 4, 32])
def test_streamed_global_batches_are_the_same_on_any_number_of_ranks(world_size):
    plan, _ = PLANS["stream"]
    assert np.array_equal(stream_batches(plan, 5), stream_batches(plan, 5, world_size))


def test_windows_hold_all_batches_and_are_found_by_batch():
    plan = StreamPlan([chunked(1003, 50)], [1.0], 8, 100, seed=0)
    seen = [batch for window in range(plan.windows) for batch in plan.window_batches(window)]
    assert seen == list(range(plan.batches))
    assert all(batch in plan.window_batches(plan.window_of(batch)) for batch in seen)


def test_a_streamed_batch_mixes_rows_from_all_over_its_window():
    plan = StreamPlan([chunked(4096, 256)], [1.0], 64, 2048, seed=0)
    chunks = [len(np.unique(batch // 256)) for batch in stream_batches(plan, 0)]
    assert min(chunks) >= 8


@pytest.mark.parametrize("weight", [0.25, 0.3, 1.0, 1.7, 3.0])
def test_weights_give_every_row_its_turn(weight):
    rows, epochs = 97, 40
    memory = MemoryPlan([rows, 50], [weight, 1.0], 1, seed=1)
    stream = StreamPlan([chunked(rows, 10), chunked(50, 7, offset=rows)], [weight, 1.0], 1, 40, seed=1)
    for plan, batches_of in ((memory, memory_batches), (stream, stream_batches)):
        total = np.zeros(rows + 50, int)
        for epoch in range(epochs):
            drawn = np.bincount(np.concatenate(batches_of(plan, epoch)), minlength=rows + 50)
            assert drawn.max() <= np.ceil(weight)
            total += drawn
        # An epoch may leave out one row for the sake of a constant length.
        assert abs(total[:rows].mean() - weight * epochs) <= 1
        assert abs(total[rows:].mean() - epochs) <= 1


def test_draws_of_consecutive_epochs_follow_each_other():
    for epoch in range(20):
        assert draws(101, 0.3, epoch).stop == draws(101, 0.3, epoch + 1).start


def test_data_sets_are_mixed_in_proportion_in_every_window():
    plan = StreamPlan([chunked(8000, 100), chunked(2000, 100, offset=8000)], [1.0, 1.0], 100, 2000, seed=0)
    sequence = plan.sequence(0)
    shares = [np.mean(expand(plan.window_rows(sequence, w, 0, 1)) >= 8000) for w in range(plan.windows)]
    assert min(shares) > 0.1
    assert max(shares) < 0.3


def test_take_range_is_a_slice():
    segments, rng = np.array([[10, 15], [3, 4], [20, 20], [100, 110]]), np.random.default_rng(0)
    rows = expand(segments)
    for _ in range(100):
        start, stop = sorted(rng.integers(0, len(rows) + 1, 2))
        assert np.array_equal(expand(take_range(segments, start, stop)), rows[start:stop])


def test_too_little_data_and_uneven_ranks_are_named_with_numbers():
    with pytest.raises(InputError, match=r"batch_size is 64 rows, but an epoch draws only 60 .* of at most 60$"):
        count_batches([40, 80], [1.0, 0.25], 64)
    for rows, weights in (([40], [0.0]), ([3], [0.25])):
        with pytest.raises(InputError, match=r"draws only 0 .*; raise data\.weights, or train on more rows$"):
            count_batches(rows, weights, 64)
    with pytest.raises(InputError, match="33 rows, 2 processes"):
        rank_slice(33, 0, 2)


def test_views_depend_on_the_batch_not_on_where_reading_starts():
    everything = view_choices(0, 3, 5, 0, start=0, stop=8, batch_size=64)
    assert np.array_equal(view_choices(0, 3, 5, 0, start=6, stop=8, batch_size=64), everything[6:])
    assert set(np.unique(everything)) == {0, 1, 2, 3, 4}
    assert not np.array_equal(everything, view_choices(0, 3, 5, 1, start=0, stop=8, batch_size=64))


def test_one_row_per_group():
    groups = np.array([7, 7, 3, 7, 9, 3])
    assert one_row_per_group(groups, np.zeros(3)).tolist() == [0, 2, 4]
    assert one_row_per_group(groups, np.full(3, 0.999)).tolist() == [3, 5, 4]


def test_derangement_moves_every_row():
    partner = derangement(1000, seed=0)
    assert sorted(partner) == list(range(1000))
    assert not np.any(partner == np.arange(1000))
