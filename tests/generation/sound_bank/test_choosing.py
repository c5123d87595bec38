import numpy as np
import pytest
from scipy.spatial.distance import cosine

from lightning_ss2a.generation.sound_bank.choosing import (
    alternatives,
    assigned_sounds,
    hubness,
    similarities,
    sources_alike,
)


def test_similarity_is_the_cosine_to_the_mean_direction_of_the_views():
    generator = np.random.default_rng(0)
    wanted, embeddings = generator.normal(size=(2, 5)), generator.normal(size=(3, 4, 5))
    found = similarities(wanted, embeddings)
    for source in range(2):
        for sound in range(3):
            mean = np.mean([view / np.linalg.norm(view) for view in embeddings[sound]], axis=0)
            assert found[source, sound] == pytest.approx(1 - cosine(wanted[source], mean))


def test_how_long_an_embedding_is_does_not_count():
    generator = np.random.default_rng(0)
    wanted, embeddings = generator.normal(size=(2, 5)), generator.normal(size=(3, 4, 5))
    scaled = similarities(wanted * [[2.0], [0.1]], embeddings * generator.uniform(0.1, 9, size=(3, 4, 1)))
    np.testing.assert_allclose(scaled, similarities(wanted, embeddings))


def test_sources_are_alike_directly_or_through_others():
    angles = np.radians([0, 10, 20, 90])
    wanted = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert sources_alike(wanted, float(np.cos(np.radians(11))), [""] * 4) == [0, 0, 0, 3]
    assert sources_alike(wanted, 0.9999, [*"abcd"]) == [0, 1, 2, 3]


def test_sources_apart_get_different_sounds_that_fit_best_together():
    similarity = np.array([[0.9, 0.8, 0.1], [0.85, 0.2, 0.3]])
    assert assigned_sounds(similarity, [0, 1]) == [1, 0]  # 1.65, against 1.2 of the greedy choice
    assert assigned_sounds(similarity, [0, 0]) == [0, 0]


def test_a_single_source_gets_the_nearest():
    assert assigned_sounds(np.array([[0.1, 0.7, 0.3]]), [0]) == [1]


def test_alternatives_are_the_nearest_that_nobody_else_has():
    similarity = np.array([[0.9, 0.8, 0.7, 0.1], [0.2, 0.9, 0.3, 0.1]])
    assert list(alternatives([0, 1], 0, similarity, [0, 1], 3)) == [[2, 1]]
    assert list(alternatives([0, 1], 1, similarity, [0, 1], 4)) == [[0, 2], [0, 3]]
    assert list(alternatives([0, 1], 0, similarity, [0, 1], 1)) == []


def test_sources_that_share_a_sound_change_together():
    similarity = np.array([[0.9, 0.8, 0.1], [0.9, 0.8, 0.1], [0.0, 0.0, 1.0]])
    assert list(alternatives([0, 0, 2], 0, similarity, [0, 0, 2], 2)) == [[1, 1, 2]]


def test_sources_of_one_label_share_a_sound():
    wanted = np.eye(4)
    assert sources_alike(wanted, 0.99, ["cow", "", "Cow", ""]) == [0, 1, 0, 3]


def test_a_hub_is_near_to_all_that_is_expected():
    generator = np.random.default_rng(0)
    expected, sounds = generator.normal(size=(20, 8)) + 1, generator.normal(size=(5, 2, 8))
    sounds[3] = 1.0  # where all expected ones lie
    found = hubness(expected, sounds)
    by_hand = [
        np.mean([1 - cosine(own, np.mean([view / np.linalg.norm(view) for view in sound], axis=0)) for own in expected])
        for sound in sounds
    ]
    np.testing.assert_allclose(found, by_hand)
    assert found.argmax() == 3
