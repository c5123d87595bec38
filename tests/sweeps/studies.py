"""Trials of a sweep as a storage would hold them, for the tests of tables and figures."""

import math
import random
from collections.abc import Sequence

import optuna

from lightning_ss2a.sweeps.records import Objective, TrialRecord
from lightning_ss2a.sweeps.space import Parameter

SSMS = Objective("val/ssms")
LOSS = Objective("val/loss", maximize=False)
LR, DROPOUT, WIDTH = "model.optimizer.lr", "model.manifold.dropout", "model.manifold.width"
NORM, BOTTLENECK = "model.manifold.normalization", "model.manifold.bottleneck"
SPACE = {
    LR: Parameter(low=1e-5, high=1e-1, log=True),
    DROPOUT: Parameter(low=0.0, high=0.5),
    WIDTH: Parameter(choices=[256, 512, 1024]),
    NORM: Parameter(choices=["layer_norm_before_residual", "batch_norm_without_running_statistics", None]),
    BOTTLENECK: Parameter(low=16, high=256, log=True, when={WIDTH: 1024}),
}


def study_of(records: Sequence[TrialRecord], objectives: Sequence[Objective], space: dict[str, Parameter]):
    """Optuna's study with the complete ones of these trials, as the queue would leave it."""
    study = optuna.create_study(directions=[objective.direction for objective in objectives])
    for record in records:
        if record.state == "complete":
            study.enqueue_trial(record.point)
            trial = study.ask()
            assert {name: space[name].suggest(trial, name) for name in record.point} == record.point
            study.tell(trial, [record.mean(objective.metric) for objective in objectives])
    return study


def draw(name: str, parameter: Parameter, dice: random.Random):
    if parameter.options is not None:
        return dice.choice(list(parameter.options))
    if parameter.log:
        value = math.exp(dice.uniform(*map(math.log, parameter.bounds)))
    else:
        value = dice.uniform(*parameter.bounds)
    return round(value) if parameter.is_whole else value


def realistic(count: int = 24, repeats: int = 3, seed: int = 0, extra: int = 0) -> tuple[list[TrialRecord], dict]:
    """A rounded optimum in the learning rate, little else, noise by seed; two pruned, one failed, one running.

    Args:
        count: number of trials.
        repeats: seeds of each.
        seed: of the draw.
        extra: number of parameters without effect.
    """
    dice = random.Random(seed)
    space = {**SPACE, **{f"model.losses.weight_{i}": Parameter(low=0.0, high=1.0) for i in range(extra)}}
    records = []
    for number in range(count):
        point = {name: draw(name, parameter, dice) for name, parameter in space.items()}
        if point[WIDTH] != 1024:
            del point[BOTTLENECK]
        state = {5: "failed", 8: "pruned", 13: "pruned", count - 1: "running"}.get(number, "complete")
        metrics = {f"seed_{i}": _metrics(point, dice) for i in range(repeats if state == "complete" else 0)}
        reason = "out of memory on cuda:0 [batch 4096 | width 1024]\nTried to allocate" if state == "failed" else None
        seconds = None if state == "running" else dice.uniform(30, 200)
        records.append(TrialRecord(number, state, point, metrics, reason, seconds, f"trials/{number:04d}"))
    return records, space


def _metrics(point: dict, dice: random.Random) -> dict[str, float]:
    distance = math.log10(point[LR]) + 3
    value = 3.5 - 0.4 * distance**2 - 0.8 * (point[DROPOUT] - 0.2) ** 2 + 0.1 * (point[WIDTH] == 512)
    return {
        "val/ssms": value + dice.gauss(0, 0.05),
        "val/loss": 1 + point[DROPOUT] + 0.1 * abs(distance) + dice.gauss(0, 0.05),
        "val/ssms_ridge": 3.3,
    }
