import json
import os

import numpy as np
import pytest

from lightning_ss2a.data import Manifest, ShardWriter
from lightning_ss2a.data.tools.validate import ROWS_NAMED, Problem, validate_dataset
from tests.data.shard_examples import CLASSES, FIELDS, make_dataset, make_label_head, random_columns
from tests.data.shard_forgery import forge_block, rewrite_manifest


@pytest.mark.parametrize("layout", ["blocks", "samples"])
@pytest.mark.parametrize("kind", FIELDS)
def test_good_data_has_no_problems(tmp_path, kind, layout):
    make_dataset(tmp_path, kind, layout=layout, label_head=make_label_head())
    (tmp_path / "LICENSE").write_text("CC0")
    assert validate_dataset(tmp_path) == []
    assert validate_dataset(f"pipe:cat {tmp_path}") == []
    assert validate_dataset(f"file://{tmp_path}") == []


def set_zero(columns: dict, kind: str) -> None:
    """One vector of row 5 in every field."""
    columns["audio"][5] = 0
    if kind == "scenes":
        columns["sources"][5][-1] = columns["global_visual"][5] = 0
    elif kind == "videos":
        columns["frames"][5, -1] = 0
    else:
        columns["visual"][5, 1] = 0


@pytest.mark.parametrize("layout", ["blocks", "samples"])
@pytest.mark.parametrize("kind", FIELDS)
def test_vectors_of_zeros_are_named(tmp_path, kind, layout):
    columns = random_columns(kind, 12)
    set_zero(columns, kind)
    options = {"block_rows": 3, "shard_rows": 8, "layout": layout}
    with ShardWriter(tmp_path, kind, FIELDS[kind], CLASSES, **options) as writer:
        writer.write("train", columns)
    found = validate_dataset(tmp_path)
    assert {str(p) for p in found} == {
        f"train-000000.tar, row 5, field {name}: holds a vector of zeros, which has no direction"
        for name in FIELDS[kind]
    }


def test_coordinates_of_zero_are_no_vector_of_zeros(tmp_path):
    columns = random_columns("pairs", 12)
    columns["audio"][:, [0, -1]] = 0
    columns["visual"][3, 0, :-1] = -0.0
    with ShardWriter(tmp_path, "pairs", FIELDS["pairs"], CLASSES) as writer:
        writer.write("train", columns)
    assert validate_dataset(tmp_path) == []


def test_a_block_that_is_said_to_be_huge(tmp_path):
    make_dataset(tmp_path)

    def change(content):
        content["splits"]["train"][0]["bytes"] = content["splits"]["train"][0]["blocks"][-1]["bytes"] = 1 << 50
        content["splits"]["train"][0]["blocks"][-1]["offset"] = (
            content["splits"]["train"][0]["blocks"][-2]["offset"]
            + (content["splits"]["train"][0]["blocks"][-2]["bytes"])
        )
        content["splits"]["train"][0]["bytes"] = 1 << 51

    rewrite_manifest(tmp_path, change)
    for path in (tmp_path, f"file://{tmp_path}"):
        messages = [str(problem) for problem in validate_dataset(path)]
        assert any("truncated" in message or "do not fit in memory" in message for message in messages)


def test_everything_is_told_at_once(tmp_path):
    make_dataset(tmp_path, label_head=make_label_head())

    def damage(columns):
        columns["visual"][1, 0, 0] = np.nan
        columns["visual"][2, 1, 3] = np.inf
        columns["class_index"][0] = 3
        columns["pair_origin"][2] = 3
        columns["audio"] = columns["audio"][:, :3].copy()

    forge_block(tmp_path, "train", 0, 1, damage)
    truncated = tmp_path / "train-000001.tar"
    truncated.write_bytes(truncated.read_bytes()[:-2000])
    (tmp_path / "train-000002.tar").unlink()
    (tmp_path / "label_head.safetensors").write_bytes(b"x")
    (tmp_path / "old.tar").write_bytes(b"")
    (tmp_path / ".train-000003.tar.17.tmp").write_bytes(b"")
    problems = validate_dataset(tmp_path)
    found = {(p.file, p.row, p.field) for p in problems}
    first = "train-000000.tar"
    assert {
        (first, 4, "visual"), (first, 5, "visual"), (first, 3, "class_index"), (first, 5, "pair_origin"),
        (first, None, "audio"), ("train-000001.tar", None, None), ("train-000002.tar", None, None),
        ("label_head.safetensors", None, None), ("old.tar", None, None), (".train-000003.tar.17.tmp", None, None),
    } <= found  # fmt: skip
    assert f"{first}, row 4, field visual: is NaN or infinite" in map(str, problems)
    assert any("has shape [3, 3], needs [3, 4]" in p.message for p in problems)


def test_keys_and_groups(tmp_path):
    with ShardWriter(tmp_path, "pairs", FIELDS["pairs"], CLASSES) as writer:
        writer.write("train", random_columns("pairs", 6))
        writer.write("validation", random_columns("pairs", 3, first=4))
    problems = validate_dataset(tmp_path)
    assert "manifest.json, field key: key 'clip ü/4.pairs' is that of 2 rows" in map(str, problems)
    assert "manifest.json, field group: 1 groups are in split train and in split validation, such as 2" in map(
        str, problems
    )
    assert len(problems) == 3


def test_many_bad_rows_are_counted(tmp_path):
    make_dataset(tmp_path, splits={"train": 150}, block_rows=150, shard_rows=150)

    def damage(columns):
        columns["visual"][:] = np.nan

    forge_block(tmp_path, "train", 0, 0, damage)
    problems = validate_dataset(tmp_path)
    assert sum(problem.row is not None for problem in problems) == ROWS_NAMED
    assert Problem("train-000000.tar", "50 more rows with problems", field="visual") in problems


def test_a_manifest_with_several_faults(tmp_path):
    make_dataset(tmp_path)
    content = json.loads((tmp_path / "manifest.json").read_text())
    content["classes"] = ["dog", "dog", "cat"]
    content["folds"] = ["elsewhere"]
    content["splits"]["train"][0]["file"] = "../x.tar"
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    text = "\n".join(map(str, validate_dataset(tmp_path)))
    for part in ("checksum", "each only once", "'elsewhere'", "'../x.tar'", "train-000000.tar: is not in the manifest"):
        assert part in text


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"format_version": 2}'])
def test_no_manifest(tmp_path, content):
    make_dataset(tmp_path)
    (tmp_path / "manifest.json").unlink()
    if content is not None:
        (tmp_path / "manifest.json").write_bytes(content)
    (problem,) = validate_dataset(tmp_path)
    assert problem.file == "manifest.json"


def test_empty_split(tmp_path):
    make_dataset(tmp_path)
    rewrite_manifest(tmp_path, lambda content: content["splits"].update(test=[]))
    assert [str(p) for p in validate_dataset(tmp_path)] == ["manifest.json: split test has no rows"]


@pytest.mark.parametrize("target", ["/etc/hostname", "../outside.tar", "/dev/zero"])
def test_links_out_of_the_folder_are_not_followed(tmp_path, target):
    folder = make_dataset(tmp_path / "data")
    shard = folder / Manifest.load(folder).shards("train")[0].file
    shard.replace(tmp_path / "outside.tar")  # the true bytes, but elsewhere
    os.symlink(target, shard)
    problems = [str(problem) for problem in validate_dataset(folder)]
    assert problems == [f"{shard.name}: is a link out of the data set's folder; copy the file itself there"]


def test_named_pipes_are_not_opened(tmp_path):
    make_dataset(tmp_path)
    (tmp_path / "train-000000.tar").unlink()
    os.mkfifo(tmp_path / "train-000000.tar")
    assert [str(p) for p in validate_dataset(tmp_path)] == ["train-000000.tar: is not a regular file"]
