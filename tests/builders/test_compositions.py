import csv
import logging
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_ss2a.builders import build_pairs, compose_dataset
from lightning_ss2a.data import FRAMES_PER_VIDEO, LabelHead, Manifest, ShardReader
from lightning_ss2a.data.format.convert import group_of
from lightning_ss2a.data.tools.validate import validate_dataset
from lightning_ss2a.errors import InputError
from tests.data.shard_examples import read_everything, same_data
from tests.perception.media_files import Loudness, MeanColour, picture_file, plain_picture, sine, sound_file

ROWS = 20
CURATED = (18, 19)
CLASSES = ("bird", "car", "drum")
VIEWS = 3


def colour(row: int) -> tuple[int, int, int]:
    return (12 * row, 255 - 12 * row, 7 * row)


@pytest.fixture(autouse=True)
def small_canvas(monkeypatch):
    monkeypatch.setattr("lightning_ss2a.builders.mixing.CANVAS_SIDE", 64)


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """Twenty pairs of plain pictures and sines, row i of class i % 3, and the data set of pairs, in three folds."""
    folder = tmp_path / "media"
    folder.mkdir()
    for row in range(ROWS):
        (folder / f"{row}.png").write_bytes(picture_file(plain_picture(colour(row))))
        (folder / f"{row}.wav").write_bytes(sound_file(sine(300 + 50 * row, 0.4 + 0.1 * row)))
    write_list(folder, range(ROWS))
    options = {"cache": str(tmp_path / "cache"), "image_views": VIEWS, "audio_views": 2, "progress": False}
    source = str(folder / "pairs.csv")
    build_pairs(
        source, str(tmp_path / "pairs"), MeanColour(), Loudness(), folds=3, provenance="test", licence="CC0", **options
    )
    return folder


def write_list(folder: Path, rows) -> None:
    with (folder / "pairs.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "sound", "name", "class", "pair_origin"])
        for row in rows:
            origin = "curated" if row in CURATED else "annotated"
            writer.writerow([f"{row}.png", f"{row}.wav", f"thing {row}", CLASSES[row % 3], origin])


def compose(media: Path, output: str = "out", eye=None, ear=None, **options):
    folder = media.parent
    options = {
        "kind": "scenes", "pairs_dataset": str(folder / "pairs"), "cache": str(folder / "cache"), "rows": 12,
        "image_views": VIEWS, "dtype": "float32", "progress": False, **options,
    }  # fmt: skip
    source = options.pop("source", str(media / "pairs.csv"))
    return compose_dataset(source, str(folder / output), eye or MeanColour(), ear or Loudness(), **options)


def read_rows(folder: Path) -> dict[str, dict]:
    """Row by key, with its split."""
    reader, rows = ShardReader(folder), {}
    for split in reader.manifest.splits:
        columns = reader.read_split(split)
        for i, key in enumerate(columns["key"]):
            row = {name: c.row(i) if hasattr(c, "offsets") else c[i] for name, c in columns.items()}
            rows[key.decode()] = row | {"split": split}
    return rows


def read_lines(folder: Path) -> dict[str, list[dict[str, str]]]:
    """Lines of compositions.csv by row."""
    lines = defaultdict(list)
    with (folder / "compositions.csv").open(newline="") as file:
        for line in csv.DictReader(file):
            lines[line["key"]].append(line)
    return lines


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def number_of(pair: str) -> int:
    return int(pair.partition("-")[0].removeprefix("thing_"))


def test_scenes_hold_the_embeddings_of_their_sources_and_of_the_whole(media):
    report = compose(media)
    folder, pairs = media.parent / "out", read_rows(media.parent / "pairs")
    rows, lines = read_rows(folder), read_lines(folder)
    assert list(rows) == list(lines) == [f"scene-fold{f}-{i:06d}" for f in range(3) for i in range(12)]
    assert report.rows == {f"fold{f}": 12 for f in range(3)}
    assert report.sources == sum(map(len, lines.values()))
    for key, row in rows.items():
        own = lines[key]
        numbers = [number_of(line["pair"]) for line in own]
        views = [pairs[line["pair"]]["visual"][int(line["view"])] for line in own]
        np.testing.assert_allclose(row["sources"], np.array(views), atol=2e-3)  # the pairs are stored as float16
        assert row["classes"].tolist() == [number % 3 for number in numbers]
        assert row["name"].decode() == " + ".join(f"thing {number}" for number in numbers)
        assert row["group"] == group_of(key.encode())
        assert row["pair_origin"] == 0
        if len(own) == 1:
            np.testing.assert_allclose(row["global_visual"], row["sources"][0], atol=1e-6)
            np.testing.assert_allclose(row["audio"], [0.1, 0.1 * 2**0.5], rtol=0.02)
        else:  # pictures cover 8.8 % to 25 % of the canvas each, the rest is white
            darkness = 1 - row["sources"]
            assert (1 - row["global_visual"] > 0.087 * darkness.sum(0)).all()
            assert (1 - row["global_visual"] < 0.251 * darkness.sum(0) + 1e-6).all()


def test_the_sound_of_a_scene_is_the_mixed_waveform(media):
    """Sines of different frequencies add up by energy: the mean square of the mix is the sum of its parts'."""
    compose(media)
    for key, lines in read_lines(media.parent / "out").items():
        gains = [float(line["gain_db"]) for line in lines]
        level = 0.1 * sum(10 ** (gain / 10) for gain in gains) ** 0.5
        assert max(gains) == 0.0
        assert read_rows(media.parent / "out")[key]["audio"][0] == pytest.approx(level, rel=0.03)


def test_splits_use_only_their_own_annotated_pairs_and_a_group_once_a_row(media):
    compose(media, rows=40)
    pairs = read_rows(media.parent / "pairs")
    used = set()
    for key, lines in read_lines(media.parent / "out").items():
        found = [pairs[line["pair"]] for line in lines]
        assert {row["split"] for row in found} == {lines[0]["split"]} == {key.split("-")[1]}
        assert len({int(row["group"]) for row in found}) == len(found) <= 4
        used |= {number_of(line["pair"]) for line in lines}
    assert used == set(range(ROWS)) - set(CURATED)


def test_videos_show_and_sound_what_is_active(media):
    report = compose(media, kind="videos")
    folder = media.parent / "out"
    rows, lines = read_rows(folder), read_lines(folder)
    assert str(report).startswith("36 videos (fold0 12, fold1 12, fold2 12) with ")
    times = np.arange(FRAMES_PER_VIDEO) * 10 / 64
    for key, row in rows.items():
        own = lines[key]
        assert len(own) <= 3
        np.testing.assert_array_equal(row["timestamps"], times.astype(np.float32))
        starts, stops = (np.array([float(line[name]) for line in own]) for name in ("start_s", "stop_s"))
        active = (starts <= times[:, None]) & (times[:, None] < stops)
        assert active.any(axis=1).all()
        # Frames of the same sources are the same picture, and of other sources another one.
        assert np.array_equal(
            (row["frames"][:, None] == row["frames"]).all(axis=2), (active[:, None] == active).all(axis=2)
        )
        energy = (stops - starts) * 10 ** (np.array([float(line["gain_db"]) for line in own]) / 10)
        assert row["class_index"] == number_of(own[energy.argmax()]["pair"]) % 3
        assert row["audio"][0] == pytest.approx(0.1 * (energy.sum() / 10) ** 0.5, rel=0.03)
    spec = Manifest.load(folder).fields["frames"]
    assert (spec.width, spec.encoder, spec.role) == (3, "mean-colour", "visual")


def test_every_different_picture_of_a_video_is_encoded_once(media):
    eye = MeanColour()
    compose(media, kind="videos", eye=eye)
    different = sum(len(np.unique(row["frames"], axis=0)) for row in read_rows(media.parent / "out").values())
    assert eye.encoded == different


@pytest.mark.parametrize("kind", ["scenes", "videos"])
def test_the_data_set_is_valid_and_its_manifest_says_what_it_is(media, kind):
    head = LabelHead(torch.eye(2), torch.zeros(2), ("rms", "peak"))
    compose(media, ear=Loudness(head), kind=kind, dtype="float16")
    folder = media.parent / "out"
    assert validate_dataset(folder) == []
    manifest = Manifest.load(folder)
    assert (manifest.kind, list(manifest.classes), list(manifest.folds)) == (
        kind, list(CLASSES), ["fold0", "fold1", "fold2"],
    )  # fmt: skip
    assert (manifest.provenance, manifest.licence) == ("test", "CC0")  # what the pairs say
    assert {spec.dtype for spec in manifest.fields.values()} == {"float16"}
    assert manifest.load_label_head(folder).labels == ("rms", "peak")
    own = {"provenance": "here", "licence": "mine", "compression": "gzip"}
    compose(media, "named", kind=kind, dtype="float16", **own)
    assert same_data(read_everything(media.parent / "named"), read_everything(media.parent / "out"))
    named = Manifest.load(media.parent / "named")
    assert (named.provenance, named.licence, named.label_head) == ("here", "mine", None)


def test_gains_and_views_stand_in_the_list_for_both_kinds(media):
    compose(media)
    header = (media.parent / "out" / "compositions.csv").read_text().splitlines()[0]
    assert header == "key,split,pair,view,gain_db"
    compose(media, "videos", kind="videos")
    header = (media.parent / "videos" / "compositions.csv").read_text().splitlines()[0]
    assert header == "key,split,pair,view,gain_db,start_s,stop_s"


@pytest.mark.parametrize("kind", ["scenes", "videos"])
def test_the_same_seed_gives_the_same_bytes_whatever_is_cached(media, kind):
    compose(media, kind=kind)
    compose(media, "again", kind=kind, cache=str(media.parent / "empty"))
    assert files_of(media.parent / "out") == files_of(media.parent / "again")


def test_a_row_does_not_depend_on_how_many_there_are_nor_on_the_order_of_the_list(media):
    compose(media, rows=5)
    write_list(media, reversed(range(ROWS)))
    compose(media, "more", rows=40)
    few, many = read_rows(media.parent / "out"), read_rows(media.parent / "more")
    for key, row in few.items():
        assert all(np.array_equal(row[name], many[key][name]) for name in row)


def test_another_seed_draws_others(media):
    compose(media)
    compose(media, "other", seed=1)
    assert read_lines(media.parent / "out") != read_lines(media.parent / "other")


def test_scenes_and_videos_of_one_seed_are_drawn_apart(media):
    compose(media, max_sources=3)
    compose(media, "videos", kind="videos", max_sources=3)
    drawn = [
        [[line["pair"] for line in lines] for lines in read_lines(media.parent / name).values()]
        for name in ("out", "videos")
    ]
    assert drawn[0] != drawn[1]


def test_max_sources(media):
    compose(media, max_sources=1)
    assert {len(lines) for lines in read_lines(media.parent / "out").values()} == {1}


def test_batches_cut_nothing(media, monkeypatch):
    compose(media, kind="videos")
    monkeypatch.setattr("lightning_ss2a.builders.compositions.BATCH", 5)
    compose(media, "parts", kind="videos")
    assert files_of(media.parent / "out") == files_of(media.parent / "parts")


def test_splits_that_are_no_folds(media):
    source = str(media / "pairs.csv")
    build_pairs(source, str(media.parent / "split"), MeanColour(), Loudness(), validation_fraction=0.4, progress=False)
    report = compose(media, pairs_dataset=str(media.parent / "split"), max_sources=2)
    assert report.rows == {"train": 12, "validation": 12}
    assert Manifest.load(media.parent / "out").folds is None


# What is wrong


def refused(media: Path, message: str, **options) -> None:
    """The input is refused before anything is encoded."""
    eye, ear = MeanColour(), Loudness()
    with pytest.raises(InputError, match=message):
        compose(media, eye=eye, ear=ear, **{"cache": str(media.parent / "empty"), **options})
    assert (eye.encoded, ear.encoded) == (0, 0)
    assert not (media.parent / "out").exists()


@pytest.mark.parametrize("options", [{"rows": 0}, {"max_sources": 0}, {"image_views": 0}, {"seed": -1}])
def test_bad_counts(media, options):
    refused(media, "rows, max_sources and image_views need at least 1, seed at least 0", **options)


def test_an_unknown_kind(media):
    refused(media, "kind 'pairs' cannot be composed; choose one of scenes, videos", kind="pairs")


def test_a_split_with_too_few_groups(media):
    refused(media, "pairs: split fold[0-2] has [4-7] groups with annotated pairs, too few for 8 sources", max_sources=8)


def test_a_listed_pair_that_the_data_set_lacks(media):
    lines = (media / "pairs.csv").read_text()
    (media / "pairs.csv").write_text(lines + "0.png,1.wav,new thing,bird,annotated\n")
    refused(media, r"pairs\.csv: 1 pairs are not in .*pairs, the first: .*csv row 22 \(new_thing-\w+\); use the list")


def test_a_stored_pair_that_the_list_lacks(media):
    write_list(media, range(ROWS - 1))
    refused(media, r"pairs: 1 pairs are not in .*pairs\.csv, the first: thing_19-\w+; use the list")


def test_a_data_set_of_another_kind(media):
    compose(media, "scenes")
    scenes = str(media.parent / "scenes")
    refused(media, "scenes: a data set of kind scenes; pairs_dataset needs one of kind pairs", pairs_dataset=scenes)


@pytest.mark.parametrize(("field", "part"), [("visual", "eye"), ("audio", "ear")])
def test_an_encoder_that_is_not_the_one_of_the_pairs(media, field, part):
    other = {"eye": MeanColour(), "ear": Loudness()}[part]
    known, other.identity = other.identity, "other"
    with pytest.raises(InputError, match=f"field {field} was made by {known}, the encoder given is other; use the"):
        compose(media, **{part: other})
    assert other.encoded == 0


def test_no_data_set_of_pairs(media):
    refused(media, r"nowhere/manifest\.json: missing", pairs_dataset=str(media.parent / "nowhere"))


def test_the_pairs_themselves_are_not_replaced(media):
    with pytest.raises(InputError, match="pairs: is the data set of pairs itself; choose another folder"):
        compose(media, "pairs", overwrite=True)
    assert validate_dataset(media.parent / "pairs") == []


def test_a_finished_data_set_is_kept_unless_it_may_be_replaced(media):
    compose(media, rows=3)
    (media.parent / "out" / "NOTES").write_text("mine")
    with pytest.raises(InputError, match="out: holds a finished data set; choose another folder, or overwrite it"):
        compose(media, rows=4)
    assert len(read_rows(media.parent / "out")) == 9
    compose(media, rows=4, overwrite=True)
    assert len(read_rows(media.parent / "out")) == len(read_lines(media.parent / "out")) == 12
    assert (media.parent / "out" / "NOTES").read_text() == "mine"


def test_pictures_that_cannot_be_used_are_named_all(media, caplog):
    (media / "3.png").write_bytes(b"hello")
    (media / "4.png").unlink()
    with caplog.at_level(logging.WARNING), pytest.raises(InputError, match="2 pictures cannot be used"):
        compose(media, rows=40)
    assert len(caplog.messages) == 2
    assert "3.png: not a picture" in caplog.messages[0]


def test_a_sound_that_cannot_be_used_is_named_and_nothing_is_finished(media):
    (media / "3.wav").write_bytes(b"hello")
    with pytest.raises(InputError, match=r"3\.wav: not a sound file"):
        compose(media, rows=40)
    assert not (media.parent / "out" / "manifest.json").exists()


def test_an_embedding_that_is_not_finite_is_an_error(media):
    class Broken(Loudness):
        def encode(self, waveforms):
            return super().encode(waveforms) * torch.nan

    with pytest.raises(InputError, match="loudness: the embedding is not finite"):
        compose(media, ear=Broken())
    assert not (media.parent / "out" / "manifest.json").exists()


def test_a_build_that_fails_leaves_what_was_there(media):
    compose(media, rows=4)
    before = {file.name: file.read_bytes() for file in (media.parent / "out").iterdir()}
    (media / "3.wav").write_bytes(b"hello")
    with pytest.raises(InputError, match=r"3\.wav: not a sound file"):
        compose(media, rows=40, overwrite=True)
    assert before == {file.name: file.read_bytes() for file in (media.parent / "out").iterdir()}


def test_a_table_of_others_is_not_replaced(media):
    (media.parent / "out").mkdir()
    (media.parent / "out" / "compositions.csv").write_text("mine")
    eye = MeanColour()
    with pytest.raises(InputError, match=r"out/compositions\.csv: is of no data set of ours"):
        compose(media, eye=eye, cache=str(media.parent / "empty"))
    assert eye.encoded == 0
    assert (media.parent / "out" / "compositions.csv").read_text() == "mine"
