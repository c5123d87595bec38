"""Checks of options, and the plain values that files hold of them."""

from dataclasses import dataclass

import pytest
import torch

from lightning_ss2a.errors import InputError
from lightning_ss2a.options import OptionCheck, dotted, plain


@dataclass(frozen=True)
class Sizes:
    width: int = 3
    layers: tuple[int, ...] = (4, 5)


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda group: group.at_least(1, width=0), "width must be at least 1, found 0"),
        (lambda group: group.at_least(0, rate=float("inf")), "rate must be at least 0, found inf"),
        (lambda group: group.at_least(0, rate=float("nan")), "rate must be at least 0, found nan"),
        (lambda group: group.probability(dropout=1.0), r"dropout must be in \[0, 1\), found 1.0"),
        (lambda group: group.widths(layers=()), "layers must name at least one layer"),
        (lambda group: group.widths(layers=(4, 0)), "layers must be at least 1, found 0"),
        (lambda group: group.one_of(("a", "b"), kind="c"), "kind must be one of a, b, found 'c'"),
    ],
    ids=["small", "infinite", "no number", "certain", "no layer", "narrow layer", "no choice"],
)
def test_a_bad_option_is_named_in_full(check, message: str):
    with pytest.raises(InputError, match=rf"^model\.group\.{message}$"):
        check(OptionCheck("model.group"))


def test_good_options_pass():
    group = OptionCheck("model.group")
    group.at_least(1, width=1, limit=None)
    group.probability(dropout=0.0)
    group.widths(layers=[1])
    group.one_of(("a", "b"), kind="b")


def test_plain_values_are_what_torch_loads(tmp_path):
    values = plain({"sizes": Sizes(), "list": [Sizes(1, ())], "text": "x", "nothing": None})
    assert values == {
        "sizes": {"width": 3, "layers": [4, 5]},
        "list": [{"width": 1, "layers": []}],
        "text": "x",
        "nothing": None,
    }
    torch.save(values, tmp_path / "values")
    assert torch.load(tmp_path / "values", weights_only=True) == values


def test_dotted_names_of_nested_options():
    assert dict(dotted({"a": {"b": {"c": 1}, "d": [2]}, "e": None})) == {"a.b.c": 1, "a.d": [2], "e": None}
