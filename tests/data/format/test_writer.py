import hashlib
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightning_ss2a.data import FieldSpec, Manifest, Ragged, ShardError, ShardReader, ShardWriter
from lightning_ss2a.data.format.columns import all_finite
from lightning_ss2a.data.format.staging import JOURNAL, STAGING
from lightning_ss2a.errors import InputError
from tests.data.shard_examples import CLASSES, FIELDS, make_dataset, random_columns, read_everything

KINDS_AND_LAYOUTS = [(kind, layout) for kind in FIELDS for layout in ("blocks", "samples")]


def stored(columns: dict, kind: str) -> dict:
    """What the reader must give back, computed the plain way."""
    expected = {}
    for name, value in columns.items():
        spec = FIELDS[kind].get(name)
        if name in ("key", "name"):
            expected[name] = [text.encode() for text in value]
        elif name in ("sources", "classes"):
            expected[name] = [np.asarray(row, spec.dtype if spec else np.int32) for row in value]
        else:
            dtype = spec.dtype if spec else "float32" if name == "timestamps" else "int64"
            expected[name] = np.asarray(value).astype(dtype)
    return expected


def assert_rows_equal(found: dict, expected: dict, rows: slice) -> None:
    for name, value in expected.items():
        if isinstance(found[name], Ragged):
            items = [found[name].row(i) for i in range(len(found[name]))]
            assert all(np.array_equal(a, b) for a, b in zip(items, value[rows], strict=True)), name
        else:
            assert np.array_equal(found[name], np.asarray(value[rows])), name


@pytest.mark.parametrize(("kind", "layout"), KINDS_AND_LAYOUTS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_round_trip_of_any_sizes(kind, layout, data):
    rows = data.draw(st.integers(1, 40), "rows")
    sizes = {"block_rows": data.draw(st.integers(1, 12)), "shard_rows": data.draw(st.integers(1, 30))}
    cuts = sorted(data.draw(st.lists(st.integers(0, rows), max_size=4), "cuts"))
    columns = random_columns(kind, rows, seed=rows)
    with tempfile.TemporaryDirectory() as folder:
        with ShardWriter(folder, kind, FIELDS[kind], CLASSES, layout=layout, **sizes) as writer:
            for start, stop in zip([0, *cuts], [*cuts, rows], strict=True):
                writer.write("train", {name: value[start:stop] for name, value in columns.items()})
        reader = ShardReader(folder)
        assert reader.manifest.rows("train") == rows
        assert_rows_equal(reader.read_split("train"), stored(columns, kind), slice(0, rows))
        first = 0
        for number, shard in enumerate(reader.manifest.shards("train")):
            start = data.draw(st.integers(0, shard.rows))
            stop = data.draw(st.integers(start, shard.rows))
            found = reader.read("train", number, start, stop)
            assert_rows_equal(found, stored(columns, kind), slice(first + start, first + stop))
            assert hashlib.sha256(Path(folder, shard.file).read_bytes()).hexdigest() == shard.sha256
            first += shard.rows


@pytest.mark.parametrize(
    "options",
    [{"layout": "blocks"}, {"layout": "samples"}, {"compression": "gzip"}],
    ids=["blocks", "samples", "gzip"],
)
def test_equal_rows_give_equal_bytes_however_they_come(tmp_path, options):
    make_dataset(tmp_path / "one", "scenes", **options)
    with ShardWriter(
        tmp_path / "two", "scenes", FIELDS["scenes"], CLASSES, provenance="random", licence="CC0",
        block_rows=3, shard_rows=8, **options,
    ) as writer:  # fmt: skip
        for split, seed, rows, first in (("train", 0, 20, 0), ("validation", 1, 4, 20)):
            columns = random_columns("scenes", rows, seed, first)
            for i in range(rows):
                writer.write(split, {name: value[i : i + 1] for name, value in columns.items()})
    files = sorted(file.name for file in (tmp_path / "one").iterdir())
    assert files == sorted(file.name for file in (tmp_path / "two").iterdir())
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


@pytest.mark.parametrize("layout", ["blocks", "samples"])
def test_a_build_that_stops_goes_on(tmp_path, layout):
    columns = random_columns("pairs", 30)
    options = {"layout": layout, "block_rows": 3, "shard_rows": 8, "rows_from": "a list"}

    def build(folder: Path, stop_at: int | None) -> None:
        with ShardWriter(folder, "pairs", FIELDS["pairs"], CLASSES, **options) as writer:
            for i in range(writer.rows_written("train"), 30):
                if i == stop_at:
                    raise KeyboardInterrupt
                writer.write("train", {name: value[i : i + 1] for name, value in columns.items()})

    build(tmp_path / "whole", None)
    for stop_at in (5, 13, 29):
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path / "stopped", stop_at)
        with pytest.raises(ShardError, match=r"manifest\.json: missing"):
            Manifest.load(tmp_path / "stopped")
    assert (tmp_path / "stopped" / STAGING / JOURNAL).exists()
    build(tmp_path / "stopped", None)
    whole, stopped = ({f.name: f.read_bytes() for f in (tmp_path / name).iterdir()} for name in ("whole", "stopped"))
    assert whole == stopped


def test_a_finished_folder_is_kept(tmp_path):
    make_dataset(tmp_path)
    with pytest.raises(ShardError, match="finished data set"):
        make_dataset(tmp_path)
    (tmp_path / "README.md").write_text("mine")
    make_dataset(tmp_path, splits={"test": 3}, overwrite=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["README.md", "manifest.json", "test-000000.tar"]


def test_a_file_url_is_a_folder_and_other_urls_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_dataset(f"file://{tmp_path}/data")
    assert [file.name for file in tmp_path.iterdir()] == ["data"]
    assert len(read_everything(f"file://{tmp_path}/data")) == len(read_everything(tmp_path / "data")) > 0
    with pytest.raises(InputError, match="memory://data: a URL, and here only a path of this machine will do"):
        make_dataset("memory://data")


def test_another_description_does_not_go_on(tmp_path):
    first = {"shard_rows": 2, "rows_from": "a list"}
    writer = ShardWriter(tmp_path, "pairs", FIELDS["pairs"], CLASSES, **first)
    writer.write("train", random_columns("pairs", 4))
    writer.abandon()
    with pytest.raises(ShardError, match="unfinished build"):
        ShardWriter(tmp_path, "pairs", FIELDS["pairs"], ["other"], **first)
    for other in ({"shard_rows": 3}, {"block_rows": 1}, {"rows_from": "elsewhere"}, {"rows_from": None},
                  {"compression": "gzip"}):  # fmt: skip
        with pytest.raises(ShardError, match="unfinished build"):
            ShardWriter(tmp_path, "pairs", FIELDS["pairs"], CLASSES, **first | other)
    assert ShardWriter(tmp_path, "pairs", FIELDS["pairs"], CLASSES, **first).rows_written("train") == 4


def test_a_build_whose_rows_come_from_nowhere_known_starts_again(tmp_path):
    for overwrite in (False, True):
        writer = ShardWriter(tmp_path, "pairs", FIELDS["pairs"], CLASSES, shard_rows=2, overwrite=overwrite)
        assert writer.rows_written("train") == 0
        writer.write("train", random_columns("pairs", 4))
        del writer  # as by a kill: neither closed nor abandoned


def test_one_writer_at_a_time(tmp_path):
    first = ShardWriter(tmp_path, "pairs", FIELDS["pairs"], CLASSES, shard_rows=2)
    first.write("train", random_columns("pairs", 3))
    for overwrite in (False, True):
        with pytest.raises(InputError, match="another build writes there"):
            ShardWriter(tmp_path, "pairs", FIELDS["pairs"], CLASSES, shard_rows=2, overwrite=overwrite)
    first.close()
    assert Manifest.load(tmp_path).rows() == 3
    with ShardWriter(tmp_path, "pairs", FIELDS["pairs"], CLASSES, overwrite=True) as second:
        second.write("train", random_columns("pairs", 5))
    assert Manifest.load(tmp_path).rows() == 5


def test_a_folder_is_free_after_its_writer_failed(tmp_path):
    with (
        pytest.raises(ShardError, match="no rows were written"),
        ShardWriter(tmp_path, "pairs", FIELDS["pairs"], CLASSES),
    ):
        pass
    with ShardWriter(tmp_path, "pairs", FIELDS["pairs"], CLASSES) as writer:
        writer.write("train", random_columns("pairs", 1))


def bad(name, change):
    columns = random_columns("scenes" if name in ("sources", "classes") else "pairs", 6)
    value = columns[name]
    columns[name] = change(value.copy() if isinstance(value, np.ndarray) else list(value))
    return columns


def put(index, number):
    def change(value):
        value[index] = number
        return value

    return change


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("visual", put((4, 1, 2), np.nan), "row 4, field visual is NaN or infinite"),
        ("visual", put((4, 1, 2), np.inf), "row 4, field visual is NaN or infinite"),
        ("visual", put((2, 0, 0), 70000.0), "row 2, field visual holds 70000, which does not fit float16"),
        (
            "visual",
            put((4, 1), 1e-9),
            "row 4, field visual holds numbers up to 1e-09 only, which float16 changes by 100%",
        ),
        ("visual", put((4, 1), 2e-7), "row 4, field visual .* changes by 11%; scale it or use dtype float32"),
        ("audio", put(3, 1e-60), "row 3, field audio .* which float32 changes by 100%; scale it$"),
        ("audio", lambda x: x[:, :3], r"field audio has shape \[6, 3\], needs \[6, 4\]"),
        ("audio", lambda x: x[:5], r"field audio has shape \[5, 4\], needs \[6, 4\]"),
        ("audio", lambda x: [*x[:5], x[5][:2]], r"row 5, field audio has shape \[2\]"),
        ("audio", lambda x: x.astype(object), "field audio has dtype object"),
        ("class_index", put(3, 9), "row 3, field class_index is 9, needs 0 to 2"),
        ("class_index", put(3, 2**40), "do not fit int32"),
        ("class_index", lambda x: x.astype(float), "needs whole numbers"),
        ("pair_origin", put(1, -1), "field pair_origin has numbers that do not fit"),
        ("pair_origin", put(1, 3), "row 1, field pair_origin is 3"),
        ("key", put(0, ""), "row 0, field key is empty"),
        ("key", put(2, b"\xff"), "row 2, field key is not UTF-8"),
        ("key", put(2, "a\0"), "row 2, field key holds a NUL"),
        ("key", put(2, 7), "row 2, field key is int, needs text"),
        ("sources", put(3, np.zeros((0, 6))), "row 3, field sources has 0 items"),
        ("sources", put(3, np.zeros((2, 5))), "row 3, field sources has shape"),
        ("sources", put(3, np.full((2, 6), np.nan)), "row 3, field sources is NaN"),
        ("sources", put(3, np.full((2, 6), 1e6)), "row 3, field sources holds 1e[+]06"),
        ("sources", put(3, np.array([[1.0] * 6, [1e-9] * 6])), "row 3, field sources holds numbers up to 1e-09"),
        ("classes", put(2, [7]), "row 2, field classes is 7"),
    ],
)
def test_bad_rows_are_named(tmp_path, name, change, message):
    kind = "scenes" if name in ("sources", "classes") else "pairs"
    writer = ShardWriter(tmp_path, kind, FIELDS[kind], CLASSES)
    with pytest.raises(ShardError, match=message):
        writer.write("train", bad(name, change))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_embeddings_that_rounding_hardly_changes_are_stored(tmp_path, dtype):
    """Single numbers near zero, zeros, and short embeddings down to the limit; their loss is computed once more."""
    width, random = 512, np.random.default_rng(0)
    fields = {"visual": FieldSpec(width, "clip", dtype), "audio": FieldSpec(1, "clap", "float32")}
    directions = random.standard_normal((200, width))
    directions[:, : width // 2] *= 1e-7
    scale = np.geomspace(1e-9, 1, 200) if dtype == "float16" else np.geomspace(1e-50, 1, 200)
    rows, stored = directions * scale[:, None], 0
    for i, row in enumerate([*rows, np.zeros(width)]):
        loss = np.linalg.norm(row - row.astype(dtype)) / (np.linalg.norm(row) or 1)
        writer = ShardWriter(tmp_path / str(i), "pairs", fields, ["a"])
        columns = {"key": ["x"], "visual": row[None], "audio": np.ones((1, 1))}
        if loss > 0.01:
            with pytest.raises(ShardError, match=f"field visual holds numbers up to .* which {dtype} changes"):
                writer.write("train", columns)
        else:
            writer.write("train", columns)
            stored += 1
    assert 0 < stored < 200


def test_row_numbers_go_on_from_write_to_write(tmp_path):
    writer = ShardWriter(tmp_path, "pairs", FIELDS["pairs"], CLASSES)
    writer.write("train", random_columns("pairs", 6))
    with pytest.raises(ShardError, match="split train: row 10, field visual"):
        writer.write("train", bad("visual", put((4, 0, 0), np.nan)))


def test_missing_and_unknown_columns(tmp_path):
    writer = ShardWriter(tmp_path, "pairs", FIELDS["pairs"], CLASSES)
    columns = random_columns("pairs", 3)
    with pytest.raises(ShardError, match="field audio is missing"):
        writer.write("train", {name: value for name, value in columns.items() if name != "audio"})
    with pytest.raises(ShardError, match="no field 'text'"):
        writer.write("train", columns | {"text": columns["audio"]})
    with pytest.raises(ShardError, match="key is missing"):
        writer.write("train", {"audio": columns["audio"]})
    with pytest.raises(ShardError, match="no rows were written"):
        writer.close()


def test_columns_that_may_be_left_out(tmp_path):
    columns = random_columns("pairs", 3)
    with ShardWriter(tmp_path, "pairs", FIELDS["pairs"], ["thing"]) as writer:
        writer.write("train", {name: columns[name] for name in ("key", "visual", "audio")})
    rows = read_everything(tmp_path)["train"]
    assert len(set(rows["group"])) == 3
    assert not rows["pair_origin"].any()
    assert not rows["class_index"].any()


def test_a_column_is_not_kept_alive_by_its_last_rows(tmp_path):
    writer = ShardWriter(tmp_path, "pairs", FIELDS["pairs"], CLASSES, block_rows=8)
    writer.write("train", random_columns("pairs", 100))
    (pending,) = writer._splits["train"].pending
    assert len(pending["key"]) == 4
    assert all(column.base is None for column in pending.values())


@pytest.mark.parametrize("fields", [
    {"visual": FieldSpec(4, "clip")},
    {"visual": FieldSpec(0, "clip"), "audio": FieldSpec(4, "clap")},
    {"visual": FieldSpec(4, "clip", dtype="float64"), "audio": FieldSpec(4, "clap")},
    {"visual": FieldSpec(4, "clip", ragged=True), "audio": FieldSpec(4, "clap")},
    {"visual": FieldSpec(4, ""), "audio": FieldSpec(4, "clap")},
    {"visual": FieldSpec(4, "c"), "audio": FieldSpec(4, "clap"), "key": FieldSpec(4, "c")},
    {"visual": FieldSpec(4, "c"), "audio": FieldSpec(4, "clap"), "boxes": FieldSpec(4, "c", ragged=True)},
])  # fmt: skip
def test_fields_that_a_kind_cannot_have(tmp_path, fields):
    with pytest.raises(ShardError, match="fields"):
        ShardWriter(tmp_path, "pairs", fields, CLASSES)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_all_finite_agrees_with_numpy(dtype):
    bits = np.arange(2**16, dtype=np.uint32)
    numbers = bits.astype(np.uint16).view(np.float16) if dtype == "float16" else (bits << 16).view(np.float32)
    assert [all_finite(number) for number in numbers.reshape(-1, 1)] == np.isfinite(numbers).tolist()


def test_text_that_is_not_utf8_is_named(tmp_path):
    columns = random_columns("pairs", 3) | {"key": ["a", "b\udce9", "c"]}
    with (
        pytest.raises(ShardError, match=r"row 1, field key is not UTF-8 text: 'b\\udce9'"),
        ShardWriter(tmp_path, "pairs", FIELDS["pairs"], CLASSES) as writer,
    ):
        writer.write("train", columns)
