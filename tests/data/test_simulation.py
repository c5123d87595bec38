"""The simulated world: its geometry, its rows, their truth."""

import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_ss2a.data import Manifest, ShardReader, ShardWriter
from lightning_ss2a.data.kinds import FRAMES_PER_VIDEO, ORIGINS
from lightning_ss2a.data.plan import Purpose, generator
from lightning_ss2a.data.simulate import DRAWN_TOGETHER, read_truth, read_world, simulate_dataset
from lightning_ss2a.data.simulated_rows import (
    NO_SOURCE,
    OriginMix,
    draw_other_classes,
    draw_pairs,
    draw_scenes,
    draw_videos,
)
from lightning_ss2a.data.simulation import ModalitySpec, World, WorldSpec, product_in_tiles, tree_prototypes
from lightning_ss2a.data.validator import validate_dataset
from lightning_ss2a.errors import InputError

CLEAN = OriginMix({"annotated": 1.0}, {})
NOISY = OriginMix({"annotated": 0.2, "curated": 0.5, "translated": 0.3}, {"curated": 0.3, "translated": 0.1})
SMALL = WorldSpec(ModalitySpec(48, 0.47), ModalitySpec(32, 0.51), instance_width=8, scene_sources=4)
EXACT = WorldSpec(  # every source of a class is the same
    ModalitySpec(48, 0.5, 0.5, 0.0), ModalitySpec(32, 0.5, 0.5, 0.0), instance_width=8, mixture_noise=0.0
)
ROWS = {"pairs": 700, "scenes": 300, "videos": 70}


def random(number: int = 0) -> np.random.Generator:
    return generator(0, Purpose.SIMULATED_ROWS, number)


@pytest.fixture(scope="module")
def world() -> World:
    return World(WorldSpec(), 221, 0)


@pytest.fixture(scope="module")
def pairs(world):
    return draw_pairs(world, NOISY, random(), 20_000)


def small(folder: Path, kind: str = "pairs", **changes) -> Path:
    options = {"splits": {"train": ROWS.get(kind, 5), "test": 40}, "num_classes": 12, "world": SMALL, "block_rows": 64}
    simulate_dataset(str(folder), kind, **(options | changes))
    return folder


def all_bytes(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def read(folder: Path, split: str = "train") -> dict:
    return ShardReader(folder).read_split(split)


def mean_cosine(x: np.ndarray) -> float:
    """Of all pairs of two different rows."""
    total = np.square(x.sum(0, dtype=np.float64)).sum()
    return (total - len(x)) / (len(x) * (len(x) - 1))


def filled_up(x: np.ndarray, width: int) -> np.ndarray:
    return np.pad(x, (0, width - len(x)))


# The world


def test_cones_and_gap_are_those_of_the_specification(world, pairs):
    visual, audio = pairs.columns["visual"], pairs.columns["audio"]
    assert mean_cosine(visual) == pytest.approx(0.47, abs=0.01)
    assert mean_cosine(audio) == pytest.approx(0.51, abs=0.01)
    gap = np.linalg.norm(visual.mean(0) - filled_up(audio.mean(0), 768))
    assert gap == pytest.approx(0.82, abs=0.01)


@pytest.mark.parametrize(("visual", "audio", "gap"), [(0.2, 0.6, 0.9), (0.5, 0.3, 0.4), (0.4, 0.4, 1.2)])
def test_other_cones_and_gaps(visual, audio, gap):
    spec = WorldSpec(ModalitySpec(256, visual), ModalitySpec(384, audio), gap=gap)  # the audio is the wider one
    drawn = draw_pairs(World(spec, 50, 1), CLEAN, random(), 6000).columns
    assert mean_cosine(drawn["visual"]) == pytest.approx(visual, abs=0.015)
    assert mean_cosine(drawn["audio"]) == pytest.approx(audio, abs=0.015)
    found = np.linalg.norm(filled_up(drawn["visual"].mean(0), 384) - drawn["audio"].mean(0))
    assert found == pytest.approx(gap, abs=0.02)


def test_embeddings_and_prototypes_are_unit_vectors(world, pairs):
    for x in (pairs.columns["visual"], pairs.columns["audio"], world.visual.prototypes, world.audio.prototypes):
        assert np.abs(np.linalg.norm(x, axis=1) - 1).max() < 1e-5
    assert np.abs(world.audio.prototypes @ world.audio.cone).max() < 1e-5
    assert np.linalg.norm(world.frequency @ world.audio.prototypes) < 1e-3


def test_trees_make_neighbours_alike():
    x = tree_prototypes(np.random.default_rng(0), 64, 4000) / math.sqrt(4000)
    similarity = np.sort(x @ x.T, axis=1)
    levels = np.repeat([0, 1, 2, 3, 4, 5, 6], [32, 16, 8, 4, 2, 1, 1])  # steps in common; the last is the class itself
    assert np.abs(similarity - levels).max() < 0.6


def test_looks_and_sounds_are_independent(world):
    pairs_of_classes = np.triu_indices(221, 1)
    looks, sounds = ((p @ p.T)[pairs_of_classes] for p in (world.visual.prototypes, world.audio.prototypes))
    assert abs(np.corrcoef(looks, sounds)[0, 1]) < 0.05
    assert ((looks > 0.5) & (sounds < 0.1)).any()
    assert ((sounds > 0.5) & (looks < 0.1)).any()


def test_classes_are_as_unbalanced_as_asked(world, pairs):
    assert world.frequency.max() / world.frequency.min() == pytest.approx(9.46)
    counts = np.bincount(pairs.columns["class_index"], minlength=221)
    expected = 20_000 * world.frequency
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected)).all()


@pytest.mark.parametrize(("rows", "inner", "columns"), [(1, 3, 5), (100, 32, 768), (7, 200, 900), (0, 4, 4)])
def test_products_in_tiles_are_products(rows, inner, columns):
    x, y = random().standard_normal((rows, inner)), random(1).standard_normal((inner, columns))
    assert np.allclose(product_in_tiles(x, y), x @ y)


# Rows and their truth


def test_mismatch_rates_by_origin(pairs):
    origin, mismatched = pairs.columns["origin"], pairs.truth["mismatched"]
    for number, name in enumerate(ORIGINS):
        rows, rate = (origin == number).sum(), NOISY.mismatch.get(name, 0.0)
        part = NOISY.fractions[name]
        assert abs(rows - 20_000 * part) < 5 * math.sqrt(20_000 * part * (1 - part))
        assert abs(mismatched[origin == number].sum() - rows * rate) <= 5 * math.sqrt(rows * rate * (1 - rate))


def test_truth_agrees_with_the_labels(pairs):
    truth, labels = pairs.truth, pairs.columns["class_index"]
    assert np.array_equal(truth["visual_class"], labels)
    assert np.array_equal(truth["audio_class"] != labels, truth["mismatched"])


def test_the_other_class_comes_by_frequency():
    frequency = np.array([0.5, 0.3, 0.0, 0.2])
    for given in (0, 1, 3):
        uniform = (np.arange(1000) + 0.5) / 1000
        found = np.bincount(draw_other_classes(frequency, np.full(1000, given), uniform), minlength=4) / 1000
        expected = np.where(np.arange(4) == given, 0, frequency) / (1 - frequency[given])
        assert np.abs(found - expected).max() < 2e-3


def test_the_label_head_names_the_class_that_is_heard(world, pairs):
    scores = world.label_head().scores(torch.from_numpy(pairs.columns["audio"]))
    assert (scores.argmax(1).numpy() == pairs.truth["audio_class"]).mean() > 0.95
    assert world.label_head().labels == world.classes


def test_visual_predicts_audio_of_clean_rows_only(world):
    """A ridge regression finds the very instance among 1,000, far above chance; not where the audio is another's."""
    train = draw_pairs(world, CLEAN, random(1), 8000).columns
    mean_v, mean_a = train["visual"].mean(0), train["audio"].mean(0)
    x = train["visual"] - mean_v
    weights = np.linalg.solve(x.T @ x + 10 * np.eye(768), x.T @ (train["audio"] - mean_a))
    wrong = OriginMix({"curated": 1.0}, {"curated": 1.0})
    for origins, least, most in ((CLEAN, 0.5, 1.0), (wrong, 0.0, 0.02)):
        test = draw_pairs(world, origins, random(2), 1000).columns
        predicted, audio = (test["visual"] - mean_v) @ weights, test["audio"] - mean_a
        audio /= np.linalg.norm(audio, axis=1, keepdims=True)
        recall = ((predicted @ audio.T).argmax(1) == np.arange(1000)).mean()
        assert least <= recall <= most


def test_scenes_are_the_mixtures_that_the_truth_states():
    world = World(EXACT, 30, 0)
    drawn = draw_scenes(world, OriginMix({"curated": 1.0}, {"curated": 0.4}), random(), 200)
    truth, sources, classes = drawn.truth, drawn.columns["sources"], drawn.columns["classes"]
    assert 0.2 < truth["mismatched"].mean() < 0.6
    assert {len(sources.row(i)) for i in range(200)} == set(range(1, 11))
    for i in range(200):
        slots = truth["visual_classes"][i] != NO_SOURCE
        seen, heard = truth["visual_classes"][i][slots], truth["audio_classes"][i][slots]
        assert np.array_equal(classes.row(i), seen)
        assert len(set(seen)) == len(seen)
        assert (not set(seen) & set(heard)) if truth["mismatched"][i] else np.array_equal(seen, heard)
        assert np.allclose(sources.row(i), world.visual.class_means[seen], atol=1e-5)
        gains, sizes = truth["gains"][i][slots], truth["sizes"][i][slots]
        assert gains.sum() == pytest.approx(1)
        mixtures = {
            "audio": gains @ world.audio.class_means[heard],
            "global_visual": sizes**3 @ world.visual.class_means[seen],
        }
        for name, mixture in mixtures.items():
            assert np.allclose(drawn.columns[name][i], mixture / np.linalg.norm(mixture), atol=1e-5), name


def test_the_largest_object_dominates_the_global_embedding():
    world = World(WorldSpec(), 221, 0)
    drawn = draw_scenes(world, CLEAN, random(), 256)
    sources, found = drawn.columns["sources"], []
    for i in range(256):
        nearest = (sources.row(i) @ drawn.columns["global_visual"][i]).argmax()
        found.append(nearest == drawn.truth["sizes"][i].argmax())
    assert np.mean(found) > 0.9
    gains, sizes = drawn.truth["gains"], drawn.truth["sizes"]
    several = (gains > 0).sum(1) > 1
    assert (gains.argmax(1) != sizes.argmax(1))[several].mean() > 0.3  # loud is not large


def test_videos_show_and_sound_what_is_active():
    world = World(EXACT, 30, 0)
    drawn = draw_videos(world, CLEAN, random(), 60)
    truth, columns = drawn.truth, drawn.columns
    times = columns["timestamps"][0]
    assert np.allclose(times, np.arange(FRAMES_PER_VIDEO) * 10 / 64)
    filled = truth["visual_classes"] != NO_SOURCE
    assert set(filled.sum(1)) == {1, 2, 3}
    length = (truth["stops"] - truth["starts"])[filled]
    assert truth["starts"].min() >= 0
    assert truth["stops"].max() <= 10 + 1e-9
    assert length.min() >= 2 - 1e-9
    for i in range(60):
        seen = truth["visual_classes"][i][filled[i]]
        start, stop, gains, sizes = (truth[name][i][filled[i]] for name in ("starts", "stops", "gains", "sizes"))
        loudness = gains * (stop - start)
        assert columns["class_index"][i] == seen[loudness.argmax()]
        audio = loudness @ world.audio.class_means[seen]
        assert np.allclose(columns["audio"][i], audio / np.linalg.norm(audio), atol=1e-5)
        for t, time in enumerate(times):
            weights = sizes * ((start <= time) & (time < stop))
            frame = weights @ world.visual.class_means[seen] if weights.any() else world.visual.cone
            assert np.allclose(columns["frames"][i, t], frame / np.linalg.norm(frame), atol=1e-5)


# Data sets


@pytest.mark.parametrize("kind", ROWS)
def test_data_sets_are_valid_and_as_designed(tmp_path: Path, kind):
    folder = small(tmp_path / "one", kind, shard_rows=200)
    assert validate_dataset(folder) == []
    manifest = Manifest.load(folder)
    assert (manifest.kind, manifest.origin, manifest.licence) == (kind, "simulated", "CC0")
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
from lightning_ss2a.data.simulate import simulate_dataset
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


def test_a_clean_split_is_the_same_but_for_its_mismatched_rows(tmp_path: Path):
    noisy, clean = small(tmp_path / "noisy"), small(tmp_path / "clean", clean_splits=["test"])
    mismatched = read_truth(noisy, "test")["mismatched"]
    assert 0 < mismatched.sum() < 30
    assert not read_truth(clean, "test")["mismatched"].any()
    assert read_truth(clean, "train")["mismatched"].any()
    for name in ("class_index", "origin", "key"):
        assert np.array_equal(read(noisy, "test")[name], read(clean, "test")[name])


def test_overwriting_replaces_the_truth_too(tmp_path: Path):
    small(tmp_path, shard_rows=100)
    with pytest.raises(InputError, match="finished data set"):
        small(tmp_path)
    small(tmp_path, splits={"test": 3}, overwrite=True)
    assert sorted(file.name for file in (tmp_path / "truth").iterdir()) == ["test-000000.npz", "world.json"]
    assert len(read_truth(tmp_path, "test")["key"]) == 3


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
        ({"seed": -1}, "seed is -1"),
        ({"threads": 0}, "threads is 0"),
        ({"block_rows": 0}, "block_rows is 0"),
        ({"origins": {"found": 1.0}}, "origins has no 'found': origins are annotated, curated, translated"),
        ({"origins": {"annotated": 0.5}}, "origins are parts of all rows and sum to 0.5"),
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
        ({"world": replace(SMALL, size_power=-1.0)}, "world.size_power is -1.0"),
    ],
)
def test_bad_arguments_are_named_before_anything_is_written(tmp_path: Path, options, message):
    with pytest.raises(InputError) as error:
        small(tmp_path / "out", **{"kind": "pairs", **options})
    assert message in str(error.value)
    assert not (tmp_path / "out").exists()
