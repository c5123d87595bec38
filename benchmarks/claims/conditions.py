"""Does the Remixer need both the manifold's and the visual embedding of a source (Table 3)?"""

from .figures import COLOURS, figure, legend_beside, line
from .remixer import BASE, FILE, GROUPS, METRICS, SCORE_HEADER, WORLDS, Values, base_runs, score_cells, values_of
from .runs import Results, Run
from .scenes import REMIXER, remixer_measures, scene_runs
from .tables import markdown_table, mean_and_spread

__all__ = ["FILE", "report", "runs"]

ARMS = {BASE: "both", "manifold": "manifold only", "visual": "visual only"}
DEMO_SEEDS = 1


def runs(seeds: int) -> list[Run]:
    """Each condition, trained with it."""
    made = base_runs(seeds)
    for conditions in list(ARMS)[1:]:
        overrides = (f"--model.conditions={conditions}",)
        made += scene_runs(conditions, REMIXER, remixer_measures, overrides, seeds, DEMO_SEEDS)
    return made


def report(seeds: int) -> dict[str, str]:
    """A table a world; draws the figure."""
    made = [run for run in runs(seeds) if run.world == "simulated" or run.seed < DEMO_SEEDS]
    values, blocks = values_of(Results(FILE), made), {}

    def change(world: str, arm: str, group: str) -> str:
        name = f"mean/ssms/{group}"
        pairs = zip(values(world, arm, name), values(world, BASE, name), strict=False)
        return "" if arm == BASE else mean_and_spread([one - both for one, both in pairs], 2)

    for world in WORLDS:
        rows = [
            [label, *score_cells(values, world, arm, "mean"), *(change(world, arm, group) for group in GROUPS)]
            for arm, label in ARMS.items()
        ]
        header = ["conditions", *SCORE_HEADER, *(f"SSMS, {label}, change from both" for label in GROUPS.values())]
        blocks[f"conditions {world}"] = markdown_table(header, [row for row in rows if any(row[1:])])
    _draw(values)
    return blocks


def _draw(values: Values) -> None:
    with figure("conditions", len(METRICS), width=10.5) as axes:
        for axis, (metric, (title, _)) in zip(axes, METRICS.items(), strict=True):
            for world, colour, shift in zip(WORLDS, ("blue", "orange"), (-0.06, 0.06), strict=True):
                for group, dashes in zip(GROUPS, ("--", "-"), strict=True):
                    samples = [values(world, arm, f"mean/{metric}/{group}") for arm in ARMS]
                    places = [at + shift for at in range(len(ARMS))]
                    label = f"{world}, {GROUPS[group]}"
                    line(axis, places, samples, color=COLOURS[colour], linestyle=dashes, label=label)
            axis.set_title(title)
            axis.set_xticks(range(len(ARMS)), list(ARMS.values()))
        legend_beside(axes[-1], axes[0])
