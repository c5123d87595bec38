import csv
import json
import logging
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_ss2a.builders import build_pairs
from lightning_ss2a.data import LabelHead, Manifest, ShardReader
from lightning_ss2a.data.tools.validate import validate_dataset
from lightning_ss2a.errors import InputError
from lightning_ss2a.perception import AudioEncoder, ImageEncoder
from tests.data.shard_examples import read_everything, same_data
from tests.perception.media_files import Loudness, MeanColour, picture_file, plain_picture, sine, sound_file

ROWS = 12
CLASSES = ("bird", "car", "drum")


def colour(row: int) -> tuple[int, int, int]:
    return (20 * row, 255 - 20 * row, 7 * row)


def peak(row: int) -> float:
    return 0.05 * (row + 1)


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """Twelve pairs, row i of class i % 3, with their list pairs.csv."""
    folder = tmp_path / "media"
    folder.mkdir()
    for row in range(ROWS):
        (folder / f"{row}.png").write_bytes(picture_file(plain_picture(colour(row))))
        (folder / f"{row}.wav").write_bytes(sound_file(sine(300 + 50 * row, 1.2, peak=peak(row)), subtype="FLOAT"))
    write_list(folder, [listed(row) for row in range(ROWS)])
    return folder


def listed(row: int, **changes: str) -> dict[str, str]:
    cells = {"image": f"{row}.png", "sound": f"{row}.wav", "name": f"thing {row}", "class": CLASSES[row % 3]}
    return {**cells, "group": "", "pair_origin": ("annotated", "curated")[row % 2], **changes}


def write_list(folder: Path, rows: list[dict[str, str]]) -> None:
    with (folder / "pairs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def build(media: Path, output: str = "out", eye=None, ear=None, **options):
    options = {"cache": str(media.parent / "cache"), "image_views": 3, "audio_views": 2, "progress": False, **options}
    source = options.pop("source", str(media / "pairs.csv"))
    return build_pairs(source, str(media.parent / output), eye or MeanColour(), ear or Loudness(), **options)


def read_rows(folder: Path) -> dict[str, dict]:
    """Row by name, with its split."""
    reader, rows = ShardReader(folder), {}
    for split in reader.manifest.splits:
        columns = reader.read_split(split)
        for i, name in enumerate(columns["name"]):
            rows[name.decode()] = {key: column[i] for key, column in columns.items()} | {"split": split}
    return rows


def test_pictures_are_squares_of_the_shape_asked_for_whatever_is_cached(media: Path):
    pixels = np.zeros((8, 16, 3), np.uint8)
    (media / "0.png").write_bytes(picture_file(pixels))
    expected = {"padded": 0.5, "stretched": 0.0, None: 0.5}  # of white around it
    for shape, white in expected.items():
        build(media, f"{shape}", dtype="float32", **({"crop_shape": shape} if shape else {}))
        np.testing.assert_allclose(read_rows(media.parent / f"{shape}")["thing 0"]["visual"][0], [white] * 3, atol=1e-6)


def test_the_fake_encoders_are_encoders():
    assert isinstance(MeanColour(), ImageEncoder)
    assert isinstance(Loudness(), AudioEncoder)


def test_every_row_holds_its_own_embeddings_class_origin_and_name(media):
    report = build(media, dtype="float32")
    rows = read_rows(media.parent / "out")
    assert sum(report.rows.values()) == len(rows) == ROWS
    for row in range(ROWS):
        found = rows[f"thing {row}"]
        assert found["visual"].shape == (3, 3)
        assert found["audio"].shape == (2, 2)
        np.testing.assert_allclose(found["visual"][0], np.array(colour(row)) / 255, atol=1e-6)
        np.testing.assert_allclose(found["audio"][0], [peak(row) / 2**0.5, peak(row)], rtol=1e-3)
        assert found["class_index"] == row % 3
        assert found["pair_origin"] == row % 2
        assert found["key"].startswith(f"thing_{row}-".encode())
    assert len({found["group"] for found in rows.values()}) == report.groups == ROWS


def test_the_data_set_is_valid_and_its_manifest_says_what_it_is(media):
    head = LabelHead(torch.eye(2), torch.zeros(2), ("rms", "peak"))
    build(media, ear=Loudness(head), provenance="made for a test", licence="CC0", validation_fraction=0.25)
    assert validate_dataset(media.parent / "out") == []
    manifest = Manifest.load(media.parent / "out")
    assert manifest.kind == "pairs"
    assert list(manifest.classes) == list(CLASSES)
    assert (manifest.provenance, manifest.licence) == ("made for a test", "CC0")
    visual, audio = manifest.fields["visual"], manifest.fields["audio"]
    assert (visual.width, visual.encoder, visual.dtype, visual.views) == (3, "mean-colour", "float16", 3)
    assert (audio.width, audio.encoder, audio.dtype, audio.views) == (2, "loudness", "float16", 2)
    assert {split: manifest.rows(split) for split in manifest.splits} == {"train": 9, "validation": 3}
    stored = manifest.load_label_head(media.parent / "out")
    assert stored.labels == ("rms", "peak")
    assert torch.equal(stored.weight, torch.eye(2))


def test_compression_changes_no_row(media):
    for compression in ("none", "gzip"):
        build(media, output=compression, compression=compression)
    folders = [media.parent / name for name in ("none", "gzip")]
    assert same_data(*map(read_everything, folders))
    assert b"000000.key.npy.gz" in (folders[1] / "train-000000.tar").read_bytes()


def test_folds(media):
    report = build(media, folds=4)
    assert report.rows == {f"fold{i}": 3 for i in range(4)}
    manifest = Manifest.load(media.parent / "out")
    assert list(manifest.folds) == [f"fold{i}" for i in range(4)]
    by_split = defaultdict(list)
    for row in read_rows(media.parent / "out").values():
        by_split[row["split"]].append(row["class_index"])
    assert all(sorted(classes) == [0, 1, 2] for classes in by_split.values())


def test_rows_that_share_a_group_a_picture_or_a_sound_stay_together(media):
    (media / "copy.png").write_bytes((media / "4.png").read_bytes())  # the same picture under another name
    (media / "copy.wav").write_bytes((media / "8.wav").read_bytes())
    rows = [listed(row) for row in range(ROWS)]
    rows[0]["group"] = rows[1]["group"] = "mine"
    rows[3]["sound"] = "2.wav"
    rows[5]["image"] = "copy.png"
    rows[6]["sound"] = "5.wav"  # linked to 4 through 5
    rows[9]["sound"] = "copy.wav"
    write_list(media, rows)
    report = build(media, folds=5)
    found = read_rows(media.parent / "out")
    groups = [found[f"thing {row}"]["group"] for row in range(ROWS)]
    together = [{0, 1}, {2, 3}, {4, 5, 6}, {7}, {8, 9}, {10}, {11}]
    assert report.groups == len(together)
    assert [{i for i in range(ROWS) if groups[i] == group} for group in dict.fromkeys(groups)] == together
    splits = {group: {row["split"] for row in found.values() if row["group"] == group} for group in groups}
    assert all(len(split) == 1 for split in splits.values())


def test_all_bad_rows_are_reported_at_once(media, caplog):
    (media / "1.png").write_bytes(b"hello")
    (media / "4.wav").write_bytes(sound_file(np.zeros(2000)))
    (media / "7.png").unlink()
    (media / "7.wav").write_bytes(b"")
    with caplog.at_level(logging.WARNING), pytest.raises(InputError) as caught:
        build(media)
    assert "3 of 12 pairs cannot be used (each is named above), the first: " in str(caught.value)
    assert "skip_bad" in str(caught.value)
    first, second, third = caplog.messages
    assert f"{media}/pairs.csv row 3: 1.png: not a picture" in first
    assert "pairs.csv row 6: 4.wav: the sound is silent" in second
    assert "pairs.csv row 9: " in third
    assert "7.png: cannot be read" in third
    assert "7.wav: not a sound file" in third
    assert not (media.parent / "out").exists()


def test_skip_bad_leaves_out_bad_rows_only(media):
    (media / "1.png").write_bytes(b"hello")
    report = build(media, skip_bad=True)
    assert str(report).endswith("11 groups, 3 classes; 1 rejected (rejected.csv says why)")
    with (media.parent / "out" / "rejected.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["file"], row["row"]) == ("1.png 1.wav", f"{media}/pairs.csv row 3")
    assert row["key"].startswith("thing_1-")
    assert row["reason"].startswith("1.png: not a picture (of no known type)")
    build(media, skip_bad=True, overwrite=True)
    assert set(read_rows(media.parent / "out")) == {f"thing {row}" for row in range(ROWS) if row != 1}
    assert validate_dataset(media.parent / "out") == []


def test_skip_bad_with_nothing_good_is_an_error(media):
    for row in range(ROWS):
        (media / f"{row}.wav").write_bytes(b"")
    with pytest.raises(InputError, match=r"12 of 12 pairs cannot be used.*; mend them$"):
        build(media, skip_bad=True)


class Interrupted(Loudness):
    """Is interrupted at its fifth sound."""

    def encode(self, waveforms):
        if self.encoded == 4 * len(waveforms):
            raise KeyboardInterrupt
        return super().encode(waveforms)


def test_a_build_that_stopped_goes_on_without_encoding_anything_twice(media):
    eye, ear = MeanColour(), Interrupted()
    with pytest.raises(KeyboardInterrupt):
        build(media, eye=eye, ear=ear)
    assert (eye.encoded, ear.encoded) == (ROWS * 3, 4 * 2)
    assert not (media.parent / "out" / "manifest.json").exists()
    eye, ear = MeanColour(), Loudness()
    build(media, eye=eye, ear=ear)
    assert (eye.encoded, ear.encoded) == (0, (ROWS - 4) * 2)
    build(media, "fresh", cache=str(media.parent / "other"))
    assert files_of(media.parent / "out") == files_of(media.parent / "fresh")


def test_a_build_interrupted_while_it_writes_is_written_again(media, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("lightning_ss2a.builders.pairs._rows", interrupted)
        with pytest.raises(KeyboardInterrupt):
            build(media)
    with pytest.raises(InputError, match="manifest"):
        Manifest.load(media.parent / "out")
    eye = MeanColour()
    build(media, eye=eye)
    assert eye.encoded == 0
    assert validate_dataset(media.parent / "out") == []


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_row_that_was_added_is_all_that_is_encoded(media):
    write_list(media, [listed(row) for row in range(ROWS - 1)])
    build(media)
    write_list(media, [listed(row) for row in range(ROWS)])
    eye, ear = MeanColour(), Loudness()
    build(media, eye=eye, ear=ear, overwrite=True)
    assert (eye.encoded, ear.encoded) == (3, 2)
    assert len(read_rows(media.parent / "out")) == ROWS


def test_a_damaged_cache_does_not_spoil_the_data_set(media):
    build(media, dtype="float32")
    for file in (media.parent / "cache").iterdir():
        file.write_bytes(file.read_bytes()[:-5])
    build(media, "again", dtype="float32")
    assert files_of(media.parent / "out") == files_of(media.parent / "again")


def test_a_finished_data_set_is_kept_unless_it_may_be_replaced(media):
    build(media, provenance="first")
    (media.parent / "out" / "NOTES").write_text("mine")
    eye = MeanColour()
    with pytest.raises(InputError, match=r"out: holds a finished data set; choose another folder, or overwrite it"):
        build(media, eye=eye, image_views=4)
    assert eye.encoded == 0  # found before the work
    build(media, provenance="second", overwrite=True, folds=3)
    assert Manifest.load(media.parent / "out").provenance == "second"
    assert (media.parent / "out" / "NOTES").read_text() == "mine"
    assert sorted(file.name for file in (media.parent / "out").iterdir()) == [
        "NOTES", "fold0-000000.tar", "fold1-000000.tar", "fold2-000000.tar", "manifest.json",
    ]  # fmt: skip


def test_rows_in_parts_are_the_same_rows(media, monkeypatch):
    build(media)
    monkeypatch.setattr("lightning_ss2a.builders.pairs.ROWS_AT_ONCE", 2)
    build(media, "parts")
    assert files_of(media.parent / "out") == files_of(media.parent / "parts")


def test_the_seed_changes_splits_and_views(media):
    build(media, folds=4, dtype="float32")
    build(media, "other", folds=4, dtype="float32", seed=1)
    first, second = read_rows(media.parent / "out"), read_rows(media.parent / "other")
    assert any(first[name]["split"] != second[name]["split"] for name in first)
    row = "thing 5"
    assert np.array_equal(first[row]["visual"][0], second[row]["visual"][0])
    assert not np.array_equal(first[row]["visual"][1:], second[row]["visual"][1:])


def test_a_folder_of_pairs(media):
    zoo = media.parent / "zoo"
    for row in range(6):
        for suffix in ("png", "wav"):
            (zoo / CLASSES[row % 3]).mkdir(parents=True, exist_ok=True)
            (zoo / CLASSES[row % 3] / f"{row}.{suffix}").write_bytes((media / f"{row}.{suffix}").read_bytes())
    report = build(media, source=str(zoo))
    assert report.classes == 3
    rows = read_rows(media.parent / "out")
    assert {name: int(row["class_index"]) for name, row in rows.items()} == {str(i): i % 3 for i in range(6)}


def test_paths_start_from_the_media_root(media, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "pairs.csv").write_bytes((media / "pairs.csv").read_bytes())
    source = str(tmp_path / "elsewhere" / "pairs.csv")
    with pytest.raises(InputError, match="12 of 12 pairs cannot be used"):
        build(media, source=source)
    assert sum(build(media, source=source, media_root=str(media)).rows.values()) == ROWS


@pytest.mark.parametrize(
    "options",
    [
        {"image_views": 0}, {"audio_views": -1}, {"folds": 1}, {"folds": -2}, {"validation_fraction": 0.0},
        {"validation_fraction": 1.0}, {"validation_fraction": float("nan")}, {"seed": -1},
    ],
)  # fmt: skip
def test_bad_options(media, options):
    with pytest.raises(InputError, match="image_views and audio_views need at least 1, folds 0 or at least 2"):
        build(media, **options)


def test_more_folds_than_groups(media):
    with pytest.raises(InputError, match="only 12 groups of pairs, which cannot be spread over 13 splits"):
        build(media, folds=13)


def test_an_embedding_that_does_not_fit_float16_is_named(media):
    class Loud(Loudness):
        def encode(self, waveforms):
            return super().encode(waveforms) * 1e6

    with pytest.raises(InputError, match=r"field audio holds .* which does not fit float16"):
        build(media, ear=Loud())
    assert not (media.parent / "out" / "manifest.json").exists()


def test_the_manifest_is_strict_json_with_sizes_that_are_true(media):
    build(media, folds=3)
    folder = media.parent / "out"
    manifest = json.loads((folder / "manifest.json").read_text())
    for shards in manifest["splits"].values():
        for shard in shards:
            assert (folder / shard["file"]).stat().st_size == shard["bytes"]


def test_an_output_folder_that_cannot_be_is_named_before_anything_is_encoded(media, caplog):
    (media.parent / "file").write_text("not a folder")
    eye = MeanColour()
    eye.encode = lambda images: pytest.fail("encoded")
    for output in ("file", "file/out"):
        with pytest.raises(InputError, match=rf"{output}: cannot be the folder of a data set \(Not a"):
            build(media, output, eye)


# Order of origins


def test_annotated_rows_come_first_and_others_move_no_group(media):
    annotated = [listed(row, group=str(row % 6), pair_origin="annotated") for row in range(ROWS)]
    write_list(media, annotated)
    build(media, "before", folds=3)
    others = [
        listed(row, name=f"other {row}", image=f"{(row + 6) % ROWS}.png", group=str(row % 6), pair_origin=origin)
        for row, origin in enumerate(["translated", "curated"] * 3)
    ]
    write_list(media, others + annotated)
    build(media, "after", folds=3)
    before, after = ShardReader(media.parent / "before"), ShardReader(media.parent / "after")
    for split in before.manifest.splits:
        few, all_rows = before.read_split(split), after.read_split(split)
        assert (np.diff(all_rows["pair_origin"].astype(int)) >= 0).all()
        rows = len(few["key"])
        assert len(all_rows["key"]) > rows
        assert all((few[name] == all_rows[name][:rows]).all() for name in few)


def test_an_encoder_that_cannot_be_loaded_is_no_fault_of_the_media(media: Path, caplog: pytest.LogCaptureFixture):
    class Broken(MeanColour):
        def load(self) -> None:
            raise InputError("weights.bin: damaged")

    options = {"cache": str(media / "cache"), "skip_bad": True}
    with pytest.raises(InputError, match=r"^weights\.bin: damaged$"):
        build_pairs(str(media / "pairs.csv"), str(media / "out"), Broken(), Loudness(), **options)
    assert not caplog.records
