import numpy as np
import pytest

from lightning_ss2a.data import LabelHead, ShardError, ShardWriter
from lightning_ss2a.data.tools.inspect import FieldStatistics, inspect_dataset
from tests.data.shard_examples import CLASSES, FIELDS, make_dataset, make_label_head, random_columns


@pytest.mark.parametrize("layout", ["blocks", "samples"])
@pytest.mark.parametrize("kind", FIELDS)
def test_it_tells_what_is_there(tmp_path, kind, layout):
    text = inspect_dataset(make_dataset(tmp_path, kind, layout=layout, label_head=make_label_head()))
    for part in (f"{kind}, 24 rows, layout {layout}", "train", "validation", "motor boat", "annotated", "clap", "CC0",
                 "Label head: 5 labels over audio of width 4"):  # fmt: skip
        assert part in text


def test_what_made_the_rows_stands_above(tmp_path):
    with ShardWriter(tmp_path, "pairs", FIELDS["pairs"], CLASSES, made_by={"detector": "nanodet-g"}) as writer:
        writer.write("train", random_columns("pairs", 6))
    assert "made with detector: nanodet-g" in inspect_dataset(tmp_path)


def row_of(text: str, name: str) -> list[str]:
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines()]
    return next(row for row in rows if row[:1] == [name])


def test_counts_and_norms(tmp_path):
    columns = random_columns("pairs", 6)
    columns["audio"] = np.array([[3, 4, 0, 0], [0, 0, 6, 8], [3, 4, 0, 0], [0, 0, 0, 5], [3, 4, 0, 0], [1, 0, 0, 0]])
    columns["class_index"] = np.array([0, 0, 0, 0, 2, 2])
    columns["pair_origin"] = np.array([0, 1, 1, 2, 2, 2])
    with ShardWriter(tmp_path, "pairs", FIELDS["pairs"], CLASSES, block_rows=4) as writer:
        writer.write("train", columns)
    text = inspect_dataset(tmp_path)
    assert row_of(text, "train")[1:4] == ["6", "3", "1"]
    assert row_of(text, "train")[5:] == ["1", "2", "3"]
    assert row_of(text, "dog") == ["dog", "4"]
    assert row_of(text, "cat") == ["cat", "0"]
    assert row_of(text, "audio")[:8] == ["audio", "4", "1", "float32", "5.167", "1", "10", "2"]
    assert "Label head: none" in text


def test_statistics_do_not_depend_on_how_rows_are_cut():
    rows = np.random.default_rng(0).standard_normal((10, 3)).astype(np.float16)
    rows[7] = rows[1]
    whole, cut = FieldStatistics(), FieldStatistics()
    whole.update(rows)
    cut.update(rows[:4])
    cut.update(rows[4:4])
    cut.update(rows[4:])
    assert (whole.count, whole.least, whole.most, whole.repeated_rows) == (10, cut.least, cut.most, 1)
    assert cut.repeated_rows == 1


def test_damage_is_an_error(tmp_path):
    make_dataset(tmp_path)
    (tmp_path / "train-000001.tar").unlink()
    with pytest.raises(ShardError, match=r"train-000001\.tar: no such file"):
        inspect_dataset(tmp_path)


def test_names_that_look_like_markup(tmp_path):
    with ShardWriter(tmp_path, "pairs", FIELDS["pairs"], ["[red]", "b", "c"], provenance="[bold]x") as writer:
        writer.write("train", random_columns("pairs", 3))
    text = inspect_dataset(tmp_path)
    assert "[red]" in text
    assert "[bold]x" in text


def test_label_head_is_exported():
    assert make_label_head().labels == LabelHead.from_bytes(make_label_head().to_bytes(), "x").labels


def test_of_many_classes_those_with_the_most_rows_are_shown(tmp_path):
    names = [f"class {i}" for i in range(3000)]
    columns = random_columns("pairs", 60) | {"class_index": [7] * 10 + [2999] * 10 + list(range(1000, 1040))}
    with ShardWriter(tmp_path, "pairs", FIELDS["pairs"], names) as writer:
        writer.write("train", columns)
    lines = [line.split("│") for line in inspect_dataset(tmp_path).splitlines()]
    rows = {line[1].strip(): line[2].strip() for line in lines if len(line) == 4}
    assert rows["class 7"] == rows["class 2999"] == "10"
    assert rows["class 1039"] == "1"
    assert rows["2,000 more classes"] == "0"
