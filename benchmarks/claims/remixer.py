"""Does the Remixer beat V2A-Mapper, above all where several things sound (Tables 1 and 2), and what does it add?"""

from collections.abc import Callable

from .figures import COLOURS, figure, legend_beside, line
from .runs import Results, Run
from .scenes import MAPPER, REMIXER, baseline_measures, mapper_measures, remixer_measures, scene_runs
from .tables import markdown_table, mean_and_spread

FILE = "remixer"
WORLDS = ("simulated", "demo")
BASE = "remixer"
"""The arm that the other claims about the Remixer compare with: one layer, both conditions, the paper's KL weight."""

LONG = ("--trainer.max_epochs=72",)
"""Three times as long, in the simulated world."""

LONG_SEEDS = 1

MAPPERS = {
    "diffusion": {"simulated": ("--model.flavour=diffusion",), "demo": ("--model.flavour=diffusion",)},
    "regression": {
        "simulated": ("--model.flavour=regression",),
        "demo": ("--model.flavour=regression", "--model.learning_rate=3e-3"),
    },
}
"""Arguments of ``lightning fit`` by flavour and world."""

DEMO_SEEDS = 1


def base_runs(seeds: int) -> list[Run]:
    """The Remixer of the paper, beside all baselines."""
    return scene_runs(BASE, REMIXER, baseline_measures, (), seeds, DEMO_SEEDS)


def runs(seeds: int) -> list[Run]:
    """Remixer and both mappers, and two of them trained longer in the simulated world."""
    made = base_runs(seeds)
    for flavour, overrides in MAPPERS.items():
        made += scene_runs(flavour, MAPPER, mapper_measures, overrides, seeds, DEMO_SEEDS, builds_on_manifold=False)
    few = min(seeds, LONG_SEEDS)
    made += scene_runs("remixer long", REMIXER, remixer_measures, {"simulated": LONG}, few)
    long = {"simulated": (*MAPPERS["regression"]["simulated"], *LONG)}
    return made + scene_runs("regression long", MAPPER, mapper_measures, long, few, builds_on_manifold=False)


SHOWN = {
    (BASE, "mean"): "Remixer, its mean",
    (BASE, "draw"): "Remixer, one draw",
    ("diffusion", "draw"): "V2A-Mapper, diffusion, one sample",
    ("diffusion", "mean"): "V2A-Mapper, diffusion, mean of 16 samples",
    ("regression", "mean"): "V2A-Mapper, regression",
    (BASE, "source_mean"): "mean of χ(e) of the sources",
    (BASE, "global"): "χ of the global embedding",
    (BASE, "ridge"): "ridge regression",
    (BASE, "ridge_held_out"): "ridge regression, penalty chosen on left-out folds",
    (BASE, "mean_audio"): "mean audio",
    (BASE, "chance"): "chance",
    (BASE, "best_classes"): "best guess: classes known",
    (BASE, "best_gains"): "best guess: classes and gains known",
    ("remixer long", "mean"): "Remixer, its mean, 3 times the steps",
    ("regression long", "mean"): "V2A-Mapper, regression, 3 times the steps",
}
"""Rows of the tables, by arm and prediction; those that a world does not have are left out."""

METRICS = {"ssms": ("SSMS", 2), "cosine": ("cosine", 3)}
GROUPS = {"single": "one source", "several": "two or more"}

Values = Callable[[str, str, str], list[float]]
"""A number of the runs of a world and an arm."""


def values_of(results: Results, made: list[Run]) -> Values:
    """Look-up of numbers."""

    def values(world: str, arm: str, name: str) -> list[float]:
        return results.values([run for run in made if (run.world, run.arm) == (world, arm)], name)

    return values


def score_cells(values: Values, world: str, arm: str, prediction: str) -> list[str]:
    """SSMS, then cosine, of scenes of one source and of several."""
    return [
        mean_and_spread(values(world, arm, f"{prediction}/{metric}/{group}"), digits)
        for metric, (_, digits) in METRICS.items()
        for group in GROUPS
    ]


SCORE_HEADER = [f"{title}, {label}" for title, _ in METRICS.values() for label in GROUPS.values()]


def report(seeds: int) -> dict[str, str]:
    """A table a world; draws the figure."""
    made = runs(seeds)
    values, blocks = values_of(Results(FILE), made), {}
    for world in WORLDS:
        rows = [[label, *score_cells(values, world, *key)] for key, label in SHOWN.items()]
        blocks[f"remixer {world}"] = markdown_table(["", *SCORE_HEADER], [row for row in rows if any(row[1:])])
    _draw(values)
    return blocks


LINES = {
    (BASE, "best_gains"): ("classes and gains known", "grey", ":"),
    (BASE, "mean"): ("Remixer", "blue", "-"),
    (BASE, "source_mean"): ("mean of χ(e)", "green", "-"),
    ("regression", "mean"): ("V2A-Mapper, regression", "orange", "-"),
    ("diffusion", "mean"): ("V2A-Mapper, diffusion (mean of 16)", "red", "-"),
    (BASE, "mean_audio"): ("mean audio", "grey", "--"),
}


def _draw(values: Values) -> None:
    with figure("remixer", 2, width=10.5) as axes:
        for axis, world, most in zip(axes, WORLDS, (6, 4), strict=True):
            counts = range(1, most + 1)
            for at, ((arm, prediction), (label, colour, dashes)) in enumerate(LINES.items()):
                samples = [values(world, arm, f"{prediction}/ssms/{count}") for count in counts]
                places = [count + 0.04 * (at - 2.5) for count in counts]
                line(axis, places, samples, color=COLOURS[colour], linestyle=dashes, label=label)
            axis.set_title(f"SSMS, {world}")
            axis.set_xlabel("sources in the scene")
            axis.set_xticks(list(counts))
        legend_beside(axes[-1], axes[0])
