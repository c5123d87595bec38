"""Do teacher and filter help under noise (supplement 2.2)?"""

from typing import Any

import numpy as np

from .figures import COLOURS, figure
from .filter import CONFIG, callbacks
from .measures import filter_measures
from .runs import Results, Run
from .tables import markdown_table, mean_and_spread

FILE = "teacher"
DATA = "sweeps/claims_teacher_data.yaml"

ARMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "annotated": ("annotated pairs only", ()),
    "plain": ("plain: all pairs", ()),
    "stages": ("two stages, no teacher, no filter", (callbacks({"consistency_weight": 0}, None),)),
    "filter": ("two stages, filter only", (callbacks({"consistency_weight": 0}, {}),)),
    "teacher": ("two stages, teacher only", (callbacks({}, None),)),
    "teacher+filter": ("two stages, teacher and filter", (callbacks({}, {}),)),
    "averaged": ("the same, the averaged teacher measured", (callbacks({"validate_teacher": True}, {}),)),
    "teacher 10": ("two stages, teacher only, 10 times its weight", (callbacks({"consistency_weight": 10}, None),)),
    "oracle": ("oracle: truly matched pairs only", ()),
}
"""Label and arguments of ``lightning fit``, by arm; every arm trains as many steps."""


def select_rows(cli: Any, dataset: str, run: Run) -> None:
    """Leave the arms without callbacks the rows that they may see."""
    from lightning_ss2a.data.simulation.truth import read_truth

    if run.arm == "annotated":
        rows = cli.datamodule.training_columns(["pair_origin"])["pair_origin"].numpy() == 0
    elif run.arm == "oracle":
        rows = ~read_truth(dataset, "train")["mismatched"]
    else:
        return
    cli.datamodule.select_training_rows(np.flatnonzero(rows))


def measure(cli: Any, dataset: str, run: Run) -> dict[str, float]:
    """What the filter dropped, where there is one."""
    from lightning_ss2a.data.simulation.truth import read_truth

    return filter_measures(cli.trainer.callbacks, cli.datamodule, read_truth(dataset, "train")["mismatched"])


def runs(seeds: int) -> list[Run]:
    """Every arm."""
    options = {"data": DATA, "prepare": select_rows}
    return [
        Run(arm, seed, CONFIG, measure, overrides, **options)
        for arm, (_, overrides) in ARMS.items()
        for seed in range(seeds)
    ]


SHOWN = {
    "recall@1/visual_to_audio": ("recall@1, visual to audio", 3),
    "recall@1/audio_to_visual": ("audio to visual", 3),
    "ssms": ("SSMS", 2),
    "filter/precision": ("filter's precision", 3),
    "filter/recall": ("filter's recall", 3),
}


def report(seeds: int) -> dict[str, str]:
    """One table; draws the figure."""
    results, made = Results(FILE), runs(seeds)

    def values(arm: str, name: str) -> list[float]:
        return results.values([run for run in made if run.arm == arm], name)

    rows = [
        [label, *(mean_and_spread(values(arm, name), digits) for name, (_, digits) in SHOWN.items())]
        for arm, (label, _) in ARMS.items()
    ]
    baselines = [values("plain", f"{name}_baseline/ridge") for name in SHOWN]
    digits = [digits for _, digits in SHOWN.values()]
    rows.append(
        ["ridge regression on all pairs", *(mean_and_spread(*pair) for pair in zip(baselines, digits, strict=True))]
    )
    with figure("teacher", 2) as axes:
        for axis, name, title in zip(axes, ("recall@1/visual_to_audio", "ssms"), ("recall@1", "SSMS"), strict=True):
            for place, arm in enumerate(ARMS):
                sample = values(arm, name)
                axis.plot(sample, [place] * len(sample), "o", color=COLOURS["grey"], markersize=4)
                if sample:
                    axis.plot([np.mean(sample)], [place], "|", color=COLOURS["blue"], markersize=16, markeredgewidth=3)
            axis.set_yticks(
                range(len(ARMS)), [label for label, _ in ARMS.values()] if axis is axes[0] else [""] * len(ARMS)
            )
            axis.invert_yaxis()
            axis.set_title(f"{title} on clean held-out pairs")
    return {"teacher": markdown_table(["", *(label for label, _ in SHOWN.values())], rows)}
