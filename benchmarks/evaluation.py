"""Do the metrics of ss2a evaluate tell worse sounds from better ones, and what does a table cost?

Order, on the real sounds of shards/bank, heard by YAMNet: methods that are the references themselves, with white noise
at several ratios; that replace a share of them by sounds of another class; and, for the classes of which the bank has
several recordings, another recording of the class. Each sound is at most 10 s, at 16 kHz.

Cost, of 500 generated and 500 reference WAV files of 10 s (bank sounds, repeated): the command's processor seconds,
since machines are shared, and its memory; then again, from its cache.

    python benchmarks/evaluation.py [--items 500]
"""

import argparse
import csv
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import soundfile

from lightning_ss2a.evaluation.evaluate import Evaluation, evaluate_folders
from lightning_ss2a.evaluation.folders import list_items, open_folders
from lightning_ss2a.evaluation.hearing import Listener
from lightning_ss2a.evaluation.measures import FAD, IS, KL, SSMS
from lightning_ss2a.evaluation.perception_encoders import LabellingPerceptionEncoder
from lightning_ss2a.evaluation.planning import Protocol
from lightning_ss2a.perception import YAMNet
from lightning_ss2a.perception.embedding_cache import EmbeddingCache
from lightning_ss2a.perception.media.files import load_audio
from lightning_ss2a.tables import markdown_table, with_spread

ROOT = Path(__file__).parents[1]
BANK = ROOT / "shards" / "bank"
RATE, SECONDS = 16_000, 10
RATIOS = (20, 10, 0)
"""Decibels of sound over noise."""
SHARES = (0.25, 0.5, 1.0)
"""Of the items that a sound of another class replaces."""
MEASURES = {"FAD": FAD("yamnet"), "SSMS": SSMS("yamnet"), "KL": KL("yamnet"), "IS": IS("yamnet")}
GOAL = 10.0
COMMAND = "import sys; from lightning_ss2a.cli.ss2a import main; main()"

Sounds = dict[str, np.ndarray]


def read_bank() -> tuple[Sounds, dict[str, dict[str, str]]]:
    """Waveforms of the bank's sounds, and their rows, by file."""
    with (BANK / "sounds.csv").open(newline="") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    window = (0.0, float(SECONDS))
    return {name: load_audio((BANK / name).read_bytes(), name, RATE, window) for name in rows}, rows


def write_sounds(folder: Path, sounds: Mapping[str, np.ndarray]) -> str:
    """Writes WAV files of 32-bit floats, so that no noise is clipped."""
    folder.mkdir(parents=True)
    for name, waveform in sounds.items():
        soundfile.write(folder / f"{Path(name).stem}.wav", waveform, RATE, subtype="FLOAT")
    return str(folder)


def with_noise(waveform: np.ndarray, ratio: float, generator: np.random.Generator) -> np.ndarray:
    """Adds white noise, so many decibels below the sound."""
    level = np.sqrt(np.mean(waveform**2)) * 10 ** (-ratio / 20)
    return (waveform + generator.normal(0, level, len(waveform))).astype(np.float32)


def of_another_class(sounds: Sounds, rows: Mapping[str, Mapping[str, str]], share: float) -> Sounds:
    """Replaces a share of sounds by ones of other classes; more of them with a larger share."""
    generator = np.random.default_rng(0)
    names = list(sounds)
    order = generator.permutation(len(names))
    replaced = {names[place] for place in order[: round(share * len(names))]}
    others = {
        name: generator.choice([each for each in names if rows[each]["label"] != rows[name]["label"]]) for name in names
    }
    return {name: sounds[others[name] if name in replaced else name] for name in names}


def another_recording(sounds: Sounds, rows: Mapping[str, Mapping[str, str]]) -> Sounds:
    """Gives another recording of the class for each sound that has one, in another group of recordings."""
    found = {}
    for name, row in rows.items():
        others = [
            each for each, other in rows.items() if other["label"] == row["label"] and other["group"] != row["group"]
        ]
        if others:
            found[name] = sounds[others[0]]
    return found


def measure(folder: Path, methods: Mapping[str, Sounds], reference: Sounds) -> Evaluation:
    """Evaluates methods, whose sounds are written below the folder."""
    written = [f"{name}={write_sounds(folder / name, sounds)}" for name, sounds in methods.items()]
    folders = open_folders(written, write_sounds(folder / "reference_sounds", reference))
    items, problems = list_items(folders)
    protocol = Protocol(MEASURES, {"yamnet": LabellingPerceptionEncoder(YAMNet())}, seconds=SECONDS)
    listener = Listener(EmbeddingCache(folder.parent / "cache"), SECONDS, 16, 2, progress=False)
    return evaluate_folders(folders, items, protocol, listener, problems)


def show(evaluation: Evaluation) -> dict[str, dict[str, float]]:
    """Prints a table, half of the interval after ±; gives the values by method."""
    values: dict[str, dict[str, float]] = {}
    cells: dict[str, list[str]] = {}
    for score in evaluation.scores:
        values.setdefault(score.method, {})[score.measure] = score.value
        cells.setdefault(score.method, []).append(with_spread(score.value, (score.high - score.low) / 2, 2))
    print(markdown_table([f"{len(evaluation.items)} sounds", *MEASURES], [[name, *row] for name, row in cells.items()]))
    return values


def measure_order(folder: Path) -> bool:
    """Measures worse and worse sounds; says whether the metrics say so."""
    sounds, rows = read_bank()
    generator = np.random.default_rng(0)
    noisy = {
        f"noise at {ratio} dB": {name: with_noise(sound, ratio, generator) for name, sound in sounds.items()}
        for ratio in RATIOS
    }
    wrong = {f"{share:.0%} of another class": of_another_class(sounds, rows, share) for share in SHARES}
    found = show(measure(folder / "all", {"itself": sounds, **noisy, **wrong}, sounds))
    again = another_recording(sounds, rows)
    several = {name: sounds[name] for name in again}
    classes = {name: rows[name] for name in again}
    methods = {
        "itself": several,
        "another recording of the class": again,
        "another class": of_another_class(several, classes, 1.0),
    }
    few = show(measure(folder / "several", methods, several))
    rising = [[found[name]["FAD"] for name in ("itself", *names)] for names in (noisy, wrong)]
    matching = [few[name]["SSMS"] for name in methods]
    return (
        all(row == sorted(set(row)) for row in rising)
        and matching == sorted(set(matching), reverse=True)
        and matching[0] == 10
    )


def measure_cost(folder: Path, number: int) -> dict[str, float]:
    """Runs the command twice on so many items; processor seconds of both runs, and MB of the first."""
    sounds = [*read_bank()[0].values()]
    generator = np.random.default_rng(0)
    for side in ("generated", "reference"):
        drawn = generator.integers(len(sounds), size=number)
        shifts = generator.integers(RATE * SECONDS, size=number)
        write_sounds(
            folder / side,
            {
                str(item): np.roll(np.resize(sounds[sound], RATE * SECONDS), shift)
                for item, (sound, shift) in enumerate(zip(drawn, shifts, strict=True))
            },
        )
    options = {"reference": "reference", "output": "out", "cache": "cache_of_command"}
    paths = [text for name, path in options.items() for text in (f"--{name}", str(folder / path))]
    protocol = str(ROOT / "configs" / "evaluation" / "demo.yaml")
    arguments = ["evaluate", "--generated", str(folder / "generated"), *paths, "-c", protocol]
    seconds = []
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", COMMAND, *arguments], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return {"seconds": seconds[0], "cached_seconds": seconds[1], "megabytes": after.ru_maxrss / 1024}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, default=500)
    parser.add_argument("--part", choices=("order", "cost"))
    given = parser.parse_args()
    result: dict[str, object] = {"benchmark": "evaluation"}
    with tempfile.TemporaryDirectory() as folder:
        holds = True
        if given.part != "cost":
            holds = measure_order(Path(folder) / "order")
            result["ordered"] = holds
        if given.part != "order":
            cost = measure_cost(Path(folder) / "cost", given.items)
            ratio = cost["seconds"] / cost["cached_seconds"]
            print(", ".join(f"{name} {value:.1f}" for name, value in cost.items()))
            holds = holds and ratio >= GOAL
            result |= {name: round(value, 1) for name, value in cost.items()}
            result |= {"items": given.items, "ratio": round(ratio, 1), "goal": GOAL}
    print(json.dumps({**result, "holds": holds}))


if __name__ == "__main__":
    main()
