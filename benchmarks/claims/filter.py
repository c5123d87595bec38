"""Does the filter find the mismatched pairs (supplement 2.2)?"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from lightning.pytorch import Callback

from .figures import COLOURS, figure, line
from .measures import area_under_curve, filter_measures, precision_and_recall
from .runs import Results, Run
from .tables import markdown_table, mean_and_spread

FILE = "filter"
CONFIG, DATA = "sweeps/claims_teacher.yaml", "sweeps/claims_filter_data.yaml"
EPOCHS = 60
RATES = (0, 10, 20, 30, 40, 50)
"""Mismatched pairs in per cent of the noisy ones."""

FLOOR = 0.5
"""A floor threshold: pairs of at least this cosine stay whatever the elbow. Chosen before the first run."""


WEAK = "30 weak"
WEAK_DATA = (
    "--splits={train: 40000, validation: 300}",
    "--world.visual={width: 192, cone: 0.47}",
    "--world.audio={width: 128, cone: 0.51}",
)
"""A teacher that knows less: 1,800 annotated pairs, narrow embeddings, 30 epochs of batches twice as large."""


class JudgeAndStop(Callback):
    """Keeps what the teacher finds of all noisy pairs as stage 2 begins, and ends the run."""

    similarity: np.ndarray | None = None
    """Cosine of each noisy pair, float32 [pairs]."""

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        from lightning_ss2a.callbacks.mean_teacher.pair_filter import teacher_similarity

        if pl_module.teacher is not None:
            origin = trainer.datamodule.training_columns(["pair_origin"])["pair_origin"].numpy()
            self.similarity = teacher_similarity(trainer, pl_module.teacher, np.flatnonzero(origin != 0), len(origin))

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        trainer.should_stop = self.similarity is not None


def callbacks(teacher: dict[str, Any], pair_filter: dict[str, Any] | None) -> str:
    """Argument of ``lightning fit``."""
    listed = [
        {"class_path": "EMATeacher", "init_args": {"teacher_epochs": EPOCHS, "consistency_rampup_epochs": 3} | teacher}
    ]
    listed += [] if pair_filter is None else [{"class_path": "PairFilter", "init_args": pair_filter}]
    return f"--trainer.callbacks={json.dumps(listed)}"


def judge_and_stop(cli: Any, dataset: str, run: Run) -> None:
    """Add the callback, after the filter."""
    cli.trainer.callbacks.append(JudgeAndStop())


def measure(cli: Any, dataset: str, run: Run) -> dict[str, float]:
    """Precision and recall of what was dropped, and how well the teacher's similarity sorts the pairs."""
    from lightning_ss2a.callbacks.mean_teacher.elbow import find_elbow
    from lightning_ss2a.data.simulation.truth import read_truth

    mismatched = read_truth(dataset, "train")["mismatched"]
    [similarity] = [c.similarity for c in cli.trainer.callbacks if isinstance(c, JudgeAndStop)]
    numbers = filter_measures(cli.trainer.callbacks, cli.datamodule, mismatched)
    wrong = mismatched[cli.datamodule.training_columns(["pair_origin"])["pair_origin"].numpy() != 0]
    elbow = find_elbow(similarity, floor_threshold=FLOOR, min_kept_fraction=0.25)
    with_floor = precision_and_recall(similarity < (elbow.threshold or -1.0), wrong)
    numbers |= {f"with_floor/{name}": value for name, value in with_floor.items()}
    for name, chosen in (("matched", ~wrong), ("mismatched", wrong)):
        if chosen.any():
            numbers[f"similarity/{name}"] = float(similarity[chosen].mean())
    if wrong.any():
        numbers["auc"] = area_under_curve(similarity[~wrong], similarity[wrong])
    return numbers


def _mismatch(rate: int) -> str:
    return f"--mismatch={{annotated: 0, curated: {rate / 100}, translated: {rate / 100}}}"


def runs(seeds: int) -> list[Run]:
    """Every rate; then a teacher that knows less."""
    made = []
    for rate in RATES:
        overrides = ("--trainer.max_steps=-1", f"--trainer.max_epochs={EPOCHS + 1}", callbacks({}, {}))
        for seed in range(seeds):
            made.append(
                Run(f"{rate}", seed, CONFIG, measure, overrides, DATA, (_mismatch(rate),), prepare=judge_and_stop)
            )
    weak = ("--trainer.max_steps=-1", "--trainer.max_epochs=31", "--data.batch_size=512")
    weak += (callbacks({"teacher_epochs": 30}, {}),)
    for seed in range(seeds):
        options = {"data": DATA, "data_overrides": (_mismatch(30), *WEAK_DATA), "prepare": judge_and_stop}
        made.append(Run(WEAK, seed, CONFIG, measure, weak, **options))
    return made


SHOWN = {
    "filter/precision": "precision",
    "filter/recall": "recall",
    "filter/dropped": "dropped",
    "filter/threshold": "threshold",
    "auc": "AUC",
    "similarity/matched": "cosine, matched",
    "similarity/mismatched": "cosine, mismatched",
    "with_floor/precision": "precision, with a floor",
    "with_floor/recall": "recall, with a floor",
    "with_floor/dropped": "dropped, with a floor",
}


def report(seeds: int) -> dict[str, str]:
    """One table; draws the figure."""
    results, made = Results(FILE), runs(seeds)

    def values(rate: int | str, name: str) -> list[float]:
        return results.values([run for run in made if run.arm == f"{rate}"], name)

    rows: list[Sequence[str]] = []
    for rate, label in [*((rate, f"{rate} %") for rate in RATES), (WEAK, "30 %, weak teacher")]:
        rows.append([label, *(mean_and_spread(values(rate, n), 4 if n == "auc" else 3) for n in SHOWN)])
    with figure("filter", 2) as axes:
        rates = [rate for rate in RATES if rate]
        for name, colour in (("precision", "blue"), ("recall", "orange")):
            samples = [values(rate, f"filter/{name}") for rate in rates]
            line(axes[0], rates, samples, color=COLOURS[colour], label=name)
        axes[0].set_title("dropped pairs against the truth")
        axes[0].set_ylim(0, 1.05)
        dropped = [values(rate, "filter/dropped") for rate in RATES]
        line(axes[1], RATES, dropped, color=COLOURS["blue"], label="dropped")
        axes[1].plot(RATES, [rate / 100 for rate in RATES], "--", color=COLOURS["grey"], label="mismatched")
        axes[1].set_title("part of the noisy pairs")
        for axis in axes:
            axis.set_xlabel("mismatched, % of the noisy pairs")
            axis.set_xticks(RATES)
            axis.legend(frameon=False)
    return {"filter": markdown_table(["mismatched", *SHOWN.values()], rows)}
