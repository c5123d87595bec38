"""`ss2a shards pack`: tars of other tools and data sets of ours, by path, pattern and URL."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from lightning_ss2a.cli.shards import _expand
from lightning_ss2a.cli.ss2a import main
from lightning_ss2a.data import Manifest, ShardReader
from lightning_ss2a.errors import InputError
from tests.data.shard_examples import read_everything, same_data
from tests.data.shards import write_pairs

WORDS = ("cat", "dog")
FIELDS = ["--fields={visual: clip.npy, audio: clap.npy}", "--encoders={visual: clip, audio: clap}"]


def as_npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def write_foreign_tars(folder: Path, files: int = 3, each: int = 4) -> np.ndarray:
    """One sample an entry group, as img2dataset and its kin write them; returns all visual embeddings."""
    folder.mkdir()
    visual = np.random.default_rng(0).normal(size=(files * each, 5)).astype(np.float32)
    for number in range(files):
        with tarfile.open(folder / f"{number:03}.tar", "w") as tar:
            for row in range(number * each, (number + 1) * each):
                members = {
                    "clip.npy": as_npy(visual[row]),
                    "clap.npy": as_npy(visual[row, :3]),
                    "json": json.dumps({"label": WORDS[row % 2], "video": {"id": f"v{row // 2}"}}).encode(),
                    "cls": str(row % 2).encode(),
                    "txt": f"the {WORDS[row % 2]} of {row}".encode(),
                }
                for name, data in members.items():
                    info = tarfile.TarInfo(f"sample{row:04}.{name}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return visual


def pack(*arguments: str) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["shards", "pack", *arguments])
    assert not exit_.value.code


@pytest.mark.parametrize("way", ["glob", "braces", "file URL with braces", "list"])
def test_tars_of_other_tools(tmp_path: Path, way, capsys):
    visual = write_foreign_tars(tmp_path / "tars")
    source = {
        "glob": f"{tmp_path}/tars/*.tar",
        "braces": f"{tmp_path}/tars/{{000..002}}.tar",
        "file URL with braces": f"file://{tmp_path}/tars/{{000..002}}.tar",
        "list": str([f"{tmp_path}/tars/{n:03}.tar" for n in range(3)]),
    }[way]
    facts = ["--class_from=json:label", "--group_from=json:video.id", "--name_from=txt"]
    pack(source, str(tmp_path / "out"), *FIELDS, *facts, "--dtype=float32", "--split=test")
    rows = ShardReader(tmp_path / "out").read_split("test")
    assert np.array_equal(rows["visual"], visual)
    assert np.array_equal(rows["audio"], visual[:, :3])
    assert rows["name"].tolist() == [f"the {WORDS[row % 2]} of {row}".encode() for row in range(12)]
    assert rows["class_index"].tolist() == [row % 2 for row in range(12)]
    groups = rows["group"].tolist()
    assert all((groups[i] == groups[j]) == (i // 2 == j // 2) for i in range(12) for j in range(12))
    assert Manifest.load(tmp_path / "out").classes == WORDS
    assert "12 rows (test 12), 2 classes" in capsys.readouterr().out


def test_classes_by_number(tmp_path: Path):
    write_foreign_tars(tmp_path / "tars")
    pack(f"{tmp_path}/tars/*.tar", str(tmp_path / "out"), *FIELDS, "--class_from=cls", "--classes=[dog, wolf]")
    manifest = Manifest.load(tmp_path / "out")
    assert manifest.classes == ("dog", "wolf")
    assert ShardReader(tmp_path / "out").read_split("train")["class_index"].tolist() == [0, 1] * 6


def test_our_own_data_set_there_and_back(tmp_path: Path):
    source = write_pairs(tmp_path / "pairs", visual_views=2)
    pack(source, str(tmp_path / "samples"), "--layout=samples")
    pack(str(tmp_path / "samples"), str(tmp_path / "blocks"), "--block_rows=5")
    one, other = read_everything(source), read_everything(tmp_path / "blocks")
    assert same_data(one, other)
    pack(source, str(tmp_path / "shuffled"), "--shuffle_seed=1")
    shuffled = read_everything(tmp_path / "shuffled")["train"]["key"].tolist()
    assert shuffled != one["train"]["key"].tolist()
    assert sorted(shuffled) == sorted(one["train"]["key"].tolist())


def test_compressed(tmp_path: Path):
    source = write_pairs(tmp_path / "pairs", visual_views=2)
    pack(source, str(tmp_path / "packed"), "--compression=gzip")
    assert same_data(read_everything(tmp_path / "packed"), read_everything(source))
    write_foreign_tars(tmp_path / "tars")
    pack(f"{tmp_path}/tars/*.tar", str(tmp_path / "foreign"), *FIELDS, "--compression=gzip")
    for folder in ("packed", "foreign"):
        with tarfile.open(tmp_path / folder / "train-000000.tar") as tar:
            assert "000000.key.npy.gz" in tar.getnames()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["*.tar", "out"], "no file matches"),
        (["{000..003}.tar", "out", *FIELDS], "003.tar"),  # one of the names does not exist
        (["pairs", "out", *FIELDS], "these sources have a manifest"),
        (["pairs", "out", "--class_from=cls"], "these sources have a manifest"),
        (["pairs", "out", "--licence=mine"], "these sources have a manifest"),
        (["nowhere", "out"], "nowhere: no such file or folder"),
        (["tars/000.tar", "out", *FIELDS, "--layout=samples"], "layout and shuffle_seed are for data sets of ours"),
        (["tars/000.tar", "out", "--fields={visual: vit.npy}", "--encoders={visual: vit}"], "vit.npy"),
        (["pairs", "pairs"], "the output is the source"),
        (["file:pairs", "pairs", "--overwrite=true"], "the output is the source"),
        (["file:*.rat", "out"], "no file matches"),
        (["pairs", "out", "--layout=samples", "--compression=gzip"], "in layout samples, which other tools read, only"),
    ],
)
def test_what_cannot_be_packed(tmp_path: Path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    write_foreign_tars(tmp_path / "tars")
    for number in range(3):
        (tmp_path / f"{number:03}.tar").write_bytes((tmp_path / "tars" / f"{number:03}.tar").read_bytes())
    if arguments[0] == "*.tar":
        monkeypatch.chdir(tmp_path / "tars" / "..")
        arguments = ["nothing*.tar", "out"]
    write_pairs(tmp_path / "pairs")
    with pytest.raises(SystemExit) as exit_:
        main(["shards", "pack", *arguments])
    printed = capsys.readouterr().err
    assert exit_.value.code == 2, printed
    assert message in printed
    assert printed.count("\n") == 1
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_patterns(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.tar", "a.tar", "odd[1].tar"):
        Path(name).touch()
    assert _expand(["*.tar"]) == ["a.tar", "b.tar", "odd[1].tar"]
    assert _expand(["odd[1].tar"]) == ["odd[1].tar"]  # a file of that very name
    assert _expand(["{a,b}.tar"]) == ["a.tar", "b.tar"]
    assert _expand(["https://x.org/{000..002}.tar"]) == [f"https://x.org/00{n}.tar" for n in range(3)]
    with pytest.raises(InputError, match="no file matches"):
        _expand(["c*.tar"])
