"""Does Cycle Mix lift scenes of several sources, and what does it cost those of one (Table 8)?"""

import itertools
from typing import Any

import torch

from .figures import COLOURS, figure, legend_beside, line
from .remixer import GROUPS, SCORE_HEADER, WORLDS, Values, score_cells, values_of
from .runs import Results, Run
from .scenes import REMIXER, remixer_predictions, scene_runs, score_scenes
from .tables import markdown_table, mean_and_spread

FILE = "cycle_mix"
WEIGHTS = ("5e-5", "3e-4", "1e-3", "3e-3")
"""KL weights; the first is the published one."""

LARGEST = WEIGHTS[-1]
"""Only in the simulated world: on the demo, whose embeddings are wider, such draws are nothing but noise."""

WHOLE_GRID = "1e-3"
"""The KL weight at which all numbers of iterations and samples are combined; else both are equal."""

UNIT = "1e-3, unit mean"
COUNTS = {"simulated": (1, 4, 16, 64, 128), "demo": (1, 4, 16, 64)}
"""Iterations, and samples."""

OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "min": ("64 x 64, score of the worst source", {"score": "min"}),
    "published": (
        "65 x 64, as published: std, replace",
        {"score": "std", "feedback": "replace", "var_samples": 64, "feedback_samples": 64, "cycle_iterations": 65},
    ),
}
"""Other rules than Algorithm 1's: label and arguments of ``cycle_mix``."""

DEMO_SEEDS = 1


def grid_measures(cli: Any, dataset: str, run: Run) -> dict[str, float]:
    """Scores by iterations and samples (``TxN``), and the mean of what Cycle Mix maximises (``merit/TxN``)."""
    from lightning_ss2a.models import cycle_mix
    from lightning_ss2a.models.source_slots import mean_of_sources

    model, merits = cli.model, {}
    model.manifold.eval()

    def predict(batch: Any, targets: Any) -> dict[str, torch.Tensor]:
        slots = model.slots(batch)
        sources = mean_of_sources(slots, model.manifold)
        found = remixer_predictions(model, batch) | {"source_mean": sources}
        merits.setdefault("source_mean", []).append(sources.norm(dim=1))

        def mix(name: str, **options: Any) -> None:
            settings = {"cycle_iterations": 64, "cycle_samples": 64, "slot_weights": slots.weight} | options
            result = cycle_mix(model.remixer, model.manifold, *slots.tokens(), batch["key"], **settings)
            found[name] = result.embedding
            merits.setdefault(name, []).append(result.score)

        counts = COUNTS[run.world]
        grid = (
            list(itertools.product(counts, counts)) if run.arm == WHOLE_GRID else [(1, 64), *((n, n) for n in counts)]
        )
        for iterations, samples in grid:
            mix(f"{iterations}x{samples}", cycle_iterations=iterations, cycle_samples=samples)
        for name, (_, options) in OPTIONS.items():
            mix(name, **options)
        mix("merit_of_mean", cycle_iterations=1, cycle_samples=1, noise_scale=0.0)
        return found

    numbers = score_scenes(cli, predict)
    return numbers | {f"merit/{name}": float(torch.cat(parts).mean()) for name, parts in merits.items()}


def runs(seeds: int) -> list[Run]:
    """A Remixer for each KL weight and, in the simulated world, one whose mean has unit norm (one seed)."""
    made = []
    for weight in WEIGHTS:
        worlds = WORLDS if weight != LARGEST else ("simulated",)
        overrides = dict.fromkeys(worlds, (f"--model.kl_weight={weight}",))
        made += scene_runs(weight, REMIXER, grid_measures, overrides, seeds, DEMO_SEEDS)
    unit = {"simulated": ("--model.kl_weight=1e-3", "--model.unit_mean=true")}
    return made + scene_runs(UNIT, REMIXER, grid_measures, unit, min(seeds, 1))


ROWS = {
    "mean": "its mean",
    "draw": "one draw (1 x 1)",
    "64x64": "Cycle Mix 64 x 64",
    "128x128": "128 x 128",
    "1x64": "best of 64 draws, no feedback (1 x 64)",
    **{name: label for name, (label, _) in OPTIONS.items()},
}
"""Rows for each KL weight; those that a world does not have are left out."""


def report(seeds: int) -> dict[str, str]:
    """By world a table of KL weights, and for one weight the whole grid; draws the figure."""
    values, blocks = values_of(Results(FILE), runs(seeds)), {}
    for world in WORLDS:
        rows = []
        for arm in (*WEIGHTS, UNIT):
            for name, label in ROWS.items():
                merit = "merit_of_mean" if name == "mean" else "1x1" if name == "draw" else name
                shown = [] if name == "published" else values(world, arm, f"merit/{merit}")
                cells = score_cells(values, world, arm, name)
                if any(cells):
                    alike = mean_and_spread(values(world, arm, "draw_cosine")) if name == "draw" else ""
                    rows.append([arm, label, *cells, mean_and_spread(shown), alike])
        sources = score_cells(values, world, WEIGHTS[0], "source_mean")
        rows.append(["", "mean of χ(e)", *sources, mean_and_spread(values(world, WEIGHTS[0], "merit/source_mean")), ""])
        header = ["KL weight", "", *SCORE_HEADER, "cosine to χ(e)", "cosine of two draws"]
        blocks[f"cycle_mix {world}"] = markdown_table(header, rows)
        blocks[f"cycle_mix {world} grid"] = _grid(values, world, WHOLE_GRID)
    blocks["cycle_mix changes"] = _change_table(values)
    blocks["cycle_mix feedback"] = _feedback_table(values)
    _draw(values)
    return blocks


def _change_table(values: Values) -> str:
    """SSMS of 64 x 64 against one draw and against the Remixer's mean."""
    rows = []
    for world in WORLDS:
        for arm in (*WEIGHTS, UNIT):
            others = [(other, group) for other in ("draw", "mean") for group in GROUPS]
            cells = [mean_and_spread(_changes(values, world, arm, "64x64", *pair), 2) for pair in others]
            rows += [[world, arm, *cells]] if any(cells) else []
    names = {"draw": "against one draw", "mean": "against its mean"}
    header = [f"{label}, {name}" for name in names.values() for label in GROUPS.values()]
    return markdown_table(["", "KL weight", *header], rows)


def _feedback_table(values: Values) -> str:
    """64 draws, in one iteration or in several that condition each other."""
    splits = ("1x64", "4x16", "16x4", "64x1")
    rows = []
    for world in WORLDS:
        for name, label, digits in (("merit/{}", "cosine to χ(e)", 4), ("{}/cosine/several", "cosine, two or more", 4)):
            samples = [values(world, WHOLE_GRID, name.format(split)) for split in splits]
            rows.append([world, label, *(mean_and_spread(sample, digits) for sample in samples)])
    return markdown_table(["", "", *(split.replace("x", " x ") for split in splits)], rows)


def _changes(values: Values, world: str, arm: str, name: str, other: str, group: str) -> list[float]:
    pairs = zip(values(world, arm, f"{name}/ssms/{group}"), values(world, arm, f"{other}/ssms/{group}"), strict=False)
    return [mixed - baseline for mixed, baseline in pairs]


def _grid(values: Values, world: str, arm: str) -> str:
    """SSMS minus that of one draw, iterations down, samples across, for both groups."""
    counts, rows = COUNTS[world], []
    for group, label in GROUPS.items():
        for iterations in counts:
            names = [f"{iterations}x{samples}" for samples in counts]
            cells = [mean_and_spread(_changes(values, world, arm, name, "draw", group), 2) for name in names]
            rows.append([label, str(iterations), *cells])
    return markdown_table(["scenes", "iterations", *(f"{n} sample" + "s" * (n > 1) for n in counts)], rows)


def _draw(values: Values) -> None:
    colours = dict(zip((*WEIGHTS, UNIT), ("grey", "green", "blue", "orange", "red"), strict=True))
    with figure("cycle_mix", 4, width=13) as axes:
        places = [(world, group) for world in WORLDS for group in ("several", "single")]
        for axis, (world, group) in zip(axes, places, strict=True):
            counts = COUNTS[world]
            at = list(range(1, len(counts) + 1))
            for shift, (arm, colour) in enumerate(colours.items()):
                if not values(world, arm, "draw/ssms/all"):
                    continue
                note = " (one seed)" if arm == UNIT else ""
                drawn = {"color": COLOURS[colour], "label": f"KL weight {arm}{note}"}
                samples = [values(world, arm, f"{n}x{n}/ssms/{group}") for n in counts]
                line(axis, [place + 0.06 * (shift - 2) for place in at], samples, **drawn)
                mean = values(world, arm, f"mean/ssms/{group}")
                line(axis, [0.06 * (shift - 2)], [mean], color=COLOURS[colour], linestyle="")
            baseline = values(world, WEIGHTS[0], f"source_mean/ssms/{group}")
            if baseline:
                line_at = {"color": "black", "linestyle": "--", "linewidth": 0.8, "label": "mean of χ(e)"}
                axis.axhline(sum(baseline) / len(baseline), **line_at)
            axis.set_xticks([0, *at], ["mean", *(str(count) for count in counts)])
            axis.set_title(f"SSMS, {world}, {GROUPS[group]}")
            axis.set_xlabel("iterations = samples")
        legend_beside(axes[-1], axes[0])
