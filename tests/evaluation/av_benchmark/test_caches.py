"""av-benchmark's caches in, out, and in again; scores by its names, against its formulas by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch

from lightning_ss2a.errors import InputError
from lightning_ss2a.evaluation.av_benchmark.export import write_av_benchmark
from lightning_ss2a.evaluation.encoders import CachedPaSST, PANNs, VGGish
from lightning_ss2a.evaluation.evaluate import Evaluation
from lightning_ss2a.evaluation.measures import FAD, IS, KL, SSMS, Measure
from tests.cli.test_ss2a import run
from tests.evaluation.small_encoder import SmallLabeller, write_tone
from tests.evaluation.test_evaluate import evaluate, protocol

STEMS = [f"clip{number:02}" for number in range(24)]
MEASURES: dict[str, Measure] = {
    "V-FAD": FAD("vggish", frames=True),
    "FD": FAD("panns"),
    "KL": KL("panns"),
    "IS": IS("panns", splits=10),
    "FD PaSST": FAD("passt"),
    "SSMS": SSMS("panns"),
    "V-FAD of means": FAD("vggish"),
}


def write_caches(folder: Path, seed: int, stems: list[str] = STEMS, passt: bool = True) -> dict[str, dict]:
    """Writes what av-benchmark's ``extract`` does, of random numbers: views of batches among them."""
    draw = torch.Generator().manual_seed(seed)

    def batch(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw) + 0.1 * seed

    files = {
        "vggish_features.pth": dict(zip(stems, batch(len(stems), 8, 128), strict=True)),
        "pann_features.pth": {stem: {"2048": batch(2048), "logits": batch(527)} for stem in stems},
    }
    if passt:
        files["passt_features_embed.pth"] = dict(zip(stems, batch(len(stems), 768), strict=True))
        files["passt_logits.pth"] = dict(zip(stems, batch(len(stems), 527), strict=True))
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        torch.save(content, folder / name)
    return files


def measured(tmp_path: Path, generated: list[str], reference: str, measures=None, **encoders) -> Evaluation:
    models = {"vggish": VGGish(), "panns": PANNs(), "passt": CachedPaSST(), **encoders}
    how = protocol(measures or MEASURES, encoders=models)
    return evaluate(tmp_path, generated, reference, how=how)


def value(found: Evaluation, measure: str, method: str = "a") -> float:
    return next(s.value for s in found.scores if (s.measure, s.method) == (measure, method))


def distance(x: np.ndarray, y: np.ndarray) -> float:
    first, second = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(first @ second).real
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(first) + np.trace(second) - 2 * np.trace(root))


def test_caches_are_measured_without_weights_or_sounds(tmp_path: Path):
    a, r = write_caches(tmp_path / "a", 1, STEMS[:-1]), write_caches(tmp_path / "r", 2)
    found = measured(tmp_path, [str(tmp_path / "a")], str(tmp_path / "r"))
    vggish = [torch.cat([*files["vggish_features.pth"].values()]).numpy() for files in (a, r)]
    assert value(found, "V-FAD") == pytest.approx(distance(*vggish), rel=1e-4)
    logits = [torch.stack([files["pann_features.pth"][stem]["logits"] for stem in STEMS[:-1]]) for files in (a, r)]
    log_p, log_q = (each.double().log_softmax(1) for each in logits)
    assert value(found, "KL") == pytest.approx(float((log_q.exp() * (log_q - log_p)).sum(1).mean()), rel=1e-5)
    assert {s.measure: s.items for s in found.scores} == dict.fromkeys(MEASURES, len(STEMS) - 1)
    assert [(p.folder, p.item) for p in found.problems] == [("a", STEMS[-1])]
    assert (found.facts[0].usable, found.facts[0].silent) == (len(STEMS) - 1, None)
    assert sorted(found.identities)[:2] == ["a/pann_features.pth", "a/passt_features_embed.pth"]
    assert found.identities["reference/passt_logits.pth"].startswith("av-benchmark/passt_logits.pth@")
    assert [note for note in found.notes if "FAD of" not in note] == []


def test_what_is_written_is_what_was_read_and_scores_have_their_names(tmp_path: Path):
    given = {name: write_caches(tmp_path / name, seed) for seed, name in enumerate(("a", "r"), 1)}
    found = measured(tmp_path, [str(tmp_path / "a")], str(tmp_path / "r"))
    files = write_av_benchmark(tmp_path / "out", found)
    assert len(files) == 4 + 4 + 1
    for side, folder in (("a", "a"), ("reference", "r")):
        for name, content in given[folder].items():
            written = torch.load(tmp_path / "out" / side / name, weights_only=True)
            assert [*written] == STEMS
            torch.testing.assert_close(written, content, rtol=0, atol=0)
    assert (tmp_path / "out" / "a" / "vggish_features.pth").stat().st_size < 1.5 * 24 * 8 * 128 * 4
    scores = json.loads((tmp_path / "out" / "a" / "output_metrics.json").read_text())
    assert scores == {
        "FD-VGG": value(found, "V-FAD"),
        "FD-PANN": value(found, "FD"),
        "KL-PANNS-softmax": value(found, "KL"),
        "ISC-PANNS-mean": value(found, "IS"),
        "FD-PASST": value(found, "FD PaSST"),
    }
    again = measured(tmp_path, [str(tmp_path / "out" / "a")], str(tmp_path / "out" / "reference"))
    assert again.scores == found.scores


def test_sounds_heard_here_beside_caches_are_told_apart(tmp_path: Path):
    write_caches(tmp_path / "r", 2, STEMS[:3], passt=False)
    write_caches(tmp_path / "c", 3, STEMS[:3], passt=False)
    for number, stem in enumerate(STEMS[:3]):
        write_tone(tmp_path / "w" / f"{stem}.wav", 200 * (number + 1))

    class Panns(SmallLabeller):
        """As wide as PANNs, and taken for it."""

        part, width, labels = "PANNs", 2048, tuple(map(str, range(527)))

        def embed_and_label(self, waveforms):
            self.heard += len(waveforms)
            return torch.ones(len(waveforms), 2048), torch.ones(len(waveforms), 527)

    measures: dict[str, Measure] = {"KL": KL("panns"), "FD PaSST": FAD("passt")}
    methods = [str(tmp_path / "w"), str(tmp_path / "c")]
    found = measured(tmp_path, methods, str(tmp_path / "r"), measures, panns=Panns())
    assert all(np.isfinite(value(found, "KL", method)) for method in ("w", "c"))
    assert all(np.isnan(value(found, "FD PaSST", method)) for method in ("w", "c"))
    assert sorted(note for note in found.notes if "FAD" not in note) == [
        f"c: av-benchmark's caches in {tmp_path / 'c'} do not have passt",
        "panns: heard by av-benchmark in c, reference, here in w; it takes each sound's mean away, resamples and cuts "
        "in its own way, so that small differences may be these",
        f"reference: av-benchmark's caches in {tmp_path / 'r'} do not have passt",
        "w: passt is known from av-benchmark's caches only",
    ]
    assert found.identities["panns"] == "small-labeller-v1"
    exported = write_av_benchmark(tmp_path / "out", found)
    assert sorted(str(path.relative_to(tmp_path / "out")) for path in exported) == [
        "c/output_metrics.json", "c/pann_features.pth", "reference/pann_features.pth",
        "w/output_metrics.json", "w/pann_features.pth",
    ]  # fmt: skip


def test_a_sound_that_one_file_lacks_or_spoils_is_a_problem_that_names_the_file(tmp_path: Path):
    write_caches(tmp_path / "r", 2)
    files = write_caches(tmp_path / "a", 1)
    del files["vggish_features.pth"][STEMS[0]]
    files["pann_features.pth"][STEMS[1]]["logits"][3] = torch.nan
    for name in ("vggish_features.pth", "pann_features.pth"):
        torch.save(files[name], tmp_path / "a" / name)
    found = measured(tmp_path, [str(tmp_path / "a")], str(tmp_path / "r"))
    assert [(p.folder, p.item, p.reason) for p in found.problems] == [
        ("a", STEMS[0], f"is missing in {tmp_path / 'a' / 'vggish_features.pth'}"),
        ("a", STEMS[1], f"{tmp_path / 'a' / 'pann_features.pth'}: {STEMS[1]} holds NaN or infinity"),
    ]
    counted = {s.measure: s.items for s in found.scores}
    assert (counted["V-FAD"], counted["FD"], counted["KL"]) == (22, 23, 23)


class Evil:
    def __reduce__(self):
        return print, ("unpickled",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"damage", "not one of av-benchmark's caches, or a damaged one"),
        ({"x": Evil()}, "not one of av-benchmark's caches, or a damaged one"),
        ([torch.zeros(3)], "it needs tensors by the names of sounds"),
        ({"x": torch.zeros(128)}, r"x needs a tensor of 2 dimension\(s\) of floats"),
        ({"x": torch.zeros(2, 64)}, "x has 64 numbers, VGGish needs 128 numbers"),
        ({"x": torch.zeros(0, 128)}, "x has no frames, VGGish needs 128 numbers"),
        ({"x": "words"}, r"x needs a tensor of 2 dimension\(s\) of floats"),
    ],
)
def test_a_bad_file_is_one_line_that_names_it(tmp_path: Path, capsys, content, message):
    folder = tmp_path / "a"
    folder.mkdir()
    if isinstance(content, bytes):
        (folder / "vggish_features.pth").write_bytes(content)
    else:
        torch.save(content, folder / "vggish_features.pth")
    with pytest.raises(InputError, match=rf"a/vggish_features\.pth: .*{message}") as caught:
        measured(tmp_path, [str(folder)], str(folder), {"V-FAD": FAD("vggish", frames=True)})
    assert "\n" not in str(caught.value)
    assert "unpickled" not in capsys.readouterr().out


def test_a_folder_of_caches_that_cannot_be_used_is_named(tmp_path: Path):
    (tmp_path / "a").mkdir()
    torch.save({}, tmp_path / "a" / "clap_ms_audio.pth")
    with pytest.raises(InputError, match="has none of av-benchmark's files that are read: vggish_features"):
        measured(tmp_path, [str(tmp_path / "a")], str(tmp_path / "a"))


def test_a_name_that_is_no_folder_is_refused(tmp_path: Path):
    write_caches(tmp_path / "r", 2)
    found = measured(tmp_path, [f"A/B={tmp_path / 'r'}"], str(tmp_path / "r"), {"KL": KL("panns")})
    with pytest.raises(InputError, match="A/B: cannot be the name of a folder"):
        write_av_benchmark(tmp_path / "out", found)


def test_the_command_reads_and_writes_them_by_the_shipped_protocol(tmp_path: Path, capsys):
    write_caches(tmp_path / "a", 1), write_caches(tmp_path / "r", 2)
    config = Path(__file__).parents[3] / "configs" / "evaluation" / "av_benchmark.yaml"
    folders = {"output": "report", "cache": "cache", "av_benchmark": "out", "reference": "r"}
    options = [text for name, folder in folders.items() for text in (f"--{name}", str(tmp_path / folder))]
    few = ["--bootstrap.set_resamples", "0"]
    arguments = ["evaluate", "--generated", str(tmp_path / "a"), *options, "-c", str(config), *few]
    status, out, error = run(arguments, capsys)
    assert (status, error) == (0, "")
    assert "DeSync is not measured: it needs --videos" in out
    assert f"{tmp_path / 'out'}: 9 files of av-benchmark's" in out
    assert len(json.loads((tmp_path / "out" / "a" / "output_metrics.json").read_text())) == 7
