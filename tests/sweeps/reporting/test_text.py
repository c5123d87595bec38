import math

import pytest

from lightning_ss2a.sweeps.reporting.text import (
    column_digits,
    duration_text,
    mean_and_spread,
    number_text,
    setting_text,
    short_names,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [(3.5, "3.500"), (0.0, "0.000"), (12345.6, "12346"), (1.5e-7, "1.500e-07"), (-0.25, "-0.2500"), (math.inf, "inf")],
)
def test_measured_numbers(value, text):
    assert number_text(value) == text


@pytest.mark.parametrize(
    ("mean", "spread", "digits", "text"),
    [
        (3.5, 0.05, 3, "3.500 ± 0.050"),
        (3.5, math.nan, 3, "3.500"),
        (3.5, math.nan, None, "3.500"),
        (1.5e-7, 2e-8, None, "1.500e-07 ± 2.000e-08"),
        (None, math.nan, 3, ""),
        (math.nan, math.nan, None, ""),
    ],
)
def test_mean_and_spread(mean, spread, digits, text):
    assert mean_and_spread(mean, spread, digits) == text


@pytest.mark.parametrize(
    ("spreads", "digits"),
    [([0.04, 0.05, 0.9], 3), ([12.0], 0), ([1234.0], 0), ([math.nan, 0.0], None), ([1e-9], None), ([], None)],
)
def test_a_column_keeps_two_digits_of_its_median_spread(spreads, digits):
    assert column_digits(spreads) == digits


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (False, "false"),
        (1, "1"),
        (0, "0"),
        (0.001, "0.001"),
        (1e-5, "1e-05"),
        ("a", "a"),
    ],
)
def test_settings(value, text):
    assert setting_text(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, ""), (3.21, "3.2 s"), (45, "45 s"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (59.7, "1 min 0 s")],
)
def test_durations(seconds, text):
    assert duration_text(seconds) == text


def test_names_are_as_short_as_can_be_told_apart():
    assert short_names(["model.optimizer.lr", "data.size", "model.encoder.size", "lr_start"]) == {
        "model.optimizer.lr": "lr",
        "data.size": "data.size",
        "model.encoder.size": "encoder.size",
        "lr_start": "lr_start",
    }
    assert short_names(["a.x", "x"]) == {"a.x": "a.x", "x": "x"}
