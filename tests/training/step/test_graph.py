"""A replayed function is the function: the same values and draws, on static tensors, captured once for each shape."""

import pytest
import torch

from lightning_ss2a.errors import InputError
from lightning_ss2a.training.step.graph import MOST_GRAPHS, WARM_UP, Replayed, StandIn


class Counting(StandIn):
    """Counts what is captured; a real graph computes nothing then."""

    def __init__(self) -> None:
        self.warm_ups = self.captures = 0

    def warm_up(self, function, inputs):
        self.warm_ups += 1
        return super().warm_up(function, inputs)

    def capture(self, function, inputs):
        self.captures += 1
        return super().capture(function, inputs)


def noisy(inputs):
    return {"sum": inputs["x"].sum() + inputs["weight"], "noise": torch.rand(2)}, [inputs["x"] * 2]


def make_inputs(number: int, rows: int = 3) -> dict[str, torch.Tensor]:
    return {"x": torch.full((rows,), float(number)), "weight": torch.tensor(number / 10)}


def test_values_and_draws_are_those_of_the_function():
    replayed = Replayed(noisy, StandIn())
    for number in range(WARM_UP + 4):
        torch.manual_seed(number)
        terms, (doubled,) = replayed(make_inputs(number))
        torch.manual_seed(number)
        expected, (twice,) = noisy(make_inputs(number))
        assert torch.equal(terms["sum"], expected["sum"])
        assert torch.equal(terms["noise"], expected["noise"])
        assert torch.equal(doubled, twice)


def test_warm_up_calls_are_calls_and_capturing_computes_nothing():
    calls = []
    recorder = Counting()
    replayed = Replayed(lambda inputs: calls.append(1) or inputs["x"] + 1, recorder)
    for number in range(WARM_UP + 2):
        replayed(make_inputs(number))
        assert len(calls) == number + 1  # each call computes once: nothing is traced of warming up
    assert (recorder.warm_ups, recorder.captures) == (WARM_UP, 1)


def test_outputs_stay_in_place_and_inputs_are_copied():
    replayed = Replayed(noisy, StandIn())
    for number in range(WARM_UP):
        replayed(make_inputs(number))
    mine = make_inputs(7)
    first = replayed(mine)[1][0]
    mine["x"].fill_(-1)
    assert first.tolist() == [14.0] * 3
    second = replayed(make_inputs(8))[1][0]
    assert second is first
    assert first.tolist() == [16.0] * 3


def test_warm_up_and_capture_see_tensors_that_lie_alike():
    """A compiled function is compiled anew for other strides: not while it is captured."""
    seen = set()
    replayed = Replayed(lambda inputs: seen.add(inputs["x"].stride()) or inputs["x"] + 1, StandIn())
    for strided in (torch.ones(4, 6)[:, :3], torch.ones(3, 4).T, torch.ones(4, 1).expand(4, 3)):
        for _ in range(WARM_UP + 2):
            assert torch.equal(replayed({"x": strided}), torch.full((4, 3), 2.0))
    assert seen == {(3, 1)}


def test_each_shape_has_a_graph_of_its_own_and_only_so_many_have_one():
    recorder = Counting()
    replayed = Replayed(noisy, recorder)
    for rows in range(1, MOST_GRAPHS + 3):
        for number in range(WARM_UP + 1):
            terms, _ = replayed(make_inputs(number, rows))
            assert terms["sum"].item() == pytest.approx(number * rows + number / 10)
    assert recorder.captures == MOST_GRAPHS


def test_what_no_graph_can_hold_is_one_line():
    class Refusing(StandIn):
        def capture(self, function, inputs):
            raise RuntimeError("CUDA error: operation not permitted\nwhen stream is capturing")

    replayed = Replayed(noisy, Refusing())
    for number in range(WARM_UP):
        replayed(make_inputs(number))
    with pytest.raises(InputError, match=r"model.step=graph: .*\(CUDA error: .* capturing\); use model.step=compiled"):
        replayed(make_inputs(0))
