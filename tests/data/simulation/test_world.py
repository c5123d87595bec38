"""The simulated world: its geometry, its rows, their truth."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import polygamma

from lightning_ss2a.data.format.schema import FRAMES_PER_VIDEO, PAIR_ORIGINS
from lightning_ss2a.data.loading.batch_order import Purpose, generator
from lightning_ss2a.data.simulation.rows import (
    NO_SOURCE,
    PairOriginMix,
    draw_other_classes,
    draw_pairs,
    draw_scenes,
    draw_videos,
)
from lightning_ss2a.data.simulation.world import ModalitySpec, World, WorldSpec, product_in_tiles, tree_prototypes

CLEAN = PairOriginMix({"annotated": 1.0}, {})
NOISY = PairOriginMix({"annotated": 0.2, "curated": 0.5, "translated": 0.3}, {"curated": 0.3, "translated": 0.1})
SMALL = WorldSpec(ModalitySpec(48, 0.47), ModalitySpec(32, 0.51), instance_width=8, scene_sources=4)
EXACT = WorldSpec(  # every source of a class is the same
    ModalitySpec(48, 0.5, 0.5, 0.0), ModalitySpec(32, 0.5, 0.5, 0.0), instance_width=8, mixture_noise=0.0
)


def random(number: int = 0) -> np.random.Generator:
    return generator(0, Purpose.SIMULATED_ROWS, number)


@pytest.fixture(scope="module")
def world() -> World:
    return World(WorldSpec(), 221, 0)


@pytest.fixture(scope="module")
def pairs(world):
    return draw_pairs(world, NOISY, random(), 20_000)


@pytest.fixture(scope="module")
def small_world() -> World:
    return World(SMALL, 12, 0)


@pytest.fixture(scope="module")
def scenes(small_world):
    return draw_scenes(small_world, NOISY, random(), 5000)


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


@pytest.mark.parametrize(("draw", "total"), [(draw_pairs, 20_000), (draw_scenes, 5000), (draw_videos, 1000)])
def test_mismatch_rates_by_origin(small_world, draw, total):
    drawn = draw(small_world, NOISY, random(), total)
    origin, mismatched = drawn.columns["pair_origin"], drawn.truth["mismatched"]
    for number, name in enumerate(PAIR_ORIGINS):
        rows, rate = (origin == number).sum(), NOISY.mismatch.get(name, 0.0)
        part = NOISY.fractions[name]
        assert abs(rows - total * part) < 5 * math.sqrt(total * part * (1 - part))
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
    wrong = PairOriginMix({"curated": 1.0}, {"curated": 1.0})
    for origins, least, most in ((CLEAN, 0.5, 1.0), (wrong, 0.0, 0.02)):
        test = draw_pairs(world, origins, random(2), 1000).columns
        predicted, audio = (test["visual"] - mean_v) @ weights, test["audio"] - mean_a
        audio /= np.linalg.norm(audio, axis=1, keepdims=True)
        recall = ((predicted @ audio.T).argmax(1) == np.arange(1000)).mean()
        assert least <= recall <= most


def test_scenes_are_the_mixtures_that_the_truth_states():
    world = World(EXACT, 30, 0)
    drawn = draw_scenes(world, PairOriginMix({"curated": 1.0}, {"curated": 0.4}), random(), 200)
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


def test_a_scene_has_any_number_of_sources_equally_often(scenes):
    counts = np.bincount((scenes.truth["visual_classes"] != NO_SOURCE).sum(1), minlength=6)
    assert counts[0] == counts[5] == 0
    assert np.abs(counts[1:5] - 1250).max() < 5 * math.sqrt(5000 * 0.25 * 0.75)


def test_classes_of_scenes_come_by_frequency(small_world, scenes):
    """The first of each row does; the others must differ from it."""
    expected = 5000 * small_world.frequency
    counts = np.bincount(scenes.truth["visual_classes"][:, 0], minlength=12)
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected)).all()


def test_gains_are_as_concentrated_as_asked():
    def mean_largest(concentration: float) -> float:
        world = World(replace(SMALL, gain_concentration=concentration), 12, 0)
        gains = draw_scenes(world, CLEAN, random(), 2000).truth["gains"]
        return gains[(gains > 0).sum(1) == 4].max(1).mean()

    assert mean_largest(0.1) > 0.8
    assert mean_largest(10.0) < 0.4


def loudness_told(world: World, visual: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Reads l off embeddings that hold nothing but class mean and loudness, whatever their length."""
    told = []
    for x, mean in zip(visual.astype(np.float64), world.visual.class_means[classes].astype(np.float64), strict=True):
        parts = np.linalg.lstsq(np.stack([mean, world.visual.loudness.astype(np.float64)], 1), x, rcond=None)[0]
        told.append(parts[1] / parts[0])
    return np.array(told)


@pytest.mark.parametrize("concentration", [0.5, 1.0, 8.0])
def test_pictures_tell_loudness_where_they_are_asked_to(concentration: float):
    spec = replace(EXACT, visual=ModalitySpec(48, 0.5, 0.45, 0.0), gain_concentration=concentration)
    world, silent = World(replace(spec, loudness_share=0.05), 30, 0), World(spec, 30, 0)
    assert np.array_equal(world.visual.class_means, silent.visual.class_means)
    assert np.array_equal(world.audio.class_means, silent.audio.class_means)
    assert np.linalg.norm(world.visual.loudness) ** 2 == pytest.approx(0.05)
    assert abs(world.visual.loudness @ world.visual.cone) < 1e-6
    assert world.visual.noise == 0 < silent.visual.noise
    assert not silent.visual.loudness.any()
    scenes, pairs = draw_scenes(world, CLEAN, random(), 300), draw_pairs(world, CLEAN, random(), 4000)
    seen = [scenes.columns["sources"].row(i) for i in range(300)]
    deviation = math.sqrt(polygamma(1, concentration))
    for i, sources in enumerate(seen):
        there = scenes.truth["gains"][i] > 0
        told = loudness_told(world, sources, scenes.truth["visual_classes"][i][there])
        gains = np.exp(deviation * told)
        assert np.allclose(gains / gains.sum(), scenes.truth["gains"][i][there], atol=1e-3)
        assert np.allclose(world.gains(told) / world.gains(told).sum(), gains / gains.sum())
    told = loudness_told(world, pairs.columns["visual"], pairs.columns["class_index"])
    assert told.mean() == pytest.approx(0, abs=0.07)
    assert told.std() == pytest.approx(1, abs=0.1)
    assert np.allclose(pairs.columns["audio"], world.audio.class_means[pairs.columns["class_index"]], atol=1e-5)


@pytest.mark.parametrize("noise", [0.1, 0.4])
def test_mixtures_have_as_much_noise_as_asked(noise):
    """The noise across a mixture, before both are normalised: all but one of its coordinates."""
    world = World(replace(EXACT, mixture_noise=noise), 30, 0)
    scenes, videos = draw_scenes(world, CLEAN, random(), 500), draw_videos(world, CLEAN, random(), 400)
    sizes, seen = scenes.truth["sizes"] ** 3, scenes.truth["visual_classes"]
    mixtures = {
        "audio": (scenes.columns["audio"], mixed(scenes.truth["gains"], world.audio.class_means[seen])),
        "global_visual": (
            scenes.columns["global_visual"],
            mixed(sizes / sizes.sum(1, keepdims=True), world.visual.class_means[seen]),
        ),
        "frames": (videos.columns["frames"][:, 0], np.tile(world.visual.cone, (400, 1))),  # nothing is active yet
    }
    for name, (found, exact) in mixtures.items():
        square = np.square(exact).sum(1, keepdims=True)
        across = found * square / (found * exact).sum(1, keepdims=True) - exact
        length = np.linalg.norm(across, axis=1).mean() / math.sqrt(1 - 1 / exact.shape[1])
        assert length == pytest.approx(noise, rel=0.05), name


def mixed(weights: np.ndarray, items: np.ndarray) -> np.ndarray:
    return np.einsum("rs,rsw->rw", weights, items)


def test_a_mismatched_video_is_of_the_class_that_is_seen(small_world):
    drawn = draw_videos(small_world, PairOriginMix({"curated": 1.0}, {"curated": 1.0}), random(), 50)
    truth, labels = drawn.truth, drawn.columns["class_index"]
    loudest = (truth["gains"] * (truth["stops"] - truth["starts"])).argmax(1)
    assert np.array_equal(labels, truth["visual_classes"][np.arange(50), loudest])
    assert (labels != truth["audio_classes"][np.arange(50), loudest]).all()


def test_sources_of_videos_are_active_for_the_shortest_time_up_to_the_whole(small_world):
    truth = draw_videos(small_world, CLEAN, random(), 400).truth
    length = (truth["stops"] - truth["starts"])[truth["visual_classes"] != NO_SOURCE]
    assert 2 <= length.min() < 2.1
    assert 9.9 < length.max() <= 10
    assert length.mean() == pytest.approx(6, abs=0.4)


@pytest.mark.parametrize("power", [0.0, 20.0])
def test_the_limits_of_size_power_give_weights(power):
    world = World(replace(SMALL, size_power=power), 12, 0)
    assert np.isfinite(draw_scenes(world, CLEAN, random(), 500).columns["global_visual"]).all()
    assert (2.0**-53) ** 20 > 0  # the smallest size that is drawn


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
