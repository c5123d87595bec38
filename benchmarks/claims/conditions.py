"""Does the Remixer need both the manifold's and the visual embedding of a source (Table 3)?"""

from .figures import COLOURS, figure, legend_beside, line
from .remixer import BASE, FILE, GROUPS, METRICS, WORLDS, Values, base_runs, change_tables, values_of
from .runs import Results, Run
from .scenes import REMIXER, remixer_measures, scene_runs

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
    values = values_of(Results(FILE), made)
    blocks = change_tables("conditions", "conditions", ARMS, "both", values)
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
