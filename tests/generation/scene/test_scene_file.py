"""``scene.yaml``: what is written is read, and what is wrong is named."""

from pathlib import Path

import pytest
import yaml

from lightning_ss2a.errors import InputError
from lightning_ss2a.generation.scene.scene_file import Picture, is_changed, read_scene, write_scene
from lightning_ss2a.generation.scene.source import Source

BOX = (0.25, 0.125, 0.5, 0.75)


def test_what_is_written_is_read(tmp_path: Path):
    (tmp_path / "out").mkdir()
    image, sound = str(tmp_path / "in" / "farm.png"), str(tmp_path / "in" / " a b.wav")
    sources = [
        Source("image", "cow", 0.5, image, BOX, 0.75),
        Source("text", "rain: on, a 'tin' roof"),
        Source("audio", "Wind", 2.0, sound),
    ]
    path = tmp_path / "out" / "farm.scene.yaml"
    write_scene(path, sources, [Picture(image, (BOX,))])
    again = read_scene(str(path))
    assert [(s.modality, s.label, s.weight, s.box, s.score) for s in again.sources] == [
        (s.modality, s.label, s.weight, s.box, s.score) for s in sources
    ]
    assert [Path(s.file).resolve() for s in again.sources if s.file] == [Path(image), Path(sound)]
    assert again.pictures[0].boxes == (BOX,)
    assert not Path(yaml.safe_load(path.read_text())["pictures"][0]["image"]).is_absolute()


def test_changes_by_hand_are_told(tmp_path: Path):
    path = tmp_path / "a.scene.yaml"
    write_scene(path, [Source("text", "Möwe", 0.5)], [])
    written = path.read_bytes()
    assert not is_changed(path)
    number = written.index(b"weight: 0.5")
    changes = {
        "a weight": written[:number] + b"weight: 0.6" + written[number + 11 :],
        "a line more": written + b"- text: rain\n",
        "a line less": written[: written.rindex(b"-")],
        "a comment": b"# mine\n" + written,
        "nothing that it was written as": b"sources: [{text: rain}]\n",
        "no text at all": b"\xff\xfe",
        "empty": b"",
    }
    for name, content in changes.items():
        path.write_bytes(content)
        assert is_changed(path), name
    path.write_bytes(written)
    assert not is_changed(path)


def test_a_hand_written_scene_needs_little(tmp_path: Path):
    path = tmp_path / "scene.yaml"
    path.write_text("sources:\n- text: rain\n- {image: farm.png}\n- {audio: a.wav, label: Wind, weight: 0}\n")
    text, image, sound = read_scene(str(path)).sources
    assert (text.label, text.weight) == ("rain", 1.0)
    assert (image.label, image.box, image.file) == ("farm", None, str(tmp_path / "farm.png"))
    assert (sound.label, sound.weight) == ("Wind", 0.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1", "not a YAML file"),
        ("a", "needs pictures, sources, found 'a'"),
        ("sorces: []", "'sorces' is nothing that it may have; did you mean sources?"),
        ("sources: 3", "sources must be a list"),
        ("sources: [{text: 2020-13-45}]", "not a YAML file"),
        ("sources: " + "[" * 5000, "not a YAML file"),
        ("pictures: [{image: a, boxes: 5}]", "picture 1: boxes must be a list"),
        ("sources: [{text: a, label: b}]", "source 1: has a label, 'b'; a text is called what it says"),
        ("sources: [{text: a, weight: 1" + "0" * 400 + "}]", "source 1: weight is 1"),
        ("sources: [3]", "source 1: needs image, text"),
        ("sources: [{text: a}, {label: b}]", "source 2: needs one of image, text and audio, has none"),
        ("sources: [{text: a, image: b}]", "source 1: needs one of image, text and audio, has image and text"),
        ("sources: [{text: '  '}]", "source 1: its text is empty"),
        ("sources: [{text: [rain, wind]}]", r"source 1: text is \['rain', 'wind'\], needs one text"),
        ("sources: [{text: no}]", "source 1: text is False, needs one text; put it in double quotes"),
        ("sources: [{audio: [a.wav]}]", r"source 1: audio is \['a.wav'\], needs one text"),
        ("sources: [{image: a, label: no}]", "source 1: label is False, needs one text"),
        ("pictures: [{image: 3}]", "picture 1: image is 3, needs one text"),
        ("sources: [{text: a}]\nsources: [{text: b}]", r"not a YAML file \('sources' is given twice .*line 2"),
        ("sources: [{text: a, weight: 1, weight: 2}]", r"not a YAML file \('weight' is given twice"),
        ("sources: [{text: a, wieght: 1}]", "source 1: 'wieght' is nothing that it may have; did you mean weight?"),
        ("sources: [{text: a, weight: -1}]", "source 1: weight is -1, needs a number of at least 0"),
        ("sources: [{text: a, weight: .nan}]", "source 1: weight is nan"),
        ("sources: [{text: a, weight: loud}]", "source 1: weight is 'loud'"),
        ("sources: [{text: a, box: [0, 0, 1, 1]}]", "source 1: a box, and no image"),
        ("sources: [{image: a, box: [0, 0, 1]}]", r"source 1: box \[0, 0, 1\] is not four numbers"),
        ("sources: [{image: a, box: [1, 0, 0, 1]}]", r"source 1: box .* needs left < right"),
        ("sources: [{image: a, box: [0, 0, 2, 1]}]", r"source 1: box .* from 0 to 1"),
        ("pictures: [{boxes: []}]", "picture 1: names no image"),
    ],
)
def test_what_is_wrong_is_named_by_file_and_entry(tmp_path: Path, text: str, message: str):
    path = tmp_path / "scene.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=f"scene.yaml: {message}"):
        read_scene(str(path))


def test_a_scene_that_is_not_there(tmp_path: Path):
    with pytest.raises(InputError, match=r"nowhere\.yaml: cannot be read"):
        read_scene(str(tmp_path / "nowhere.yaml"))
