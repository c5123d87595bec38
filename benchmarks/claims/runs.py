"""Training runs of a claim: simulate, fit, measure; in a few processes, each run's numbers saved at once."""

import contextlib
import csv
import functools
import hashlib
import io
import json
import multiprocessing
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent.parent
CONFIGS = ROOT / "configs"
RESULTS = ROOT / "docs" / "claims"
FIGURES = ROOT / "docs" / "figures"
MANIFOLDS = Path(tempfile.gettempdir(), "ss2a-claims-manifolds")
"""Checkpoints of manifolds, shared by all claims about what comes after; remove it after a change of the code."""

Row = dict[str, Any]
Measure = Callable[[Any, str, "Run"], dict[str, float]]
"""Numbers of a fitted run, from its CLI (trainer, model, datamodule), its data set's folder and itself."""


@dataclass(frozen=True)
class Run:
    """One training.

    Args:
        arm: name of what differs from other arms.
        seed: of the weights, the order and, in the simulated world, the world.
        config: YAML file of ``lightning fit`` below configs/.
        measure: what to measure after the training.
        overrides: more arguments of ``lightning fit``.
        data: YAML file of ``ss2a shards simulate`` below configs/; None: the data set that the config names.
        data_overrides: more arguments of ``ss2a shards simulate``.
        fold: fold held out, for data with folds.
        trained: False: measure the model as it starts.
        prepare: called before the training with the CLI, the data set's folder and the run.
        manifold: run whose manifold this one builds on; it is trained once for all, and not measured.
    """

    arm: str
    seed: int
    config: str
    measure: Measure
    overrides: tuple[str, ...] = ()
    data: str | None = None
    data_overrides: tuple[str, ...] = ()
    fold: int | None = None
    trained: bool = True
    prepare: Callable[[Any, str, "Run"], None] | None = None
    manifold: "Run | None" = None

    @property
    def world(self) -> str:
        """Where its rows come from."""
        return "demo" if self.data is None else "simulated"

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """What identifies it in a file of results; the recipe changes with the configs and the overrides."""
        configs = [_parsed(self.config), _parsed(self.data) if self.data else None]
        recipe = json.dumps([configs, self.overrides, self.data_overrides, self.trained])
        if self.data is None:
            recipe += Path(_dataset(self.config), "manifest.json").read_text()
        if self.manifold is not None:
            recipe += self.manifold.key[-1]
        fold = "" if self.fold is None else str(self.fold)
        return self.world, self.arm, str(self.seed), fold, hashlib.sha256(recipe.encode()).hexdigest()[:8]

    @property
    def checkpoint(self) -> Path:
        """Where the manifold that it trains is kept, if another run builds on it."""
        return MANIFOLDS / f"{'-'.join(part for part in self.key if part)}.ckpt"


KEY = ("world", "arm", "seed", "fold", "recipe")


@dataclass
class Results:
    """Numbers of runs in a CSV file, one row a run, written whole after each run.

    Args:
        name: of the file in docs/claims/, without suffix.
    """

    name: str
    rows: dict[tuple[str, ...], Row] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.file.is_file():
            with open(self.file, newline="") as opened:
                for row in csv.DictReader(opened):
                    self.rows[tuple(row[name] for name in KEY)] = row

    @property
    def file(self) -> Path:
        """The CSV file."""
        return RESULTS / f"{self.name}.csv"

    def add(self, run: Run, numbers: dict[str, float]) -> None:
        """Keep a run's numbers, in place of those of an older recipe, and write the file."""
        stale = [key for key in self.rows if key[:4] == run.key[:4]]
        for key in stale:
            del self.rows[key]
        shown = {name: f"{number:.5g}" for name, number in numbers.items()}
        self.rows[run.key] = dict(zip(KEY, run.key, strict=True)) | shown
        self.file.parent.mkdir(parents=True, exist_ok=True)
        names = dict.fromkeys(KEY) | dict.fromkeys(sorted({name for row in self.rows.values() for name in row}))
        temporary = self.file.with_suffix(".tmp")
        with open(temporary, "w", newline="") as opened:
            writer = csv.DictWriter(opened, list(names), restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(row for _, row in sorted(self.rows.items()))
        os.replace(temporary, self.file)

    def of(self, runs: Sequence[Run]) -> list[Row]:
        """Rows of these runs, as far as they are there."""
        return [self.rows[run.key] for run in runs if run.key in self.rows]

    def values(self, runs: Sequence[Run], name: str) -> list[float]:
        """A number of these runs."""
        return [float(row[name]) for row in self.of(runs) if row.get(name)]


def make_runs(runs: Sequence[Run], results: Results, processes: int = 2) -> None:
    """Train and measure what is not in the results yet; simulated data sets live in a temporary folder meanwhile."""
    missing = [run for run in runs if run.key not in results.rows]
    if not missing:
        return
    print(f"{results.name}: {len(missing)} of {len(runs)} runs to make", flush=True)
    start, done = time.perf_counter(), 0
    # By seed, so that the data sets of one seed are on disk at a time; the demo last.
    groups = sorted({(run.world == "demo", run.seed) for run in missing})
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for group in groups:
            with tempfile.TemporaryDirectory() as folder:
                chosen = [run for run in missing if (run.world == "demo", run.seed) == group]
                manifolds = {run.manifold.checkpoint: run.manifold for run in chosen if run.manifold is not None}
                needed = [run for checkpoint, run in manifolds.items() if not checkpoint.is_file()]
                pool.map(_train_manifold, [(run, _simulate(run, folder)) for run in needed], chunksize=1)
                tasks = [(run, _simulate(run, folder)) for run in chosen]
                for run, numbers in pool.imap_unordered(_train, tasks):
                    results.add(run, numbers)
                    done += 1
                    what = f"{run.world} {run.arm}, seed {run.seed}"
                    print(f"{done}/{len(missing)} {what}: {numbers['seconds']:.0f} s", flush=True)
    print(f"{results.name}: {time.perf_counter() - start:.0f} s")


@functools.cache
def _parsed(config: str) -> Any:
    """A config without its bases and callbacks: a run has those of its overrides alone."""
    parsed = yaml.safe_load((CONFIGS / config).read_text())
    parsed.pop("base", None)
    for name in ("callbacks", "callbacks+"):
        parsed.get("trainer", {}).pop(name, None)
    return parsed


def _dataset(config: str) -> str:
    return str(ROOT / _parsed(config)["data"]["init_args"]["datasets"])


def _simulate(run: Run, folder: str) -> str:
    """Folder of the run's data set, drawn unless another run has."""
    if run.data is None:
        return _dataset(run.config)
    arguments = [f"--seed={run.seed}", *run.data_overrides]
    name = hashlib.sha256(json.dumps([run.data, arguments]).encode()).hexdigest()[:8]
    output = Path(folder, name)
    if not output.exists():
        from lightning_ss2a.cli.ss2a import run as ss2a

        with contextlib.redirect_stdout(io.StringIO()):
            ss2a(["shards", "simulate", "-c", str(CONFIGS / run.data), str(output), "--threads=2", *arguments])
    return str(output)


def _train(task: tuple[Run, str]) -> tuple[Run, dict[str, float]]:
    run, dataset = task
    start = time.perf_counter()
    with _fitted(run, dataset) as cli:
        logged = {name: float(value) for name, value in cli.trainer.callback_metrics.items() if name.startswith("val/")}
        numbers = {
            n.removeprefix("val/"): v for n, v in logged.items() if "_baseline/" not in n or n.endswith("/ridge")
        }
        cli.model.eval()
        numbers |= run.measure(cli, dataset, run)
    return run, numbers | {"seconds": time.perf_counter() - start}


def _train_manifold(task: tuple[Run, str]) -> None:
    run, dataset = task
    run.checkpoint.parent.mkdir(parents=True, exist_ok=True)
    with _fitted(run, dataset) as cli:
        temporary = run.checkpoint.with_suffix(f".{os.getpid()}")
        cli.trainer.save_checkpoint(temporary)
        os.replace(temporary, run.checkpoint)


@contextlib.contextmanager
def _fitted(run: Run, dataset: str) -> Iterator[Any]:
    """The CLI of a run, trained and validated."""
    warnings.filterwarnings("ignore")
    import logging

    import torch

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.set_num_threads(1)
    from lightning_ss2a.cli.lightning import build_cli

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        arguments = ["-c", str(CONFIGS / run.config), f"--data.datasets={dataset}"]
        arguments += [f"--seed_everything={run.seed}", f"--data.seed={run.seed}"]
        arguments += [] if run.fold is None else [f"--data.fold={run.fold}"]
        arguments += [] if run.manifold is None else [f"--model.manifold_checkpoint={run.manifold.checkpoint}"]
        arguments += ["--trainer.callbacks=[]", "--trainer.logger=false", "--trainer.enable_checkpointing=false"]
        arguments += ["--trainer.enable_progress_bar=false", f"--trainer.default_root_dir={folder}"]
        cli = build_cli([*arguments, "--trainer.accelerator=cpu", *run.overrides], run=False)
        epochs = cli.trainer.max_epochs  # -1: steps bound the run, and it is validated after them
        cli.trainer.check_val_every_n_epoch = epochs if epochs > 0 else 10**9
        if run.prepare is not None:
            run.prepare(cli, dataset, run)
        if run.trained:
            cli.trainer.fit(cli.model, cli.datamodule)
        if not any(name.startswith("val/") for name in cli.trainer.callback_metrics):
            cli.trainer.validate(cli.model, cli.datamodule, verbose=False)
        yield cli
