"""Whole calls of generation with small models: files, resuming, refusals, videos, baselines."""

import csv
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from lightning_ss2a.builders.engine.options import BuildTrainer
from lightning_ss2a.errors import InputError
from lightning_ss2a.generation.generate import Report, generate
from lightning_ss2a.generation.items import Item
from lightning_ss2a.generation.mixing.methods import MeanMixer, SS2AMixer
from lightning_ss2a.generation.module import overlaid
from lightning_ss2a.generation.options import Checkpoints, SoundOptions
from lightning_ss2a.generation.protocols import SoundGenerator
from lightning_ss2a.generation.scene.labels import LabelMeanings
from lightning_ss2a.generation.scene.source import Scene, Source
from lightning_ss2a.generation.trained import load_trained
from lightning_ss2a.perception.media.video import PyAVReader
from tests.generation.small_stack import Eye, LetterSounds, picture, tone
from tests.generation.small_world import (
    read_wav,
    save_checkpoints,
    save_module,
    save_picture,
    save_sound,
    save_video,
    small_generator,
    small_perception,
)
from tests.scene_examples import make_remixer

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
HERE = BuildTrainer(accelerator="cpu", devices=1, num_workers=0)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return save_checkpoints(tmp_path_factory.mktemp("checkpoints"))


def make(
    items: Sequence[Item],
    output: Path,
    paths: dict[str, str],
    generator: SoundGenerator | None = None,
    names: Sequence[str] = ("remixer",),
    without: tuple[str, ...] = (),
    trainer: BuildTrainer = HERE,
    batch_size: int = 8,
    **options: Any,
) -> Report:
    report = generate(
        items,
        str(output),
        small_perception(without=without),
        generator or small_generator(),
        options=SoundOptions(**{"seconds": 1.0, "overlap": 0.25, **options}),
        checkpoints=Checkpoints(**{name: paths[name] for name in names}),
        trainer=trainer,
        batch_size=batch_size,
        progress=False,
    )
    assert report is not None
    assert not (output / ".generate").exists()
    return report


def told(output: Path, key: str) -> dict[str, Any]:
    return json.loads((output / f"{key}.json").read_text())


def test_a_picture_and_a_text_become_one_sound(tmp_path: Path, paths: dict[str, str]):
    item = Item("p", images=(save_picture(tmp_path / "p.png", "dog"),), texts=("rain",), weights=(("rain", 0.5),))
    generator = small_generator()
    report = make([item], tmp_path / "out", paths, generator)
    assert report == Report(("p",), (), (), {})
    assert sorted(os.listdir(tmp_path / "out")) == ["p.json", "p.wav"]
    eye = Eye()
    dog = Source(
        "image",
        "dog",
        visual=eye.encode([np.pad(picture("dog")[40:120, 10:60], ((0, 0), (15, 15), (0, 0)), constant_values=255)])[0],
    )
    perception = small_perception()
    rain = perception.stack.prior.predict(perception.stack.text_encoder.features(["rain"]))[0]
    scene = Scene("p", (dog, Source("text", "rain", 0.5, visual=rain)), eye.encode([picture("dog")])[0])
    (mixed,) = SS2AMixer(load_trained("remixer", paths["remixer"]).module).mix([scene], 0)
    (asked,) = generator.asked
    torch.testing.assert_close(asked.embedding, mixed.embedding, **CLOSE)
    torch.testing.assert_close(asked.sources, mixed.sources, **CLOSE)
    assert (asked.labels, asked.weights.tolist()) == (("dog", "rain"), [1.0, 0.5])
    sound = read_wav(tmp_path / "out" / "p.wav")
    np.testing.assert_allclose(sound, generator._render(asked, 1.0).waveform, atol=1.01 / 32768)
    json_ = told(tmp_path / "out", "p")
    assert json_["notice"] == "Generated, not recorded: synthetic sound, made by tones-8-gain0.1"
    assert json_["request"]["models"].keys() == {"image_encoder", "detector", "text_encoder", "prior"}
    assert json_["sound"]["renderings"][0]["seed"] == asked.seed
    assert [source["label"] for source in json_["perceived"]["sources"]] == ["dog", "rain"]


def several(folder: Path) -> list[Item]:
    """Items of all kinds, one of them broken."""
    folder.mkdir(exist_ok=True)
    (folder / "broken.png").write_text("no picture")
    return [
        Item("a", "list row 2", images=(save_picture(folder / "a.png", "dog", "car"),)),
        Item("b", "list row 3", images=(str(folder / "broken.png"),)),
        Item("c", "list row 4", texts=("rain",)),
        Item("d", "list row 5", audios=(save_sound(folder / "d.wav", 2),)),
        Item("e", "list row 6", texts=("wind", "sea"), audios=(str(folder / "d.wav"),)),
        Item("f", "list row 7", images=(str(folder / "missing.png"),)),
    ]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_batch_goes_on_past_what_fails_and_each_sound_is_that_of_its_item_alone(tmp_path: Path, paths):
    items = several(tmp_path / "in")
    report = make(items, tmp_path / "out", paths)
    assert report.made == ("a", "c", "d", "e")
    assert [(key, place) for key, place, _ in report.failed] == [("b", "list row 3"), ("f", "list row 7")]
    with open(tmp_path / "out" / "failed.csv", newline="") as file:
        rows = [*csv.DictReader(file)]
    assert [row["key"] for row in rows] == ["b", "f"]
    assert "broken.png: not a picture" in rows[0]["reason"]
    assert "missing.png: cannot be read" in rows[1]["reason"]
    for item in (items[0], items[4]):
        make([item], tmp_path / "alone", paths, batch_size=1)
        np.testing.assert_allclose(
            read_wav(tmp_path / "alone" / f"{item.key}.wav"), read_wav(tmp_path / "out" / f"{item.key}.wav"), atol=1e-4
        )


def test_what_is_made_is_kept_and_what_is_not_whole_is_made_again(tmp_path: Path, paths):
    items = [item for item in several(tmp_path / "in") if item.key in "ace"]
    out, generator = tmp_path / "out", small_generator()
    make(items, out, paths, generator)
    before = contents(out)
    (out / "a.wav").write_bytes(before["a.wav"][:-2])  # damaged
    (out / "c.json").write_bytes(before["c.json"][:-20])  # as nobody leaves it
    (out / "mine.txt").write_text("stays")
    again = small_generator()
    report = make(items, out, paths, again)
    assert (report.made, report.kept) == (("a", "c"), ("e",))
    assert len(again.asked) == 2
    assert contents(out) == before | {"mine.txt": b"stays"}
    assert make(items, out, paths, seed=1).made == ("a", "c", "e")  # another request
    assert contents(out)["a.wav"] != before["a.wav"]
    save_picture(tmp_path / "in" / "a.png", "person")
    assert make(items, out, paths, seed=1).made == ("a",)  # of another picture


def test_no_medium_is_written_over(tmp_path: Path, paths):
    sound = Path(save_sound(tmp_path / "d.wav", 2))
    (tmp_path / "link").symlink_to(tmp_path)
    for output in (tmp_path, tmp_path / "link"):
        with pytest.raises(InputError, match=r"d\.wav: is a medium, and would be written over"):
            make([Item("a", texts=("rain",)), Item("d", audios=(str(sound),))], output, paths)
    assert not (tmp_path / "a.wav").exists()
    assert make([Item("e", audios=(str(sound),))], tmp_path, paths).made == ("e",)


def test_what_a_scene_is_made_of_is_not_written_over(tmp_path: Path, paths):
    save_sound(tmp_path / "d.wav", 2)
    (tmp_path / "d.scene.yaml").write_text("sources: [{audio: d.wav}]")
    scene = Item("d", sources_file=str(tmp_path / "d.scene.yaml"))
    with pytest.raises(InputError, match=r"d\.wav: is a medium, and would be written over"):
        make([scene], tmp_path, paths)
    assert make([replace(scene, key="e")], tmp_path, paths).made == ("e",)


def test_a_track_is_not_written_over_by_tracks(tmp_path: Path, paths):
    track = save_sound(tmp_path / "a.track01.cow.wav", 2)
    item = Item("a", audios=(track,))
    with pytest.raises(InputError, match=r"a\.track01\.cow\.wav: is a medium, and would be written over"):
        make([item], tmp_path, paths, tracks=True)
    assert make([item, replace(item, key="b")], tmp_path, paths).made == ("a", "b")  # without tracks nothing is lost
    assert make([replace(item, key="c")], tmp_path, paths, tracks=True).made == ("c",)


def test_a_name_that_no_file_can_have_fails_its_item_alone(tmp_path: Path, paths):
    (tmp_path / "bad.yaml").write_text('sources: [{audio: "a\\0.wav"}]')
    items = [Item("bad", sources_file=str(tmp_path / "bad.yaml")), Item("good", texts=("rain",))]
    report = make(items, tmp_path / "out", paths)
    assert (report.made, [key for key, *_ in report.failed]) == (("good",), ["bad"])
    assert "cannot be read (embedded null byte)" in report.failed[0][2]


def test_names_of_media_may_hold_any_bytes(tmp_path: Path, paths):
    file = os.fsdecode(os.fsencode(str(tmp_path)) + b"/s\xff.wav")
    os.replace(save_sound(tmp_path / "s.wav", 2), file)
    items = [Item("s", audios=(file,))]
    assert make(items, tmp_path / "out", paths).made == ("s",)
    assert make(items, tmp_path / "out", paths).kept == ("s",)
    assert told(tmp_path / "out", "s")["request"]["item"]["audios"] == [file]


def test_what_a_generator_hears_is_part_of_the_request(tmp_path: Path, paths):
    generators = small_generator(), small_generator()
    generators[1].audio_encoder = "another ear"  # by which it ranks candidates
    untold = paths | {"remixer": save_module(make_remixer(paths["manifold"]), tmp_path / "r.ckpt", {})}
    for generator in generators:
        assert make([Item("a", texts=("rain",))], tmp_path / "out", untold, generator).made == ("a",)


@pytest.mark.parametrize("method", ["ss2a", "mean", "cascade"])
@pytest.mark.parametrize("sampling", ["mean", "draw", "cycle_mix"])
def test_only_the_proportions_of_weights_count(tmp_path: Path, paths, method: str, sampling: str):
    if method != "ss2a" and sampling != "mean":
        return
    found = []
    for number, scale in enumerate((1.0, 1e300, 1e-60)):
        item = Item("a", texts=("rain", "wind"), weights=(("rain", scale), ("wind", 0.5 * scale)))
        name, out = "remixer" if method == "ss2a" else "manifold", tmp_path / str(number)
        report = make([item], out, paths, names=[name], method=method, sampling=sampling)
        assert report.made == ("a",)
        found.append(read_wav(out / "a.wav"))
    np.testing.assert_allclose(found[1:], [found[0]] * 2, atol=1e-4)


class Killed(BaseException):
    """Ends a call as nothing handles it."""


def test_a_call_that_is_cut_off_goes_on(tmp_path: Path, paths, monkeypatch):
    items = [item for item in several(tmp_path / "in") if item.key in "acde"]
    make(items, tmp_path / "whole", paths)
    replaced, count = os.replace, 0

    def replace_some(*arguments: Any) -> None:
        nonlocal count
        count += 1
        if count == 5:  # in the middle of the second item
            raise Killed
        replaced(*arguments)

    monkeypatch.setattr(os, "replace", replace_some)
    with pytest.raises(Killed):
        make(items, tmp_path / "out", paths, batch_size=1)
    monkeypatch.setattr(os, "replace", replaced)
    report = make(items, tmp_path / "out", paths, batch_size=1)
    assert report.kept == ("a",)
    assert contents(tmp_path / "out").keys() == contents(tmp_path / "whole").keys()


def test_what_a_kill_left_half_written_is_removed(tmp_path: Path, paths):
    left = [".a.wav.123.tmp", ".a.track01.rain.wav.9.tmp", ".a.v.json.5.tmp", ".failed.csv.7.tmp"]
    others = [".ab.wav.123.tmp", ".a.wav.tmp"]
    for name in (*left, *others):
        (tmp_path / name).write_bytes(b"half")
    make([Item("a", texts=("rain",)), Item("a.v", texts=("wind",))], tmp_path, paths)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [*others, "a.json", "a.wav", "a.v.json", "a.v.wav"]
    )


def test_tracks_sound_each_source_alone(tmp_path: Path, paths):
    item = Item("a", images=(save_picture(tmp_path / "a.png", "dog"),), texts=("rain, and wind",))
    generator = small_generator()
    make([item], tmp_path / "out", paths, generator, tracks=True)
    mix, dog, rain = generator.asked
    torch.testing.assert_close(mix.sources, torch.stack([dog.embedding, rain.embedding]))
    assert sorted(os.listdir(tmp_path / "out")) == [
        "a.json",
        "a.track01.dog.wav",
        "a.track02.rain_and_wind.wav",
        "a.wav",
    ]
    np.testing.assert_allclose(
        read_wav(tmp_path / "out" / "a.track01.dog.wav"), generator._render(dog, 1.0).waveform, atol=1e-4
    )
    assert [track["label"] for track in told(tmp_path / "out", "a")["tracks"]] == ["dog", "rain, and wind"]


def test_a_cascade_is_the_sum_of_its_sources(tmp_path: Path, paths):
    item = Item("a", texts=("rain", "wind"), weights=(("wind", 0.5),))
    generator = small_generator()
    make([item], tmp_path / "out", paths, generator, names=["manifold"], method="cascade")
    rain, wind = generator.asked
    sounds = [generator._render(request, 1.0).waveform for request in (rain, wind)]
    np.testing.assert_allclose(read_wav(tmp_path / "out" / "a.wav"), overlaid(sounds, [1.0, 0.5]), atol=1e-4)
    assert len(told(tmp_path / "out", "a")["sound"]["renderings"]) == 2


def test_overlaid_sounds_have_equal_power_before_their_weights():
    loud, faint = tone(1, amplitude=0.4, seconds=1.0), tone(2, amplitude=0.01, seconds=1.0)
    mixed = overlaid([loud, faint], [2.0, 1.0])
    time = np.arange(16000) / 16000
    found = [2 * abs(np.mean(mixed * np.exp(2j * np.pi * 200 * (n + 1) * time))) for n in (1, 2)]
    assert found[0] / found[1] == pytest.approx(2.0, rel=1e-3)
    assert np.sqrt(np.mean(mixed**2)) == pytest.approx(np.sqrt(np.mean(loud**2)), rel=1e-3)


def test_the_baselines_go_the_same_way(tmp_path: Path, paths):
    sound, image = save_sound(tmp_path / "s.wav", 2, 4), save_picture(tmp_path / "p.png", "dog")
    oracle, mapper, mean = small_generator(), small_generator(), small_generator()
    make([Item("o", audios=(sound,))], tmp_path / "out", paths, oracle, names=[], method="oracle")
    expected = normalize(torch.tensor([0, 0, 0.2, 0, 0.2, 0, 0, 0]), dim=0)
    torch.testing.assert_close(oracle.asked[0].embedding, expected, atol=1e-2, rtol=0)
    make([Item("m", images=(image,))], tmp_path / "out", paths, mapper, names=["mapper"], method="v2a_mapper")
    module = load_trained("mapper", paths["mapper"]).module
    with torch.no_grad():
        whole = module.predict_audio({"global_visual": Eye().encode([picture("dog")]), "key": ["m"]}, 0)[0]
    torch.testing.assert_close(mapper.asked[0].embedding, normalize(whole, dim=0), **CLOSE)
    for name in ("manifold", "remixer"):  # which holds the same one
        make([Item(name, texts=("rain",))], tmp_path / "out", paths, mean, names=[name], method="mean")
    torch.testing.assert_close(mean.asked[0].embedding, mean.asked[1].embedding, **CLOSE)
    assert isinstance(mean, SoundGenerator)


def test_the_loudness_is_reached_and_told(tmp_path: Path, paths):
    make([Item("a", texts=("rain",))], tmp_path / "out", paths, loudness=-23.0)
    assert told(tmp_path / "out", "a")["sound"]["loudness_lufs"] == pytest.approx(-23.0, abs=0.05)
    report = make([Item("b", texts=("rain",))], tmp_path / "out", paths, small_generator(gain=10.0))
    assert "quieter, so that it is not clipped" in report.notes["b"]
    assert np.abs(read_wav(tmp_path / "out" / "b.wav")).max() <= 1


# ---------------------------------------------------------------- videos


def test_a_video_gets_a_sound_in_windows(tmp_path: Path, paths):
    video = save_video(tmp_path / "v.mkv", 2.5, "dog", changes_to=("car",))
    generator = small_generator()
    report = make([Item("v", videos=(video,))], tmp_path / "out", paths, generator, ("remixer", "aggregator"))
    assert report.made == ("v",)
    assert sorted(os.listdir(tmp_path / "out")) == ["v.json", "v.mkv", "v.wav"]
    assert len(generator.asked) == 3  # windows of 1 s, evenly over 2.5 s
    assert len(read_wav(tmp_path / "out" / "v.wav")) == 40000
    module, aggregation = (load_trained(name, paths[name]).module for name in ("remixer", "aggregator"))
    frames = [Source("video", "v", visual=Eye().encode([picture(thing)])[0]) for thing in ("dog", "car")]
    scenes = [Scene(f"v#0@{i}", (frame,), frame.visual) for i, frame in enumerate(frames)]
    dog, car = (mixed.embedding for mixed in SS2AMixer(module).mix(scenes, 0))
    timestamps = (torch.arange(64) + 0.5) / 64
    with torch.no_grad():
        first = aggregation.predict_audio({"frames": dog.expand(1, 64, -1), "timestamps": timestamps[None]})[0]
        half = torch.stack([dog] * 32 + [car] * 32)  # the middle window, from 0.75 s to 1.75 s, changes in its middle
        middle = aggregation.predict_audio({"frames": half[None], "timestamps": timestamps[None]})[0]
    torch.testing.assert_close(generator.asked[0].embedding, normalize(first, dim=0), **CLOSE)
    torch.testing.assert_close(generator.asked[1].embedding, normalize(middle, dim=0), **CLOSE)
    clip = PyAVReader().read(tmp_path / "out" / "v.mkv", sample_rate=16000)
    assert clip.waveform is not None


def test_a_text_sounds_beside_every_frame_and_the_frames_are_one_track(tmp_path: Path, paths):
    video = save_video(tmp_path / "v.mkv", 0.75, "dog")
    generator = small_generator()
    item = Item("v", videos=(video,), texts=("rain",), weights=(("v", 0.5),))
    make([item], tmp_path / "out", paths, generator, ("remixer", "aggregator"), tracks=True)
    mix, dog, rain = generator.asked
    assert (mix.labels, mix.weights.tolist()) == (("v", "rain"), [0.5, 1.0])
    assert len(read_wav(tmp_path / "out" / "v.wav")) == 12000
    manifold = load_trained("remixer", paths["remixer"]).module.manifold
    text = small_perception().stack.prior.predict(small_perception().stack.text_encoder.features(["rain"]))[0]
    (alone,) = MeanMixer(manifold).mix([Scene("", (Source("text", "rain", visual=text),))], 0)
    torch.testing.assert_close(rain.embedding, alone.embedding, **CLOSE)
    assert dog.labels == ("v",)


def test_frames_may_be_detected_and_dropped(tmp_path: Path, paths, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where nothing is trained
    video = save_video(tmp_path / "v.mkv", 1.0, "person", "dog", changes_to=("person",))
    generators = small_generator(), small_generator()
    for generator, without, name in zip(generators, ((), ("speech",)), ("all", "some"), strict=True):
        options = {"frames": "detected", "method": "mean", "without": without}
        make([Item(name, videos=(video,))], tmp_path / "out", paths, generator, ["manifold"], **options)
    first, second = (generator.asked[0] for generator in generators)
    assert (first.embedding - second.embedding).abs().max() > 1e-3
    with pytest.raises(InputError, match="aggregator is missing"):
        make([Item("x", videos=(video,))], tmp_path / "out", paths)
    everything = make(
        [Item("none", videos=(video,))],
        tmp_path / "out",
        paths,
        names=["manifold"],
        without=("speech", "dog"),
        frames="detected",
        method="mean",
    )
    assert "every source in its frames is dropped" in everything.failed[0][2]


def test_sources_that_show_in_some_windows_alone_are_silent_in_the_others(tmp_path: Path, paths):
    """A person, who is not wanted, is alone in the second half; the dog before is."""
    video = save_video(tmp_path / "v.mkv", 2.0, "person", "dog", changes_to=("person",))
    options: dict[str, Any] = {"frames": "detected", "method": "mean", "without": ("speech",)}
    options |= {"overlap": 0.0, "threshold": 1.0}
    item = Item("v", videos=(video,), texts=("rain",))
    generator = small_generator()
    report = make([item], tmp_path / "out", paths, generator, ["manifold"], tracks=True, **options)
    assert report.made == ("v",)
    assert [asked.labels for asked in generator.asked] == [("v", "rain"), ("v",), ("rain",), ("rain",), ("rain",)]
    dog, rain = (read_wav(tmp_path / "out" / f"v.track0{n}.wav") for n in ("1.v", "2.rain"))
    assert np.abs(dog[:16000]).max() > 0
    assert np.abs(dog[16000:]).max() == 0
    first, second = (generator._render(generator.asked[n], 1.0).waveform for n in (2, 4))
    np.testing.assert_allclose(rain, np.concatenate([first, second]), atol=1e-4)
    cascade = make([item], tmp_path / "cascade", paths, None, ["manifold"], **options | {"method": "cascade"})
    assert cascade.made == ("v",)


def test_a_long_video_that_is_no_source_still_gets_a_sound_of_its_length(tmp_path: Path, paths):
    video = save_video(tmp_path / "v.mkv", 2.5, "dog")
    item = Item("v", videos=(video,), texts=("rain",), weights=(("v", 0.0),))
    generator = small_generator()
    assert make([item], tmp_path / "out", paths, generator, ["manifold"], method="mean").made == ("v",)
    assert len(read_wav(tmp_path / "out" / "v.wav")) == 40000
    assert len({asked.seed for asked in generator.asked}) == 3


def test_whatever_a_decoder_stumbles_over_is_told_of_its_video(tmp_path: Path, paths, monkeypatch):
    video = save_video(tmp_path / "v.mkv", 0.5, "dog")

    def stumble(self: PyAVReader, *arguments: Any, **options: Any) -> None:
        raise MemoryError("no room for a frame")

    monkeypatch.setattr(PyAVReader, "read", stumble)
    items = [Item("v", videos=(video,)), Item("a", texts=("rain",))]
    report = make(items, tmp_path / "out", paths, names=("remixer", "aggregator"))
    assert report.made == ("a",)
    assert "v.mkv: MemoryError: no room for a frame" in report.failed[0][2]


def test_a_video_without_frames_is_a_failure(tmp_path: Path, paths):
    (tmp_path / "sound.mp4").write_bytes(Path(save_sound(tmp_path / "s.wav", 1)).read_bytes())
    report = make(
        [Item("v", videos=(str(tmp_path / "sound.mp4"),))], tmp_path / "out", paths, None, ("remixer", "aggregator")
    )
    assert "sound.mp4: no video stream" in report.failed[0][2]


# ---------------------------------------------------------------- what must not be heard


def test_sounds_in_which_something_unwanted_is_heard_are_rejected(tmp_path: Path, paths):
    """The tones of the generator are those of the ear: a loud one is always heard."""
    item = Item("a", texts=("rain",))
    words = ("speech", "music", "animal", "engine")
    report = make([item], tmp_path / "out", paths, small_generator(gain=1.0), without=words, threshold=0.05)
    assert report.made == ()
    assert "all 4 candidates are rejected" in report.failed[0][2]
    quiet = make([item], tmp_path / "out", paths, small_generator(gain=0.001), without=words, threshold=0.05)
    assert quiet.made == ("a",)
    request = told(tmp_path / "out", "a")["request"]
    assert request["tagger"] == "ear, threshold 0.05"
    assert request["perception"]["without"]["animal"] == ["Animal"]


def test_a_word_that_nobody_could_hear_is_refused(tmp_path: Path, paths, monkeypatch):
    monkeypatch.setattr(LabelMeanings, "with_minilm", lambda: LabelMeanings(None))
    with pytest.raises(InputError, match=r"^without 'zzqx': is no class of AudioSet, and means none"):
        make([Item("a", texts=("rain",))], tmp_path / "out", paths, without=("speech", "zzqx"))


# ---------------------------------------------------------------- refusals before any work


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["manifold"], {}, "manifold has no effect with method ss2a"),
        (["remixer", "mapper"], {}, "mapper has no effect with method ss2a"),
        (["remixer"], {"method": "v2a_mapper"}, "remixer has no effect with method v2a_mapper"),
        (["remixer"], {"seconds": 0.0}, "seconds must be in"),
        (["remixer"], {"seconds": 1e12}, "seconds must be in"),
        (["remixer"], {"overlap": -1.0}, "overlap must be at least 0"),
        (["remixer"], {"loudness": 3.0}, "loudness must be in"),
    ],
)
def test_options_that_do_not_go_together(tmp_path: Path, paths, names, options, message):
    with pytest.raises(InputError, match=message):
        make([Item("a", texts=("rain",))], tmp_path / "out", paths, None, names, **options)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, paths):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file: cannot be the folder of the sounds \(File exists\); name another"):
        make([Item("a", texts=("rain",))], tmp_path / "file", paths)


def test_nothing_is_trained_here(tmp_path: Path, paths, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="remixer is missing: no run below runs/remixer has a checkpoint"):
        make([Item("a", texts=("rain",))], tmp_path / "out", paths, names=[])
    for version in (2, 10):
        folder = tmp_path / f"runs/remixer/version_{version}/checkpoints"
        folder.mkdir(parents=True)
        (folder / "best.ckpt").write_bytes(Path(paths["remixer"]).read_bytes())
    make([Item("a", texts=("rain",))], tmp_path / "out", paths, names=[])
    assert "version_10" in told(tmp_path / "out", "a")["notes"]["checkpoints"]["remixer"]


def test_embeddings_of_other_encoders_are_refused(tmp_path: Path, paths):
    other = small_generator()
    other.audio_encoder = "another ear"
    with pytest.raises(InputError, match=r"remixer .*was trained on audio embeddings of ear, and the generator sounds"):
        make([Item("a", texts=("rain",))], tmp_path / "out", paths, other)
    with pytest.raises(InputError, match="audio_encoder gives embeddings of ear, and the generator sounds those of an"):
        make(
            [Item("a", audios=(save_sound(tmp_path / "s.wav", 1),))],
            tmp_path / "out",
            paths,
            other,
            [],
            method="oracle",
        )
    wide = small_generator()
    wide.width = 9
    with pytest.raises(InputError, match="its audio_width is 8, that of the generator 9"):
        make([Item("a", texts=("rain",))], tmp_path / "out", paths, wide)
    blind = save_module(make_remixer(paths["manifold"]), tmp_path / "r.ckpt", {"global_visual": "another eye"})
    with pytest.raises(InputError, match="was trained on global_visual embeddings of another eye, and the image enc"):
        make([Item("a", images=("a.png",))], tmp_path / "out", paths | {"remixer": blind})
    with pytest.raises(InputError, match=r"remixer .*manifold.ckpt: is no checkpoint of a RemixerModule"):
        make([Item("a", texts=("rain",))], tmp_path / "out", {"remixer": paths["manifold"]})


def test_texts_are_read_as_sounds_of_the_generators_own_encoder_alone(tmp_path: Path, paths):
    perception = small_perception()
    stack = replace(perception.stack, prior=None, text_encoder=None, sound_prior=LetterSounds())
    hearing = replace(perception, stack=stack)
    item = Item("a", texts=("rain",))
    checkpoints = Checkpoints(remixer=paths["remixer"])
    generate([item], str(tmp_path / "out"), hearing, small_generator(), checkpoints=checkpoints, trainer=HERE)
    request = told(tmp_path / "out", "a")["request"]
    assert request["models"] == {"sound_prior": "letter-sounds"}
    other = small_generator()
    other.audio_encoder = "another ear"
    with pytest.raises(
        InputError, match="sound_prior gives embeddings of ear, and the generator sounds those of anoth"
    ):
        generate([item], str(tmp_path / "out"), hearing, other, checkpoints=checkpoints, trainer=HERE)


def test_more_sources_than_slots_are_a_failure(tmp_path: Path, paths):
    few = save_module(make_remixer(paths["manifold"], max_slots=3), tmp_path / "few.ckpt")
    item = Item("a", texts=("rain", "wind", "sea"))
    report = make([item], tmp_path / "out", paths | {"remixer": few})
    assert "3 sources, and the Remixer has slots for 2" in report.failed[0][2]


def test_models_that_are_needed_and_not_named(tmp_path: Path, paths):
    perception = small_perception()
    blind = replace(perception, stack=replace(perception.stack, detector=None, prior=None))
    for item, name in ((Item("a", images=("a.png",)), "detector"), (Item("a", texts=("rain",)), "prior")):
        with pytest.raises(InputError, match=f"^{name} is missing"):
            generate([item], str(tmp_path / "out"), blind, small_generator(), trainer=HERE)


@pytest.mark.slow
def test_two_processes_make_the_same_sounds(tmp_path: Path, paths):
    items = several(tmp_path / "in")
    make(items, tmp_path / "one", paths)
    report = make(items, tmp_path / "two", paths, trainer=BuildTrainer("cpu", 1, num_workers=2), batch_size=2)
    assert report.made == ("a", "c", "d", "e")
    for key in report.made:
        np.testing.assert_allclose(
            read_wav(tmp_path / "two" / f"{key}.wav"), read_wav(tmp_path / "one" / f"{key}.wav"), atol=1e-4
        )
