import hashlib

import numpy as np
import pytest
import torch

from lightning_ss2a.perception.embedding_cache import EmbeddingCache
from lightning_ss2a.perception.encoding import encode_images, encode_sounds
from tests.limits import largest_file
from tests.perception.media_files import Loudness, MeanColour, picture_file, plain_picture, sine, sound_file

COLOURS = {"red.png": (255, 0, 0), "green.png": (0, 255, 0), "blue.png": (0, 0, 255)}


@pytest.fixture
def folder(tmp_path):
    for name, colour in COLOURS.items():
        (tmp_path / name).write_bytes(picture_file(plain_picture(colour)))
    (tmp_path / "again.png").write_bytes((tmp_path / "red.png").read_bytes())
    (tmp_path / "loud.wav").write_bytes(sound_file(sine(440, 1.5, peak=0.8), subtype="FLOAT"))
    return tmp_path


def images(folder, references, encoder, views=1, seed=0):
    return encode_images(references, folder, encoder, views, EmbeddingCache(folder / "cache"), seed, progress=False)


def test_embeddings_belong_to_their_files_in_the_order_asked_for(folder):
    media = images(folder, COLOURS, MeanColour())
    order = ["blue.png", "red.png", "green.png", "red.png"]
    expected = np.array([[COLOURS[name]] for name in order], np.float32) / 255
    np.testing.assert_allclose(media.embeddings(order), expected)
    assert not media.problems


def test_content_is_the_sha256_of_the_file(folder):
    media = images(folder, COLOURS, MeanColour())
    for name in COLOURS:
        assert media.content[name] == hashlib.sha256((folder / name).read_bytes()).hexdigest()


def test_each_content_is_encoded_once_however_often_it_is_listed(folder):
    encoder = MeanColour()
    media = images(folder, ["red.png", "again.png", "red.png", "green.png"], encoder, views=3)
    assert encoder.encoded == 2 * 3
    assert np.array_equal(*media.embeddings(["red.png", "again.png"]))
    images(folder, COLOURS, encoder, views=3)
    assert encoder.encoded == 3 * 3


@pytest.mark.parametrize("change", [{"views": 2}, {"seed": 1}, {"encoder": "other"}])
def test_other_views_seeds_and_encoders_are_encoded_anew(folder, change):
    encoder = MeanColour()
    images(folder, ["red.png"], encoder)
    encoder.identity = change.pop("encoder", encoder.identity)
    before = encoder.encoded
    images(folder, ["red.png"], encoder, **change)
    assert encoder.encoded > before


def test_a_damaged_cache_file_is_encoded_again(folder):
    encoder = MeanColour()
    media = images(folder, ["red.png"], encoder, views=2)
    whole = media.cached["red.png"].read_bytes()
    for damaged in (b"", whole[:-3], whole[:30], b"\0" * len(whole)):
        media.cached["red.png"].write_bytes(damaged)
        again = images(folder, ["red.png"], encoder, views=2)
        assert again.cached["red.png"].read_bytes() == whole
    assert encoder.encoded == 5 * 2


def test_random_views_depend_on_the_content_alone(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (3, 40, 40, 3), dtype=np.uint8)
    found = []
    for names in (["a", "b", "c"], ["long", "a", "longest"]):  # the same pictures under other names, in another order
        folder = tmp_path / names[0]
        folder.mkdir()
        for name, pixels in zip(names, noise, strict=True):
            (folder / name).write_bytes(picture_file(pixels))
        found.append(images(folder, names, MeanColour(), views=4).embeddings(names))
    assert np.array_equal(*found)
    assert len(np.unique(found[0][0], axis=0)) == 4


def test_files_that_cannot_be_used_are_problems_and_the_others_are_encoded(folder):
    (folder / "bad.png").write_bytes(b"hello")
    media = images(folder, ["bad.png", "none.png", "red.png"], MeanColour())
    assert set(media.problems) == {"bad.png", "none.png"}
    assert "bad.png: not a picture" in media.problems["bad.png"]
    assert "none.png: cannot be read" in media.problems["none.png"]
    assert set(media.content) == set(media.cached) == {"red.png"}


def test_a_full_disk_is_no_problem_of_a_medium(folder):
    with largest_file(100), pytest.raises(OSError, match=r"File too large: .*cache/\w+.npy"):
        images(folder, COLOURS, MeanColour())
    assert not list((folder / "cache").iterdir())


def test_sounds(folder):
    cache = EmbeddingCache(folder / "cache")
    media = encode_sounds(["loud.wav"], folder, Loudness(), 5, cache, 0, progress=False)
    (embedding,) = media.embeddings(["loud.wav"])
    np.testing.assert_allclose(embedding[0], [0.8 / 2**0.5, 0.8], rtol=1e-3)
    assert embedding.shape == (5, 2)
    assert (embedding[:, 1] <= 1).all()
    np.testing.assert_allclose(embedding[:, 0] / embedding[:, 1], 0.5**0.5, rtol=1e-2)  # still a sine, at any gain


def test_an_embedding_that_is_not_finite_is_a_problem(folder):
    class Broken(MeanColour):
        def encode(self, pictures):
            return torch.full((len(pictures), 3), torch.nan)

    media = images(folder, ["red.png"], Broken())
    assert media.problems == {"red.png": "mean-colour: the embedding is not finite"}
    assert not list((folder / "cache").iterdir())


def test_an_encoder_of_another_width_than_it_says_is_named(folder):
    class Wrong(MeanColour):
        width = 4

    with pytest.raises(ValueError, match=r"mean-colour: gave \[1, 3\], needs \[1, 4\]"):
        images(folder, ["red.png"], Wrong())
