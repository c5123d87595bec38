"""Stages that build on each other, trained once a place and kept: manifold, Remixer, translator.

A place is a world, a seed and, on the demo, the fold held out. One process of one thread does it all; checkpoints and
simulated data stay in a temporary folder, so that two claims share them and a run that stopped goes on.
"""

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from .runs import ROOT, Results, Run, _parsed, _simulate, _train

CACHE = Path(tempfile.gettempdir(), "ss2a_claims")
"""Checkpoints by stage and place, and simulated data; remove it after a change of the code."""

FOLDS = 5
DEMO_SEEDS = 3
"""Seeds of each fold of the demo, at most."""

WORLDS = ("simulated", "demo")
DATA = "sweeps/claims_data.yaml"
WORLD = ("--world.scene_sources=5", "--world.video_sources=4")
SIMULATED = {
    "pairs": ("--splits={validation: 1000, train: 6000}",),
    "scenes": ("--kind=scenes", "--splits={validation: 1000, train: 6000}"),
    "videos": ("--kind=videos", "--splits={validation: 1000, train: 4000}"),
}
"""Arguments of ``ss2a shards simulate``, by kind; all are of one world."""

DEMO = {"pairs": "shards/demo", "scenes": "shards/demo_scenes", "videos": "shards/demo_videos"}
NO_FOLD = "--data.fold=null"


@dataclass(frozen=True)
class Place:
    """Where stages are trained.

    Args:
        world: ``simulated`` or ``demo``.
        seed: of weights and order and, in the simulated world, of the world.
        fold: fold held out, on the demo.
    """

    world: str
    seed: int
    fold: int | None = None


@dataclass(frozen=True)
class Stage:
    """A training.

    Args:
        config: YAML file of ``lightning fit`` below configs/.
        kind: of its data.
        overrides: more arguments; ``FOLDER`` is the place's folder of checkpoints.
        prepare: called before the training, see ``Run``.
    """

    config: str
    kind: str
    overrides: tuple[str, ...] = ()
    prepare: Callable[[Any, str, Run], None] | None = None


def demo_callbacks() -> str:
    """The callbacks of the demo's manifold that are part of the training, as an argument."""
    import yaml

    listed = yaml.safe_load((ROOT / "configs" / "mean_teacher.yaml").read_text())["trainer"]["callbacks+"]
    return f"--trainer.callbacks={json.dumps(listed)}"


ON_MANIFOLD = ("--model.manifold_checkpoint=FOLDER/manifold.ckpt", "--model.validate_cycle_mix=false")
BASE = {
    "simulated": {
        "manifold": Stage("sweeps/claims_world.yaml", "pairs", ("--model.ccmr_mask_diagonal=false",)),
        "remixer": Stage(
            "remixer.yaml",
            "scenes",
            (
                *(*ON_MANIFOLD, NO_FOLD, "--data.batch_size=256", "--trainer.max_epochs=25"),
                *("--model.kl_weight=5e-5", "--model.dropout=0.1", "--model.learning_rate=2e-3"),
            ),
        ),
    },
    "demo": {
        "manifold": Stage("sweeps/claims_manifold_demo.yaml", "pairs", (demo_callbacks(),)),
        "remixer": Stage("remixer.yaml", "scenes", ON_MANIFOLD),
    },
}
"""What both claims build on, by world."""


def varied(stage: Stage, *overrides: str, prepare: Callable[[Any, str, Run], None] | None = None) -> Stage:
    """The same with more arguments."""
    return replace(stage, overrides=(*stage.overrides, *overrides), prepare=prepare)


def places(seeds: int) -> list[Place]:
    """All of them, the simulated ones first."""
    simulated = [Place("simulated", seed) for seed in range(seeds)]
    demo_seeds = range(min(seeds, DEMO_SEEDS))
    return simulated + [Place("demo", seed, fold) for seed in demo_seeds for fold in range(FOLDS)]


@dataclass(frozen=True)
class ChainRun:
    """Numbers of one arm at one place; ``arm`` names what was trained, ``recipe`` is a hash of all that went in."""

    place: Place
    arm: str
    recipe: str

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """What tells it from others in a file of results."""
        fold = "" if self.place.fold is None else str(self.place.fold)
        return self.place.world, self.arm, str(self.place.seed), fold, self.recipe


def recipe(stages: Mapping[str, Stage], *more: Any) -> str:
    """Hash of the stages' configs, arguments and data."""
    parts: list[Any] = [[name, stage.overrides, _essentials(stage)] for name, stage in sorted(stages.items())]
    parts += [_parsed(DATA), WORLD, SIMULATED, more]
    parts += [Path(ROOT, folder, "manifest.json").read_text() for folder in DEMO.values()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]


def _essentials(stage: Stage) -> dict[str, Any]:
    """What of a config counts: neither Cycle Mix, nor how it is watched, nor what an argument replaces."""
    parsed = _parsed(stage.config)
    found = {f"{part}.{name}": v for part in ("model", "data") for name, v in parsed[part]["init_args"].items()}
    found["trainer.max_epochs"] = parsed["trainer"]["max_epochs"]
    replaced = {argument.removeprefix("--").partition("=")[0] for argument in stage.overrides}
    return {name: value for name, value in found.items() if name not in replaced and "cycle_" not in name}


def dataset(place: Place, kind: str) -> str:
    """Folder of the place's data set of a kind, drawn unless it is there."""
    if place.world == "demo":
        return str(ROOT / DEMO[kind])
    run = Run("", place.seed, "remixer.yaml", _nothing, data=DATA, data_overrides=(*SIMULATED[kind], *WORLD))
    CACHE.mkdir(exist_ok=True)
    return _simulate(run, str(CACHE))


def fit(
    stage: Stage,
    place: Place,
    data: str,
    measure: Callable[[Any, str, Run], dict[str, float]] | None = None,
    folder: Path | None = None,
) -> dict[str, float]:
    """Train a stage; returns what ``measure`` finds, and the metrics of the last epoch."""
    overrides = tuple(argument.replace("FOLDER", str(folder)) for argument in stage.overrides)
    options = {"fold": place.fold, "prepare": stage.prepare}
    return _train((Run(stage.kind, place.seed, stage.config, measure or _nothing, overrides, **options), data))[1]


def checkpoint(name: str, stages: Mapping[str, Stage], place: Place) -> tuple[str, dict[str, float]]:
    """Checkpoint of a stage after its last epoch, and its metrics; trained unless it is there.

    Stages may build on ``manifold``, which must be among them.
    """
    needed = {key: stages[key] for key in ("manifold", name)}
    folder = CACHE / f"{recipe(needed)}-{place.world}-{place.seed}-{place.fold}"
    file, numbers_file = folder / f"{name}.ckpt", folder / f"{name}.json"
    if not numbers_file.is_file():
        source = folder
        if "FOLDER" in str(stages[name].overrides):
            source = Path(checkpoint("manifold", stages, place)[0]).parent
        folder.mkdir(parents=True, exist_ok=True)

        def keep(cli: Any, data: str, run: Run) -> dict[str, float]:
            cli.trainer.save_checkpoint(file)
            return {}

        numbers = fit(stages[name], place, dataset(place, stages[name].kind), keep, source)
        numbers_file.write_text(json.dumps(numbers))
    return str(file), json.loads(numbers_file.read_text())


def make_chains(
    runs: Sequence[ChainRun], results: Results, measure: Callable[[Place, Sequence[str]], dict[str, dict[str, float]]]
) -> None:
    """Numbers of the arms that are not in the results yet, place by place.

    Args:
        runs: all that are wanted.
        results: where they are kept.
        measure: numbers by arm, of a place and the arms wanted.
    """
    missing = [run for run in runs if run.key not in results.rows]
    wanted = list(dict.fromkeys(run.place for run in missing))
    torch.set_num_threads(1)
    for done, place in enumerate(wanted, start=1):
        start = time.perf_counter()
        arms = {run.arm: run for run in missing if run.place == place}
        for arm, numbers in measure(place, list(arms)).items():
            results.add(arms[arm], numbers)
        print(f"{results.name} {done}/{len(wanted)} {place}: {time.perf_counter() - start:.0f} s", flush=True)


def _nothing(cli: Any, data: str, run: Run) -> dict[str, float]:
    return {}
