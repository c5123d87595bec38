import json

import pytest

from lightning_ss2a.data import Manifest, ShardError, field_width
from lightning_ss2a.data.format.manifest import MANIFEST
from tests.data.shard_examples import CLASSES, make_dataset, make_label_head


@pytest.fixture
def content(tmp_path):
    make_dataset(tmp_path, label_head=make_label_head())
    content = json.loads((tmp_path / MANIFEST).read_text())
    del content["checksum"]
    return content


def load(content) -> Manifest:
    return Manifest.from_bytes(json.dumps(content).encode())


def test_what_it_tells(tmp_path):
    make_dataset(tmp_path, folds=["train", "validation"])
    manifest = Manifest.load(tmp_path)
    assert manifest.rows("train") == 20
    assert manifest.rows() == 24
    assert list(manifest.splits) == ["train", "validation"]
    assert manifest.folds == ("train", "validation")
    assert manifest.classes == tuple(CLASSES)
    assert manifest.encoders == {"visual": "clip", "audio": "clap"}
    assert manifest.fields["visual"].width == field_width(str(tmp_path), "visual") == 6
    assert manifest.label_head is None
    with pytest.raises(ShardError, match="no split 'test'"):
        manifest.rows("test")
    with pytest.raises(ShardError, match="no field 'text'"):
        field_width([str(tmp_path)], "text")


def test_round_trip(tmp_path):
    make_dataset(tmp_path, label_head=make_label_head())
    manifest = Manifest.load(tmp_path)
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest


def test_what_made_the_rows_is_kept_and_where_nothing_says_so_nothing_is_written(content):
    assert "made_by" not in content, "programs of before would refuse it"
    before = load(content)
    assert before.made_by is None
    told = load(content | {"made_by": {"detector": "nanodet", "batch_size": "4"}})
    assert Manifest.from_bytes(told.to_bytes()).made_by == {"detector": "nanodet", "batch_size": "4"}
    assert told.digest == before.digest, "the rows are the same"
    with pytest.raises(ShardError, match=r"made_by.batch_size needs text, found 4"):
        load(content | {"made_by": {"batch_size": 4}})


def test_white_space_does_not_matter_but_content_does(tmp_path):
    make_dataset(tmp_path)
    text = (tmp_path / MANIFEST).read_text()
    assert Manifest.from_bytes(json.dumps(json.loads(text)).encode()) == Manifest.load(tmp_path)
    with pytest.raises(ShardError, match="checksum does not fit"):
        Manifest.from_bytes(text.replace('"clip"', '"clop"').encode())


def test_edited_by_hand_without_checksum(content):
    content["licence"] = "CC-BY-4.0"
    assert load(content).licence == "CC-BY-4.0"


def test_missing(tmp_path):
    with pytest.raises(ShardError, match=r"manifest\.json: missing; .* is not a data set"):
        Manifest.load(tmp_path)


def test_future_version(content):
    content["format_version"] = 3
    message = r"format_version 3 is newer than this program reads \(2\): upgrade lightning_ss2a"
    with pytest.raises(ShardError, match=message):
        load(content)


def test_older_version(content):
    content["format_version"] = 1
    message = r"^manifest.json: format_version 1 is older than this program reads \(2\): build the data set again"
    with pytest.raises(ShardError, match=message):
        load(content)


@pytest.mark.parametrize("version", [None, "1", 0, 1.0, True])
def test_no_version(content, version):
    content["format_version"] = version
    with pytest.raises(ShardError, match="format_version needs a whole number"):
        load(content)


def change(path, value):
    def apply(content):
        *parents, last = path
        for step in parents:
            content = content[step]
        content[last] = value

    return apply


def delete(*path):
    def apply(content):
        for step in path[:-1]:
            content = content[step]
        del content[path[-1]]

    return apply


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (delete("kind"), "missing key kind"),
        (delete("fields", "audio", "width"), r"missing key fields\.audio\.width"),
        (change(["fields", "audio", "width"], "512"), r"fields\.audio\.width needs a whole number, found \"512\""),
        (change(["fields", "audio", "width"], True), r"fields\.audio\.width needs a whole number, found true"),
        (change(["fields", "audio", "width"], 0), r"fields\.audio width is 0"),
        (change(["fields", "audio", "colour"], 1), r"unknown key fields\.audio\.colour"),
        (change(["fields", "audio", "dtype"], "object"), r"fields\.audio dtype is object"),
        (change(["classes"], "dog"), "classes needs a list"),
        (change(["classes", 1], "dog"), "classes needs at least one name, and each only once"),
        (change(["splits"], []), "splits needs an object"),
        (change(["splits", "train", 0, "rows"], 1.5), r"splits\.train\[0\]\.rows needs a whole number"),
        (change(["splits", "train", 0, "rows"], 7), r"splits\.train\[0\]\.rows is 7, but its blocks have 8"),
        (change(["splits", "train", 0, "blocks", 1, "offset"], 0), r"splits\.train\[0\]\.blocks\[1\] overlaps"),
        (change(["splits", "train", 0, "blocks", 1, "bytes"], 1 << 60), r"blocks\[1\] overlaps"),
        (change(["fields", "audio", "width"], 1 << 60), r"splits\.train\[0\]\.rows is 8, which \d+ bytes cannot hold"),
        (change(["splits", "train", 0, "blocks", 1, "unpacked_bytes"], 1 << 60), r"blocks\[1\].* cannot unpack to"),
        (change(["splits", "train", 0, "blocks", 1, "unpacked_bytes"], -1), r"unpacked_bytes is -1"),
        (change(["splits", "train", 1, "file"], "train-000000.tar"), "each only once"),
        (change(["splits", "train", 0, "file"], "../train-000000.tar"), "needs the plain name"),
        (change(["splits", "train", 0, "file"], "/etc/passwd"), "needs the plain name"),
        (change(["splits", "train", 0, "file"], "x;touch y"), "needs the plain name"),
        (change(["splits", "train", 0, "file"], "manifest.json"), "each only once"),
        (change(["label_head", "file"], "../head.safetensors"), "label_head.file is"),
        (change(["folds"], ["train", "elsewhere"]), "folds names 'elsewhere'"),
        (change(["kind"], "triples"), "kind is 'triples', needs one of pairs, scenes, videos"),
        (change(["kind"], "scenes"), "fields.sources is missing"),
        (change(["layout"], "columns"), "layout is 'columns'"),
        (change(["layout"], "samples"), "must be empty in layout samples"),
    ],
)
def test_what_does_not_fit_is_named(content, damage, message):
    damage(content)
    with pytest.raises(ShardError, match=message):
        load(content)


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"\xff\xfe", b'{"a": NaN}', b"[" * 100_000, b"null", b"17"])
def test_no_manifest_at_all(text):
    with pytest.raises(ShardError, match=r"manifest\.json"):
        Manifest.from_bytes(text)
