"""How much of the differences between trials each parameter explains."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lightning_ss2a.sweeps.reporting.ranking import Ranked, rank
from lightning_ss2a.sweeps.running.records import Objective, TrialRecord
from lightning_ss2a.sweeps.space import Parameter

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

LEAST_TRIALS = 4
"""Of fewer, a regression forest says nothing."""


@dataclass(frozen=True)
class Importances:
    """Of one objective.

    Args:
        metric: name of the objective.
        shares: share of the variance that a parameter explains by itself or with others, from 0 to 1, all together 1,
            largest first; empty where there are none.
        trials: number of complete trials that they are computed from.
        left_out: parameters without a share: of one value, or not active in every trial.
        reason: why there are no shares; None otherwise.
    """

    metric: str
    shares: dict[str, float] = field(default_factory=dict)
    trials: int = 0
    left_out: tuple[str, ...] = ()
    reason: str | None = None


def find_importances(
    records: Sequence[TrialRecord], objectives: Sequence[Objective], parameters: Mapping[str, Parameter]
) -> list[Importances]:
    """Importances by fANOVA (Hutter et al. 2014, a random forest over the complete trials), one a objective.

    Optuna's default since version 5, PED-ANOVA, judges by the best tenth of the trials: of two dozen trials, by two.
    Where importances cannot be computed the reason is given; nothing is raised.
    """
    return [_importances(rank(records, objective), objective.metric, parameters) for objective in objectives]


def _importances(ranked: list[Ranked], metric: str, parameters: Mapping[str, Parameter]) -> Importances:
    points = [item.record.point for item in ranked]
    counted = [name for name in parameters if _varies(name, points)]
    found = Importances(metric, trials=len(ranked), left_out=tuple(name for name in parameters if name not in counted))
    reason = None
    if len(ranked) < LEAST_TRIALS:
        reason = f"needs {LEAST_TRIALS} complete trials, there are {len(ranked)}"
    elif len({item.value for item in ranked}) == 1:
        reason = "all trials have the same value"
    elif not counted:
        reason = "no parameter is active in every trial and varies"
    if reason is None:
        try:
            shares = _shares(ranked, {name: parameters[name] for name in counted})
            return Importances(metric, shares, found.trials, found.left_out)
        except ImportError as error:
            reason = f"{error.name} is not installed: pip install 'lightning-ss2a[sweep]'"
        except (ValueError, RuntimeError) as error:
            # A sweep that took hours must not end without its tables because of one number beside them.
            reason = str(error).splitlines()[0]
    return Importances(metric, {}, found.trials, found.left_out, reason)


def _varies(name: str, points: list[dict[str, Any]]) -> bool:
    # By type as well: 1 and True are two choices.
    values = {(type(point[name]), point[name]) for point in points if name in point}
    return len(values) > 1 and all(name in point for point in points)


def _shares(ranked: list[Ranked], parameters: Mapping[str, Parameter]) -> dict[str, float]:
    import optuna

    distributions = {
        name: _distribution(parameter, [item.record.point[name] for item in ranked])
        for name, parameter in parameters.items()
    }
    # A study of its own, in memory: the sweep's holds values before repeats were averaged, and trials given up.
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            study = optuna.create_study()
            for item in ranked:
                point = {name: item.record.point[name] for name in parameters}
                study.add_trial(optuna.trial.create_trial(params=point, distributions=distributions, value=item.value))
            evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
            shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    finally:
        optuna.logging.set_verbosity(verbosity)
    return {name: float(share) for name, share in shares.items()}


def _distribution(parameter: Parameter, values: list[Any]) -> "BaseDistribution":
    """What the parameter is drawn from, widened to the values: somebody may have narrowed the range since."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if parameter.options is not None:
        return CategoricalDistribution([*parameter.options, *(v for v in values if v not in parameter.options)])
    low, high = min([parameter.low, *values]), max([parameter.high, *values])
    if parameter.is_whole:
        return IntDistribution(int(low), int(high), log=parameter.log)
    return FloatDistribution(float(low), float(high), log=parameter.log)
