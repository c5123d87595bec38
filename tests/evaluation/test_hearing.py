"""Files heard in batches and through the cache."""

import threading
from pathlib import Path

import numpy as np
import pytest

from lightning_ss2a.evaluation.hearing import Ear, Listener, hear_files, hear_offsets
from lightning_ss2a.evaluation.sounds import read_sound
from lightning_ss2a.perception.embedding_cache import EmbeddingCache
from tests.evaluation.small_encoder import RATE, SmallEncoder, SmallFrames, SmallLabeller, SmallSync, write_tone


def listener(folder: Path, batch_size: int = 2) -> Listener:
    return Listener(EmbeddingCache(folder / "cache"), 10.0, batch_size, 2, progress=False)


def tones(folder: Path, number: int = 5) -> list[Path]:
    return [write_tone(folder / f"{i}.wav", 200 + 100 * i, 0.1 * (i + 1), rate=RATE * 2) for i in range(number)]


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_each_row_is_what_the_encoder_gives_of_the_file_alone(tmp_path: Path, batch_size):
    files, encoder = tones(tmp_path), SmallLabeller()
    heard = hear_files([*files, files[0]], {"small": Ear(encoder)}, listener(tmp_path, batch_size))
    assert encoder.heard == len(files)
    for file in files:
        waveform = read_sound(file.read_bytes(), str(file), 10).at_rate(RATE)
        embedding, logits = encoder.embed_and_label([waveform])
        np.testing.assert_array_equal(heard.rows["small"][file], [[*embedding[0], *logits[0]]])
        assert heard.facts[file].seconds == 0.25


def test_the_cache_gives_the_same_digits_and_the_encoder_hears_nothing(tmp_path: Path):
    files, encoder, other = tones(tmp_path), SmallEncoder(), SmallEncoder()
    first = hear_files(files, {"small": Ear(encoder)}, listener(tmp_path))
    again = hear_files(files, {"small": Ear(other)}, listener(tmp_path, batch_size=3))
    assert (encoder.heard, other.heard) == (5, 0)
    assert first.facts == again.facts
    assert first.content == again.content
    for file in files:
        assert first.rows["small"][file].tobytes() == again.rows["small"][file].tobytes()


def test_frames_are_kept_beside_the_embedding_of_the_sound(tmp_path: Path):
    files = [write_tone(tmp_path / f"{i}.wav", 300, 0.1 * (i + 1), seconds=0.1 * (i + 1)) for i in range(4)]
    encoder, other = SmallFrames(), SmallFrames()
    first = hear_files(files, {"frames": Ear(encoder, frames=True), "whole": Ear(encoder)}, listener(tmp_path))
    for number, file in enumerate(files):
        waveform = read_sound(file.read_bytes(), str(file), 10).at_rate(RATE)
        np.testing.assert_array_equal(first.rows["frames"][file], encoder.embed_frames([waveform])[0])
        assert first.rows["frames"][file].shape == (number + 1, 4)
        np.testing.assert_array_equal(first.rows["whole"][file], encoder.embed([waveform]))
    again = hear_files(files, {"frames": Ear(other, frames=True)}, listener(tmp_path))
    assert other.heard == 0
    assert all(again.rows["frames"][file].tobytes() == first.rows["frames"][file].tobytes() for file in files)


def test_many_files_that_are_alike_are_heard_at_once(tmp_path: Path):
    files = [write_tone(tmp_path / f"{i}.wav") for i in range(64)]
    how = Listener(EmbeddingCache(tmp_path / "cache"), 10.0, 32, 16, progress=False)
    encoder = SmallEncoder()
    heard = hear_files(files, {"small": Ear(encoder)}, how)
    assert heard.problems == {}
    assert encoder.heard == 1  # in the second batch, too: a batch may change the last bits
    assert len({row.tobytes() for row in heard.rows["small"].values()}) == 1


def test_of_alike_files_that_cannot_be_heard_each_is_named(tmp_path: Path):
    class Broken(SmallEncoder):
        def embed(self, waveforms):
            return super().embed(waveforms) * float("nan")

    files = [write_tone(tmp_path / f"{i}.wav") for i in range(3)]
    heard = hear_files(files, {"small": Ear(Broken())}, listener(tmp_path))
    assert heard.problems == {file: f"{file}: small-v1 gave NaN or infinity; look at the sound" for file in files}


def test_another_rule_or_encoder_or_content_is_heard_anew(tmp_path: Path):
    files = tones(tmp_path, 1)
    hear_files(files, {"small": Ear(SmallEncoder())}, listener(tmp_path))
    shorter = Listener(EmbeddingCache(tmp_path / "cache"), 0.1, 2, 2, progress=False)
    for encoder, how in ((SmallEncoder(), shorter), (SmallLabeller(), listener(tmp_path))):
        hear_files(files, {"small": Ear(encoder)}, how)
        assert encoder.heard == 1
    write_tone(files[0], 999)
    encoder = SmallEncoder()
    hear_files(files, {"small": Ear(encoder)}, listener(tmp_path))
    assert encoder.heard == 1


def test_what_cannot_be_heard_is_named_and_the_others_are_heard(tmp_path: Path):
    files = tones(tmp_path)
    files[1].write_bytes(b"damage")
    write_tone(files[3], seconds=0.5)
    missing = tmp_path / "none.wav"
    heard = hear_files([*files, missing], {"small": Ear(SmallEncoder(refused_seconds=0.5))}, listener(tmp_path, 16))
    assert set(heard.rows["small"]) == set(heard.content) == {files[0], files[2], files[4]}
    assert set(heard.problems) == {files[1], files[3], missing}
    assert heard.problems[files[3]] == "a sound is refused"
    assert "not a sound file" in heard.problems[files[1]]


def test_no_thread_is_left_where_an_encoder_fails(tmp_path: Path):
    class Failing(SmallEncoder):
        def embed(self, waveforms):
            raise OSError("a driver is gone")

    before = set(threading.enumerate())
    with pytest.raises(OSError, match="a driver is gone") as failed:
        hear_files(tones(tmp_path), {"small": Ear(Failing())}, listener(tmp_path))
    assert set(threading.enumerate()) == before
    assert failed.tb is not None  # the traceback keeps what the call had


def test_an_embedding_that_is_not_finite_is_a_problem_of_its_file(tmp_path: Path):
    class Broken(SmallEncoder):
        identity = "broken"

        def embed(self, waveforms):
            embeddings = super().embed(waveforms)
            embeddings[embeddings[:, 2] > 0.25] = float("nan")
            return embeddings

    files = tones(tmp_path, 3)
    heard = hear_files(files, {"small": Ear(Broken())}, listener(tmp_path, 16))
    assert set(heard.problems) == {files[2]}
    assert "broken gave NaN or infinity" in heard.problems[files[2]]


def test_offsets_are_cached_by_sound_and_video(tmp_path: Path):
    sounds = [write_tone(tmp_path / f"{i}.wav", seconds=i + 1) for i in range(2)]
    videos = [tmp_path / f"{i}.mp4" for i in range(2)]
    videos[0].write_bytes(bytes([2])), videos[1].write_bytes(bytes([9]))
    how = listener(tmp_path)
    contents = hear_files(sounds, {}, how).content
    pairs = [(sounds[0], videos[0]), (sounds[1], videos[0]), (sounds[1], videos[1])]
    logits, problems = hear_offsets(pairs, contents, SmallSync(), how)
    assert [logits[pair].shape for pair in pairs[:2]] == [(1, 3), (2, 3)]
    assert problems == {pairs[2]: f"{videos[1]}: no such offset"}

    class Silent(SmallSync):
        def offset_logits(self, waveforms, videos):
            raise AssertionError("it is in the cache")

    again, _ = hear_offsets(pairs[:2], contents, Silent(), how)
    assert all(again[pair].tobytes() == logits[pair].tobytes() for pair in pairs[:2])
