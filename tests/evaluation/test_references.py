"""What `ss2a references` cuts out of data sets in their authors' layouts."""

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile
from torch.nn.functional import normalize

from lightning_ss2a.builders.engine.media_worker import MediaNeeds, Preparations, prepare
from lightning_ss2a.builders.listing import (
    CsvItems,
    FolderItems,
    ItemReader,
    MusicItems,
    VGGSound,
    VGGSoundSource,
    list_items,
)
from lightning_ss2a.errors import InputError
from lightning_ss2a.evaluation.evaluate import evaluate_folders
from lightning_ss2a.evaluation.folders import list_items as list_measured
from lightning_ss2a.evaluation.folders import open_folders
from lightning_ss2a.evaluation.hearing import Listener
from lightning_ss2a.evaluation.measures import CLIP, FAD, SSMS
from lightning_ss2a.evaluation.planning import Protocol
from lightning_ss2a.evaluation.reference_media import ReferenceRule
from lightning_ss2a.evaluation.references import ReferenceReport, file_name, make_references
from lightning_ss2a.evaluation.scoring import Bootstrap
from lightning_ss2a.generation.items import list_items as list_asked
from lightning_ss2a.perception.embedding_cache import EmbeddingCache
from lightning_ss2a.perception.media.files import load_audio, load_image
from lightning_ss2a.perception.media.video import Clip, PyAVReader
from tests.evaluation.small_encoder import SmallEncoder, SmallImages, SmallLabeller
from tests.perception.media_files import picture_file, sine, sound_file
from tests.perception.media_zoo import QUARTERS, number_of, write_video

ELK, TAPS, BARE, GONE, CELLO = (
    "zpWuikVorYg_000001", "UyCw7pCgYg8_000000", "M1P1xla8rg0_000000", "XcyHfR180hA_000008", "_0TBp3ZPXBc_000000",
)  # fmt: skip
BOXES: dict[str, list[list[float]]] = {
    ELK: [[0.4, 0.25, 0.6, 0.75]],
    TAPS: [[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]],
    BARE: [[0.3, 1.0, 0.7, 1.0]],
    GONE: [[0, 0, 1, 1]],
}


def video(path: Path, seconds: float = 2.0, pitch: float = 440.0, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    left, right = sine(pitch, seconds, 44_100), sine(2 * pitch, seconds, 44_100)
    options = {"sound": np.stack([left, right], axis=1), **options}
    return write_video(path, [number / 25 for number in range(round(25 * seconds))], **options)


def write_vggss(folder: Path) -> Path:
    """One clip in its whole video, one as a clip, one without boxes, one that is gone."""
    video(folder / "clips" / f"{ELK[:11]}.mov", seconds=3)
    video(folder / "clips" / f"{TAPS}.mkv", pitch=300, frames=lambda _: QUARTERS)
    video(folder / "clips" / f"{BARE}.mp4", pitch=200)
    entries = [{"file": key, "class": f"class of {key[:3]}", "bbox": boxes} for key, boxes in BOXES.items()]
    (folder / "vggss.json").write_text(json.dumps(entries))
    return folder


def make(
    source: Path, output: Path, reader: ItemReader, workers: int = 0, rule: dict[str, Any] | None = None, **options: Any
) -> ReferenceReport:
    given = ReferenceRule(source, output, **{"video_reader": PyAVReader(1024), **(rule or {})})
    return make_references(list_items(str(source), reader, **options), given, workers=workers, progress=False)


def read_csv(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {row.get("name") or row["key"]: row for row in rows}


@pytest.fixture(scope="module")
def vggss(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, ReferenceReport]:
    folder = tmp_path_factory.mktemp("sets")
    source, output = write_vggss(folder / "vggss"), folder / "references"
    return source, output, make(source, output, VGGSoundSource(test_items=4))


def test_crops_are_those_that_shards_are_built_of(vggss):
    source, output, _ = vggss
    for shape in ("padded", "stretched"):
        needs = MediaNeeds("scenes", source, 16_000, PyAVReader(1024), Preparations(), shape)
        for item in list_items(str(source), VGGSoundSource()).items:
            built = prepare(item, 0, needs)
            crops = sorted((output / "crops").glob(f"{item.key}.*.png"))
            assert len(crops) == len(built.crops) == len(item.boxes)
            for crop, expected in zip(crops, built.crops, strict=True):
                np.testing.assert_array_equal(load_image(crop.read_bytes(), "", shape), expected)
            whole = load_image((output / "images" / f"{item.key}.png").read_bytes(), "", shape)
            np.testing.assert_array_equal(whole, built.views[0])


def test_crops_hold_what_is_in_the_boxes(vggss):
    """The red quarter and the black one."""
    colours = [np.asarray(Image.open(vggss[1] / "crops" / f"{TAPS}.{number}.png")) for number in (1, 2)]
    assert [colour.shape for colour in colours] == [(24, 32, 3)] * 2
    assert np.abs(colours[0][4:-4, 4:-4].mean((0, 1)) - [255, 0, 0]).max() < 10
    assert colours[1][4:-4, 4:-4].mean() < 10


def test_sounds_and_middle_frames_are_of_the_items_window(vggss):
    """The clip is cut from second 1 of a video of 3 s: PCM in MOV, which counts time in samples."""
    _, output, _ = vggss
    rate, sound = wavfile.read(output / "sounds" / f"{ELK}.wav")
    assert (rate, sound.dtype) == (44_100, np.float32)
    expected = (sine(440, 3, 44_100) + sine(880, 3, 44_100))[44_100:] / 2
    assert sound.shape == expected.shape
    assert np.abs(sound - expected).max() < 1e-4  # 16 bits
    assert number_of(np.asarray(Image.open(output / "images" / f"{ELK}.png"))) == 50


def test_lists_tell_single_from_multi(vggss):
    _, output, report = vggss
    assert report.lists == {"pairs.csv": 3, "single.csv": 1, "multi.csv": 1}
    pairs = read_csv(output / "pairs.csv")
    assert [*pairs] == [ELK, TAPS, BARE]
    assert pairs[TAPS] == {
        "name": TAPS, "image": f"crops/{TAPS}.1.png;crops/{TAPS}.2.png", "text": "", "class": "class of UyC",
        "group": TAPS[:11], "sources": "2",
    }  # fmt: skip
    assert (pairs[BARE]["image"], pairs[BARE]["sources"]) == (f"images/{BARE}.png", "")
    assert read_csv(output / "single.csv") == {ELK: pairs[ELK]}
    assert read_csv(output / "multi.csv") == {TAPS: pairs[TAPS]}
    asked = list_asked(str(output / "items.csv"))
    assert [(item.key, item.images) for item in asked] == [
        (key, (str(output / "images" / f"{key}.png"),)) for key in (ELK, TAPS, BARE)
    ]


def test_what_is_missing_is_told(vggss):
    source, output, report = vggss
    assert (report.made, report.kept, report.broken, report.missing) == (3, 0, 0, 1)
    assert (output / "rejected.csv").read_text() == (
        f"file,row,key,reason\n{GONE}.mp4,{source}/vggss.json entry 4,{GONE},missing: {GONE}.mp4\n"
    )
    about = json.loads((output / "references.json").read_text())
    assert about["lists"] == report.lists
    assert "PyAV" in about["decoder"]


def test_a_split_without_the_videos_of_vggss(tmp_path: Path):
    source = tmp_path / "vggsound"
    keys = [ELK, f"{ELK[:11]}_000090", CELLO, "---g-f_I2yQ_000000"]
    for key in keys:
        source.mkdir(exist_ok=True)
        (source / f"{key}.jpg").write_bytes(picture_file(QUARTERS, "JPEG"))
        (source / f"{key}.wav").write_bytes(sound_file(sine(440, 0.2)))
    splits = ("test", "test", "test", "train")
    rows = [f"{key[:11]},{int(key[12:])},a label,{split}\n" for key, split in zip(keys, splits, strict=True)]
    (source / "vggsound.csv").write_text("".join(rows))
    boxes = tmp_path / "vggss.json"
    boxes.write_text(json.dumps([{"file": ELK, "class": "a label", "bbox": BOXES[ELK]}]))
    report = make(source, tmp_path / "out", VGGSound(), splits=["test"], exclude=str(boxes))
    assert (report.made, report.excluded) == (1, 2)
    assert report.lists == {"pairs.csv": 1}
    assert {path.name for path in (tmp_path / "out" / "sounds").iterdir()} == {f"{CELLO}.wav"}
    assert [item.key for item in list_asked(str(tmp_path / "out" / "items.csv"))] == [CELLO]


def test_the_window_of_a_sound_file_at_either_rate(tmp_path: Path):
    source = tmp_path / "set"
    source.mkdir()
    data = sound_file(np.stack([sine(300, 2, 22_050), sine(500, 2, 22_050)], axis=1), 22_050)
    (source / "a.wav").write_bytes(data)
    (source / "a.png").write_bytes(picture_file(QUARTERS))
    (source / "items.csv").write_text("sound,picture,start,end\na.wav,a.png,0.5,1.25\n")
    reader = CsvItems(sound="{sound}", picture="{picture}", start="{start}", end="{end}")
    for own, rate in ((None, 22_050), (16_000, 16_000)):
        make(source, tmp_path / "out", reader, rule={"sample_rate": own})
        found, sound = wavfile.read(tmp_path / "out" / "sounds" / "a.wav")
        assert found == rate
        np.testing.assert_array_equal(sound, load_audio(data, "a.wav", rate, (0.5, 1.25)))
        if own is None:
            expected = (sine(300, 2, 22_050) + sine(500, 2, 22_050))[11_025:27_562] / 2
            np.testing.assert_allclose(sound, expected, atol=1e-4)  # 16 bits


def test_broken_media_are_told_and_the_rest_goes_on(tmp_path: Path):
    source = tmp_path / "set"
    for name in ("good", "mute", "silent", "cut"):
        video(source / "dog" / f"{name}.mkv", **{
            "mute": {"sound": None}, "silent": {"sound": np.zeros(88_200, np.float32)}
        }.get(name, {}))  # fmt: skip
    (source / "dog" / "cut.mkv").write_bytes((source / "dog" / "cut.mkv").read_bytes()[:2000])
    (source / "dog" / "text.mp4").write_text("no video")
    report = make(source, tmp_path / "out", FolderItems())
    assert (report.made, report.broken) == (1, 4)
    reasons = {row["key"]: row["reason"] for row in read_csv(tmp_path / "out" / "rejected.csv").values()}
    assert reasons["dog/mute.mkv"] == "dog/mute.mkv: no audio stream"
    assert reasons["dog/silent.mkv"] == "dog/silent.mkv: the sound is silent"
    assert reasons["dog/text.mp4"].startswith("dog/text.mp4: not a video")
    assert "cut.mkv" in reasons["dog/cut.mkv"]
    files = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert files == {
        "dog_good.wav", "dog_good.png", "items.csv", "pairs.csv", "rejected.csv", "references.json", ".made"
    }  # fmt: skip


def test_nothing_that_can_be_used_is_an_error(tmp_path: Path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.mp4").write_text("no video")
    with pytest.raises(InputError, match=r"none of 1 items can be used .*rejected.csv names each.*a.mp4: not a video"):
        make(tmp_path / "set", tmp_path / "out", FolderItems())
    assert not (tmp_path / "out" / "pairs.csv").exists()


def test_a_second_call_keeps_what_is_whole_and_of_the_same_media(tmp_path: Path):
    source, output = tmp_path / "set", tmp_path / "out"
    source.mkdir()
    for number, name in enumerate("abc"):
        (source / f"{name}.wav").write_bytes(sound_file(sine(300 + 100 * number, 0.2)))
        (source / f"{name}.png").write_bytes(picture_file(QUARTERS))
    (source / "items.csv").write_text("n\na\nb\nc\n")
    reader = CsvItems(sound="{n}.wav", picture="{n}.png", key="{n}")
    assert make(source, output, reader).made == 3
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*.wav")}
    (output / "images" / "b.png").unlink()
    (source / "c.wav").write_bytes(sound_file(sine(900, 0.3)))
    report = make(source, output, reader)
    assert (report.made, report.kept, report.lists["pairs.csv"]) == (2, 1, 3)
    changed = {path.stem for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert changed == {"b", "c"}
    assert len(wavfile.read(output / "sounds" / "c.wav")[1]) == 4800
    (source / "items.csv").write_text("n,start,end\na,0,0.1\nb,,\nc,,\n")
    windowed = CsvItems(sound="{n}.wav", picture="{n}.png", key="{n}", start="{start}", end="{end}")
    assert make(source, output, windowed).made == 1
    assert len(wavfile.read(output / "sounds" / "a.wav")[1]) == 1600
    (output / ".made").write_text((output / ".made").read_text()[:-3])  # as a killed call leaves it
    assert make(source, output, windowed).made == 1


def test_videos_are_linked_whole(tmp_path: Path):
    source = tmp_path / "AVSync15"
    name = "3yXCtpvjz6E_000001_000011_6.5_8.5_clip-00"
    video(source / "videos" / "hammering" / f"{name}.mp4")
    video(source / "videos" / "hammering" / f"train{name[5:]}.mp4")
    (source / "test.txt").write_text(f"hammering/{name}.mp4\n")
    (source / "train.txt").write_text(f"hammering/train{name[5:]}.mp4\n")
    reader = FolderItems(folder="videos", lists={"train": "train.txt", "test": "test.txt"}, group_pattern=".{11}")
    report = make(source, tmp_path / "out", reader, rule={"videos": True}, splits=["test"])
    assert report.made == 1
    key = f"hammering_{name}"
    (asked,) = list_asked(str(tmp_path / "out" / "items.csv"))
    assert (asked.key, asked.images) == (key, ())
    assert Path(asked.videos[0]).resolve() == (source / "videos" / "hammering" / f"{name}.mp4").resolve()
    assert read_csv(tmp_path / "out" / "pairs.csv")[key]["group"] == name[:11]
    (source / "items.csv").write_text(f"video,start,end\nvideos/hammering/{name}.mp4,0,1\n")
    parts = CsvItems(video="{video}", start="{start}", end="{end}")
    with pytest.raises(InputError, match="its part from 0 s to 1 s, and videos are linked whole; cut it out"):
        make(source, tmp_path / "parts", parts, rule={"videos": True})


def test_pictures_without_sounds(tmp_path: Path):
    (tmp_path / "set").mkdir()
    for name in ("bongo1", "dog2"):
        (tmp_path / "set" / f"{name}.jpg").write_bytes(picture_file(QUARTERS, "JPEG"))
    make(tmp_path / "set", tmp_path / "out", FolderItems("picture", class_from="name"))
    assert list((tmp_path / "out" / "sounds").iterdir()) == []
    pairs = read_csv(tmp_path / "out" / "pairs.csv")
    assert {name: (row["image"], row["class"]) for name, row in pairs.items()} == {
        "bongo1": ("images/bongo1.png", "bongo"), "dog2": ("images/dog2.png", "dog")
    }  # fmt: skip


def test_texts_in_place_of_pictures(tmp_path: Path):
    source, output = tmp_path / "set", tmp_path / "out"
    source.mkdir()
    for name in "ab":
        (source / f"{name}.wav").write_bytes(sound_file(sine(440, 0.2)))
    (source / "items.csv").write_text("n,text\na,rain; wind\nb,\n")
    report = make(source, output, CsvItems(sound="{n}.wav", text="{text}", key="{n}"))
    assert (report.made, report.broken) == (1, 1)
    assert (output / "items.csv").read_text() == 'key,image,text,video\na,,"rain, wind",\n'  # one source, not two
    assert read_csv(output / "pairs.csv")["a"]["text"] == "rain; wind"
    assert "nothing is seen" in (output / "rejected.csv").read_text()


def test_solos_and_duets(tmp_path: Path):
    source = tmp_path / "MUSIC"
    for name in ("8DHG_hVSw1o", "RWP6BHh_c7Y"):
        video(source / f"{name}.mkv")
    (source / "solo.json").write_text(json.dumps({"videos": {"accordion": ["8DHG_hVSw1o"]}}))
    (source / "duet.json").write_text(json.dumps({"videos": {"flute violin": ["RWP6BHh_c7Y"]}}))
    make(source, tmp_path / "out", MusicItems(("solo.json", "duet.json"), window=(0.5, 1.5)))
    assert [*read_csv(tmp_path / "out" / "single.csv")] == ["8DHG_hVSw1o"]
    assert [*read_csv(tmp_path / "out" / "multi.csv")] == ["RWP6BHh_c7Y"]
    assert len(wavfile.read(tmp_path / "out" / "sounds" / "RWP6BHh_c7Y.wav")[1]) == 44_100
    make(source, tmp_path / "out", MusicItems(("solo.json",)))
    assert not (tmp_path / "out" / "multi.csv").exists()  # of the call before


def test_two_items_with_one_name_are_refused(tmp_path: Path):
    for folder, name in (("a", "b"), ("", "a_b")):
        (tmp_path / "set" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / folder / f"{name}.png").write_bytes(picture_file(QUARTERS))
    with pytest.raises(InputError, match=r"same name as those of .*'a_b'; give them other keys"):
        make(tmp_path / "set", tmp_path / "out", FolderItems("picture"))


def test_names_are_those_that_generate_keeps():
    for key in (ELK, CELLO, "bongo1.jpg", "hammering/3yXCtpvjz6E_6.5_8.5_clip-00.mp4", "a.mp4 3"):
        assert file_name(file_name(key)) == file_name(key)
    assert file_name("a.mp4 3") == "a.mp4_3"


class DeadlyReader(PyAVReader):
    """A reader whose process ends at a video."""

    def read(self, path: Path, **options: Any) -> Clip:
        if path.stem == "deadly":
            os._exit(1)
        return super().read(path, **options)


@pytest.mark.slow  # 10 to 25 s: processes that start anew
def test_a_video_that_ends_its_process_is_told_and_the_rest_goes_on(tmp_path: Path):
    for name in ("a", "b", "deadly"):
        video(tmp_path / "set" / f"{name}.mkv")
    report = make(tmp_path / "set", tmp_path / "out", FolderItems(), 2, {"video_reader": DeadlyReader()})
    assert (report.made, report.broken) == (2, 1)
    assert "deadly.mkv" in read_csv(tmp_path / "out" / "rejected.csv")["deadly.mkv"]["reason"]


def test_what_is_cut_is_measured(vggss, tmp_path: Path):
    """The references against themselves: FAD 0, SSMS 10, and the CLIP score is the mean over both crops."""
    _, output, _ = vggss
    folders = open_folders([f"same={output / 'sounds'}"], str(output / "sounds"), str(output))
    encoders = {"small": SmallLabeller(), "clip": SmallEncoder()}
    measures = {"FAD": FAD("small"), "SSMS": SSMS("small", top_n=2), "CS": CLIP("clip")}
    protocol = Protocol(measures, encoders, SmallImages(), None, None, 10.24, "padded", Bootstrap(0, 0))
    items, problems = list_measured(folders, str(output / "pairs.csv"))
    listener = Listener(EmbeddingCache(tmp_path), 10.24, 4, 1, False)
    evaluation = evaluate_folders(folders, items, protocol, listener, problems)
    assert evaluation.problems == []
    values = {score.measure: score.value for score in evaluation.scores}
    crops = [[output / image for image in row["image"].split(";")] for row in read_csv(output / "pairs.csv").values()]
    sounds = [load_audio((output / "sounds" / f"{item.name}.wav").read_bytes(), "", 8000) for item in items]
    heard = normalize(SmallEncoder().embed(sounds), dim=1)
    seen = [normalize(SmallImages().encode([load_image(file.read_bytes(), "") for file in files])) for files in crops]
    alike = [float((one @ pictures.T).mean()) for one, pictures in zip(heard, seen, strict=True)]
    assert values["CS"] == pytest.approx(100 * np.mean(alike), rel=1e-4)
    assert values["FAD"] == pytest.approx(0, abs=1e-6)
    assert values["SSMS"] == 10
