"""Do more attention layers help scenes of one source and hurt those of several (Table 10)?"""

from .figures import COLOURS, figure, legend_beside, line
from .remixer import BASE, FILE, GROUPS, METRICS, SCORE_HEADER, WORLDS, base_runs, score_cells, values_of
from .runs import Results, Run
from .scenes import REMIXER, remixer_measures, scene_runs
from .tables import markdown_table, mean_and_spread

__all__ = ["FILE", "report", "runs"]

LAYERS = (1, 2, 3, 4)
SLOW = "4 layers, slow"
"""The deepest Remixer again, at a third of the learning rate."""

DEMO_SEEDS = 1


def _arm(layers: int) -> str:
    return BASE if layers == 1 else f"{layers} layers"


def runs(seeds: int) -> list[Run]:
    """One to four layers; the deepest once more at a lower learning rate, in the simulated world."""
    made = base_runs(seeds)
    for layers in LAYERS[1:]:
        overrides = (f"--model.num_layers={layers}",)
        made += scene_runs(_arm(layers), REMIXER, remixer_measures, overrides, seeds, DEMO_SEEDS)
    slow = {"simulated": ("--model.num_layers=4", "--model.learning_rate=1.3e-3")}
    return made + scene_runs(SLOW, REMIXER, remixer_measures, slow, min(seeds, 1))


def report(seeds: int) -> dict[str, str]:
    """A table a world; draws the figure."""
    # The same seeds for all depths.
    made = [run for run in runs(seeds) if run.world == "simulated" or run.seed < DEMO_SEEDS]
    values, blocks = values_of(Results(FILE), made), {}

    def change(world: str, arm: str, group: str) -> str:
        name = f"mean/ssms/{group}"
        pairs = zip(values(world, arm, name), values(world, BASE, name), strict=False)
        return "" if arm == BASE else mean_and_spread([deep - shallow for deep, shallow in pairs], 2)

    arms = {_arm(layers): str(layers) for layers in LAYERS} | {SLOW: "4, a third of the learning rate"}
    for world in WORLDS:
        rows = [
            [label, *score_cells(values, world, arm, "mean"), *(change(world, arm, group) for group in GROUPS)]
            for arm, label in arms.items()
        ]
        header = ["layers", *SCORE_HEADER, *(f"SSMS, {label}, change from 1 layer" for label in GROUPS.values())]
        blocks[f"remixer_depth {world}"] = markdown_table(header, [row for row in rows if any(row[1:])])
    with figure("remixer_depth", len(METRICS), width=10.5) as axes:
        for axis, (metric, (title, _)) in zip(axes, METRICS.items(), strict=True):
            for world, colour in zip(WORLDS, ("blue", "orange"), strict=True):
                for group, dashes in zip(GROUPS, ("--", "-"), strict=True):
                    samples = [values(world, _arm(layers), f"mean/{metric}/{group}") for layers in LAYERS]
                    label = f"{world}, {GROUPS[group]}"
                    line(axis, LAYERS, samples, color=COLOURS[colour], linestyle=dashes, label=label)
            axis.set_title(title)
            axis.set_xlabel("attention layers")
            axis.set_xticks(LAYERS)
        legend_beside(axes[-1], axes[0])
    return blocks
