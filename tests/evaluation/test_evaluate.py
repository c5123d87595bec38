"""Folders of small sounds from end to end."""

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from lightning_ss2a.errors import InputError
from lightning_ss2a.evaluation.bounds import CHANCE
from lightning_ss2a.evaluation.evaluate import Evaluation, evaluate_folders
from lightning_ss2a.evaluation.folders import list_items, open_folders
from lightning_ss2a.evaluation.hearing import Listener
from lightning_ss2a.evaluation.measures import CLAP, CLIP, FAD, IS, KL, SSMS, WMAO, DeSync, FADInfinity, Measure
from lightning_ss2a.evaluation.planning import Protocol
from lightning_ss2a.evaluation.reporting import latex_table, print_report, reproducibility, write_report
from lightning_ss2a.evaluation.scoring import Bootstrap
from lightning_ss2a.evaluation.sounds import read_sound
from lightning_ss2a.metrics.functional import frechet_audio_distance
from lightning_ss2a.perception.embedding_cache import EmbeddingCache
from tests.evaluation.small_encoder import (
    SmallEncoder,
    SmallFrames,
    SmallImages,
    SmallLabeller,
    SmallSync,
    SmallTexts,
    write_tone,
)

MEASURES: dict[str, Measure] = {
    "FAD": FAD("small"),
    "SSMS": SSMS("small", top_n=2),
    "KL": KL("small"),
    "IS": IS("small"),
}


def protocol(measures: dict[str, Measure] | None = None, **options) -> Protocol:
    return Protocol(
        **{
            "measures": measures or MEASURES,
            "encoders": {"small": SmallLabeller()},
            "bootstrap": Bootstrap(50, 5),
            **options,
        }
    )


def evaluate(tmp_path: Path, generated: list[str], reference: str | None = None, pairs=None, how=None, **sides):
    folders = open_folders(generated, reference, **sides)
    items, problems = list_items(folders, pairs)
    listener = Listener(EmbeddingCache(tmp_path / "cache"), 10.0, 4, 2, progress=False)
    return evaluate_folders(folders, items, how or protocol(), listener, problems)


def tones(folder: Path, amplitude: float, number: int = 6) -> str:
    for i in range(number):
        write_tone(folder / f"{i}.wav", 150 * (i + 1), amplitude * (1 + i) / number)
    return str(folder)


def scores(evaluation: Evaluation, method: str) -> dict[str, float]:
    return {score.measure: score.value for score in evaluation.scores if score.method == method}


def test_identical_folders_have_no_distance_and_the_whole_matching_score(tmp_path: Path):
    same, louder = tones(tmp_path / "same", 0.5), tones(tmp_path / "louder", 0.9)
    reference = tones(tmp_path / "reference_sounds", 0.5)
    found = evaluate(tmp_path, [same, louder], reference)
    assert scores(found, "same") == pytest.approx(
        {"FAD": 0, "SSMS": 10, "KL": 0, "IS": scores(found, "same")["IS"]}, abs=1e-6
    )
    assert scores(found, "louder")["FAD"] > 0.01
    assert (found.problems, list(found.measured)) == ([], list(MEASURES))
    assert [facts.usable for facts in found.facts] == [6, 6, 6]
    assert found.identities == {"small": "small-labeller-v1"}
    assert len({facts.sha256 for facts in found.facts}) == 2


def test_from_the_cache_comes_the_same_to_the_last_digit(tmp_path: Path):
    generated, reference = tones(tmp_path / "a", 0.9), tones(tmp_path / "r", 0.5)
    first = evaluate(tmp_path, [generated], reference)
    second = protocol()
    again = evaluate(tmp_path, [generated], reference, how=second)
    assert second.encoders["small"].heard == 0
    assert (first.scores, first.facts) == (again.scores, again.facts)


def test_what_is_missing_or_broken_on_either_side_is_named(tmp_path: Path):
    generated, reference = tones(tmp_path / "a", 0.9), tones(tmp_path / "r", 0.5)
    (tmp_path / "a" / "0.wav").write_bytes(b"")
    write_tone(tmp_path / "a" / "1.wav", amplitude=math.nan)
    (tmp_path / "a" / "2.wav").unlink()
    (tmp_path / "r" / "3.wav").write_bytes(b"RIFF")
    write_tone(tmp_path / "a" / "extra.wav")
    write_tone(tmp_path / "a" / "4.wav", amplitude=0)
    found = evaluate(tmp_path, [generated], reference)
    assert [(problem.folder, problem.item) for problem in found.problems] == [
        ("a", "0"),
        ("a", "1"),
        ("a", "2"),
        ("a", "extra"),
        ("reference", "3"),
    ]
    reasons = [problem.reason for problem in found.problems]
    assert "not finite" in reasons[1]
    assert "is missing in" in reasons[2]
    assert "is no item of" in reasons[3]
    counted = {score.measure: score.items for score in found.scores}
    assert counted == {"FAD": 3, "SSMS": 2, "KL": 2, "IS": 3}
    facts = found.facts[0]
    assert (facts.expected, facts.usable, facts.silent) == (6, 3, 1)


def test_one_file_is_measured_where_one_suffices(tmp_path: Path):
    generated, reference = tones(tmp_path / "a", 0.5, 1), tones(tmp_path / "r", 0.5, 1)
    found = evaluate(tmp_path, [generated], reference)
    values = scores(found, "a")
    assert math.isnan(values["FAD"])
    assert values["SSMS"] == 10
    assert any("FAD" in note for note in found.notes)
    json.loads((write_report(tmp_path / "out", found, {})[0]).read_text())


def test_columns_in_which_methods_lack_different_items_are_noted(tmp_path: Path):
    reference = tones(tmp_path / "r", 0.5)
    methods = [tones(tmp_path / "a", 0.5), tones(tmp_path / "b", 0.9)]
    assert not [note for note in evaluate(tmp_path, methods, reference).notes if "same items" in note]
    (tmp_path / "r" / "1.wav").unlink()  # which pairs of neither have
    (tmp_path / "a" / "2.wav").unlink()
    found = evaluate(tmp_path, methods, reference)
    (note,) = [note for note in found.notes if "same items" in note]
    assert note.startswith("FAD, SSMS, KL, IS: not of the same items for all methods")


def test_a_method_without_any_usable_sound_has_empty_cells(tmp_path: Path):
    reference = tones(tmp_path / "r", 0.5)
    write_tone(tmp_path / "a" / "other.wav")
    found = evaluate(tmp_path, [str(tmp_path / "a"), f"b={reference}"], reference)
    assert all(math.isnan(value) for value in scores(found, "a").values())
    assert scores(found, "b")["SSMS"] == 10
    assert len(found.problems) == 7


def test_frames_and_whole_sounds_of_one_encoder_are_columns_side_by_side(tmp_path: Path):
    for folder, amplitude in (("a", 0.9), ("r", 0.5)):
        for i in range(6):
            write_tone(tmp_path / folder / f"{i}.wav", 150 + 70 * i, amplitude / (1 + i), seconds=0.1 * (i + 1))
    (tmp_path / "a" / "2.wav").unlink()
    measures: dict[str, Measure] = {
        "V-FAD": FAD("small", frames=True),
        "FAD": FAD("small"),
        "FAD∞": FADInfinity("small"),
    }
    how = protocol(measures, encoders={"small": SmallFrames()})
    found = evaluate(tmp_path, [str(tmp_path / "a")], str(tmp_path / "r"), how=how)
    sounds = {side: sorted((tmp_path / side).iterdir()) for side in ("a", "r")}
    read = {side: [read_sound(p.read_bytes(), p.name, 10).waveform for p in paths] for side, paths in sounds.items()}
    every = [torch.cat(SmallFrames().embed_frames(read[side])) for side in ("a", "r")]
    whole = [SmallFrames().embed(read[side]) for side in ("a", "r")]
    assert [len(rows) for rows in every] == [18, 21]
    values = scores(found, "a")
    assert values["V-FAD"] == pytest.approx(float(frechet_audio_distance(*every)), rel=1e-6)
    assert values["FAD"] == pytest.approx(float(frechet_audio_distance(*whole)), rel=1e-6)
    assert {score.items for score in found.scores} == {5}
    told = reproducibility(found, "ss2a evaluate", "a rule", {})["measures"]
    assert [told[name]["frames"] for name in measures] == [True, False, False]
    assert told["FAD∞"]["extrapolation"] == {"points": 15, "least_rows": 500, "seed": 0}
    assert r"FAD$\infty$ $\downarrow$" in latex_table(found)
    with pytest.raises(InputError, match=r"measures\.V-FAD\.frames: small hears no frames"):
        protocol({"V-FAD": FAD("small", frames=True)})


def test_measures_that_lack_a_folder_are_left_out_and_said(tmp_path: Path):
    generated = tones(tmp_path / "a", 0.5)
    found = evaluate(tmp_path, [generated])
    assert list(found.measured) == ["IS"]
    assert "SSMS is not measured: it needs --reference" in found.notes
    with pytest.raises(InputError, match="nothing can be measured: FAD is not measured: it needs --reference"):
        evaluate(tmp_path, [generated], how=protocol({"FAD": FAD("small")}))


def test_pictures_texts_and_videos_by_a_csv_file(tmp_path: Path):
    generated = tones(tmp_path / "a", 0.5, 3)
    for name, colour in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        (tmp_path / "i").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), colour).save(tmp_path / "i" / f"{name}.png")
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "v0.mp4").write_bytes(bytes([0])), (tmp_path / "v" / "v2.mp4").write_bytes(bytes([2]))
    rows = ["name,image,video,text,sources", "0,red;blue,v0,abcd,2", "1,blue,v2.mp4,bcde,1", "2,green,v3,,1"]
    (tmp_path / "pairs.csv").write_text("\n".join(rows))
    how = protocol(
        {"CS": CLIP("small"), "CLAP": CLAP("small"), "WMAO": WMAO(1), "DeSync": DeSync()},
        image_encoder=SmallImages(),
        text_encoder=SmallTexts(),
        sync=SmallSync(),
    )
    sides = {"images": str(tmp_path / "i"), "videos": str(tmp_path / "v")}
    found = evaluate(tmp_path, [generated], pairs=str(tmp_path / "pairs.csv"), how=how, **sides)
    assert scores(found, "a")["DeSync"] == pytest.approx(0.75)  # 1.0 and 0.5 s
    assert scores(found, "a")["WMAO"] == pytest.approx(0.75)
    sound = SmallEncoder().embed([np.sin(2 * np.pi * 150 * np.arange(2000) / 8000).astype(np.float32) / 6])[0].numpy()
    red, blue = np.array([1, 0, 0, 1 / 3]), np.array([0, 0, 1, 1 / 3])
    wanted = [sound @ each / np.linalg.norm(sound) / np.linalg.norm(each) for each in (red, blue)]
    assert found.values["a"]["CS"][0] == pytest.approx(100 * np.mean(wanted), abs=0.1)
    assert [(p.folder, p.item) for p in found.problems] == [("images", "2"), ("text", "2"), ("videos", "2")]
    assert found.problems[0].reason == f"green is missing in {tmp_path / 'i'}"
    assert found.problems[2].reason == f"v3 is missing in {tmp_path / 'v'}"
    assert {(part.column, part.part) for part in found.parts} == {("sources", "1"), ("sources", "2")}


@pytest.mark.parametrize("method", ["image", "video", "sound"])
def test_a_method_may_be_called_like_a_column_of_the_csv_file(tmp_path: Path, method: str):
    generated = tones(tmp_path / method, 0.5, 2)
    for folder in ("image", "video"):
        (tmp_path / f"{folder}s").mkdir()
        (tmp_path / f"{folder}s" / f"other.{'png' if folder == 'image' else 'mp4'}").write_bytes(bytes(1))
    (tmp_path / "pairs.csv").write_text("name,image,video\n0,other,other\n1,other,other\n")
    sides = {side: str(tmp_path / side) for side in ("images", "videos")}
    how = protocol({"IS": IS("small")})
    found = evaluate(tmp_path, [generated], pairs=str(tmp_path / "pairs.csv"), how=how, **sides)
    assert (found.problems, [score.items for score in found.scores]) == ([], [2])


def test_sounds_that_no_row_of_a_csv_file_names_are_counted(tmp_path: Path):
    generated, reference = tones(tmp_path / "a", 0.9), tones(tmp_path / "r", 0.5)
    (tmp_path / "pairs.csv").write_text("name\n0\n3\n4\n5\n")
    found = evaluate(tmp_path, [generated], reference, pairs=str(tmp_path / "pairs.csv"))
    said = "sounds that no item names, not measured: 2, the first 1"
    assert [note for note in found.notes if "FAD" not in note] == [f"a: {said}", f"reference: {said}"]
    assert found.problems == []
    (tmp_path / "a" / "more.wav").write_bytes(b"")
    assert not [note for note in evaluate(tmp_path, [generated], reference).notes if "no item names" in note]


def test_an_embedding_of_a_text_that_is_not_finite_is_a_problem_of_its_items(tmp_path: Path):
    class Broken(SmallTexts):
        def encode(self, texts):
            return super().encode(texts).masked_fill(torch.tensor([["x" in text] for text in texts]), math.nan)

    (tmp_path / "pairs.csv").write_text("name,text\n0,abcd\n1,xabc\n2,xabc\n")
    how = protocol({"CLAP": CLAP("small")}, text_encoder=Broken())
    found = evaluate(tmp_path, [tones(tmp_path / "a", 0.5, 3)], pairs=str(tmp_path / "pairs.csv"), how=how)
    assert [(problem.folder, problem.item) for problem in found.problems] == [("text", "1"), ("text", "2")]
    assert "small-texts-v1 gave NaN or infinity for 'xabc'" in found.problems[0].reason
    assert [score.items for score in found.scores] == [1]
    assert math.isfinite(scores(found, "a")["CLAP"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"measures": {"FAD": FAD("smal")}},
            "measures.FAD.encoder: smal is not among the encoders; did you mean small",
        ),
        ({"encoders": {"small": SmallEncoder()}}, "measures.SSMS.encoder: small tells no classes"),
        ({"measures": {"CS": CLIP("small")}}, "measures.CS: needs the protocol's image_encoder"),
        ({"measures": {"WMAO": WMAO()}}, "measures.WMAO: needs the protocol's sync"),
        ({"seconds": 0}, "seconds must be at least"),
    ],
)
def test_a_protocol_that_does_not_fit_together_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        protocol(**options)


@pytest.mark.parametrize(
    ("measures", "message"),
    [
        ({"S": SSMS("small", top_n=5)}, r"measures\.S\.top_n is 5, needs at most 4, the labels of small"),
        ({"W": WMAO(4)}, r"measures\.W\.top_k is 4, needs at most 3, the offsets"),
    ],
)
def test_options_beyond_what_models_tell_are_refused_before_anything_is_heard(tmp_path: Path, measures, message):
    generated, reference = tones(tmp_path / "a", 0.5), tones(tmp_path / "r", 0.5)
    (tmp_path / "v").mkdir()
    for number in range(6):
        (tmp_path / "v" / f"{number}.mp4").write_bytes(bytes(1))
    how = protocol(measures, sync=SmallSync())
    with pytest.raises(InputError, match=message):
        evaluate(tmp_path, [generated], reference, how=how, videos=str(tmp_path / "v"))
    assert how.encoders["small"].heard == 0


def test_an_inception_score_of_fewer_sounds_than_splits_is_explained(tmp_path: Path):
    found = evaluate(tmp_path, [tones(tmp_path / "a", 0.5)], how=protocol({"IS": IS("small", splits=10)}))
    assert math.isnan(scores(found, "a")["IS"])
    assert found.notes == [
        "IS: inception score of 6 sounds in 10 splits, of which some have none: it is NaN; take fewer splits"
    ]


def test_the_report_says_it_in_every_format(tmp_path: Path):
    reference = tones(tmp_path / "r", 0.5)
    methods = [f"A_1={tones(tmp_path / 'a', 0.5)}", f"B&C={tones(tmp_path / 'b', 0.9)}"]
    found = evaluate(tmp_path, methods, reference)
    facts = reproducibility(found, "ss2a evaluate", "a rule", {"seed": 0})
    files = {path.name: path.read_text() for path in write_report(tmp_path / "out", found, facts)}
    document = json.loads(files["scores.json"])
    assert [score["place"] for score in document["scores"] if score["measure"] == "FAD"] == [1, 2]
    assert document["reproducibility"]["models"] == {"small": "small-labeller-v1"}
    assert document["reproducibility"]["measures"]["SSMS"] == {"class": "SSMS", "encoder": "small", "top_n": 2}
    assert set(document["reproducibility"]["sha256"]) == {"A_1", "B&C", "reference"}
    assert files["scores.csv"].splitlines()[0] == "method,measure,value,low,high,items,place"
    assert len(files["items.csv"].splitlines()) == 1 + 2 * 6
    bounds = {(bound["measure"], bound["kind"]): bound["value"] for bound in document["bounds"]}
    assert set(bounds) == {
        ("FAD", "halves of the true sounds"), ("SSMS", CHANCE), ("KL", CHANCE), ("IS", "the true sounds"),
    }  # fmt: skip
    assert f"- {CHANCE}: SSMS 10.00, KL" in files["scores.md"]
    assert (
        files["bounds.csv"].splitlines()[1]
        == f"FAD,halves of the true sounds,{bounds['FAD', 'halves of the true sounds']}"
    )
    assert "| A_1 | **0.000 [0.000, " in files["scores.md"]
    assert r"A\_1 & \textbf{0.000} & " in files["scores.tex"]
    assert r"B\&C & \underline{" in latex_table(found)
    console = Console(width=160, record=True, markup=False, file=io.StringIO())
    print_report(found, console)
    text = console.export_text()
    assert "SSMS ↑" in text
    assert "10.00 [10.00, 10.00] *" in text
    assert f"{CHANCE}: SSMS 10.00, KL" in text
