"""Does a nonlinear Temporal Aggregation beat a linear one and the mean over frames (Table 12, section 8.1)?"""

import csv
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from .chain import (
    BASE,
    CACHE,
    DEMO,
    NO_FOLD,
    WORLDS,
    ChainRun,
    Place,
    Stage,
    checkpoint,
    dataset,
    fit,
    make_chains,
    recipe,
    varied,
)
from .chain import places as all_places
from .figures import COLOURS, figure
from .runs import ROOT, Results, Run
from .tables import markdown_table, mean_and_spread
from .video_rows import DECAY, TARGETS, mixed_audio, oracle_frames, rewrite, source_weights, sources_of

FILE = "temporal"
QUARTERS = 4
SIZES = ("--model.width=64", "--model.head_widths=[128]", "--model.dropout=0.1", "--model.learning_rate=4e-3")
AGGREGATION = {
    "simulated": Stage(
        "temporal_aggregation.yaml",
        "videos",
        (NO_FOLD, *SIZES, "--data.batch_size=128", "--trainer.max_epochs=25", "--model.warmup_steps=30"),
    ),
    "demo": Stage("temporal_aggregation.yaml", "videos"),
}
METHODS = {
    "nothing": "mean training audio, whatever is seen",
    "mean": "mean over frames",
    "ridge": "ridge regression on the mean frame",
    "quarters": "ridge regression on the mean frame of each quarter",
    "linear": "linear aggregation",
    "attention": "Temporal Aggregation",
    "shuffled": "the same, measured with shuffled timestamps",
    "no positions": "Temporal Aggregation trained without positions",
    "oracle mean": "oracle frames: mean",
    "oracle linear": "oracle frames: linear aggregation",
    "oracle attention": "oracle frames: Temporal Aggregation",
}
ORACLE = ("whole", "first")
"""Targets that are also aggregated from oracle frames."""

TITLES = {"whole": "whole video", "decaying": "decaying", "first": "first source only"}


def arms(world: str) -> list[str]:
    """TARGET METHOD; of the demo no quarters (they are wider than its rows are many) and no oracle."""
    if world == "simulated":
        arms = [(target, method) for target in TARGETS for method in METHODS]
        return [f"{target} {method}" for target, method in arms if target in ORACLE or "oracle" not in method]
    return [f"whole {method}" for method in METHODS if method != "quarters" and "oracle" not in method]


def runs(seeds: int) -> list[ChainRun]:
    """Every arm at every place."""
    hashes = {world: recipe(BASE[world] | {"temporal": AGGREGATION[world]}, DECAY, QUARTERS) for world in WORLDS}
    return [ChainRun(p, arm, hashes[p.world]) for p in all_places(seeds) for arm in arms(p.world)]


def make(wanted: Sequence[ChainRun], results: Results, processes: int = 1) -> None:
    """Make the runs, in this process."""
    make_chains(wanted, results, measure)


# ---------------------------------------------------------------- one place


def measure(place: Place, wanted: Sequence[str]) -> dict[str, dict[str, float]]:
    """Numbers by arm, of all arms of a place."""
    from lightning_ss2a.generation import generate_frames

    remixer, _ = checkpoint("remixer", BASE[place.world], place)
    videos = dataset(place, "videos")
    CACHE.mkdir(exist_ok=True)
    found = {}
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        frames = f"{folder}/frames"
        generate_frames(videos, frames, remixer, device="cpu", progress=False)
        if place.world == "demo":
            found = _methods(place, frames, demo_counts, "whole")
        else:
            others = _targets(videos, place.seed)
            for target in TARGETS:
                data, oracle = f"{folder}/{target}", f"{folder}/{target}-oracle"
                rewrite(frames, data, {split: {"audio": columns[target]} for split, columns in others.items()})
                found |= _methods(place, data, lambda _: others["validation"]["counts"], target)
                with_frames = {s: {"audio": c[target], "frames": c["frames"]} for s, c in others.items()}
                if target in ORACLE:
                    rewrite(frames, oracle, with_frames)
                    found |= _methods(place, oracle, lambda _: others["validation"]["counts"], target, oracle=True)
    return {arm: found[arm] for arm in wanted}


def _targets(videos: str, seed: int) -> dict[str, dict[str, np.ndarray]]:
    """By split: audio of each target, oracle ``frames``, ``counts`` of sources."""
    from lightning_ss2a.data.loading.dataset import ShardDataset
    from lightning_ss2a.data.simulation.truth import read_truth, read_world

    found, world = {}, read_world(videos)
    for split in ("train", "validation"):
        sources, truth = sources_of(videos, split), read_truth(videos, split)
        times = truth["starts"], truth["stops"]
        rows = ShardDataset(videos, split).columns()
        found[split] = {
            "frames": oracle_frames(sources, *times, rows["timestamps"].numpy(), world.audio.cone),
            "counts": sources.filled.sum(1),
            "whole": rows["audio"].numpy(),
        }
        for number, target in enumerate(TARGETS[1:]):
            weights = source_weights(target, sources.gains, *times, world.spec.video_seconds)
            noise_seed = [seed, number, len(weights)]
            found[split][target] = mixed_audio(weights, sources.audio, world.spec.mixture_noise, noise_seed)
    return found


def demo_counts(keys: Sequence[str]) -> np.ndarray:
    """Number of sources of the demo's videos."""
    with open(ROOT / DEMO["videos"] / "compositions.csv", newline="") as opened:
        counts = Counter(row["key"] for row in csv.DictReader(opened))
    return np.array([counts[key] for key in keys])


def _methods(
    place: Place, data: str, counts_of: Callable[[Sequence[str]], np.ndarray], target: str, oracle: bool = False
) -> dict[str, dict[str, float]]:
    """Numbers of every method on one data set of generated frames, by arm."""
    stage, found = AGGREGATION[place.world], {}
    trainings = {
        "linear": varied(stage, "--model.aggregator=linear"),
        "attention": stage,
        "no positions": varied(stage, prepare=without_positions),
    }
    if oracle:
        del trainings["no positions"]

    def keep(name: str) -> Callable[[Any, str, Run], dict[str, float]]:
        def measured(cli: Any, dataset: str, run: Run) -> dict[str, float]:
            [batch] = list(cli.datamodule.val_dataloader())
            predictions = {name: cli.model.predict_audio(batch)}
            if name == "attention":
                predictions |= {"shuffled": cli.model.predict_audio(batch | {"timestamps": shuffled(batch)})}
                training = cli.datamodule.training_rows_loader()
                predictions |= closed_form(cli.model, batch, list(training) if place.world != "demo" else None)
            counts = counts_of(batch["key"])
            for method, predicted in predictions.items():
                found[method] = numbers_of(predicted, batch["audio"], counts, cli.model)
            return {}

        return torch.no_grad()(measured)

    for name, training in trainings.items():
        fit(training, place, data, keep(name))
    prefix = f"{target} oracle " if oracle else f"{target} "
    return {prefix + method: numbers for method, numbers in found.items()}


def without_positions(cli: Any, data: str, run: Run) -> None:
    """Leave out the encoding of time, in training and after."""
    from lightning_ss2a.models.layers.embeddings import unit_variance

    aggregator = cli.model.aggregator
    aggregator.encode = lambda frames, timestamps: aggregator.input(unit_variance(frames))


def shuffled(batch: dict[str, Any]) -> Tensor:
    """Timestamps of each video in another order."""
    times = batch["timestamps"]
    order = torch.rand(times.shape, generator=torch.Generator().manual_seed(0)).argsort(1)
    return times.gather(1, order)


def closed_form(model: Any, batch: dict[str, Any], training: list[dict[str, Any]] | None) -> dict[str, Tensor]:
    """What needs no gradient: mean audio, mean frame, ridge on it and, given training rows, ridge on quarters."""
    from lightning_ss2a.models import mean_over_frames
    from lightning_ss2a.models.ridge import RidgeRegression
    from lightning_ss2a.training.validation.targets import targets_of

    statistics = model.statistics
    found = {
        "nothing": statistics.mean_audio.expand_as(batch["audio"]),
        "mean": mean_over_frames(batch["frames"]),
        "ridge": statistics.predict_audio(targets_of(batch).features),
    }
    if training is not None:
        ridge = RidgeRegression(QUARTERS * batch["frames"].shape[-1], batch["audio"].shape[-1])
        for rows in training:
            ridge.update(quarters(rows["frames"]), normalize(rows["audio"], dim=-1))
        found["quarters"] = ridge.fit()(quarters(batch["frames"]))
    return found


def quarters(frames: Tensor) -> Tensor:
    """Mean unit frame of each quarter of a video side by side, [B, T, A] -> [B, 4 A]; frames in order of time."""
    return normalize(frames, dim=-1).unflatten(1, (QUARTERS, -1)).mean(2).flatten(1)


def numbers_of(predicted: Tensor, audio: Tensor, counts: np.ndarray, model: Any) -> dict[str, float]:
    """Cosine and SSMS of predictions, over all rows and by number of sources."""
    from lightning_ss2a.metrics.functional import sound_source_matching_score

    direction, head = normalize(predicted.float(), dim=-1), model._label_head
    scores = head.scores(direction * model.statistics.audio_norm), head.scores(audio)
    measured = {
        "cosine": torch.cosine_similarity(direction, audio),
        "ssms": sound_source_matching_score(*scores, top_n=model.hparams.top_n, reduction="none"),
    }
    numbers = {}
    for name, values in measured.items():
        numbers[name] = float(values.mean())
        for count in sorted(set(counts.tolist())):
            numbers[f"{name}/{count}"] = float(values[torch.from_numpy(counts == count)].mean())
    return numbers


# ---------------------------------------------------------------- tables and figure

METRICS = {"cosine": 3, "ssms": 2}
PAIRS = (
    ("attention", "mean"),
    ("attention", "ridge"),
    ("attention", "linear"),
    ("attention", "shuffled"),
    ("attention", "no positions"),
    ("linear", "mean"),
    ("oracle attention", "oracle linear"),
)
COUNTS = {"simulated": range(1, 5), "demo": range(1, 4)}


def report(seeds: int) -> dict[str, str]:
    """Tables; draws the figure."""
    results, made = Results(FILE), runs(seeds)

    def values(world: str, arm: str, name: str) -> list[float]:
        return results.values([run for run in made if (run.place.world, run.arm) == (world, arm)], name)

    blocks = {}
    header = [f"{title}, {name}" for title in TITLES.values() for name in ("cosine", "SSMS")]
    rows = []
    for method, label in METHODS.items():
        names = [(f"{target} {method}", name, digits) for target in TARGETS for name, digits in METRICS.items()]
        rows.append([label, *(mean_and_spread(values("simulated", arm, name), digits) for arm, name, digits in names)])
    blocks["temporal simulated"] = markdown_table(["", *header], rows)
    rows = []
    for arm in arms("demo"):
        names = [*METRICS.items(), *((f"cosine/{count}", 3) for count in COUNTS["demo"])]
        cells = [mean_and_spread(values("demo", arm, name), digits) for name, digits in names]
        rows.append([METHODS[arm.partition(" ")[2]], *cells])
    counted = [f"cosine, {count} source{'s' * (count > 1)}" for count in COUNTS["demo"]]
    blocks["temporal demo"] = markdown_table(["", "cosine", "SSMS", *counted], rows)
    rows = []
    for method, label in METHODS.items():
        cells = [
            mean_and_spread(values("simulated", f"whole {method}", f"{name}/{count}"), digits)
            for name, digits in METRICS.items()
            for count in COUNTS["simulated"]
        ]
        rows.append([label, *cells])
    counted = [f"{name}, {count}" for name in ("cosine", "SSMS") for count in COUNTS["simulated"]]
    blocks["temporal sources"] = markdown_table(["sources:", *counted], rows)
    blocks["temporal paired"] = _paired(values)
    _draw(values)
    return blocks


def _differences(
    values: Callable[[str, str, str], list[float]], world: str, arms: Sequence[str], name: str
) -> list[float]:
    """Paired by place; nothing where one of the arms was not run."""
    first, second = (values(world, arm, name) for arm in arms)
    return [x - y for x, y in zip(first, second, strict=True)] if first and second else []


def _paired(values: Callable[[str, str, str], list[float]]) -> str:
    columns = [("simulated", target, f"{title}") for target, title in TITLES.items()] + [("demo", "whole", "demo")]
    rows = []
    for method, other in PAIRS:
        cells = []
        for world, target, _ in columns:
            for name, digits in METRICS.items():
                pair = [f"{target} {method}", f"{target} {other}"]
                cells.append(mean_and_spread(_differences(values, world, pair, name), digits))
        rows.append([f"{METHODS[method]} - {METHODS[other]}", *cells])
    header = [f"{title}, {name}" for _, _, title in columns for name in ("cosine", "SSMS")]
    return markdown_table(["", *header], rows)


def _draw(values: Callable[[str, str, str], list[float]]) -> None:
    panels = [("simulated", target, f"simulated: {title}") for target, title in TITLES.items()]
    panels.append(("demo", "whole", "demo: whole video"))
    shown = [method for method in METHODS if method not in ("nothing", "mean") and "oracle" not in method]
    labels = ["ridge, mean frame", "ridge, quarters", "linear", "TA", "TA, timestamps shuffled", "TA without positions"]
    with figure("temporal", 4, width=12.5, height=3.0) as axes:
        for axis, (world, target, title) in zip(axes, panels, strict=True):
            for place, method in enumerate(shown):
                sample = _differences(values, world, [f"{target} {method}", f"{target} mean"], "cosine")
                axis.plot(sample, [place] * len(sample), "o", color=COLOURS["grey"], markersize=4)
                if sample:
                    axis.plot([np.mean(sample)], [place], "|", color=COLOURS["blue"], markersize=14, markeredgewidth=3)
            axis.axvline(0, color=COLOURS["grey"], linewidth=0.8)
            axis.set_yticks(range(len(shown)), labels if axis is axes[0] else [""] * len(shown))
            axis.set_ylim(len(shown) - 0.5, -0.5)
            axis.set_title(title)
            axis.set_xlabel("cosine, from the mean over frames")
            axis.locator_params(axis="x", nbins=4)
