"""The search space: grids, probes, points, and what is said of spaces that are none."""

from typing import Any

import optuna
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonargparse import ArgumentParser

from lightning_ss2a.errors import InputError
from lightning_ss2a.sweeps.space import Parameter, Point, SearchSpace, arguments

CONDITIONAL = {
    "kind": Parameter(choices=["plain", "deep", None]),
    "deep.layers": Parameter(low=1, high=3, when={"kind": "deep"}),
    "deep.width": Parameter(choices=[[8, 8], [16]], when={"kind": ["deep"], "deep.layers": [2, 3]}),
}
SIZES = {"small": {"model.width": 64, "model.layers": [1]}, "large": {"model.width": 512, "model.layers": [1, 2]}}

numbers = st.integers(1, 40) | st.floats(1e-6, 1e3, allow_nan=False)
texts = st.text("abcxyz_", min_size=1, max_size=6)
plain = numbers | texts | st.booleans() | st.none() | st.lists(st.integers(1, 99), max_size=3)


def distinct(values: list[Any]) -> list[Any]:
    kept: list[Any] = []
    return [value for value in values if value not in kept and not kept.append(value)]


@st.composite
def parameters(draw: st.DrawFn) -> dict[str, Parameter]:
    """One to four parameters; some of which depend on an earlier one."""
    found: dict[str, Parameter] = {}
    for number in range(draw(st.integers(1, 4))):
        when = None
        if found and draw(st.booleans()):
            other = draw(st.sampled_from(list(found)))
            options = found[other].options
            when = {other: draw(st.sampled_from(list(options))) if options else found[other].low}
        if draw(st.booleans()):
            choices = distinct(draw(st.lists(plain, min_size=1, max_size=3)))
            parameter = Parameter(choices=choices, when=when)
        else:
            low, count, step = draw(st.integers(-3, 3)), draw(st.integers(0, 3)), draw(st.sampled_from([1, 2, 0.1]))
            parameter = Parameter(low=low, high=low + count * step, step=step, when=when)
        found[f"p{number}"] = parameter
    return found


@settings(max_examples=80, deadline=None)
@given(parameters())
def test_points_of_a_grid_are_unique_and_can_be_drawn(made: dict[str, Parameter]):
    space = SearchSpace(made)
    grid = space.grid()
    assert len({repr(sorted(point.items())) for point in grid}) == len(grid)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for point in grid[:10]:
        assert space.checked_point(point, "first") == point
        study.enqueue_trial(point)
        assert space.suggest(study.ask()) == point


@settings(max_examples=80, deadline=None)
@given(parameters())
def test_probes_are_valid_and_have_every_choice_that_there_is(made: dict[str, Parameter]):
    space = SearchSpace(made)
    probes, grid = space.probes(), space.grid()
    for name, parameter in made.items():
        there = {point[name] for point in grid if name in point}
        seen = {point[name] for point in probes if name in point}
        assert seen <= there | {float(parameter.high or 0)}
        if parameter.options is not None:
            assert seen == there
    for point in probes:
        assert all(space.is_active(name, point) == (name in point) for name in made)
    assert len(probes) <= sum(len(p.options) if p.options else 2 for p in made.values())


@settings(max_examples=60, deadline=None)
@given(plain)
def test_arguments_parse_back_to_the_values(value: Any):
    (argument,) = arguments({"x": value})
    if not isinstance(value, str):
        parser = ArgumentParser()
        parser.add_argument("--x", type=Any)
        assert parser.parse_args([argument]).x == value
    else:
        assert argument == f"--x={value}"


@settings(max_examples=60, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_arrive_as_they_are(value: float):
    parser = ArgumentParser(parser_mode="omegaconf")
    parser.add_argument("--x", type=float)
    assert parser.parse_args(arguments({"x": value})).x == value


# ---------------------------------------------------------------- grids


def test_a_grid_varies_the_last_parameter_fastest():
    space = SearchSpace({"a": Parameter(choices=[1, 2]), "b": Parameter(low=1, high=3)})
    assert space.grid() == [{"a": a, "b": b} for a in (1, 2) for b in (1, 2, 3)]


def test_inactive_parameters_are_left_out_and_do_not_multiply():
    expected = [
        {"kind": "plain"},
        {"kind": "deep", "deep.layers": 1},
        *({"kind": "deep", "deep.layers": n, "deep.width": w} for n in (2, 3) for w in ("[8, 8]", "[16]")),
        {"kind": None},
    ]
    assert SearchSpace(CONDITIONAL).grid() == expected


@pytest.mark.parametrize(
    ("low", "high", "step", "expected"),
    [
        (0.1, 0.5, 0.1, [0.1, 0.2, 0.3, 0.4, 0.5]),
        (0.0, 1.0, 0.3, [0.0, 0.3, 0.6, 0.9]),
        (1e-6, 3e-6, 1e-6, [1e-6, 2e-6, 3e-6]),
        (2, 9, 3, [2, 5, 8]),
        (0.5, 0.5, 0.1, [0.5]),
    ],
)
def test_steps(low, high, step, expected):
    assert [point["x"] for point in SearchSpace({"x": Parameter(low=low, high=high, step=step)}).grid()] == expected


def test_types_of_ranges():
    space = SearchSpace({"a": Parameter(low=1, high=2), "b": Parameter(low=1, high=2, step=1.0)})
    point = space.grid()[0]
    assert (type(point["a"]), type(point["b"])) == (int, float)


# ---------------------------------------------------------------- points


def test_assignments_undo_labels_and_open_settings():
    space = SearchSpace({**CONDITIONAL, "size": Parameter(settings=SIZES)})
    point: Point = {"kind": "deep", "deep.layers": 2, "deep.width": "[8, 8]", "size": "large"}
    assert space.assignments(point) == {"kind": "deep", "deep.layers": 2, "deep.width": [8, 8], **SIZES["large"]}
    assert space.paths() == {"kind", "deep.layers", "deep.width", "model.width", "model.layers"}


def test_lists_are_labelled_for_the_study_and_given_to_the_run():
    space = SearchSpace({"widths": Parameter(choices=[[1, 2], {"a": 1}, "text", 3])})
    assert [point["widths"] for point in space.grid()] == ["[1, 2]", '{"a": 1}', "text", 3]
    given_to = [arguments(space.assignments(point))[0] for point in space.grid()]
    assert [yaml.safe_load(text.split("=")[1]) for text in given_to] == [[1, 2], {"a": 1}, "text", 3]
    assert space.checked_point({"widths": [1, 2]}, "first") == {"widths": "[1, 2]"}


def test_probes_have_both_ends_and_what_a_parameter_depends_on():
    assert SearchSpace(CONDITIONAL).probes() == [
        {"kind": "plain"},
        {"kind": "deep", "deep.layers": 1},
        {"kind": None},
        {"kind": "deep", "deep.layers": 3, "deep.width": "[8, 8]"},
        {"kind": "deep", "deep.layers": 2, "deep.width": "[8, 8]"},
        {"kind": "deep", "deep.layers": 2, "deep.width": "[16]"},
    ]


def test_suggestions_stay_in_the_space():
    space = SearchSpace({**CONDITIONAL, "rate": Parameter(low=1e-5, high=1e-1, log=True)})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    points = [space.suggest(study.ask()) for _ in range(30)]
    assert all(1e-5 <= point["rate"] <= 1e-1 for point in points)
    assert {point["kind"] for point in points} == {"plain", "deep", None}
    assert all(("deep.layers" in point) == (point["kind"] == "deep") for point in points)


# ---------------------------------------------------------------- spaces that are none

WRONG: list[tuple[dict[str, Parameter], str]] = [
    ({}, "parameters: the search space is empty; name at least one configuration path to vary"),
    ({"x": Parameter()}, "parameters.x: needs either low and high, or choices, or settings"),
    ({"x": Parameter(low=1)}, "parameters.x: needs either low and high, or choices, or settings"),
    ({"x": Parameter(high=1)}, "parameters.x: needs either low and high, or choices, or settings"),
    ({"x": Parameter(low=1, high=2, choices=[1])}, "parameters.x: needs either low and high"),
    ({"x": Parameter(choices=[], settings={})}, "parameters.x: needs either low and high"),
    ({"x": Parameter(choices=[])}, "parameters.x: the list of choices is empty"),
    ({"x": Parameter(settings={})}, "parameters.x: the list of choices is empty"),
    ({"x": Parameter(choices=[1, 2, 1])}, "parameters.x: two choices are the same"),
    ({"x": Parameter(choices=[[1], [1]])}, "parameters.x: two choices are the same"),
    ({"x": Parameter(choices=[1], log=True)}, "parameters.x: step and log belong to a range (low, high)"),
    ({"x": Parameter(choices=[1], step=1)}, "parameters.x: step and log belong to a range (low, high)"),
    ({"x": Parameter(low=2, high=1)}, "parameters.x: low is 2, above high, 1"),
    ({"x": Parameter(low=float("nan"), high=1)}, "parameters.x: low, high and step need to be finite"),
    ({"x": Parameter(low=0, high=1, log=True)}, "parameters.x: a logarithmic range needs low above 0, it is 0"),
    ({"x": Parameter(low=1, high=9, log=True, step=2)}, "parameters.x: step needs to be above 0, and log to be false"),
    ({"x": Parameter(low=1, high=9, step=0)}, "parameters.x: step needs to be above 0"),
    ({"x": Parameter(low=1, high=9, step=-1)}, "parameters.x: step needs to be above 0"),
    (
        {"size": Parameter(settings={"s": {"a": 1}, "l": {"b": 1}}), "b": Parameter(choices=[1, 2])},
        "parameters.b: b is set by size, too",
    ),
    (
        {"depth": Parameter(low=1, high=2), "x": Parameter(choices=[1], when={"dept": 1})},
        "parameters.x.when: dept is no parameter before it; did you mean depth?",
    ),
    (
        {"x": Parameter(choices=[1], when={"late": 1}), "late": Parameter(choices=[1])},
        "parameters.x.when: late is no parameter before it; there are none",
    ),
    (
        {"kind": Parameter(choices=["a", "b"]), "x": Parameter(choices=[1], when={"kind": ["a", "c"]})},
        "parameters.x.when: kind is never c; it is one of a, b",
    ),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG, ids=[f"{n}" for n in range(len(WRONG))])
def test_what_is_said_of_a_wrong_space(wrong, message):
    with pytest.raises(InputError) as error:
        SearchSpace(wrong)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        (Parameter(low=0.1, high=0.2), "a grid needs choices, or a range with step"),
        (Parameter(low=1, high=8, log=True), "a grid needs choices, or a range with step"),
        (Parameter(low=1, high=200_000), "more than 100000 points"),
    ],
)
def test_spaces_without_a_grid(parameter, message):
    with pytest.raises(InputError, match=message):
        SearchSpace({"x": parameter}).grid()


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ({"knd": 1}, "first[0]: knd is no parameter of this sweep; did you mean kind?"),
        ({"kind": "dep"}, "first[0]: kind is dep, needs one of plain, deep, None"),
        ({"deep.layers": 4}, "first[0]: deep.layers is 4, needs 1 to 3"),
        ({"deep.layers": "two"}, "first[0]: deep.layers is two, needs 1 to 3"),
        ({"deep.layers": 1.5}, "first[0]: deep.layers is 1.5, needs a whole number"),
    ],
)
def test_points_outside_the_space(point, message):
    with pytest.raises(InputError) as error:
        SearchSpace(CONDITIONAL).checked_point(point, "first[0]")
    assert str(error.value) == message


def test_many_choices_take_no_time():
    space = SearchSpace({"x": Parameter(choices=list(range(20_000))), "y": Parameter(choices=["a", "b"])})
    assert len(space.probes()) == 20_001  # in quadratic time this would take minutes


def test_a_text_that_no_table_could_hold():
    with pytest.raises(InputError, match=r"parameters.x: '\\udc80' cannot be written as UTF-8"):
        SearchSpace({"x": Parameter(choices=["a", "\udc80"])})
