"""Simulated data sets: the same bytes from the same arguments, a truth for every row, builds that go on."""

import gc
import math
import os
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lightning_ss2a.data import Manifest, ShardReader, ShardWriter
from lightning_ss2a.data.format.columns import Ragged
from lightning_ss2a.data.format.staging import STAGING
from lightning_ss2a.data.simulation.dataset import DRAWN_TOGETHER, simulate_dataset
from lightning_ss2a.data.simulation.truth import read_truth, read_world
from lightning_ss2a.data.simulation.world import ModalitySpec, World
from lightning_ss2a.data.tools.pack import repack_dataset
from lightning_ss2a.data.tools.validate import validate_dataset
from lightning_ss2a.errors import InputError
from tests.data.shard_examples import read_everything, same_data
from tests.data.simulation.test_world import SMALL
from tests.limits import largest_file

ROWS = {"pairs": 700, "scenes": 300, "videos": 70}


def small(folder: Path, kind: str = "pairs", **changes) -> Path:
    options = {"splits": {"train": ROWS.get(kind, 5), "test": 40}, "num_classes": 12, "world": SMALL, "block_rows": 64}
    simulate_dataset(str(folder), kind, **(options | changes))
    return folder


def stopped_small(folder: Path, monkeypatch: pytest.MonkeyPatch, where: str, **changes) -> None:
    """A build that ends the first time that it calls this method of its writer."""

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ShardWriter, where, stop)
        with pytest.raises(KeyboardInterrupt):
            small(folder, **changes)


def all_bytes(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def read(folder: Path, split: str = "train") -> dict:
    return ShardReader(folder).read_split(split)


def test_a_truth_of_other_rows_is_refused(tmp_path: Path):
    few = small(tmp_path / "few", splits={"train": 30})
    repack_dataset([str(small(tmp_path / "many"))], str(few), overwrite=True)
    with pytest.raises(InputError, match=r"train-000000\.npz: tells of other rows than train-000000\.tar"):
        read_truth(few, "train")


@pytest.mark.parametrize("kind", ROWS)
def test_data_sets_are_valid_and_as_designed(tmp_path: Path, kind):
    folder = small(tmp_path / "one", kind, shard_rows=200)
    assert validate_dataset(folder) == []
    manifest = Manifest.load(folder)
    assert (manifest.kind, manifest.provenance, manifest.licence) == (kind, "simulated", "CC0")
    assert {name: manifest.rows(name) for name in manifest.splits} == {"train": ROWS.get(kind, 5), "test": 40}
    for name, spec in manifest.fields.items():
        sound = name == "audio"
        assert (spec.width, spec.encoder) == ((32, "simulated-clap") if sound else (48, "simulated-clip"))
        assert spec.dtype == "float16"
    assert manifest.load_label_head(folder).labels == manifest.classes
    for split in manifest.splits:
        rows, truth = read(folder, split), read_truth(folder, split)
        assert np.array_equal(rows["key"], truth["key"])
        assert not set(truth) - {"key"} & set(manifest.columns)
        if kind == "pairs":
            assert np.array_equal(rows["class_index"], truth["visual_class"])
    truths = {file.stem for file in (folder / "truth").iterdir()}
    assert truths == {"world"} | {
        Path(shard.file).stem for split in manifest.splits for shard in manifest.shards(split)
    }


@pytest.mark.parametrize("kind", ROWS)
def test_equal_arguments_give_equal_bytes_with_any_number_of_threads(tmp_path: Path, kind):
    one, other = (all_bytes(small(tmp_path / str(n), kind, threads=n, shard_rows=200)) for n in (1, 3))
    assert one == other
    assert one != all_bytes(small(tmp_path / "seed", kind, threads=1, shard_rows=200, seed=1))


def test_the_number_of_blas_threads_does_not_change_a_bit(tmp_path: Path):
    """At the default widths, where BLAS would use several threads."""
    program = """
import sys
from lightning_ss2a.data.simulation.dataset import simulate_dataset
for kind in ("pairs", "scenes", "videos"):
    simulate_dataset(f"{sys.argv[1]}/{kind}", kind, {"train": 30})
"""
    for threads in ("1", "3"):
        environment = os.environ | {"OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
        subprocess.run([sys.executable, "-c", program, str(tmp_path / threads)], check=True, env=environment)
    assert all_bytes(tmp_path / "1") == all_bytes(tmp_path / "3")


@pytest.mark.parametrize("kind", ROWS)
def test_sizes_and_other_splits_do_not_change_rows(tmp_path: Path, kind):
    one = small(tmp_path / "one", kind, block_rows=1024, shard_rows=65536)
    other = small(tmp_path / "other", kind, block_rows=7, shard_rows=33, splits={"train": 50})
    for name, column in read(other).items():
        expected = read(one)[name][:50]
        values = (column.values, expected.values) if hasattr(column, "values") else (column, expected)
        assert np.array_equal(*values), name
    for name, array in read_truth(other, "train").items():
        assert np.array_equal(array, read_truth(one, "train")[name][:50]), name


def test_another_split_or_seed_has_other_rows_and_another_seed_another_world(tmp_path: Path):
    one = small(tmp_path / "one")
    other = small(tmp_path / "other", seed=1)
    train, test = read(one), read(one, "test")
    assert not np.isin(train["visual"][:, 0], test["visual"][:, 0]).all()
    assert not np.array_equal(train["visual"], read(other)["visual"])
    assert not np.array_equal(World(SMALL, 12, 0).audio.prototypes, World(SMALL, 12, 1).audio.prototypes)


def test_a_build_that_stops_goes_on(tmp_path: Path, monkeypatch):
    """Killed while it writes, in the middle of a shard, and again after its last row."""
    monkeypatch.setitem(DRAWN_TOGETHER, "pairs", 64)  # shards end within what is drawn together
    whole = all_bytes(small(tmp_path / "whole", shard_rows=100))
    write, close = ShardWriter.write, ShardWriter.close

    def stop_at(split: str, rows: int):
        def stopping(self, name, columns):
            if name == split and columns["key"][0].endswith(b"%09d" % rows):
                raise KeyboardInterrupt
            write(self, name, columns)

        return stopping

    def stop(self):
        raise KeyboardInterrupt

    for attribute, broken in (("write", stop_at("train", 256)), ("write", stop_at("test", 0)), ("close", stop)):
        monkeypatch.setattr(ShardWriter, attribute, broken)
        with pytest.raises(KeyboardInterrupt):
            small(tmp_path / "stopped", shard_rows=100)
        monkeypatch.setattr(ShardWriter, "write", write)
        monkeypatch.setattr(ShardWriter, "close", close)
    with pytest.raises(InputError, match="unfinished build"):
        small(tmp_path / "stopped", shard_rows=100, seed=5)
    assert all_bytes(small(tmp_path / "stopped", shard_rows=100)) == whole


def values(column: np.ndarray | Ragged) -> np.ndarray:
    return column.values if isinstance(column, Ragged) else column


@pytest.mark.parametrize(
    ("kind", "drawn_later"),
    [
        ("pairs", {"audio"}),
        ("scenes", {"audio", "global_visual"}),
        ("videos", {"audio", "frames", "class_index", "name", "starts", "stops"}),
    ],
)
def test_a_clean_split_has_the_sources_and_keys_of_the_other_and_its_own_noise(tmp_path: Path, kind, drawn_later):
    folders = small(tmp_path / "noisy", kind), small(tmp_path / "clean", kind, clean_splits=["test"])
    noisy, clean = (read(folder, "test") | read_truth(folder, "test") for folder in folders)
    matched = ~noisy["mismatched"]
    assert 0 < matched.sum() < 40
    assert not clean["mismatched"].any()
    assert read_truth(folders[1], "train")["mismatched"].any()
    heard = {"audio_class", "audio_classes"} & noisy.keys()
    for name in noisy.keys() - heard - {"mismatched"}:
        assert np.array_equal(values(noisy[name]), values(clean[name])) == (name not in drawn_later), name
    for name in heard:
        assert np.array_equal(noisy[name][matched], clean[name][matched])
    assert (noisy["audio"][matched] != clean["audio"][matched]).any(1).all()


def test_splits_of_one_name_hold_the_same_pictures_keys_and_groups_in_every_data_set(tmp_path: Path):
    one = small(tmp_path / "one")
    other = small(tmp_path / "other", pair_origins={"curated": 1.0}, mismatch={"curated": 0.5}, splits={"train": 700})
    for name in ("visual", "key", "group", "class_index"):
        assert np.array_equal(read(one)[name], read(other)[name]), name
    independent = read(small(tmp_path / "name", splits={"second": 700}), "second")
    for name in ("key", "group"):
        assert not np.isin(independent[name], read(one)[name]).any()
    assert not np.isin(independent["visual"][:, 0], read(one)["visual"][:, 0]).all()


@pytest.mark.parametrize(
    "changed",
    [
        {"mismatch": {"curated": 0.2}},
        {"pair_origins": {"curated": 0.5, "translated": 0.5}},
        {"clean_splits": ["test"]},
        {"world": replace(SMALL, gap=0.7)},
        {"splits": {"train": 701, "test": 40}},
    ],
)
def test_a_build_goes_on_only_with_the_same_rows(tmp_path: Path, monkeypatch, changed):
    stopped_small(tmp_path, monkeypatch, "close", shard_rows=100)
    before = all_bytes(tmp_path)
    with pytest.raises(InputError, match="unfinished build of another data set"):
        small(tmp_path, shard_rows=100, **changed)
    assert all_bytes(tmp_path) == before


def test_the_truth_of_a_build_without_a_finished_shard_does_not_stay(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(DRAWN_TOGETHER, "pairs", 64)
    stopped_small(tmp_path, monkeypatch, "write", shard_rows=10)
    truth = tmp_path / "truth"
    truth.mkdir()
    (truth / "notes.npz").write_bytes(b"of the user")
    small(tmp_path, splits={"test": 3}, seed=1)
    assert sorted(file.name for file in truth.iterdir()) == ["notes.npz", "test-000000.npz", "world.json"]


def test_the_truth_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch):
    synced, fsync, rename = set(), os.fsync, os.replace

    def replacing(source, target):
        assert Path(target).suffix != ".npz" or os.stat(source).st_ino in synced
        rename(source, target)

    monkeypatch.setattr(os, "fsync", lambda number: synced.add(os.fstat(number).st_ino) or fsync(number))
    monkeypatch.setattr(os, "replace", replacing)
    small(tmp_path)
    assert os.stat(tmp_path / "truth" / "train-000000.npz").st_ino in synced


def test_a_truth_that_a_full_disk_stops_is_told_once(tmp_path: Path, monkeypatch):
    unraisable: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    with largest_file(10_000), pytest.raises(OSError, match=r"File too large: .*truth/train-000000.npz"):
        small(tmp_path, shard_rows=400)
    gc.collect()
    assert not unraisable
    assert not list(tmp_path.iterdir())


def test_scenes_of_few_classes_where_nothing_is_mismatched(tmp_path: Path):
    for number, options in enumerate(({"mismatch": {}}, {"clean_splits": ["train", "test"]})):
        folder = small(tmp_path / str(number), "scenes", num_classes=4, **options)
        assert validate_dataset(folder) == []
        truth = read_truth(folder, "train")
        assert np.array_equal(truth["audio_classes"], truth["visual_classes"])
        assert set(truth["visual_classes"].flat) == {-1, 0, 1, 2, 3}


def test_compression_changes_no_row(tmp_path: Path):
    plain, packed = small(tmp_path / "plain", "scenes"), small(tmp_path / "packed", "scenes", compression="gzip")
    assert same_data(read_everything(packed), read_everything(plain))
    shards = [sum(file.stat().st_size for file in folder.glob("*.tar")) for folder in (plain, packed)]
    assert shards[1] < shards[0]


def test_a_mismatch_without_effect_is_told(tmp_path: Path):
    with pytest.warns(UserWarning, match=r"mismatch: curated=0\.5 has no effect: no row is curated") as told:
        small(tmp_path / "told", pair_origins={"annotated": 1.0}, mismatch={"curated": 0.5, "annotated": 0.1})
    assert [warning.filename for warning in told] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small(tmp_path / "default", pair_origins={"annotated": 1.0})  # nobody asked for any mismatch


def test_overwriting_replaces_the_truth_too(tmp_path: Path):
    small(tmp_path, shard_rows=100)
    with pytest.raises(InputError, match="finished data set"):
        small(tmp_path)
    small(tmp_path, splits={"test": 3}, overwrite=True)
    assert sorted(file.name for file in (tmp_path / "truth").iterdir()) == ["test-000000.npz", "world.json"]
    assert len(read_truth(tmp_path, "test")["key"]) == 3


def test_a_build_that_stops_leaves_the_data_set_that_it_would_replace(tmp_path: Path, monkeypatch):
    whole, before = all_bytes(small(tmp_path / "whole", seed=1)), all_bytes(small(tmp_path / "out", shard_rows=100))
    stopped_small(tmp_path / "out", monkeypatch, "close", seed=1, overwrite=True)
    kept = {name: content for name, content in all_bytes(tmp_path / "out").items() if not name.startswith(STAGING)}
    assert kept == before
    assert all_bytes(small(tmp_path / "out", seed=1, overwrite=True)) == whole


@pytest.mark.parametrize("name", ["train-000000.tar", "truth/world.json", "truth/train-000000.npz"])
def test_files_of_others_are_not_replaced(tmp_path: Path, name: str):
    (tmp_path / "truth").mkdir()
    (tmp_path / name).write_bytes(b"mine")
    for overwrite in (False, True):
        with pytest.raises(InputError, match=f"{name}: is of no data set of ours"):
            small(tmp_path, overwrite=overwrite)
    assert all_bytes(tmp_path) == {name: b"mine"}


def test_the_world_of_a_data_set_is_known(tmp_path: Path):
    world, expected = read_world(small(tmp_path, seed=4)), World(SMALL, 12, 4)
    assert world.spec == SMALL
    assert np.array_equal(world.audio.prototypes, expected.audio.prototypes)
    assert np.array_equal(world.frequency, expected.frequency)


def test_no_truth_of_other_data_sets(tmp_path: Path):
    with pytest.raises(InputError, match=r"truth/world\.json: missing"):
        read_world(tmp_path)
    folder = small(tmp_path)
    (folder / "truth" / "train-000000.npz").unlink()
    with pytest.raises(InputError, match=r"truth/train-000000\.npz: missing"):
        read_truth(folder, "train")


def modality(**changes) -> ModalitySpec:
    return replace(SMALL.visual, **changes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "movies"}, "kind is 'movies', needs one of pairs, scenes, videos"),
        ({"splits": {}}, "splits is empty"),
        ({"splits": {"train": 0}}, "splits: train is 0"),
        ({"splits": {"../train": 5}}, "splits: '../train' needs a name"),
        ({"num_classes": 1}, "num_classes is 1, needs at least 2"),
        ({"num_classes": 7, "kind": "scenes"}, "num_classes is 7, needs at least 8"),
        ({"num_classes": 3, "kind": "scenes", "mismatch": {}}, "num_classes is 3, needs at least 4"),
        ({"seed": -1}, "seed is -1"),
        ({"threads": 0}, "threads is 0"),
        ({"block_rows": 0}, "block_rows is 0"),
        ({"pair_origins": {"found": 1.0}}, "pair_origins has no 'found': known are annotated, curated, translated"),
        ({"pair_origins": {"annotated": 0.5}}, "pair_origins are parts of all rows and sum to 0.5"),
        ({"clean_splits": ["validation"]}, "clean_splits: validation is no split; splits are train, test"),
        ({"mismatch": {"curated": 1.5}}, "mismatch: curated is 1.5"),
        ({"world": replace(SMALL, visual=modality(width=1))}, "world.visual.width is 1"),
        ({"world": replace(SMALL, audio=modality(class_share=-0.1))}, "world.audio.class_share is -0.1"),
        ({"world": replace(SMALL, audio=modality(cone=0.9))}, "world.audio.cone and class_share"),
        ({"world": replace(SMALL, gap=2.0)}, "world.gap is 2.0; with these cones it can be 0.0286 to 1.4"),
        ({"world": replace(SMALL, imbalance=0.5)}, "world.imbalance is 0.5"),
        ({"world": replace(SMALL, imbalance=math.nan)}, "world.imbalance is nan"),
        ({"world": replace(SMALL, scene_sources=0)}, "world.scene_sources is 0"),
        ({"world": replace(SMALL, instance_width=33)}, "world.instance_width is 33"),
        ({"world": replace(SMALL, gain_concentration=0.0)}, "world.gain_concentration is 0.0"),
        ({"world": replace(SMALL, shortest_activation=0.0)}, "world.shortest_activation is 0.0"),
        ({"world": replace(SMALL, size_power=-1.0)}, "world.size_power is -1.0, needs 0 to 20"),
        (
            {"world": replace(SMALL, loudness_share=-0.1)},
            "world.loudness_share is -0.1, needs 0 to 0.14, which is what",
        ),
        ({"world": replace(SMALL, loudness_share=0.2)}, "world.loudness_share is 0.2, needs 0 to 0.14"),
        ({"world": replace(SMALL, size_power=400.0)}, "world.size_power is 400.0, needs 0 to 20"),
        ({"world": replace(SMALL, mixture_noise=math.inf)}, "world.mixture_noise is inf, needs 0 to 1000"),
        ({"world": replace(SMALL, imbalance=math.inf)}, "world.imbalance is inf"),
        ({"world": replace(SMALL, video_seconds=math.inf)}, "world.video_seconds is inf"),
        ({"world": replace(SMALL, video_seconds=math.nan)}, "world.video_seconds is nan"),
        ({"world": replace(SMALL, gain_concentration=1e300)}, "world.gain_concentration is 1e+300"),
        ({"world": replace(SMALL, shortest_activation=math.nan)}, "world.shortest_activation is nan"),
        ({"world": replace(SMALL, visual=modality(cone=0), audio=modality(cone=0), gap=math.inf)}, "world.gap is inf"),
        ({"world": replace(SMALL, visual=modality(instance_share=math.nan))}, "world.visual.instance_share is nan"),
    ],
)
def test_bad_arguments_are_named_before_anything_is_written(tmp_path: Path, options, message):
    with pytest.raises(InputError) as error:
        small(tmp_path / "out", **{"kind": "pairs", **options})
    assert message in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_file_where_the_truth_goes_is_named(tmp_path: Path):
    (tmp_path / "truth").touch()
    with pytest.raises(InputError, match=r"/truth: is a file, and the truth needs a folder there"):
        small(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["truth"]
