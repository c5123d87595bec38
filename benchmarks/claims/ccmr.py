"""Does CCMR keep the similarity of alike classes, and how does that move with alpha (Table 4)?"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from lightning_ss2a.losses import contrastive

from .figures import COLOURS, figure, line
from .measures import alignment_measures
from .runs import Results, Run
from .tables import markdown_table, mean_and_spread

FILE = "alignment"
ALPHAS = ("0", "0.25", "0.35", "0.5", "1", "2")
FOLDS = 5
SIDES = ("cross", "visual", "audio")
CONSTANT = ("0.35", "1")
"""Alphas that are also trained with a mask that is the same for all other pairs."""

MASK_ROWS = contrastive._Mask.rows
DATA, WORLD, DEMO = "sweeps/claims_data.yaml", "sweeps/claims_world.yaml", "sweeps/claims_manifold_demo.yaml"


def annotated_only(cli: Any, dataset: str, run: Run) -> None:
    """Train on the demo's annotated pairs: noise is another claim's matter."""
    origin = cli.datamodule.training_columns(["pair_origin"])["pair_origin"].numpy()
    cli.datamodule.select_training_rows(np.flatnonzero(origin == 0))


def constant_mask(cli: Any, dataset: str, run: Run) -> None:
    """Give all other pairs of a batch the mean of their mask: as weak a contrast, but blind to who is alike."""

    def rows(mask: Any, start: int, stop: int) -> torch.Tensor:
        values = MASK_ROWS(mask, start, stop)
        matching = torch.eye(len(mask.visual), values.shape[1], dtype=torch.bool)[start:stop]
        return torch.where(matching, 1.0, values[~matching].mean())

    contrastive._Mask.rows = rows


def measure_and_restore(cli: Any, dataset: str, run: Run) -> dict[str, float]:
    """The usual numbers; the process that made this run makes others after it."""
    contrastive._Mask.rows = MASK_ROWS
    return alignment_measures(cli, dataset, run)


def constant_runs(seeds: int) -> list[Run]:
    """Other pairs all weakened alike, in the simulated world."""
    made = []
    for alpha in CONSTANT:
        options = {"overrides": (f"--model.ccmr_alpha={alpha}", "--model.ccmr_mask_diagonal=false"), "data": DATA}
        for seed in range(seeds):
            made.append(Run(f"{alpha} constant", seed, WORLD, measure_and_restore, prepare=constant_mask, **options))
    return made


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
            made += [Run(arm, seed, DEMO, fold=f, prepare=annotated_only, **options) for f in range(FOLDS)]
    return made


def arms() -> list[str]:
    """Every alpha, with the matching pairs masked and not; without a mask the two are one."""
    return [*ALPHAS, *(f"{alpha} masked" for alpha in ALPHAS if alpha != "0")]


def runs(seeds: int) -> list[Run]:
    """All alphas in both worlds, and the constant masks."""
    return [*alignment_runs(arms(), seeds), *constant_runs(seeds)]


METRICS = {"recall@1/visual_to_audio": "recall@1", "ssms": "SSMS", "reconstruction_cosine": "reconstruction cosine"}
SHOWN = {
    "simulated": {f"rank/{tree}/{side}": f"{tree}, {side}" for tree in ("sounds", "looks") for side in SIDES},
    "simulated metrics": {**METRICS, "modality_gap": "gap", "mask/other_pairs": "mean mask of other pairs"},
    "demo": {
        "recall@1/visual_to_audio": "recall@1",
        "recall@5/visual_to_audio": "recall@5",
        "ssms": "SSMS",
        "reconstruction_cosine": "reconstruction cosine",
        "modality_gap": "gap",
        "mask/other_pairs": "mean mask of other pairs",
    },
}
CHANGES = {f"rank/{tree}/cross": f"{tree}, change from 0" for tree in ("sounds", "looks")}


def report(seeds: int) -> dict[str, str]:
    """Tables; draws the figure."""
    results, made = Results(FILE), runs(seeds)

    def values(world: str, arm: str, name: str) -> list[float]:
        return results.values([run for run in made if (run.world, run.arm) == (world, arm)], name)

    def changes(arm: str, name: str) -> list[float]:
        pairs = zip(values("simulated", arm, name), values("simulated", "0", name), strict=False)
        return [with_mask - without for with_mask, without in pairs]

    blocks = {}
    for block, columns in SHOWN.items():
        world, rows = block.split()[0], []
        for arm in [*arms(), *(f"{alpha} constant" for alpha in CONSTANT)]:
            alpha, _, mask = arm.partition(" ")
            cells = [mean_and_spread(values(world, arm, name), 2 if name == "ssms" else 3) for name in columns]
            if any(cells):
                label = {"": "off" if alpha == "0" else "others", "masked": "all", "constant": "others, constant"}[mask]
                rows.append(
                    [alpha, label, *cells, *(_change(changes, arm, name) for name in CHANGES if block == "simulated")]
                )
        header = ["alpha", "masked pairs", *columns.values()]
        if world == "simulated":
            name = {"simulated": "raw embeddings", "simulated metrics": "ridge regression"}[block]
            rows.append([name, "", *(_baseline(results, made, column) for column in columns)])
        if block == "simulated":
            rows[-1] += [""] * len(CHANGES)
            header += CHANGES.values()
        blocks[f"ccmr {block}"] = markdown_table(header, rows)
    _draw(values, changes)
    return blocks


def _change(changes: Callable[[str, str], list[float]], arm: str, name: str) -> str:
    return "" if arm == "0" else mean_and_spread(changes(arm, name))


def _baseline(results: Results, made: Sequence[Run], column: str) -> str:
    """Of the simulated world: raw embeddings' rank correlations, ridge regression's metrics."""
    world = [run for run in made if run.world == "simulated" and run.arm == ALPHAS[0]]
    _, tree, side = column.split("/") if column.startswith("rank/") else ("", "", "")
    name = f"rank/{tree}/raw_{side}" if tree else f"{column}_baseline/ridge"
    return mean_and_spread(results.values(world, name), 2 if column == "ssms" else 3)


def _draw(values: Callable[[str, str, str], list[float]], changes: Callable[[str, str], list[float]]) -> None:
    arms = (("", "blue", "matching pairs not masked"), (" masked", "orange", "matching pairs masked (Eq. 7)"))
    places = [float(alpha) for alpha in ALPHAS]
    with figure("ccmr", 3, width=10.5) as axes:
        for suffix, colour, label in arms:
            named = [alpha + (suffix if alpha != "0" else "") for alpha in ALPHAS]
            options = {"color": COLOURS[colour], "label": label}
            line(axes[0], places, [changes(arm, "rank/sounds/cross") for arm in named], **options)
            line(axes[1], places, [values("simulated", arm, "recall@1/visual_to_audio") for arm in named], **options)
            for world, dashes in (("simulated", "-"), ("demo", "--")):
                samples = [values(world, arm, "modality_gap") for arm in named]
                line(axes[2], places, samples, linestyle=dashes, **options)
        axes[0].set_title("rank correlation with the tree of sounds,\nchange from alpha 0 (simulated, cross-modal)")
        axes[0].axhline(0, color=COLOURS["grey"], linewidth=0.8)
        axes[1].set_title("recall@1\n(simulated)")
        axes[2].set_title("modality gap\n(simulated; dashed: demo)")
        axes[1].legend(frameon=False, fontsize=8, loc="center right", bbox_to_anchor=(1, 0.3))
        for axis in axes:
            axis.set_xlabel("alpha")
