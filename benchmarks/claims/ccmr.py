"""Does CCMR keep the similarity of alike classes, and how does that move with alpha (Table 4)?"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .figures import COLOURS, figure, line
from .measures import alignment_measures
from .runs import Results, Run
from .tables import markdown_table, mean_and_spread

FILE = "alignment"
ALPHAS = ("0", "0.25", "0.35", "0.5", "1", "2")
DEMO_ALPHAS = ("0", "0.35", "1", "2")
FOLDS = 5
DATA, WORLD, DEMO = "sweeps/claims_data.yaml", "sweeps/claims_world.yaml", "manifold.yaml"


def annotated_only(cli: Any, dataset: str, run: Run) -> None:
    """Train on the demo's annotated pairs: noise is another claim's matter."""
    origin = cli.datamodule.training_columns(["origin"])["origin"].numpy()
    cli.datamodule.select_training_rows(np.flatnonzero(origin == 0))


def alignment_runs(arms: Sequence[str], seeds: int) -> list[Run]:
    """Runs in both worlds; an arm is an alpha, ``ALPHA masked`` or ``untrained``."""
    made = []
    for arm in arms:
        trained = arm != "untrained"
        alpha, _, masked = arm.partition(" ")
        overrides = (f"--model.ccmr_alpha={alpha}", f"--model.ccmr_mask_diagonal={str(bool(masked)).lower()}")
        for seed in range(seeds):
            options = {"measure": alignment_measures, "overrides": overrides if trained else (), "trained": trained}
            made.append(Run(arm, seed, WORLD, data=DATA, **options))
            if alpha in (*DEMO_ALPHAS, "untrained"):
                made += [Run(arm, seed, DEMO, fold=f, prepare=annotated_only, **options) for f in range(FOLDS)]
    return made


def arms() -> list[str]:
    """Every alpha, with the matching pairs masked and not; without a mask the two are one."""
    return [*ALPHAS, *(f"{alpha} masked" for alpha in ALPHAS if alpha != "0")]


def runs(seeds: int) -> list[Run]:
    """All alphas in both worlds."""
    return alignment_runs(arms(), seeds)


SHOWN = {
    "simulated": {
        "rank/sounds/cross": "sounds, cross-modal",
        "rank/sounds/visual": "sounds, visual",
        "rank/sounds/audio": "sounds, audio",
        "rank/looks/cross": "looks, cross-modal",
        "rank/looks/visual": "looks, visual",
        "rank/looks/audio": "looks, audio",
    },
    "simulated metrics": {
        "recall@1/visual_to_audio": "recall@1",
        "ssms": "SSMS",
        "reconstruction_cosine": "reconstruction cosine",
        "modality_gap": "gap",
    },
    "demo": {
        "recall@1/visual_to_audio": "recall@1",
        "recall@5/visual_to_audio": "recall@5",
        "ssms": "SSMS",
        "reconstruction_cosine": "reconstruction cosine",
        "modality_gap": "gap",
    },
}


def report(seeds: int) -> dict[str, str]:
    """Tables; draws the figure."""
    results, made = Results(FILE), runs(seeds)

    def values(world: str, arm: str, name: str) -> list[float]:
        return results.values([run for run in made if (run.world, run.arm) == (world, arm)], name)

    blocks = {}
    for block, columns in SHOWN.items():
        world = block.split()[0]
        rows = []
        for arm in arms():
            alpha, _, masked = arm.partition(" ")
            if world == "demo" and alpha not in DEMO_ALPHAS:
                continue
            digits = [2 if name == "ssms" else 3 for name in columns]
            cells = [mean_and_spread(values(world, arm, name), d) for name, d in zip(columns, digits, strict=True)]
            rows.append([alpha, "yes" if masked else "no" if alpha != "0" else "", *cells])
        if world == "simulated":
            name = {"simulated": "raw embeddings", "simulated metrics": "ridge regression"}[block]
            rows.append([name, "", *(mean_and_spread(_floor(results, made, column)) for column in columns)])
        blocks[f"ccmr {block}"] = markdown_table(["alpha", "matching pairs masked", *columns.values()], rows)
    places = [float(alpha) for alpha in ALPHAS]
    with figure("ccmr", 3, width=10.5) as axes:
        simulated = [("simulated", name) for name in ("rank/sounds/cross", "recall@1/visual_to_audio")]
        panels = [*simulated, ("demo", "modality_gap")]
        titles = ["simulated: rank correlation\nwith the tree of sounds", "simulated: recall@1", "demo: modality gap"]
        for axis, (world, name), title in zip(axes, panels, titles, strict=True):
            for suffix, colour, label in (("", "blue", "not masked"), (" masked", "orange", "matching pairs masked")):
                samples = [values(world, alpha + (suffix if alpha != "0" else ""), name) for alpha in ALPHAS]
                line(axis, places, samples, color=COLOURS[colour], label=label)
            axis.set_title(title)
            axis.set_xlabel("alpha")
        axes[0].legend(frameon=False)
    return blocks


def _floor(results: Results, made: Sequence[Run], column: str) -> list[float]:
    """Of the simulated world: raw embeddings' rank correlations, ridge regression's metrics."""
    world = [run for run in made if run.world == "simulated" and run.arm == ALPHAS[0]]
    if not column.startswith("rank/"):
        return results.values(world, f"{column}_floor/ridge")
    _, tree, side = column.split("/")
    return results.values(world, f"rank/{tree}/raw_{side}")
