import math

import pytest

from lightning_ss2a.evaluation.places import first_two


@pytest.mark.parametrize(
    ("values", "higher", "places"),
    [
        ({"a": 3.0, "b": 5.0, "c": 3.0, "d": 1.0}, True, {"a": 2, "b": 1, "c": 2}),
        ({"a": 3.0, "b": 5.0, "c": 3.0, "d": 1.0}, False, {"a": 2, "c": 2, "d": 1}),
        ({"a": 3.0, "b": math.nan, "c": 2.0}, True, {"a": 1, "c": 2}),
        ({"a": 3.0, "b": math.nan}, True, {}),
        ({"a": 3.0, "b": 3.0}, True, {"a": 1, "b": 1}),
        ({"a": 2.7285303521901367, "b": 2.728530405089259, "c": 2.72854}, False, {"a": 1, "b": 1, "c": 2}),
    ],
)
def test_first_and_second_place(values, higher, places):
    assert first_two(values, higher_is_better=higher) == places
