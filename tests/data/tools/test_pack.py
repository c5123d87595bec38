import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
from pathlib import Path

import fsspec
import numpy as np
import pytest
import webdataset

from lightning_ss2a.data import FieldSpec, Manifest, Ragged, ShardError, ShardWriter
from lightning_ss2a.data.format.source_marks import source_mark
from lightning_ss2a.data.format.staging import JOURNAL, STAGING
from lightning_ss2a.data.tools import pack as pack_module
from lightning_ss2a.data.tools.pack import SampleMapping, pack_samples, repack_dataset
from lightning_ss2a.data.tools.validate import validate_dataset
from lightning_ss2a.errors import InputError
from tests.data.shard_examples import FIELDS, make_dataset, make_label_head, read_everything, same_data

MAPPING = SampleMapping(
    fields={"visual": "clip.npy", "audio": "clap.npy"},
    encoders={"visual": "ViT-L/14", "audio": "CLAP"},
    class_from="json:label",
    group_from="json:video.id",
    name_from="txt",
    pair_origin="curated",
)


def foreign_sample(i: int) -> dict:
    return {
        "__key__": f"{i:04d}",
        "clip.npy": np.full(6, i, np.float32),
        "clap.npy": np.full(4, -i, np.float64),
        "json": {"label": ["dog", "cat"][i % 2], "video": {"id": i // 3}},
        "txt": f"thing {i}",
        "jpg": b"not looked at",
    }


def write_foreign(path: Path, samples: list[dict]) -> str:
    with webdataset.TarWriter(str(path)) as writer:
        for sample in samples:
            writer.write({name: value for name, value in sample.items() if value is not None})
    return str(path)


@pytest.fixture
def tars(tmp_path):
    samples = [foreign_sample(i) for i in range(12)]
    return [write_foreign(tmp_path / "a.tar", samples[:5]), write_foreign(tmp_path / "b.tar", samples[5:])]


def test_foreign_samples_become_pairs(tmp_path, tars):
    manifest = pack_samples(tars, tmp_path / "out", MAPPING, split="test", licence="CC0", block_rows=4)
    assert {problem.row for problem in validate_dataset(tmp_path / "out")} == {0}  # sample 0 holds zeros alone
    assert manifest == Manifest.load(tmp_path / "out")
    assert manifest.classes == ("cat", "dog")
    assert manifest.encoders == {"visual": "ViT-L/14", "audio": "CLAP"}
    rows = read_everything(tmp_path / "out")["test"]
    assert rows["key"].tolist() == [f"{i:04d}".encode() for i in range(12)]
    assert rows["name"].tolist() == [f"thing {i}".encode() for i in range(12)]
    assert np.array_equal(rows["visual"][:, 3], np.arange(12))
    assert np.array_equal(rows["audio"][:, 1], -np.arange(12))
    assert rows["class_index"].tolist() == [1, 0] * 6
    assert rows["pair_origin"].tolist() == [1] * 12
    assert len(np.unique(rows["group"])) == 4
    assert (rows["group"][:3] == rows["group"][0]).all()


def test_urls_and_compressed_tars(tmp_path, tars):
    packed = Path(tars[1] + ".gz")
    packed.write_bytes(gzip.compress(Path(tars[1]).read_bytes()))
    pack_samples([f"pipe:cat {tars[0]}", f"file://{packed}"], tmp_path / "urls", MAPPING)
    pack_samples(tars, tmp_path / "files", MAPPING)
    assert same_data(read_everything(tmp_path / "urls"), read_everything(tmp_path / "files"))


def test_numbered_classes_and_views(tmp_path):
    samples = [{"__key__": f"{i}", "v.npy": np.ones((3, 6)), "a.npy": np.ones(4), "cls": i} for i in (2, 0)]
    tar = write_foreign(tmp_path / "x.tar", samples)
    mapping = SampleMapping({"visual": "v.npy", "audio": "a.npy"}, {"visual": "c", "audio": "d"}, class_from="cls")
    manifest = pack_samples([tar], tmp_path / "out", mapping)
    assert manifest.classes == ("0", "1", "2")
    assert manifest.fields["visual"].views == 3
    named = pack_samples([tar], tmp_path / "named", mapping, classes=["dog", "cat", "owl"])
    assert named.classes == ("dog", "cat", "owl")
    assert read_everything(tmp_path / "named")["train"]["class_index"].tolist() == [2, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clap.npy": None}, r"b\.tar: sample '0007': field audio is missing: no member \.clap\.npy"),
        ({"clap.npy": np.ones(5)}, r"b\.tar: sample '0007', field audio is \[5\], the first sample's is \[4\]"),
        ({"clap.npy": np.ones(4, int)}, r"b\.tar: sample '0007', field audio is int64"),
        ({"clap.npy": np.full(4, np.nan)}, r"b\.tar: sample '0007', field audio is NaN"),
        ({"clap.npy": np.full(4, 1e9)}, r"b\.tar: sample '0007', field audio holds 1e\+09, which does not fit float16"),
        ({"json": None}, r"b\.tar: sample '0007': the class is missing: no member \.json"),
        ({"json": {"label": "dog"}}, r"b\.tar: sample '0007': the group is missing: no video\.id in \.json"),
        ({"txt": None}, r"sample '0007': the name is missing"),
        ({"txt": b"caf\xe9"}, r"sample '0007': the name is not UTF-8 text: 'caf\\udce9'"),
        ({"json": {"label": None, "video": {"id": 1}}}, r"sample '0007': the class is null, needs text or a number"),
        ({"json": {"label": ["dog"], "video": {"id": 1}}}, r"the class is \[\"dog\"\], needs text or a number"),
        ({"json": {"label": "dog", "video": {"id": ""}}}, r"sample '0007': the group is empty"),
        ({"json": {"label": "\ud800", "video": {"id": 1}}}, r"sample '0007': the class is not UTF-8 text"),
    ],
)
def test_what_is_missing_is_named(tmp_path, tars, change, message):
    samples = [foreign_sample(i) | (change if i == 7 else {}) for i in range(5, 12)]
    write_foreign(Path(tars[1]), samples)
    with pytest.raises(ShardError, match=message):
        pack_samples(tars, tmp_path / "out", MAPPING)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_keys_that_come_again_in_another_tar(tmp_path):
    tars = [write_foreign(tmp_path / f"{name}.tar", [foreign_sample(i) for i in range(3)]) for name in "ab"]
    with pytest.raises(ShardError, match=r"b.tar: sample '0000': key '0000' came before; name a fact .*key_from"):
        pack_samples(tars, tmp_path / "out", MAPPING)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_class_that_is_not_given(tmp_path, tars):
    with pytest.raises(ShardError, match=r"sample '0001': class 'cat' is not one of the 1 classes given"):
        pack_samples(tars, tmp_path / "out", MAPPING, classes=["dog"])


def test_pickles_in_foreign_arrays_are_not_loaded(tmp_path):
    stream = io.BytesIO()
    np.save(stream, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with webdataset.TarWriter(str(tmp_path / "x.tar"), encoder=False) as writer:
        writer.write({"__key__": "0", "clip.npy": stream.getvalue(), "clap.npy": stream.getvalue(), "json": b"{}"})
    with pytest.raises(ShardError, match="pickled Python objects, which are never loaded"):
        pack_samples([str(tmp_path / "x.tar")], tmp_path / "out", MAPPING, classes=["dog"])


def test_truncated_tars(tmp_path, tars):
    whole = Path(tars[1]).read_bytes()
    with tarfile.open(tars[1]) as tar:
        last = tar.getmembers()[-1]
        end = last.offset_data + -(-last.size // 512) * 512
    for size in (*range(0, end, 1999), end, last.offset):
        Path(tars[1]).write_bytes(whole[:size])
        with pytest.raises(ShardError, match=r"b\.tar"):
            pack_samples(tars, tmp_path / "out", MAPPING, overwrite=True)


@pytest.mark.parametrize("module", [gzip, bz2, lzma])
def test_compressed_tars_that_are_cut_off_between_samples(tmp_path, module):
    """As by a download that stopped: what is there unpacks well, and ends where a sample ends."""
    write_foreign(tmp_path / "x.tar", [foreign_sample(i) for i in range(6)])
    whole = (tmp_path / "x.tar").read_bytes()
    with tarfile.open(tmp_path / "x.tar") as tar:
        end = next(member.offset for member in tar.getmembers() if member.name.startswith("0003"))
    for data in (module.compress(whole[:end]), module.compress(whole)[:-9]):
        (tmp_path / "x.tar.z").write_bytes(data)
        with pytest.raises(ShardError, match=r"x\.tar\.z"):
            pack_samples([str(tmp_path / "x.tar.z")], tmp_path / "out", MAPPING, overwrite=True)
    (tmp_path / "x.tar.z").write_bytes(module.compress(whole))
    assert pack_samples([str(tmp_path / "x.tar.z")], tmp_path / "out", MAPPING, overwrite=True).rows() == 6


def test_a_name_that_is_not_utf8(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin1") as tar:
        for member, value in (("clip.npy", np.ones(3)), ("clap.npy", np.ones(2))):
            stream = io.BytesIO()
            np.save(stream, value)
            header = tarfile.TarInfo(f"caf\xe9.{member}")
            header.size = len(stream.getvalue())
            tar.addfile(header, io.BytesIO(stream.getvalue()))
    mapping = SampleMapping(fields=MAPPING.fields, encoders=MAPPING.encoders)
    with pytest.raises(ShardError, match="the key is not UTF-8 text"):
        pack_samples([str(tmp_path / "x.tar")], tmp_path / "out", mapping)


def test_large_numbers_and_padded_ones_are_names_of_classes(tmp_path):
    for labels in ([12_345_678, 7], ["007", "010"], ["7" * 5000, "8"]):
        samples = [foreign_sample(i) | {"json": {"label": label, "video": {"id": i}}} for i, label in enumerate(labels)]
        source = write_foreign(tmp_path / "x.tar", samples)
        manifest = pack_samples([source], tmp_path / "out", MAPPING, overwrite=True)
        assert manifest.classes == tuple(sorted(map(str, labels)))


def test_an_unfinished_copy_does_not_go_on_in_another_order(tmp_path, monkeypatch):
    source, sizes = make_dataset(tmp_path / "in", splits={"train": 20}), {"block_rows": 2, "shard_rows": 4}
    monkeypatch.setattr(pack_module, "_ROWS_AT_ONCE", 5)
    write, calls = pack_module.ShardWriter.write, []

    def write_twice(self, split, columns):
        calls.append(split)
        if len(calls) > 2:
            raise KeyboardInterrupt
        write(self, split, columns)

    with monkeypatch.context() as patch:
        patch.setattr(pack_module.ShardWriter, "write", write_twice)
        with pytest.raises(KeyboardInterrupt):
            repack_dataset([source], tmp_path / "out", shuffle_seed=1, **sizes)
    with pytest.raises(ShardError, match="unfinished build of another data set"):
        repack_dataset([source], tmp_path / "out", shuffle_seed=2, **sizes)
    repack_dataset([source], tmp_path / "out", shuffle_seed=1, **sizes)
    assert validate_dataset(tmp_path / "out") == []


def test_a_tar_that_is_not_sorted_by_key(tmp_path, tars):
    with tarfile.open(tars[0]) as tar, tarfile.open(tmp_path / "x.tar", "w") as unsorted:
        for member in sorted(tar.getmembers(), key=lambda member: member.name.partition(".")[2]):
            unsorted.addfile(member, tar.extractfile(member))
    with pytest.raises(
        ShardError, match=r"sample .0000.: the class is missing: no member .*; if the tar .* sort the tar by key"
    ):
        pack_samples([str(tmp_path / "x.tar")], tmp_path / "out", MAPPING)


def test_several_tars_in_one(tmp_path, tars):
    joined = tmp_path / "joined.tar"
    joined.write_bytes(b"".join(Path(tar).read_bytes() for tar in tars))
    for number, sources in enumerate((tars, [str(joined)], [f"pipe:cat {tars[0]} {tars[1]}"])):
        assert pack_samples(sources, tmp_path / f"out{number}", MAPPING).rows() == 12
        assert same_data(read_everything(tmp_path / f"out{number}"), read_everything(tmp_path / "out0"))


def test_a_command_that_fails_is_named_with_its_status(tmp_path, tars):
    for command in ("false", f"cat {tars[0]}; exit 3"):
        with pytest.raises(ShardError, match=r"pipe:.*: cannot be read \(the command ended with status [13]\)"):
            pack_samples([f"pipe:{command}"], tmp_path / "out", MAPPING)


def test_no_samples_and_no_file(tmp_path):
    write_foreign(tmp_path / "x.tar", [])
    with pytest.raises(ShardError, match="no samples"):
        pack_samples([str(tmp_path / "x.tar")], tmp_path / "out", MAPPING)
    for source in (str(tmp_path / "nowhere.tar"), f"pipe:cat {tmp_path}/nowhere.tar", "memory://nowhere.tar"):
        with pytest.raises(ShardError, match=r"nowhere\.tar"):
            pack_samples([source], tmp_path / "out", MAPPING)


def test_packing_goes_on_where_it_stopped(tmp_path, tars, monkeypatch):
    monkeypatch.setattr(pack_module, "_ROWS_AT_ONCE", 2)
    options = {"classes": ["cat", "dog"], "shard_rows": 4, "block_rows": 2}
    pack_samples(tars, tmp_path / "whole", MAPPING, **options)
    good = Path(tars[1]).read_bytes()
    Path(tars[1]).write_bytes(good[:9000])
    with pytest.raises(ShardError):
        pack_samples(tars, tmp_path / "out", MAPPING, **options)
    assert (tmp_path / "out" / STAGING / "train-000000.tar").exists()
    Path(tars[1]).write_bytes(good)
    pack_samples(tars, tmp_path / "out", MAPPING, **options)
    for file in (tmp_path / "whole").iterdir():
        assert file.read_bytes() == (tmp_path / "out" / file.name).read_bytes()


def stopped_pack(tars: list[str], folder: Path, monkeypatch, **options) -> dict:
    """Leaves shards of rows 0 to 3 (of the first tar) and 4 to 7 (of both); the ninth row cannot be read."""
    monkeypatch.setattr(pack_module, "_ROWS_AT_ONCE", 2)
    options |= {"classes": ["cat", "dog"], "shard_rows": 4, "block_rows": 2}
    samples = [foreign_sample(i) | ({"clap.npy": np.full(4, np.nan)} if i == 9 else {}) for i in range(5, 12)]
    write_foreign(Path(tars[1]), samples)
    with pytest.raises(ShardError, match=r"b\.tar: sample '0009', field audio is NaN"):
        pack_samples(tars, folder, MAPPING, **options)
    return options


@pytest.mark.parametrize("changed", [0, 1])
def test_a_pack_does_not_go_on_with_other_sources(tmp_path, tars, monkeypatch, changed):
    options = stopped_pack(tars, tmp_path / "out", monkeypatch)
    name, own = Path(tars[changed]).name, (range(5), range(5, 12))[changed]
    write_foreign(Path(tars[changed]), [foreign_sample(i) | {"clip.npy": np.ones(6, np.float32)} for i in own])
    before = {file.name: file.read_bytes() for file in (tmp_path / "out" / STAGING).iterdir()}
    message = rf"{name}: has changed since the unfinished build in .*out read it; restore it, or overwrite"
    with pytest.raises(ShardError, match=message):
        pack_samples(tars, tmp_path / "out", MAPPING, **options)
    assert before == {file.name: file.read_bytes() for file in (tmp_path / "out" / STAGING).iterdir()}
    if not changed:
        write_foreign(Path(tars[1]), [foreign_sample(i) for i in range(5, 12)])
    pack_samples(tars, tmp_path / "out", MAPPING, overwrite=True, **options)
    pack_samples(tars, tmp_path / "whole", MAPPING, **options)
    assert same_data(read_everything(tmp_path / "out"), read_everything(tmp_path / "whole"))


def test_a_pack_goes_on_when_a_source_that_it_has_not_used_was_mended(tmp_path, tars, monkeypatch):
    more = [write_foreign(tmp_path / "c.tar", [foreign_sample(12)]), str(tmp_path / "d.tar")]
    write_foreign(Path(more[1]), [foreign_sample(13) | {"clap.npy": np.full(4, np.nan)}])
    options = {"classes": ["cat", "dog"], "shard_rows": 4}
    with pytest.raises(ShardError, match=r"d\.tar: sample '0013', field audio is NaN"):
        pack_samples([*tars, *more], tmp_path / "out", MAPPING, **options)
    read = (tmp_path / "out" / STAGING / JOURNAL).read_text()
    assert (read.count("a.tar"), read.count("b.tar"), read.count("d.tar")) == (1, 1, 0)
    write_foreign(Path(more[1]), [foreign_sample(13)])
    pack_samples([*tars, *more], tmp_path / "out", MAPPING, **options)
    assert [int(key) for key in read_everything(tmp_path / "out")["train"]["key"]] == list(range(14))
    assert {problem.row for problem in validate_dataset(tmp_path / "out")} == {0}  # sample 0 holds zeros alone


def test_marks_tell_contents_apart(tmp_path):
    file, remote = tmp_path / "a", fsspec.filesystem("memory")
    marks = set()
    for content in (b"", b"a", b"b", b"ab" * 70_000, b"ab" * 69_999 + b"ba"):
        file.write_bytes(content)
        os.utime(file, (0, 0))
        assert source_mark(file) == source_mark(f"file://{file}")
        marks.add(source_mark(file))
    os.utime(file, (1, 1))
    marks.add(source_mark(file))
    assert len(marks) == 6
    remote.pipe_file("/a", b"a")
    one = source_mark("memory://a")
    remote.pipe_file("/a", b"ab")
    assert "" != one != source_mark("memory://a")
    assert source_mark("pipe:cat a") == source_mark("memory://nowhere") == ""
    with pytest.raises(ShardError, match="nowhere: no such file"):
        source_mark(tmp_path / "nowhere")


def test_tars_that_lie_in_the_output_folder_are_not_replaced(tmp_path, tars):
    folder = tmp_path / "out"
    folder.mkdir()
    source = write_foreign(folder / "train-000000.tar", [foreign_sample(i) for i in range(3)])
    before = Path(source).read_bytes()
    for overwrite in (False, True):
        with pytest.raises(ShardError, match=r"out/train-000000\.tar: is of no data set of ours"):
            pack_samples([source], folder, MAPPING, overwrite=overwrite)
    assert [file.name for file in folder.iterdir()] == ["train-000000.tar"]
    assert Path(source).read_bytes() == before


def test_files_of_other_habits(tmp_path):
    """Arrays in Fortran order, and texts that start with a byte-order mark, as some systems write them."""
    mark, samples = "\ufeff".encode(), []
    for i in range(4):
        sample = foreign_sample(i)
        for name in ("clip.npy", "clap.npy"):
            stream = io.BytesIO()
            np.save(stream, np.asfortranarray(np.stack([sample[name], sample[name] + 1])))
            sample[name] = stream.getvalue()
        sample |= {"json": mark + json.dumps(sample["json"]).encode(), "txt": mark + sample["txt"].encode()}
        samples.append(sample)
    with webdataset.TarWriter(str(tmp_path / "x.tar"), encoder=False) as writer:
        for sample in samples:
            writer.write(sample)
    manifest = pack_samples([str(tmp_path / "x.tar")], tmp_path / "out", MAPPING)
    assert manifest.classes == ("cat", "dog")
    rows = read_everything(tmp_path / "out")["train"]
    assert rows["name"].tolist() == [f"thing {i}".encode() for i in range(4)]
    assert np.array_equal(rows["visual"][:, :, 2], [[i, i + 1] for i in range(4)])


def test_keys_with_dots_are_explained_in_a_short_line(tmp_path):
    samples = [foreign_sample(i) | {"__key__": f"clip.{i:04d}"} for i in range(100)]
    source = write_foreign(tmp_path / "x.tar", samples)
    with pytest.raises(ShardError, match="the first dot of a file's name ends the key: rename files whose") as error:
        pack_samples([source], tmp_path / "out", MAPPING)
    assert "x.tar: sample 'clip'" in str(error.value)
    assert len(str(error.value)) < 700


@pytest.mark.parametrize("layout", ["blocks", "samples"])
@pytest.mark.parametrize("kind", FIELDS)
def test_there_and_back(tmp_path, kind, layout):
    source = make_dataset(tmp_path / "source", kind, label_head=make_label_head(), folds=["train", "validation"])
    repack_dataset([source], tmp_path / "copy", layout=layout, block_rows=5, shard_rows=7)
    repack_dataset([tmp_path / "copy"], tmp_path / "back", block_rows=3, shard_rows=8)
    assert validate_dataset(tmp_path / "copy") == []
    assert Manifest.load(tmp_path / "copy").layout == layout
    assert same_data(read_everything(source), read_everything(tmp_path / "copy"))
    for file in source.iterdir():
        assert file.read_bytes() == (tmp_path / "back" / file.name).read_bytes()


@pytest.mark.parametrize("kind", FIELDS)
def test_shuffled(tmp_path, kind):
    source = make_dataset(tmp_path / "source", kind)
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        repack_dataset([source], tmp_path / name, shuffle_seed=seed)
    before, one, same, other = (read_everything(tmp_path / name) for name in ("source", "one", "same", "other"))
    assert same_data(one, same)
    assert one["train"]["key"].tolist() != other["train"]["key"].tolist()
    order = [before["train"]["key"].tolist().index(key) for key in one["train"]["key"].tolist()]
    assert sorted(order) == list(range(20)) != order
    for name, column in one["train"].items():
        for row, original in enumerate(order):
            if isinstance(column, Ragged):
                assert np.array_equal(column.row(row), before["train"][name].row(original))
            else:
                assert np.array_equal(column[row], before["train"][name][original])


def test_several_data_sets_into_one(tmp_path):
    sources = [make_dataset(tmp_path / "a"), make_dataset(tmp_path / "b", splits={"train": 5, "test": 2})]
    manifest = repack_dataset(sources, tmp_path / "out")
    assert {split: manifest.rows(split) for split in manifest.splits} == {"train": 25, "validation": 4, "test": 2}


def test_a_copy_of_several_keeps_the_widest_numbers(tmp_path):
    numbers = {"visual": [[1.0001, 2.0]], "audio": [[0.5]]}
    for name in ("float16", "float32"):
        fields = {"visual": FieldSpec(2, "eye", dtype=name), "audio": FieldSpec(1, "ear")}
        with ShardWriter(tmp_path / name, "pairs", fields, ["cat"]) as writer:
            writer.write("train", {**numbers, "key": [name]})
    manifest = repack_dataset([tmp_path / "float16", tmp_path / "float32"], tmp_path / "out")
    assert {name: spec.dtype for name, spec in manifest.fields.items()} == {"visual": "float32", "audio": "float16"}
    assert read_everything(tmp_path / "out")["train"]["visual"][1, 0] == np.float32(1.0001)


def test_a_damaged_source_is_not_copied(tmp_path):
    source = make_dataset(tmp_path / "source")
    shard = source / "train-000001.tar"
    data = bytearray(shard.read_bytes())
    data[700] ^= 1
    shard.write_bytes(data)
    with pytest.raises(ShardError, match=r"train-000001\.tar"):
        repack_dataset([source], tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_data_set_is_never_packed_over_itself(tmp_path: Path):
    source = make_dataset(tmp_path / "data")
    before = read_everything(source)
    with pytest.raises(InputError, match=r"data/\.\./data: the output is the source"):
        repack_dataset([source], f"{source}/../data", overwrite=True)
    for url, output in ((f"file://{source}", source), (source, f"file://{source}")):
        with pytest.raises(InputError, match=r"data: the output is the source"):
            repack_dataset([url], output, overwrite=True)
    assert same_data(read_everything(source), before)


def test_a_copy_says_what_made_its_rows(tmp_path: Path):
    made_by = [
        {"detector": "nanodet", "seed": "0", "rejected": "3"},
        {"detector": "nanodet", "seed": "0", "rejected": "12", "prior": "labels"},
    ]
    for number, told in enumerate([*made_by, None]):
        make_dataset(tmp_path / f"{number}", made_by=told)

    def copied(*numbers: int) -> dict[str, str] | None:
        output = tmp_path / "_".join(map(str, ("copy", *numbers)))
        return repack_dataset([str(tmp_path / str(number)) for number in numbers], str(output)).made_by

    assert copied(0) == made_by[0]
    assert copied(0, 1) == {"detector": "nanodet", "seed": "0", "rejected": "3; 12", "prior": "not said; labels"}
    assert copied(2, 0) == {"detector": "not said; nanodet", "seed": "not said; 0", "rejected": "not said; 3"}
    assert copied(2) is None
