from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lightning_ss2a.builders.compositions import compose_dataset
from lightning_ss2a.builders.labelled_sounds import LabelledSound
from lightning_ss2a.builders.pairs import build_pairs
from lightning_ss2a.builders.translated_pairs import add_translated_pairs, translate
from lightning_ss2a.data import Manifest, ShardReader
from lightning_ss2a.data.tools.validate import validate_dataset
from lightning_ss2a.errors import InputError
from tests.builders.engine.engine_examples import Letters
from tests.perception.media_files import MeanColour, Spectrum, picture_file, plain_picture, sine, sound_file

FOLDS = 3
ADDED = [f"fold{i}_translated" for i in range(FOLDS)]


class Colours(Letters):
    identity = "letters(mean-colour)"


def labelled(number: int, **changes) -> LabelledSound:
    sound = LabelledSound(
        place=f"sounds.csv row {number + 2}",
        sound=f"sounds/{number}.wav",
        label=f"Thing{number}",
        text="rrgb"[: 1 + number % 4] + f" {number}",
        class_name="ab"[number % 2],
        group=None,
        author="Jane",
        licence="CC0",
        left_out="",
    )
    return replace(sound, **changes)


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """Pictures and sounds of the pairs, up to 2 kHz, and labelled sounds from there on."""
    (tmp_path / "media" / "sounds").mkdir(parents=True)
    rows = ["image,sound,class,name"]
    for i in range(9):
        (tmp_path / "media" / f"{i}.png").write_bytes(picture_file(plain_picture((i * 20, 0, 9))))
        (tmp_path / "media" / f"{i}.wav").write_bytes(sound_file(sine(125 * (i + 1), 0.3)))
        rows.append(f"{i}.png,{i}.wav,{'ab'[i % 2]},thing {i}")
    for i in range(12):
        content = sound_file(sine(2000 + 250 * i, 0.3))
        (tmp_path / "media" / "sounds" / f"{i}.wav").write_bytes(content)
    (tmp_path / "media" / "pairs.csv").write_text("\n".join(rows))
    build_pairs(
        str(tmp_path / "media" / "pairs.csv"), str(tmp_path / "set"), MeanColour(), Spectrum(),
        cache=str(tmp_path / "cache"), image_views=2, audio_views=3, folds=FOLDS, progress=False,
    )  # fmt: skip
    return tmp_path


def add(folder: Path, sounds: list[LabelledSound], prior=None, encoder=None):
    texts = Colours()
    return add_translated_pairs(
        folder / "set", sounds, texts, prior or texts, encoder or Spectrum(), media_root=folder / "media",
        cache=folder / "cache", provenance="packages", licence="mixed", progress=False,
    )  # fmt: skip


def stored(folder: Path) -> dict[str, dict]:
    reader, rows = ShardReader(folder / "set"), {}
    for split in reader.manifest.splits:
        columns = reader.read_split(split)
        for i, key in enumerate(columns["key"]):
            rows[key.decode()] = {name: column[i] for name, column in columns.items()} | {"split": split}
    return rows


def test_a_text_and_its_sound_become_a_row(media):
    sounds = [labelled(i) for i in range(12)]
    report = add(media, sounds)
    assert report.used == tuple(sounds)
    assert report.rows == dict.fromkeys(ADDED, 4)
    assert validate_dataset(media / "set") == []
    rows, encoder = stored(media), Spectrum()
    for i, sound in enumerate(sounds):
        row = rows[sound.key]
        assert row["name"].decode() == sound.text
        assert (row["pair_origin"], row["class_index"]) == (2, i % 2)
        expected = Colours().features([sound.text]).embeddings.numpy()
        np.testing.assert_allclose(row["visual"], np.repeat(expected, 2, axis=0), rtol=1e-3)
        heard = encoder.encode([sine(2000 + 250 * i, 0.3)])[0].numpy()
        np.testing.assert_allclose(row["audio"][0], heard, rtol=2e-3, atol=0.1)
    manifest = Manifest.load(media / "set")
    assert (manifest.provenance, manifest.licence) == ("packages", "mixed")
    assert list(manifest.folds) == ["fold0", "fold1", "fold2"]


def test_rows_that_are_there_keep_every_bit_and_their_files(media):
    before = {path.name: path.read_bytes() for path in (media / "set").glob("*.tar")}
    assert len(before) == FOLDS
    add(media, [labelled(i) for i in range(12)])
    after = {path.name: path.read_bytes() for path in (media / "set").glob("*.tar")}
    assert {name: content for name, content in after.items() if name in before} == before
    assert len(after) == 2 * FOLDS


def test_rows_that_were_added_before_are_replaced(media):
    add(media, [labelled(i) for i in range(12)])
    once = {path.name: path.read_bytes() for path in (media / "set").iterdir() if path.is_file()}
    add(media, [labelled(i) for i in range(6)])
    assert len(stored(media)) == 9 + 6
    add(media, [labelled(i) for i in range(12)])
    assert {path.name: path.read_bytes() for path in (media / "set").iterdir() if path.is_file()} == once


def test_scenes_are_composed_of_the_other_rows_as_without_them(media):
    def compose(output: str) -> dict[str, bytes]:
        compose_dataset(
            str(media / "media" / "pairs.csv"), str(media / output), MeanColour(), Spectrum(), kind="scenes", rows=3,
            pairs_dataset=str(media / "set"), cache=str(media / "cache"), image_views=2, max_sources=2,
            provenance="packages", licence="mixed", progress=False,
        )  # fmt: skip
        return {path.name: path.read_bytes() for path in (media / output).iterdir() if path.is_file()}

    before = compose("before")
    add(media, [labelled(i) for i in range(12)])
    assert compose("after") == before


def test_sounds_of_one_group_one_content_or_one_recording_stay_together(media):
    folder = media / "media" / "sounds"
    (folder / "3.wav").write_bytes((folder / "2.wav").read_bytes())
    (folder / "5.wav").write_bytes(sound_file(sine(2000 + 250 * 4, 0.3, peak=0.1)))  # of row 4, fainter
    sounds = [labelled(i, group="pack" if i in (0, 1, 2) else None, class_name="a") for i in range(12)]
    assert add(media, sounds).groups == 12 - 2 - 1 - 1
    rows, groups = stored(media), defaultdict(set)
    for i, sound in enumerate(sounds):
        groups[int(rows[sound.key]["group"])].add(i)
    assert sorted(map(sorted, groups.values())) == [[0, 1, 2, 3], [4, 5], *([i] for i in range(6, 12))]
    for members in groups.values():
        assert len({rows[sounds[i].key]["split"] for i in members}) == 1


def test_what_cannot_be_a_row_is_left_out_and_named(media, caplog):
    folder = media / "media" / "sounds"
    (folder / "1.wav").write_bytes(sound_file(sine(375, 0.3, peak=0.2)))  # that of a pair, fainter
    (folder / "3.wav").write_bytes(b"hello")
    sounds = [labelled(i, text="nothing" if i == 2 else f"red {i}") for i in range(12)]
    report = add(media, sounds)
    assert [sound.sound for sound in report.used] == [f"sounds/{i}.wav" for i in range(12) if i not in (1, 2, 3)]
    messages = "\n".join(sorted(report.problems))
    assert messages.count("\n") == 2
    assert "sounds.csv row 3: sounds/1.wav is in the data set already (cosine 1.000)" in messages
    assert "sounds.csv row 4: 'nothing' means nothing" in messages
    assert "sounds.csv row 5: sounds/3.wav: not a sound file" in messages
    assert set(report.problems) <= set(caplog.messages)
    assert len(stored(media)) == 9 + 9


def test_a_text_is_translated_once_and_what_is_refused_is_said():
    embeddings, refused = translate(["red", "nothing", "red"], Colours(), Colours())
    assert list(embeddings) == ["red"]
    assert embeddings["red"].shape == (3,)
    assert refused == {"nothing": "'nothing' means nothing"}


@pytest.mark.parametrize(
    ("sounds", "options", "message"),
    [
        ([labelled(0, class_name="c")], {}, r"sounds\.csv row 2: class 'c' is not one of a, b"),
        ([labelled(0), labelled(1)], {}, "only 2 groups of sounds can be added, which 3 folds need"),
        ([labelled(0, text="nothing")], {}, "only 0 groups of sounds can be added"),
        (
            [labelled(0)],
            {"prior": Letters()},
            "holds views of mean-colour and spectrum, the sounds come by letters and",
        ),
    ],
)
def test_what_does_not_fit(media, sounds, options, message):
    before = {path.name: path.read_bytes() for path in (media / "set").iterdir() if path.is_file()}
    with pytest.raises(InputError, match=message):
        add(media, sounds, **options)
    assert {path.name: path.read_bytes() for path in (media / "set").iterdir() if path.is_file()} == before
