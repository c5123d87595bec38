"""Is the manifold of configs/manifold.yaml better than its baselines, on sounds and pictures it never saw?

Trains the shipped config on every fold of shards/demo (folds never share a group), then again on shuffled pairs (in one
stage: no filter sees which pairs are true), and prints the mean and spread over folds of the *last* epoch (no epoch is
picked by what it scored) beside every baseline.

    python benchmarks/demo_folds.py [--seeds 3] [--model.contrastive.ccmr_alpha=0 ...]
"""

import argparse
import contextlib
import io
import json
import multiprocessing
import statistics
import tempfile
import time
import warnings
from pathlib import Path

from lightning_ss2a.config_files import read_config

CONFIG = Path(__file__).parent.parent / "configs" / "manifold.yaml"
FOLDS = 5
PART_OF_TRAINING = ("EMATeacher", "PairFilter")
"""Callbacks of the config that change what is trained; the others only watch."""
SHOWN = (
    "ssms",
    "clip_score",
    "reconstruction_cosine",
    "recall@1/visual_to_audio",
    "recall@1/audio_to_visual",
    "recall@5/visual_to_audio",
    "recall@5/audio_to_visual",
    "median_rank/visual_to_audio",
    "median_rank/audio_to_visual",
    "modality_gap",
)


def train_fold(task: tuple[int, int, bool, list[str]]) -> dict[str, float]:
    """Metrics of the last epoch of one fold, one seed, real or shuffled pairs."""
    fold, seed, shuffled, overrides = task
    warnings.filterwarnings("ignore")
    import logging

    import torch

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    from lightning_ss2a.cli.lightning import build_cli

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        arguments = ["-c", str(CONFIG), f"--data.fold={fold}", f"--seed_everything={seed}", f"--data.seed={seed}"]
        arguments += [
            f"--data.shuffle_pairs={str(shuffled).lower()}",
            f"--trainer.callbacks={json.dumps([] if shuffled else training_callbacks())}",
            "--trainer.logger=false",
        ]
        arguments += ["--trainer.enable_progress_bar=false", "--trainer.enable_checkpointing=false"]
        arguments += [f"--trainer.default_root_dir={folder}", "--trainer.accelerator=cpu", *overrides]
        cli = build_cli(arguments, run=False)
        cli.trainer.check_val_every_n_epoch = cli.trainer.max_epochs
        cli.trainer.fit(cli.model, cli.datamodule)
        return {name.removeprefix("val/"): float(value) for name, value in cli.trainer.callback_metrics.items()}


def training_callbacks() -> list[dict]:
    """Those callbacks of the config that are part of the training."""
    callbacks = read_config(CONFIG)["trainer"]["callbacks"]
    return [callback for callback in callbacks if callback["class_path"] in PART_OF_TRAINING]


def mean_and_spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="training seeds a fold")
    options, overrides = parser.parse_known_args()
    start = time.perf_counter()
    real = [(fold, seed, False, overrides) for seed in range(options.seeds) for fold in range(FOLDS)]
    shuffled = [(fold, 0, True, overrides) for fold in range(FOLDS)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        results = pool.map(train_fold, real + shuffled, chunksize=1)
    seconds = time.perf_counter() - start
    runs, controls = results[: len(real)], results[len(real) :]

    print(f"{len(real)} runs of {CONFIG.name} over {FOLDS} folds, {len(shuffled)} on shuffled pairs, {seconds:.0f} s")
    print(f"{'metric':30} {'manifold':>15} {'ridge':>15} {'mean audio':>15} {'chance':>15} {'shuffled pairs':>15}")
    for name in SHOWN:
        cells = [mean_and_spread([run[name] for run in runs])]
        for baseline in ("ridge", "mean_audio", "chance"):
            key = f"{name}_baseline/{baseline}"
            cells.append(mean_and_spread([run[key] for run in runs]) if key in runs[0] else "")
        cells.append(mean_and_spread([run[name] for run in controls]))
        print(f"{name:30} " + " ".join(f"{cell:>15}" for cell in cells))
    print(json.dumps(verdict(runs, controls) | {"seconds": round(seconds)}))


def verdict(runs: list[dict[str, float]], controls: list[dict[str, float]]) -> dict:
    """The goals of the demo, each checked on the mean of folds."""

    def mean(name: str, of: list[dict[str, float]] = runs) -> float:
        return statistics.mean(run[name] for run in of)

    directions = ("visual_to_audio", "audio_to_visual")
    checks = {
        "recall@1 >= 0.12 both ways": min(mean(f"recall@1/{d}") for d in directions) >= 0.12,
        "recall@5 >= 0.42 both ways": min(mean(f"recall@5/{d}") for d in directions) >= 0.42,
        "median rank <= 8 both ways": max(mean(f"median_rank/{d}") for d in directions) <= 8,
        "cosine >= mean audio + 0.025": mean("reconstruction_cosine")
        >= mean("reconstruction_cosine_baseline/mean_audio") + 0.025,
        "SSMS >= mean audio + 0.4": mean("ssms") >= mean("ssms_baseline/mean_audio") + 0.4,
        "shuffled pairs at chance": max(mean(f"recall@5/{d}", controls) for d in directions) <= 0.25,
    }
    ratio = mean("recall@5/visual_to_audio") / mean("recall@5/visual_to_audio_baseline/ridge")
    return {
        "benchmark": "demo_folds",
        "ratio": round(ratio, 3),
        "goal": "every check below; the ratio is recall@5 (visual to audio) against ridge regression",
        "holds": all(checks.values()),
        "checks": checks,
    }


if __name__ == "__main__":
    main()
