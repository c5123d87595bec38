import io
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_ss2a.perception.embedding_cache import EmbeddingCache

EMBEDDINGS = np.arange(6, dtype=np.float32).reshape(2, 3)


def saved(array: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def test_what_is_kept_is_numpys_own_file(tmp_path):
    cache = EmbeddingCache(tmp_path / "a" / "b")
    path = cache.path("c0ffee", "eye", 2, 0)
    assert not cache.contains(path, (2, 3))
    cache.store(path, EMBEDDINGS)
    assert cache.contains(path, (2, 3))
    assert path.read_bytes() == saved(EMBEDDINGS)
    assert list((tmp_path / "a" / "b").iterdir()) == [path]


def test_each_description_has_a_file_of_its_own(tmp_path):
    cache = EmbeddingCache(tmp_path)
    described = list(product(["c0ffee", "c0ffef"], ["eye", "ear", 'e"y'], [1, 2, 12], [0, 1, 21]))
    assert len({cache.path(*description) for description in described}) == len(described)
    assert EmbeddingCache(tmp_path).path("c0ffee", "eye", 1, 0) == cache.path("c0ffee", "eye", 1, 0)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        saved(EMBEDDINGS)[:-1],
        saved(EMBEDDINGS)[:60],
        saved(EMBEDDINGS[:, :2]),
        saved(EMBEDDINGS[0]),
        saved(EMBEDDINGS.astype(np.float64)),
        saved(np.full((2, 3), np.nan, np.float32)),
        saved(np.array([[print] * 3] * 2, object), allow_pickle=True),
    ],
    ids=["empty", "text", "cut off", "head", "narrow", "one row", "float64", "NaN", "pickle"],
)
def test_what_is_damaged_is_not_held(tmp_path, content):
    cache = EmbeddingCache(tmp_path)
    path = cache.path("c0ffee", "eye", 2, 0)
    path.write_bytes(content)
    assert not cache.contains(path, (2, 3))


@settings(max_examples=200, deadline=None)
@given(place=st.integers(0, 127), bit=st.integers(0, 7))
def test_any_flipped_bit_of_the_header_is_seen_or_harmless(tmp_path_factory, place, bit):
    cache = EmbeddingCache(tmp_path_factory.mktemp("cache"))
    path = cache.path("c0ffee", "eye", 2, 0)
    content = bytearray(saved(EMBEDDINGS))
    content[place] ^= 1 << bit
    path.write_bytes(content)
    if cache.contains(path, (2, 3)):
        found = np.load(path, allow_pickle=False)
        assert sorted(found.ravel()) == sorted(EMBEDDINGS.ravel())


def test_an_interrupted_write_leaves_nothing_or_what_was_there(tmp_path, monkeypatch):
    cache = EmbeddingCache(tmp_path)
    path = cache.path("c0ffee", "eye", 2, 0)

    def interrupted(file, array, **options):
        file.write(b"half a fi")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cache.store(path, EMBEDDINGS)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    cache.store(path, EMBEDDINGS)
    monkeypatch.setattr(np, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cache.store(path, EMBEDDINGS + 1)
    assert np.array_equal(np.load(path), EMBEDDINGS)
