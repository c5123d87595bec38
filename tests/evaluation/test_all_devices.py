"""Sounds heard by several processes are those heard by one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from lightning_ss2a.evaluation.all_devices import fill_cache
from lightning_ss2a.evaluation.evaluate import evaluate_folders
from lightning_ss2a.evaluation.folders import list_items, open_folders
from lightning_ss2a.evaluation.hearing import Listener
from lightning_ss2a.evaluation.measures import CLIP, DeSync
from lightning_ss2a.evaluation.options import HearingTrainer
from lightning_ss2a.evaluation.planning import plan_hearing
from lightning_ss2a.perception.embedding_cache import EmbeddingCache
from tests.evaluation.small_encoder import SmallImages, SmallLabeller, SmallSync, write_tone
from tests.evaluation.test_evaluate import MEASURES, protocol

SMALL = "tests.evaluation.small_encoder"


def media(folder: Path, number: int = 9) -> None:
    """Writes sounds of two sides, pictures, and videos that SmallSync understands; one sound is broken."""
    for i in range(number):
        for side, amplitude in (("a", 0.9), ("r", 0.5)):
            write_tone(folder / side / f"{i}.wav", 150 * (i + 1), amplitude * (1 + i) / number)
        (folder / "i").mkdir(exist_ok=True), (folder / "v").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (25 * i, 255 - 25 * i, 9)).save(folder / "i" / f"{i}.png")
        (folder / "v" / f"{i}.mp4").write_bytes(bytes([i % 3, i]))
    (folder / "a" / "4.wav").write_bytes(b"damage")


def test_what_was_heard_beforehand_is_heard_by_nobody_again(tmp_path: Path):
    media(tmp_path)
    folders = open_folders([str(tmp_path / "a")], *(str(tmp_path / name) for name in "riv"))
    items, problems = list_items(folders)
    listener = Listener(EmbeddingCache(tmp_path / "cache"), 10.0, 4, 2, progress=False)
    measures = {**MEASURES, "CS": CLIP("small"), "DeSync": DeSync()}

    class Once(SmallSync, SmallImages):
        """Counts what it sees."""

        seen = 0

        def encode(self, images):
            self.seen += len(images)
            return SmallImages.encode(self, images)

        def offset_logits(self, waveforms, videos):
            self.seen += 1
            return SmallSync.offset_logits(self, waveforms, videos)

    eye, ear = Once(), SmallLabeller()
    how = protocol(measures, encoders={"small": ear}, image_encoder=eye, sync=eye)
    alone = evaluate_folders(folders, items, how, Listener(EmbeddingCache(tmp_path / "b"), 10, 4, 2, False), problems)
    ear.heard = eye.seen = 0
    plan = plan_hearing(folders, items, how)
    assert fill_cache(plan, how, listener, HearingTrainer("cpu", 1))
    assert (ear.heard, eye.seen) == (17, 9 + 8)
    found = evaluate_folders(folders, items, how, listener, problems)
    assert (ear.heard, eye.seen) == (17, 9 + 8)
    assert (found.scores, found.problems) == (alone.scores, alone.problems)
    assert [problem.item for problem in found.problems] == ["4"]


@pytest.mark.slow  # 20 s: the command in one process, then in two
def test_two_processes_are_one(tmp_path: Path):
    media(tmp_path)
    measures = {
        name: {"class_path": f"lightning_ss2a.evaluation.{name}", "init_args": {"encoder": "small"} | more}
        for name, more in (("FAD", {}), ("SSMS", {"top_n": 2}), ("KL", {}), ("CLIP", {}))
    }
    measures["DeSync"] = {"class_path": "lightning_ss2a.evaluation.DeSync"}
    (tmp_path / "ss2a").write_text(
        "from lightning_ss2a.cli.ss2a import main\n\nif __name__ == '__main__':\n    main()\n"
    )

    def run(name: str, *options: str) -> tuple[dict[str, bytes], dict[str, int]]:
        log = tmp_path / f"{name}.log"
        encoder = {"class_path": f"{SMALL}.LoggingLabeller", "init_args": {"log": str(log)}}
        others = {"image_encoder": f"{SMALL}.SmallImages", "sync": f"{SMALL}.SmallSync"}
        config = {"encoders": {"small": encoder}, "measures": measures, "bootstrap": {"set_resamples": 3}}
        config |= {part: {"class_path": path} for part, path in others.items()}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(config))
        sides = {"generated": "a", "reference": "r", "images": "i", "videos": "v", "output": name, "cache": f"{name}_c"}
        folders = [text for side, folder in sides.items() for text in (f"--{side}", str(tmp_path / folder))]
        command = [sys.executable, str(tmp_path / "ss2a"), "evaluate", *folders, "-c", str(tmp_path / f"{name}.yaml")]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
        done = subprocess.run([*command, *options], env=environment, capture_output=True, text=True, timeout=300)
        assert (done.returncode, done.stderr) == (1, ""), done.stderr  # a sound is broken
        assert done.stdout.count("scores.md") == 1
        files = {n: (tmp_path / name / n).read_bytes() for n in ("scores.csv", "items.csv", "problems.csv")}
        heard: dict[str, int] = {}
        for line in log.read_text().splitlines():
            process, count = line.split()
            heard[process] = heard.get(process, 0) + int(count)
        return files, heard

    one, alone = run("one")
    two, both = run("two", "--trainer.accelerator", "cpu", "--trainer.devices", "2")
    assert two == one
    assert [*alone.values()] == [17]
    assert sorted(both.values()) == [8, 9]
