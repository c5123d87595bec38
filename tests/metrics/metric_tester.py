"""One set of checks for every metric of the project, after torchmetrics' own MetricTester."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics import Metric

from tests.distributed import run_distributed

UNEVEN = (5, 0, 1, 11, 3)  # batches, an empty one among them
BY_RANK = (((4, 1), (0, 15)), ((20,), ()))  # batches of two ranks; the second of the last case never updates

Values = dict[str, Tensor]


def values_of(metric: Metric) -> Values:
    """Everything that a metric reports, as a dict."""
    value = metric.compute()
    values = dict(value) if isinstance(value, dict) else {"value": value}
    if getattr(metric, "num_classes", None):
        values["per_class"] = metric.per_class()
    if getattr(metric, "most_sources", None):
        values |= {name: getattr(metric, name)() for name in ("per_source_count", "precision", "recall")}
    return values


def update_in_batches(metric: Metric, inputs: dict[str, Tensor], sizes: tuple[int, ...], start: int = 0) -> Metric:
    """Update with consecutive batches of the given sizes."""
    for size in sizes:
        metric.update(**{name: tensor[start : start + size] for name, tensor in inputs.items()})
        start += size
    return metric


def assert_same_bits(found: Values, expected: Values) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name} differs")


def values_of_rank(metric: Metric, inputs: dict[str, Tensor], splits: Any) -> list[Values]:
    """On each rank: the values for every split, from this rank's batches of it."""
    values = []
    for split in splits:
        metric.reset()
        start = sum(sum(sizes) for sizes in split[: dist.get_rank()])
        update_in_batches(metric, inputs, split[dist.get_rank()], start)
        if metric.update_called or split[dist.get_rank()]:
            values.append(values_of(metric))
        else:
            with pytest.warns(UserWarning, match="before the ``update``"):
                values.append(values_of(metric))
    return values


class MetricChecks:
    """Inherit, give the three attributes, and all checks of one process run.

    ``inputs`` holds 20 rows; ``reference`` computes the values independently of the package.
    """

    make: Callable[[], Metric]
    inputs: dict[str, Tensor]
    reference: Callable[[dict[str, Tensor]], dict[str, float | list[float]]]
    tolerance = 1e-6

    def in_one_batch(self) -> Values:
        return values_of(update_in_batches(self.make(), self.inputs, (20,)))

    def test_equals_the_independent_reference(self):
        found = self.in_one_batch()
        for name, expected in type(self).reference(self.inputs).items():
            expected = torch.tensor(expected, dtype=torch.float32)
            torch.testing.assert_close(
                found[name], expected, rtol=self.tolerance, atol=self.tolerance, equal_nan=True, msg=name
            )

    def test_uneven_batches_give_the_same_bits(self):
        assert_same_bits(values_of(update_in_batches(self.make(), self.inputs, UNEVEN)), self.in_one_batch())

    def test_order_of_rows_gives_the_same_bits(self):
        order = torch.randperm(20, generator=torch.Generator().manual_seed(3))
        shuffled = {name: tensor[order] for name, tensor in self.inputs.items()}
        assert_same_bits(values_of(update_in_batches(self.make(), shuffled, UNEVEN)), self.in_one_batch())

    def test_pickle_copy_and_clone_carry_on(self):
        half = {name: tensor[:10] for name, tensor in self.inputs.items()}
        metric = update_in_batches(self.make(), half, (10,))
        for twin in (pickle.loads(pickle.dumps(metric)), copy.deepcopy(metric), metric.clone()):
            update_in_batches(twin, self.inputs, (10,), start=10)
            assert_same_bits(values_of(twin), self.in_one_batch())

    def test_forward_accumulates(self):
        metric = self.make()
        for start in (0, 7):
            stop = start + 7 if start == 0 else 20
            metric(**{name: tensor[start:stop] for name, tensor in self.inputs.items()})
        assert_same_bits(values_of(metric), self.in_one_batch())

    def test_reset_forgets(self):
        metric = update_in_batches(self.make(), self.inputs, (20,))
        metric.compute()
        metric.reset()
        update_in_batches(metric, self.inputs, (20,))
        assert_same_bits(values_of(metric), self.in_one_batch())

    @pytest.mark.parametrize(
        "convert", [lambda metric: metric.set_dtype(torch.bfloat16), lambda metric: metric.to(torch.float16)]
    )
    def test_no_other_dtype_rounds_the_states(self, convert: Callable[[Metric], Metric]):
        half = {name: tensor[:10] for name, tensor in self.inputs.items()}
        metric = convert(update_in_batches(convert(self.make()), half, (10,)))
        assert_same_bits(values_of(update_in_batches(metric, self.inputs, (10,), start=10)), self.in_one_batch())
        metric.reset()
        assert_same_bits(values_of(update_in_batches(metric, self.inputs, (20,))), self.in_one_batch())

    def test_nothing_goes_into_a_checkpoint(self):
        assert update_in_batches(self.make(), self.inputs, (20,)).state_dict() == {}

    def test_no_rows_give_nan(self):
        for value in values_of(update_in_batches(self.make(), self.inputs, (0,))).values():
            assert value.isnan().all()
        with pytest.warns(UserWarning, match="before the ``update``"):
            assert all(value.isnan().all() for value in values_of(self.make()).values())

    def test_inputs_are_left_alone(self):
        before = {name: tensor.clone() for name, tensor in self.inputs.items()}
        self.in_one_batch()
        assert all(torch.equal(before[name], tensor) for name, tensor in self.inputs.items())

    def test_values_are_float32(self):
        assert {value.dtype for value in self.in_one_batch().values()} == {torch.float32}

    def test_metric_says_what_it_is(self):
        assert type(self.make()).full_state_update is False
        assert type(self.make()).is_differentiable is False
        with pytest.raises(RuntimeError, match="higher_is_better"):
            self.make().higher_is_better = True


class MetricTester(MetricChecks):
    """All checks, those of two processes among them."""

    def test_two_processes_give_the_same_bits(self):
        expected = self.in_one_batch()
        for ranks in run_distributed(values_of_rank, self.make(), self.inputs, BY_RANK):
            for found in ranks:
                assert_same_bits(found, expected)
