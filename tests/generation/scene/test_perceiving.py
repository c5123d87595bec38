"""From media to sources: against the small stack's models called by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_ss2a.errors import InputError
from lightning_ss2a.generation.items import Item
from lightning_ss2a.generation.scene.media import MediaReading
from lightning_ss2a.generation.scene.perceiving import PerceivedItem, mean_picture, paint_over
from lightning_ss2a.generation.scene.source import WHOLE, Source
from lightning_ss2a.perception.detectors.crops import pad_to_square
from lightning_ss2a.perception.media.video import PyAVReader
from tests.generation.small_stack import GREEN, Ear, Eye, LetterPrior, Letters, LetterSounds, picture
from tests.generation.small_world import save_picture, save_sound, small_perception

EYE, READING = Eye(), MediaReading(16000, PyAVReader())


def perceive(*items: Item, **options: Any) -> list[PerceivedItem | InputError]:
    perception = small_perception(**options)
    return perception.perceiver(perception.unwanted()).perceive([READING.read(item) for item in items])


def only(outcomes: list[PerceivedItem | InputError]) -> PerceivedItem:
    (outcome,) = outcomes
    assert isinstance(outcome, PerceivedItem), outcome
    return outcome


def see(image: np.ndarray) -> torch.Tensor:
    return EYE.encode([pad_to_square(image)])[0]


def test_a_picture_has_detected_sources_and_is_a_whole(tmp_path: Path):
    file = save_picture(tmp_path / "p.png", "person", "dog")
    found = only(perceive(Item("p", images=(file,))))
    assert [(s.label, s.modality, s.file) for s in found.sources] == [
        ("person", "image", file),
        ("dog", "image", file),
    ]
    image = picture("person", "dog")
    torch.testing.assert_close(found.sources[1].visual, see(image[40:120, 70:120]))
    assert found.sources[1].box == pytest.approx((0.35, 0.2, 0.6, 0.6))
    torch.testing.assert_close(found.global_visual, see(image))


def test_a_picture_in_which_nothing_is_found_is_its_own_source(tmp_path: Path):
    file = save_picture(tmp_path / "p.png")
    found = only(perceive(Item("p", images=(file,))))
    (source,) = found.sources
    assert (source.label, source.box) == (WHOLE, None)
    torch.testing.assert_close(source.visual, found.global_visual)


def test_texts_and_sounds_are_sources_of_their_own(tmp_path: Path):
    file = save_sound(tmp_path / "s.wav", 2)
    text, sound = only(perceive(Item("i", texts=(" rain ",), audios=(file,)))).sources
    torch.testing.assert_close(text.visual, LetterPrior().predict(Letters().features(["rain"]))[0])
    assert (text.label, text.audio) == ("rain", None)
    assert (sound.label, sound.visual) == ("Rain", None)  # named by what it sounds like
    torch.testing.assert_close(sound.audio, Ear().encode([READING.read(Item("i", audios=(file,))).sounds[file]])[0])


def test_a_sound_prior_reads_texts_as_sounds():
    perception = small_perception()
    hearing = replace(
        perception, stack=replace(perception.stack, prior=None, text_encoder=None, sound_prior=LetterSounds())
    )
    media = [READING.read(Item("i", texts=("rain", "wind"))), READING.read(Item("j", texts=("x1",)))]
    read, refused = hearing.perceiver(None).perceive(media)
    assert isinstance(read, PerceivedItem)
    assert [(s.label, s.modality, s.visual) for s in read.sources] == [("rain", "text", None), ("wind", "text", None)]
    heard = torch.stack([s.audio for s in read.sources if s.audio is not None])
    torch.testing.assert_close(heard, LetterSounds().predict(["rain", "wind"]))
    assert "text 'x1': means no label" in str(refused)


def test_what_is_dropped_is_painted_over_in_the_whole_picture(tmp_path: Path):
    file = save_picture(tmp_path / "p.png", "person", "dog", "car")
    found = only(perceive(Item("p", images=(file,), weights=(("car", 0.0),)), without=("speech",)))
    assert [source.label for source in found.sources] == ["dog"]
    assert [(source.label, why) for source, why in found.dropped] == [
        ("person", "without speech"),
        ("car", "weight 0"),
    ]
    image = picture("person", "dog", "car")
    image[40:120, 10:60] = image[40:120, 130:180] = 255
    torch.testing.assert_close(found.global_visual, see(image))


def test_paint_stops_at_what_is_kept():
    image = picture("person", "dog")
    painted = paint_over(image, [(0.0, 0.0, 1.0, 1.0)], [(0.35, 0.2, 0.6, 0.6)])
    assert (painted[40:120, 70:120] == GREEN).all()
    painted[40:120, 70:120] = 255
    assert (painted == 255).all()
    assert (image == picture("person", "dog")).all()


def test_several_pictures_have_one_mean_whole(tmp_path: Path):
    files = tuple(save_picture(tmp_path / f"{name}.png", name) for name in ("person", "dog"))
    found = only(perceive(Item("p", images=files)))
    first, second = see(picture("person")), see(picture("dog"))
    assert found.global_visual is not None
    direction = first / first.norm() + second / second.norm()
    torch.testing.assert_close(found.global_visual / found.global_visual.norm(), direction / direction.norm())
    torch.testing.assert_close(found.global_visual.norm(), (first.norm() + second.norm()) / 2)
    assert mean_picture([]) is None


def test_a_scene_file_is_taken_as_it_is(tmp_path: Path):
    save_picture(tmp_path / "p.png", "person", "dog")
    (tmp_path / "s.yaml").write_text(
        "pictures: [{image: p.png, boxes: [[0.05, 0.2, 0.3, 0.6], [0.35, 0.2, 0.6, 0.6]]}]\n"
        "sources:\n- {image: p.png, label: hound, weight: 2, box: [0.35, 0.2, 0.6, 0.6]}\n- {text: rain}\n"
    )
    found = only(perceive(Item("s", sources_file=str(tmp_path / "s.yaml"), weights=(("rain", 0.5),))))
    assert [(source.label, source.weight) for source in found.sources] == [("hound", 2.0), ("rain", 0.5)]
    image = picture("person", "dog")
    torch.testing.assert_close(found.sources[0].visual, see(image[40:120, 70:120]))
    image[40:120, 10:60] = 255  # found once, and no source any more
    torch.testing.assert_close(found.global_visual, see(image))


def test_each_item_has_its_own_fate(tmp_path: Path):
    (tmp_path / "broken.png").write_text("no picture")
    good = save_picture(tmp_path / "good.png", "dog")
    items = {
        "good": Item("good", images=(good,)),
        "broken": Item("broken", images=(str(tmp_path / "broken.png"),)),
        "missing": Item("missing", images=(str(tmp_path / "missing.png"),)),
        "silent": Item("silent", audios=(save_sound(tmp_path / "silent.wav", 1, amplitude=0.0),)),
        "empty": Item("empty", audios=(save_sound(tmp_path / "empty.wav", 1, seconds=0.0),)),
        "unknown": Item("unknown", texts=("rain", "x1")),
        "weight": Item("weight", images=(good,), weights=(("dgo", 2.0),)),
        "dropped": Item("dropped", images=(good,)),
        "text": Item("text", texts=("rain",)),
    }
    items["dropped"] = Item("dropped", images=(good,), weights=(("dog", 0.0),))
    outcomes = dict(zip(items, perceive(*items.values()), strict=True))
    reasons = {key: str(outcome) for key, outcome in outcomes.items() if isinstance(outcome, InputError)}
    expected = {
        "broken": "broken.png: not a picture",
        "missing": "missing.png: cannot be read (No such file",
        "silent": "silent.wav: the sound is silent",
        "empty": "empty.wav: the sound is empty",
        "unknown": "text 'x1': means no label",
        "weight": "weight of 'dgo': there is no such source; did you mean dog?",
        "dropped": "every source is dropped, nothing is left to sound (dog: weight 0)",
    }
    assert reasons.keys() == expected.keys()
    for key, words in expected.items():
        assert words in reasons[key]
    alone = only(perceive(items["good"]))
    torch.testing.assert_close(outcomes["good"].sources[0].visual, alone.sources[0].visual)


def test_frames_are_wholes_or_hold_detected_sources():
    perception = small_perception(without=("speech",))
    perceiver = perception.perceiver(perception.unwanted())
    video = Source("video", "clip", 0.5, "clip.mp4")
    frames = [picture("person", "dog"), picture(), picture("person")]
    wholes = perceiver.perceive_frames(video, frames, detect=False)
    for (sources, whole), frame in zip(wholes, frames, strict=True):
        assert [(source.label, source.weight) for source in sources] == [("clip", 0.5)]
        torch.testing.assert_close(sources[0].visual, see(frame))
        torch.testing.assert_close(whole, see(frame))
    first, second, third = perceiver.perceive_frames(video, frames, detect=True)
    assert [(source.label, source.weight) for source in first[0]] == [("dog", 0.5)]
    assert [source.label for source in second[0]] == ["clip"]  # nothing was found in it
    assert third[0] == ()  # all of it was dropped
    painted = picture("person", "dog")
    painted[40:120, 10:60] = 255
    torch.testing.assert_close(first[1], see(painted))
