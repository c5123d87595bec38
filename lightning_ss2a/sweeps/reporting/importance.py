"""How much of the differences between trials each parameter explains."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lightning_ss2a.sweeps.records import Objective
from lightning_ss2a.sweeps.running.storage import import_optuna, quietly

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

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
    study: "optuna.Study", objectives: Sequence[Objective], parameters: Iterable[str]
) -> list[Importances]:
    """Computes importances by fANOVA (Hutter et al. 2014, a random forest over the complete trials), one a objective.

    Optuna's default since version 5, PED-ANOVA, judges by the best tenth of the trials: of two dozen trials, by two.
    Where importances cannot be computed the reason is given; nothing is raised.

    Args:
        study: whose trials have a value for each objective.
        objectives: one or several.
        parameters: names of the swept parameters.
    """
    optuna, names = import_optuna(), list(parameters)
    trials = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    counted = [name for name in names if _varies(name, trials)]
    left_out = tuple(name for name in names if name not in counted)
    found = []
    for number, objective in enumerate(objectives):
        shares, reason = _shares(study, trials, number, counted)
        found.append(Importances(objective.metric, shares, len(trials), left_out, reason))
    return found


def _varies(name: str, trials: "Sequence[FrozenTrial]") -> bool:
    # By type as well: 1 and True are two choices.
    values = {(type(trial.params[name]), trial.params[name]) for trial in trials if name in trial.params}
    return len(values) > 1 and all(name in trial.params for trial in trials)


def _shares(
    study: "optuna.Study", trials: "Sequence[FrozenTrial]", number: int, names: list[str]
) -> tuple[dict[str, float], str | None]:
    """Computes the shares of one objective; the reason where there are none."""
    if len(trials) < LEAST_TRIALS:
        return {}, f"needs {LEAST_TRIALS} complete trials, there are {len(trials)}"
    if len({trial.values[number] for trial in trials}) == 1:
        return {}, "all trials have the same value"
    if not names:
        return {}, "no parameter is active in every trial and varies"
    # A sweep that took hours must not end without its tables because of one number beside them.
    try:
        with quietly():
            importance = import_optuna().importance
            evaluator = importance.FanovaImportanceEvaluator(seed=0)
            return importance.get_param_importances(
                study, evaluator=evaluator, params=names, target=lambda trial: trial.values[number]
            ), None
    except ImportError as error:
        return {}, f"{error.name} is not installed: pip install 'lightning-ss2a[sweep]'"
    except (ValueError, RuntimeError) as error:
        return {}, str(error).splitlines()[0]
