from collections import Counter, defaultdict

import networkx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_ss2a.builders.splits import assign_splits, connected_rows
from lightning_ss2a.errors import InputError

marks_of_rows = st.lists(st.lists(st.integers(0, 30), max_size=3), max_size=40)


@settings(max_examples=200)
@given(marks=marks_of_rows)
def test_connected_rows_are_the_components_that_networkx_finds(marks):
    graph = networkx.Graph()
    graph.add_nodes_from(range(len(marks)))
    for row, own in enumerate(marks):
        graph.add_edges_from((row, ("mark", mark)) for mark in own)
    expected = {}
    for component in networkx.connected_components(graph):
        rows = [node for node in component if isinstance(node, int)]
        expected |= {row: min(rows) for row in rows}
    assert connected_rows(marks) == [expected[row] for row in range(len(marks))]


def test_marks_of_different_kinds_do_not_link():
    assert connected_rows([[("image", "x")], [("sound", "x")], [("image", "x")]]) == [0, 1, 0]


def test_a_long_chain_is_one_component():
    assert set(connected_rows([[i, i + 1] for i in range(20_000)])) == {0}


@st.composite
def rows_of_groups(draw, least_groups: int = 2) -> tuple[list[int], list[str]]:
    """(group, class) of each row; all rows of a group are of one class; rows in any order."""
    class_of = draw(st.lists(st.sampled_from("abcd"), min_size=least_groups, max_size=30))
    numbers = draw(
        st.lists(st.integers(0, 10**6), unique=True, min_size=len(class_of), max_size=len(class_of)), "groups"
    )
    sizes = draw(st.lists(st.integers(1, 4), min_size=len(class_of), max_size=len(class_of)))
    rows = [(g, c) for g, c, size in zip(numbers, class_of, sizes, strict=True) for _ in range(size)]
    rows = draw(st.permutations(rows))
    return [g for g, _ in rows], [c for _, c in rows]


def splits_of_groups(groups: list[int], splits: list[str]) -> dict[int, str]:
    found: dict[int, set[str]] = defaultdict(set)
    for group, split in zip(groups, splits, strict=True):
        found[group].add(split)
    assert all(len(own) == 1 for own in found.values()), "a group is in two splits"
    return {group: own.pop() for group, own in found.items()}


@settings(max_examples=150, deadline=None)
@given(rows=rows_of_groups(least_groups=7), folds=st.integers(2, 7), seed=st.integers(0, 5))
def test_folds_keep_groups_together_and_are_balanced_in_each_class(rows, folds, seed):
    groups, classes = rows
    split_of = splits_of_groups(groups, assign_splits(groups, classes, folds=folds, validation_fraction=0.1, seed=seed))
    names = [f"fold{i}" for i in range(folds)]
    assert set(split_of.values()) == set(names)
    class_of = dict(zip(groups, classes, strict=True))
    for class_name in (*set(classes), None):
        counts = Counter(split for group, split in split_of.items() if class_name in (None, class_of[group]))
        assert max(counts[name] for name in names) - min(counts[name] for name in names) <= 1


@settings(max_examples=150, deadline=None)
@given(rows=rows_of_groups(), fraction=st.floats(0.01, 0.99), seed=st.integers(0, 5))
def test_validation_has_its_part_of_the_groups_and_neither_side_is_empty(rows, fraction, seed):
    groups, classes = rows
    split_of = splits_of_groups(
        groups, assign_splits(groups, classes, folds=0, validation_fraction=fraction, seed=seed)
    )
    held_out = sum(split == "validation" for split in split_of.values())
    assert set(split_of.values()) == {"train", "validation"}
    assert held_out == min(max(round(fraction * len(split_of)), 1), len(split_of) - 1)
    class_of = dict(zip(groups, classes, strict=True))
    for class_name in set(classes):  # evenly spaced over the classes
        own = [split for group, split in split_of.items() if class_of[group] == class_name]
        assert abs(own.count("validation") - len(own) * held_out / len(split_of)) < 1


@settings(max_examples=60, deadline=None)
@given(rows=rows_of_groups(least_groups=3), seed=st.integers(0, 5), data=st.data())
def test_splits_depend_on_the_groups_and_the_seed_but_not_on_the_order_of_rows(rows, seed, data):
    groups, classes = rows
    options = {"folds": 3, "validation_fraction": 0.1, "seed": seed}
    order = data.draw(st.permutations(range(len(groups))))
    splits = assign_splits(groups, classes, **options)
    assert assign_splits([groups[i] for i in order], [classes[i] for i in order], **options) == [
        splits[i] for i in order
    ]


def test_another_seed_gives_other_splits():
    groups, classes = list(range(40)), ["a"] * 40
    options = {"folds": 4, "validation_fraction": 0.1}
    assert assign_splits(groups, classes, seed=0, **options) != assign_splits(groups, classes, seed=1, **options)


@pytest.mark.parametrize(("groups", "folds", "splits"), [([5, 5, 5], 0, 2), ([1, 2, 2, 1], 3, 3)])
def test_too_few_groups(groups, folds, splits):
    with pytest.raises(InputError, match=f"only {len(set(groups))} groups of pairs.* over {splits} splits"):
        assign_splits(groups, ["a"] * len(groups), folds=folds, validation_fraction=0.5, seed=0)
