"""Optuna's samplers and pruners, as a sweep file names them."""

import inspect
import re
from types import ModuleType
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentError, ArgumentParser

from lightning_ss2a.errors import InputError, did_you_mean, one_line
from lightning_ss2a.sweeps.definition import GRID, ClassSpec, Sweep, class_name
from lightning_ss2a.sweeps.running.storage import import_optuna, quietly

if TYPE_CHECKING:
    import optuna

REHEARSAL_TRIALS = 3
"""Points to draw, before a sampler is believed to work."""

_WRONG_NAME = re.compile(r"Option '(?P<option>[^']+)' is not|path string: (?P<name>\S+)|no attribute '(?P<class>\w+)'")


def build_sampler(sweep: Sweep) -> "optuna.samplers.BaseSampler":
    """Makes the sampler that a sweep names, with seed 0 unless it names another.

    Raises:
        InputError: there is no such sampler, it refuses its arguments, or needs a package that is not there.
    """
    samplers = import_optuna().samplers
    if sweep.sampler == GRID:
        return samplers.RandomSampler(seed=0)  # never asked: every point is queued
    # Running trials count as bad ones, or workers would all try the same.
    defaults = {"seed": 0, "constant_liar": sweep.workers > 1}
    _rehearse(sweep, _built("sampler", sweep.sampler, samplers, samplers.BaseSampler, defaults))
    return _built("sampler", sweep.sampler, samplers, samplers.BaseSampler, defaults)


def _rehearse(sweep: Sweep, sampler: "optuna.samplers.BaseSampler") -> None:
    """Draws some points: only then does a sampler miss a package, or refuse the objectives.

    Raises:
        InputError: it does.
    """
    study = import_optuna().create_study(directions=[o.direction for o in sweep.objectives], sampler=sampler)
    try:
        with quietly():
            for _ in range(REHEARSAL_TRIALS):
                trial = study.ask()
                sweep.space.suggest(trial)
                study.tell(trial, [0.0] * len(sweep.objectives))
    except (TypeError, ValueError, ImportError) as error:
        raise InputError(f"sampler {class_name(sweep.sampler)}: {one_line(error)}") from error


def build_pruner(spec: ClassSpec | None) -> "optuna.pruners.BasePruner":
    """Makes the pruner that a sweep names.

    Raises:
        InputError: there is no such pruner, or it refuses its arguments.
    """
    pruners = import_optuna().pruners
    return _built("pruner", "NopPruner" if spec is None else spec, pruners, pruners.BasePruner, {})


def _built(option: str, spec: ClassSpec, module: ModuleType, kind: type, defaults: dict[str, Any]) -> Any:
    """Makes an object of a class that is named as Lightning's callbacks are.

    Args:
        option: of the sweep file.
        spec: class and arguments, also of classes within them.
        module: that has the classes.
        kind: what the class is to be one of.
        defaults: for arguments that the class has and the file leaves out.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument(f"--{option}", type=kind)
    given = {} if isinstance(spec, str) else spec.get("init_args") or {}
    try:
        with quietly():
            config = parser.parse_object({option: spec})
            for name, value in defaults.items():
                if name in config[option].init_args and name not in given:
                    config[option].init_args[name] = value
            return parser.instantiate(config)[option]
    except ArgumentError as error:
        raise InputError(f"{option}: {_explain(error, class_name(spec), module, kind)}") from error
    except (TypeError, ValueError, ImportError) as error:
        raise InputError(f"{option}: {class_name(spec)}: {one_line(error)}") from error


def _explain(error: ArgumentError, name: str, module: ModuleType, kind: type) -> str:
    """Says in one line what the parser said in several, with the nearest right name."""
    text = " ".join(str(error).split()[3:])  # after the option's name
    wrong = _WRONG_NAME.search(text)
    if wrong is None:
        return text
    if wrong["option"]:
        known = list(inspect.signature(getattr(module, name, kind)).parameters)
        return f"{name} has no argument {wrong['option']}; {did_you_mean(wrong['option'], known)}"
    classes = [each for each, value in vars(module).items() if inspect.isclass(value) and issubclass(value, kind)]
    return f"there is no class {name} in {module.__name__}; {did_you_mean(name, classes)}"
