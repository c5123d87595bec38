"""Tables in text."""

import math

import pytest

from lightning_ss2a.tables import (
    column_digits,
    csv_text,
    fill_marked,
    markdown_table,
    marked,
    mean_and_spread,
    number_text,
    with_spread,
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
        (math.nan, math.nan, None, ""),
    ],
)
def test_a_mean_with_its_spread(mean, spread, digits, text):
    assert with_spread(mean, spread, digits) == text


@pytest.mark.parametrize(
    ("values", "digits", "text"),
    [([1.0, 2.0, 3.0], 2, "2.00 ± 1.00"), ([3.5], 3, "3.500"), ([], 3, ""), ([1.0, 2.0], None, "1.500 ± 0.7071")],
)
def test_mean_and_spread_of_a_sample(values, digits, text):
    assert mean_and_spread(values, digits) == text


@pytest.mark.parametrize(
    ("spreads", "digits"),
    [([0.04, 0.05, 0.9], 3), ([12.0], 0), ([1234.0], 0), ([math.nan, 0.0], None), ([1e-9], None), ([], None)],
)
def test_a_column_keeps_two_digits_of_its_median_spread(spreads, digits):
    assert column_digits(spreads) == digits


def test_cells_cannot_tear_a_markdown_row():
    assert markdown_table(["a", "b"], [["x|y", "1\n2"]]).splitlines()[2] == r"| x\|y | 1 2 |"


def test_csv_has_empty_cells_for_what_is_missing():
    assert csv_text(["a", "b"], [[math.nan, None], ["x,y", 0.1]]) == 'a,b\n,\n"x,y",0.1\n'


def test_what_stands_between_marks_is_replaced_and_nothing_else():
    page = "a\n<!-- of one -->\nold\n<!-- end -->\nb\n<!-- of two -->\n<!-- end -->\n<!-- other -->\nc\n<!-- end -->\n"
    filled = fill_marked(page, marked(r"of (?P<name>\w+)"), lambda found: f"new {found['name']}\n")
    assert filled == page.replace("old", "new one").replace("<!-- of two -->\n", "<!-- of two -->\nnew two\n")
    assert fill_marked(page, marked("none"), lambda found: "new\n") == page
