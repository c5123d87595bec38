import csv
import hashlib
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_ss2a.builders.engine import build as build_module
from lightning_ss2a.builders.engine.options import BuildTrainer
from lightning_ss2a.builders.listing import Item, Listing
from lightning_ss2a.data import Manifest
from lightning_ss2a.data.format.compatibility import load_manifests
from lightning_ss2a.data.tools.validate import validate_dataset
from lightning_ss2a.errors import InputError
from lightning_ss2a.perception import NanoDet, PyAVReader
from lightning_ss2a.perception.weights import ModelCard, find_weights
from tests.builders.engine.engine_examples import (
    CPU,
    Letters,
    PreparingLoudness,
    PreparingMeanColour,
    PreparingRedThings,
    RedThings,
    build,
    read_rows,
    stack,
    write_pairs,
)
from tests.data.shard_examples import read_everything, same_data
from tests.perception.media_files import Loudness, MeanColour, picture_file, plain_picture, sine, sound_file
from tests.perception.media_zoo import number_of, write_video


def rejected(folder: Path) -> dict[str, str]:
    with (folder / "rejected.csv").open(newline="") as file:
        return {row["key"]: row["reason"] for row in csv.DictReader(file)}


def red_scenes(folder: Path) -> list[Item]:
    """Pictures with something red, which RedThings find; in one something is marked; one is too blue; two are bare."""
    items = write_pairs(folder, 5)
    pixels = np.full((40, 80, 3), (0, 255, 0), np.uint8)
    pixels[10:30, 20:60] = (255, 0, 0)
    (folder / "0.png").write_bytes(picture_file(pixels))
    (folder / "1.png").write_bytes(picture_file(np.roll(pixels, 1, axis=0)))
    items[1] = replace(items[1], boxes=((0.0, 0.0, 0.25, 1.0), (0.25, 0.25, 0.75, 0.75)))
    for number, colour in ((2, (0, 0, 255)), (3, (0, 255, 0)), (4, (100, 100, 100))):
        (folder / f"{number}.png").write_bytes(picture_file(plain_picture(colour)))
    return items


def test_pairs_hold_the_embeddings_of_their_own_media(tmp_path: Path):
    items = write_pairs(tmp_path / "media", 10)
    report = build(items, tmp_path / "media")
    rows = read_rows(tmp_path / "out")
    assert report.rows == {"train": 9, "validation": 1}
    assert (report.groups, report.classes, report.rejected) == (10, 3, 0)
    for i in range(10):
        row = rows[f"key{i}"]
        np.testing.assert_allclose(row["visual"], np.array([5 * i, 100, 255 - 3 * i]) / 255, atol=1e-6)
        np.testing.assert_allclose(row["audio"][1], 0.01 + 0.09 * i, rtol=0.01)
        assert (row["name"].decode(), row["class_index"], row["pair_origin"]) == (f"thing {i}", i % 3, 0)
    assert validate_dataset(tmp_path / "out") == []
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "manifest.json",
        "rejected.csv",
        "train-000000.tar",
        "used_ids.txt",
        "validation-000000.tar",
    ]


def test_the_manifest_says_what_made_the_rows(tmp_path: Path):
    items = write_pairs(tmp_path / "media", 6)
    build(items, tmp_path / "media", provenance="a test", licence="CC0", seed=3)
    manifest = Manifest.load(tmp_path / "out")
    made_by = manifest.made_by
    assert (manifest.provenance, manifest.licence) == ("a test", "CC0")
    assert manifest.encoders == {"visual": "mean-colour", "audio": "loudness"}
    assert {name: made_by[name] for name in ("image_encoder", "audio_encoder", "seed", "batch_size", "device")} == {
        "image_encoder": "mean-colour",
        "audio_encoder": "loudness",
        "seed": "3",
        "batch_size": "4",
        "device": "cpu",
    }
    assert made_by["decoder"].startswith("PyAV ")
    used = (tmp_path / "out" / "used_ids.txt").read_bytes()
    assert used.decode().split() == [f"key{i}" for i in range(6)]
    assert made_by["used_ids"] == f"sha256 {hashlib.sha256(used).hexdigest()}"


def test_broken_media_stop_nothing_and_are_told_with_their_reason(tmp_path: Path):
    folder = tmp_path / "media"
    items = write_pairs(folder, 10)
    (folder / "1.png").write_bytes(b"hello")
    (folder / "2.wav").write_bytes(sound_file(np.zeros(2000)))
    (folder / "3.wav").unlink()
    items[4] = replace(items[4], sound=None)
    items[5] = replace(items[5], picture=None)
    gone = Item("list row 99", "gone", "gone", "class 0", picture="gone.png", sound="gone.wav")
    report = build(
        items, folder, missing=(gone,), absent=(gone.files[1:],), excluded=("a", "b"), repeated=("list row 17",)
    )
    assert sum(report.rows.values()) == 5
    assert (report.rejected, report.missing) == (6, 1)
    assert "6 rejected, 1 of them missing (rejected.csv says why); 2 excluded; 1 listed again" in str(report)
    reasons = rejected(tmp_path / "out")
    assert [*reasons] == ["key1", "key2", "key3", "key4", "key5", "gone"]
    for key, words in {
        "key1": "1.png: not a picture",
        "key2": "2.wav: the sound is silent",
        "key3": "3.wav: cannot be read (No such file",
        "key4": "it has no sound",
        "key5": "nothing is seen",
        "gone": "missing: gone.wav",
    }.items():
        assert words in reasons[key]
    assert set(read_rows(tmp_path / "out")) == {"key0", "key6", "key7", "key8", "key9"}


def test_broken_media_stop_a_build_that_must_use_all(tmp_path: Path):
    items = write_pairs(tmp_path / "media", 6)
    (tmp_path / "media" / "1.png").write_bytes(b"hello")
    with pytest.raises(InputError, match=r"1 of 6 items cannot be used \(.*rejected.csv names each\), .*skip_bad"):
        build(items, tmp_path / "media", skip_bad=False)
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert "1.png: not a picture" in (tmp_path / "out" / ".build" / "rejected.csv").read_text()


def test_nothing_usable_is_an_error(tmp_path: Path):
    items = write_pairs(tmp_path / "media", 3)
    for item in items:
        (tmp_path / "media" / item.picture).write_bytes(b"hello")
    with pytest.raises(InputError, match=r"3 of 3 items cannot be used .* the first: list row 0: 0.png: not a picture"):
        build(items, tmp_path / "media")


@pytest.mark.slow
def test_workers_and_preparation_elsewhere_change_no_row(tmp_path: Path):
    items = write_pairs(tmp_path / "media", 10)
    build(items, tmp_path / "media", output="plain")
    models = stack(image_encoder=PreparingMeanColour(), audio_encoder=PreparingLoudness())
    build(items, tmp_path / "media", models, output="workers", trainer=replace(CPU, num_workers=2))
    assert same_data(read_everything(tmp_path / "plain"), read_everything(tmp_path / "workers"))
    scenes = red_scenes(tmp_path / "scenes")
    build(scenes, tmp_path / "scenes", stack(detector=RedThings()), output="plain_scenes", kind="scenes")
    models = replace(models, detector=PreparingRedThings())
    many = replace(CPU, num_workers=2)
    build(scenes, tmp_path / "scenes", models, output="scenes_of_workers", kind="scenes", trainer=many)
    assert same_data(read_everything(tmp_path / "plain_scenes"), read_everything(tmp_path / "scenes_of_workers"))


def test_models_that_take_prepared_media_are_given_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    scenes = red_scenes(tmp_path / "media")
    build(scenes, tmp_path / "media", stack(detector=RedThings()), output="plain", kind="scenes")
    models = stack(
        image_encoder=PreparingMeanColour(), audio_encoder=PreparingLoudness(), detector=PreparingRedThings()
    )
    for model, method in ((MeanColour, "encode"), (Loudness, "encode"), (PreparingRedThings, "detect")):
        monkeypatch.setattr(model, method, lambda *_: pytest.fail("unprepared media"))
    monkeypatch.setattr(PreparingLoudness, "given", 0)
    build(scenes, tmp_path / "media", models, output="prepared", kind="scenes")
    assert same_data(read_everything(tmp_path / "plain"), read_everything(tmp_path / "prepared"))
    assert rejected(tmp_path / "prepared") == {"key2": "too blue"}
    assert PreparingLoudness.given == 2 * len(scenes)


def test_pictures_of_pairs_have_the_shape_asked_for(tmp_path: Path):
    items = write_pairs(tmp_path / "media", 3)
    (tmp_path / "media" / "0.png").write_bytes(picture_file(np.zeros((8, 16, 3), np.uint8)))
    for shape, white in (("padded", 0.5), ("stretched", 0.0)):
        build(items, tmp_path / "media", output=shape, crop_shape=shape)
        np.testing.assert_allclose(read_rows(tmp_path / shape)["key0"]["visual"], [white] * 3, atol=1e-6)


def test_a_build_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    items = write_pairs(tmp_path / "media", 10)
    build(items, tmp_path / "media", output="whole")
    ear = Loudness()
    original = ear.encode

    def stumbles(waveforms):
        if ear.encoded >= 8:
            raise RuntimeError("killed")
        return original(waveforms)

    monkeypatch.setattr(ear, "encode", stumbles)
    with pytest.raises(RuntimeError, match="killed"):
        build(items, tmp_path / "media", stack(audio_encoder=ear))
    rest = Loudness()
    build(items, tmp_path / "media", stack(audio_encoder=rest))
    assert rest.encoded == 2
    assert not (tmp_path / "out" / ".build").exists()
    assert same_data(read_everything(tmp_path / "whole"), read_everything(tmp_path / "out"))
    whole, stopped = (Manifest.load(tmp_path / name) for name in ("whole", "out"))
    assert whole.splits == stopped.splits  # the sha256 of every shard


def test_an_interrupted_build_says_so_and_goes_on(tmp_path: Path):
    class Interrupted(Loudness):
        def encode(self, waveforms):
            if self.encoded:
                raise KeyboardInterrupt
            return super().encode(waveforms)

    items, before = write_pairs(tmp_path / "media", 6), signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        build(items, tmp_path / "media", stack(audio_encoder=Interrupted()))
    assert signal.getsignal(signal.SIGINT) == before
    ear = Loudness()
    build(items, tmp_path / "media", stack(audio_encoder=ear))
    assert ear.encoded == 2


class Broken:
    """What a model is whose file is of the right name, and damaged."""

    def load(self) -> None:
        raise InputError("weights.bin: damaged")


class BrokenEye(Broken, MeanColour):
    pass


class BrokenPrior(Broken, Letters):
    pass


def test_a_model_that_cannot_be_loaded_is_no_fault_of_the_media(tmp_path: Path):
    items = write_pairs(tmp_path / "media", 6)
    with pytest.raises(InputError, match=r"^weights\.bin: damaged$"):
        build(items, tmp_path / "media", stack(image_encoder=BrokenEye()))
    assert not (tmp_path / "out" / "manifest.json").exists()
    build(items, tmp_path / "media")
    assert len(read_rows(tmp_path / "out")) == 6, "whoever mends the file goes on"


def test_a_model_that_only_some_items_need_does_not_lose_these(tmp_path: Path):
    items = write_pairs(tmp_path / "media", 5)
    items[3] = replace(items[3], picture=None, text="rgb", pair_origin="translated")
    with pytest.raises(InputError, match=r"^weights\.bin: damaged$"):
        build(items, tmp_path / "media", stack(prior=BrokenPrior(), text_encoder=Letters()))


def test_a_damaged_file_of_a_real_model_is_no_fault_of_the_media(tmp_path: Path):
    items = write_pairs(tmp_path / "media", 3)
    (tmp_path / "nanodet.onnx").write_bytes(b"hello")
    with pytest.raises(InputError, match=r"^\S+/nanodet\.onnx: not an ONNX model"):
        build(items, tmp_path / "media", stack(detector=NanoDet(path=str(tmp_path))), kind="scenes")


def test_all_models_that_cannot_be_named_are_told_at_once(tmp_path: Path):
    class Eye(MeanColour):
        @property
        def identity(self) -> str:
            raise InputError("eye: cannot be downloaded")

    class Ear(Loudness):
        @property
        def identity(self) -> str:
            raise InputError("ear: cannot be downloaded")

    with pytest.raises(InputError, match=r"^eye: cannot be downloaded; ear: cannot be downloaded$"):
        build(write_pairs(tmp_path / "media", 3), tmp_path / "media", stack(image_encoder=Eye(), audio_encoder=Ear()))


def test_frames_of_another_size_do_not_go_on_with_an_unfinished_build(tmp_path: Path):
    items = write_pairs(tmp_path / "media", 6)
    (tmp_path / "media" / "1.png").write_bytes(b"hello")
    with pytest.raises(InputError, match="cannot be used"):
        build(items, tmp_path / "media", skip_bad=False)
    with pytest.raises(InputError, match=r"another decoder \(.*"):
        build(items, tmp_path / "media", video_reader=PyAVReader(longest_side=64))


def test_texts_are_read_by_the_encoder_that_the_prior_knows(tmp_path: Path):
    class Others(Letters):
        identity = "other-letters"

    prior = Letters()
    prior.text_encoder = Letters()
    items = write_pairs(tmp_path / "media", 3)
    items[2] = replace(items[2], picture=None, text="rgb", pair_origin="translated")
    with pytest.raises(InputError, match="text_encoder is other-letters, and the prior reads texts by letters"):
        build(items, tmp_path / "media", stack(prior=prior, text_encoder=Others()))
    build(items, tmp_path / "media", stack(prior=prior, text_encoder=Letters()))


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"batch_size": 3}, r"another batch_size \(4, now 3\)"),
        ({"seed": 1}, r"another seed \(0, now 1\)"),
        ({"dtype": "float16"}, r"another dtype \(float32, now float16\)"),
        ({"trainer": replace(CPU, threads=2)}, r"another threads \(1, now 2\)"),
    ],
)
def test_other_options_do_not_go_on_with_an_unfinished_build(tmp_path: Path, option: dict, words: str):
    items = write_pairs(tmp_path / "media", 6)
    (tmp_path / "media" / "1.png").write_bytes(b"hello")
    with pytest.raises(InputError, match="cannot be used"):
        build(items, tmp_path / "media", skip_bad=False)
    with pytest.raises(InputError, match=words):
        build(items, tmp_path / "media", **option)
    build(items, tmp_path / "media", **option, overwrite=True)
    with pytest.raises(InputError, match="holds a finished data set"):
        build(items, tmp_path / "media", **option)


def test_other_options_of_models_do_not_go_on_with_an_unfinished_build(tmp_path: Path):
    items = write_pairs(tmp_path / "media", 6)
    (tmp_path / "media" / "1.png").write_bytes(b"hello")
    eye = MeanColour()
    eye.batch_size, eye.precision = 16, "float32"
    with pytest.raises(InputError, match="cannot be used"):
        build(items, tmp_path / "media", stack(image_encoder=eye), skip_bad=False)
    eye.batch_size = 8
    with pytest.raises(InputError, match=r"another computing \(image_encoder batch_size 16, .*, now image_encoder"):
        build(items, tmp_path / "media", stack(image_encoder=eye))
    lower = replace(CPU, precision="bfloat16")
    build(items, tmp_path / "media", stack(image_encoder=eye), trainer=lower, overwrite=True)
    made_by = Manifest.load(tmp_path / "out").made_by
    assert made_by["computing"] == "image_encoder batch_size 8, image_encoder precision bfloat16"


def test_what_a_kill_left_of_a_finished_build_is_tidied_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    items = write_pairs(tmp_path / "media", 6)
    (tmp_path / "media" / "1.png").write_bytes(b"hello")
    with monkeypatch.context() as patch:
        patch.setattr(build_module.BuildFolder, "remove", lambda self: None)
        first = build(items, tmp_path / "media")
    assert build(items, tmp_path / "media") == first
    assert not (tmp_path / "out" / ".build").exists()


def test_scenes_have_the_sources_that_are_annotated_or_detected(tmp_path: Path):
    folder = tmp_path / "media"
    report = build(red_scenes(folder), folder, stack(detector=RedThings()), kind="scenes", crop_shape="stretched")
    rows = read_rows(tmp_path / "out")
    assert rejected(tmp_path / "out") == {"key2": "too blue"}
    assert report.bare == 2
    np.testing.assert_allclose(rows["key0"]["sources"], [[1, 0, 0]], atol=0.02)
    np.testing.assert_allclose(rows["key0"]["global_visual"], [0.25, 0.75, 0], atol=0.02)
    np.testing.assert_allclose(rows["key1"]["sources"], [[0, 1, 0], [0.95, 0.05, 0]], atol=0.02)
    np.testing.assert_array_equal(rows["key3"]["sources"], rows["key3"]["global_visual"][None])
    assert [rows[f"key{i}"]["classes"].tolist() for i in (0, 1, 3, 4)] == [[0], [1], [0], [1]]
    assert (tmp_path / "out" / "sources.csv").read_text().splitlines() == [
        "key,label,score,left,top,right,bottom",
        "key0,red,0.9000,0.25000,0.25000,0.75000,0.75000",
        "key1,,1.0000,0.00000,0.00000,0.25000,1.00000",
        "key1,,1.0000,0.25000,0.25000,0.75000,0.75000",
    ]
    assert validate_dataset(tmp_path / "out") == []


def test_the_shape_of_pictures_is_part_of_what_made_their_embeddings(tmp_path: Path):
    folder = tmp_path / "media"
    items = write_pairs(folder, 3)
    wide = np.full((20, 80, 3), (0, 255, 0), np.uint8)
    (folder / "0.png").write_bytes(picture_file(wide))
    write_video(folder / "0.mkv", [0.0, 0.5, 1.0], sine(900, 1.5, 44_100), frames=lambda _: wide)
    items.append(replace(items[0], key="video", picture=None, sound=None, video="0.mkv"))
    for shape, white in (("padded", 0.75), ("stretched", 0.0)):
        build(items, folder, crop_shape=shape, output=shape)
        rows = read_rows(tmp_path / shape)
        for key in ("key0", "video"):
            np.testing.assert_allclose(rows[key]["visual"], [white, 1, white], atol=0.03)
    load_manifests([str(tmp_path / "padded")] * 2)
    with pytest.raises(InputError, match="field 'visual' is 'mean-colour' in the first and 'mean-colour-stretched' in"):
        load_manifests([str(tmp_path / "padded"), str(tmp_path / "stretched")])


def test_videos_have_64_frames_their_times_and_their_own_sound(tmp_path: Path):
    folder = tmp_path / "media"
    folder.mkdir()
    sound = np.concatenate([sine(1000, 2.0, 44_100, peak=0.2), sine(1000, 2.0, 44_100, peak=0.8)])
    write_video(folder / "a.mp4", np.arange(100) / 25, sound)
    write_video(folder / "b.mkv", np.arange(10) / 25, sound)
    (folder / "c.mp4").write_bytes((folder / "a.mp4").read_bytes()[:2000])
    items = [Item(f"row {name}", name, name, "thing", video=name) for name in ("a.mp4", "b.mkv", "c.mp4")]
    items.append(Item("row half", "half", "half", "thing", video="a.mp4", window=(2.0, 4.0)))
    items.append(Item("row picture", "picture", "picture", "thing", picture="a.png", sound="a.wav"))

    class FrameNumber(MeanColour):
        def encode(self, images):
            self.encoded += len(images)
            numbers = [float(number_of(image[len(image) // 8 : -len(image) // 8])) for image in images]
            return torch.tensor([[number, 0, 0] for number in numbers])

    eye = FrameNumber()
    build(items, folder, stack(image_encoder=eye), kind="videos")
    rows = read_rows(tmp_path / "out")
    assert set(rows) == {"a.mp4", "b.mkv", "half"}
    assert set(rejected(tmp_path / "out")) == {"c.mp4", "picture"}
    moments = (np.arange(64) + 0.5) / 64
    np.testing.assert_allclose(rows["a.mp4"]["timestamps"], 4 * moments, rtol=1e-6)
    np.testing.assert_array_equal(rows["a.mp4"]["frames"][:, 0], np.floor(100 * moments))
    np.testing.assert_array_equal(rows["b.mkv"]["frames"][:, 0], np.floor(10 * moments))
    np.testing.assert_array_equal(rows["half"]["frames"][:, 0], 50 + np.floor(50 * moments))
    assert eye.encoded == 64 + 10 + 50, "a frame that is shown for several moments is encoded once"
    np.testing.assert_allclose(rows["half"]["audio"][0], 0.8 / 2**0.5, rtol=0.05)
    assert rows["half"]["group"] == rows["a.mp4"]["group"] != rows["b.mkv"]["group"]


def test_a_window_cuts_a_sound(tmp_path: Path):
    folder = tmp_path / "media"
    items = write_pairs(folder, 3)
    (folder / "0.wav").write_bytes(sound_file(np.concatenate([sine(500, 1.0, peak=0.2), sine(500, 1.0, peak=0.8)])))
    items[0] = replace(items[0], window=(1.0, 2.0))
    items.append(replace(items[0], key="before", window=(0.0, 1.0)))
    items.append(replace(items[0], key="after", window=(2.5, 3.0)))
    build(items, folder)
    rows = read_rows(tmp_path / "out")
    np.testing.assert_allclose([rows[key]["audio"][1] for key in ("key0", "before")], [0.8, 0.2], rtol=0.01)
    assert list(rejected(tmp_path / "out")) == ["after"]
    assert rows["key0"]["group"] == rows["before"]["group"]


def test_texts_become_translated_pairs(tmp_path: Path):
    folder = tmp_path / "media"
    items = write_pairs(folder, 6)
    for i, text in enumerate(["red", "green", "nothing", "blue"]):
        items[i] = replace(items[i], picture=None, text=text, pair_origin="translated")
    build(items, folder, stack(text_encoder=Letters(), prior=Letters()))
    rows = read_rows(tmp_path / "out")
    assert rejected(tmp_path / "out") == {"key2": "'nothing' means nothing"}
    np.testing.assert_allclose(rows["key0"]["visual"], [1 / 3, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(rows["key3"]["visual"], [0, 0, 1 / 4], rtol=1e-6)
    assert Counter(int(row["pair_origin"]) for row in rows.values()) == {0: 2, 2: 3}
    origins = [row["pair_origin"] for row in rows.values() if row["split"] == "train"]
    assert origins == sorted(origins), "annotated rows come first"


def test_listed_splits_are_kept_and_never_share_a_file(tmp_path: Path):
    folder = tmp_path / "media"
    items = write_pairs(folder, 6)
    (folder / "4.wav").write_bytes((folder / "1.wav").read_bytes())
    splits = ["train", "train", "validation", None, "test", "test"]
    items = [replace(item, split=split) for item, split in zip(items, splits, strict=True)]
    report = build(items, folder)
    assert report.rows == {"test": 2, "train": 2, "validation": 1}
    assert rejected(tmp_path / "out") == {"key1": "shares a file or a group with list row 4, which is in split test"}
    with pytest.raises(InputError, match="list row 0: is in split train; where the list names splits, folds must be 0"):
        build(items, folder, output="other", folds=3)


def test_an_embedding_that_cannot_be_stored_is_left_out(tmp_path: Path):
    class Loud(Loudness):
        def encode(self, waveforms):
            found = super().encode(waveforms)
            found[found[:, 1] > 0.8] = float("nan")
            return found * 1e5

    items = write_pairs(tmp_path / "media", 10)
    build(items, tmp_path / "media", stack(audio_encoder=Loud()), dtype="float16")
    reasons = rejected(tmp_path / "out")
    assert reasons.pop("key9") == "loudness: the embedding is not finite"
    assert reasons == {"key8": "field audio holds a number beyond float16; build with dtype float32"}


class Described(MeanColour):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def describe(self) -> ModelCard:
        return ModelCard("image encoder", "mean", "MIT", find_weights("image encoder", self.path, "", ["a.bin"]))


def test_all_missing_files_of_models_are_named_before_any_medium_is_read(tmp_path: Path):
    class Ear(Loudness):
        def describe(self) -> ModelCard:
            return ModelCard("audio encoder", "loud", "MIT", find_weights("audio encoder", None, "", ["b.bin"]))

    items = write_pairs(tmp_path / "media", 3)
    with pytest.raises(InputError) as error:
        build(items, tmp_path / "media", stack(image_encoder=Described(str(tmp_path / "no")), audio_encoder=Ear()))
    assert "no does not exist" in str(error.value)
    assert "b.bin is not on the hub; audio_encoder.path must say where it is" in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "scenes"}, "detector is missing: list row 0 has no boxes"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"folds": 1}, "folds needs 0 or at least 2"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, options: dict, words: str):
    items = write_pairs(tmp_path / "media", 3)
    with pytest.raises(InputError, match=words):
        build(items, tmp_path / "media", **options)


def test_models_that_a_list_does_not_need_may_be_missing(tmp_path: Path):
    class Nowhere(RedThings):
        def describe(self) -> ModelCard:
            return ModelCard("detector", "red", "MIT", find_weights("detector", "nowhere", "", ["a.bin"]))

    items = write_pairs(tmp_path / "media", 3)
    build(items, tmp_path / "media", stack(detector=Nowhere(), prior=Letters()))
    assert "detector" not in Manifest.load(tmp_path / "out").made_by
    with pytest.raises(InputError, match=r"nowhere does not exist; detector.path must name"):
        build(items, tmp_path / "media", stack(detector=Nowhere()), output="scenes", kind="scenes")


def test_a_text_without_a_prior_and_a_prior_of_another_space_are_refused(tmp_path: Path):
    items = write_pairs(tmp_path / "media", 3)
    items[1] = replace(items[1], picture=None, text="red")
    with pytest.raises(InputError, match="prior is missing: list row 1 has a text, no picture"):
        build(items, tmp_path / "media")
    wide = Letters()
    wide.width = 4
    with pytest.raises(InputError, match="prior gives embeddings of width 4, image_encoder of 3"):
        build(items, tmp_path / "media", stack(text_encoder=Letters(), prior=wide))


def test_a_list_without_media_is_refused(tmp_path: Path):
    items = write_pairs(tmp_path / "media", 2)
    with pytest.raises(InputError, match=r"no item of the list can be used: the files of 2 are missing, the first"):
        build([], tmp_path / "media", missing=tuple(items), absent=tuple(item.files for item in items))


def test_a_list_without_sounds_is_refused_before_anything_is_read(tmp_path: Path):
    silent = [replace(item, sound=None) for item in write_pairs(tmp_path / "media", 2)]
    with pytest.raises(InputError, match="none of the 2 items has a sound, the first: list row 0; every row"):
        build(silent, tmp_path / "media")
    assert not (tmp_path / "out").exists()


def test_the_description_does_not_depend_on_where_the_list_is(tmp_path: Path):
    items = write_pairs(tmp_path / "media", 2)
    moved = tuple(replace(item, place="elsewhere") for item in items)
    assert build_module.fingerprint(Listing(tuple(items))) == build_module.fingerprint(Listing(moved))
    assert build_module.fingerprint(Listing(moved)) != build_module.fingerprint(Listing(moved[::-1]))


def test_a_trainer_checks_its_numbers():
    with pytest.raises(InputError, match=r"trainer.num_workers must be at least 0"):
        BuildTrainer(num_workers=-1)
