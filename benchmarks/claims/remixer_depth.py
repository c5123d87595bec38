"""Do more attention layers help scenes of one source and hurt those of several (Table 10)?"""

from .figures import COLOURS, figure, legend_beside, line
from .remixer import BASE, FILE, GROUPS, METRICS, WORLDS, base_runs, change_tables, values_of
from .runs import Results, Run
from .scenes import REMIXER, remixer_measures, scene_runs

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
    values = values_of(Results(FILE), made)
    arms = {_arm(layers): str(layers) for layers in LAYERS} | {SLOW: "4, a third of the learning rate"}
    blocks = change_tables("remixer_depth", "layers", arms, "1 layer", values)
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
