"""Does what the user asked for go together: hyperparameters, data and the trainer's switches?"""

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args, get_origin, get_type_hints

from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, SingleDeviceStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn

from lightning_ss2a.errors import InputError

MINIMA = {
    "draws": 1,
    "ccmr_alpha": 0,
    "kl_weight": 0,
    "contrastive_chunk_size": 1,
    "learning_rate": 0,
    "weight_decay": 0,
    "warmup_steps": 0,
    "gradient_clip_norm": 0,
    "accumulate_batches": 1,
    "top_n": 1,
    "cycle_iterations": 1,
    "cycle_samples": 1,
    "cosine_weight": 0,
    "cycle_var_samples": 1,
    "cycle_feedback_samples": 0,
    "cycle_noise_scale": 0,
    "contrastive_weight": 0,
}
"""Least values of the numbers that nothing else checks."""

OWN_SWITCHES = {"gradient_clip_val": (None, "gradient_clip_norm"), "accumulate_grad_batches": (1, "accumulate_batches")}
"""The trainer's switches that Lightning refuses with two optimisers: the value that is off, and our name for it."""


PRECISIONS = ("32-true", "bf16-mixed")


def check_minima(hparams: Mapping[str, Any]) -> None:
    """Refuse numbers that are too small.

    Raises:
        InputError: names the parameter.
    """
    for name, least in MINIMA.items():
        value = hparams.get(name)
        if value is not None and not least <= value < math.inf:
            raise InputError(f"model.{name} must be at least {least}, found {value}")


@contextmanager
def arguments_of_the_model() -> Iterator[None]:
    """Say of a network's ValueError that it is about the user's ``model.*``.

    Raises:
        InputError: in the network's words.
    """
    try:
        yield
    except ValueError as error:
        raise InputError(f"model: {error}") from error


def check_choices(module: type, hparams: Mapping[str, Any]) -> None:
    """Refuse names that are not among the choices that the module's signature lists; the command does so too.

    Raises:
        InputError: names the parameter and its choices.
    """
    for name, hint in get_type_hints(module.__init__).items():
        if get_origin(hint) is Literal and hparams[name] not in get_args(hint):
            raise InputError(f"model.{name} must be one of {', '.join(get_args(hint))}, found {hparams[name]!r}")


def warn_if_given(module: type, hparams: Mapping[str, Any], names: Sequence[str], reason: str) -> None:
    """Warn of hyperparameters that have no effect, if they are not the module's defaults."""
    parameters = inspect.signature(module.__init__).parameters
    for name in names:
        if hparams[name] != parameters[name].default:
            rank_zero_warn(f"model.{name}={hparams[name]} has no effect with {reason}")


def warn_without_effect(hparams: Mapping[str, Any]) -> None:
    """Warn of options that change nothing because of others."""
    if hparams["draws"] > 1 and hparams["embedding"] == "mean":
        rank_zero_warn(f"model.draws={hparams['draws']} has no effect with model.embedding=mean: nothing is drawn")
    if not hparams["ccmr_mask_diagonal"] and hparams["ccmr_alpha"] == 0:
        rank_zero_warn("model.ccmr_mask_diagonal=false has no effect with model.ccmr_alpha=0: there is no mask")


def check_widths(hparams: Mapping[str, Any], data: LightningDataModule, fields: Mapping[str, str]) -> None:
    """Refuse data of other widths than the model's.

    Args:
        hparams: the model's hyperparameters.
        data: with a manifest.
        fields: field of the data that each hyperparameter is the width of.

    Raises:
        InputError: a field is missing or has another width.
    """
    for name, field in fields.items():
        if field not in data.manifest.fields:
            raise InputError(
                f"{data.datasets[0]}: a data set of kind {data.manifest.kind}, without field {field!r}; "
                "this model needs it"
            )
        width, found = hparams[name], data.manifest.fields[field].width
        if width != found:
            raise InputError(f"model.{name} is {width}, but the data's embeddings have width {found}")


def check_kind(data: LightningDataModule, kinds: Sequence[str], model: str) -> None:
    """Refuse data of another kind.

    Raises:
        InputError: names the kinds that the model takes.
    """
    if data.manifest.kind not in kinds:
        raise InputError(
            f"{data.datasets[0]}: a data set of kind {data.manifest.kind}; {model} needs {' or '.join(kinds)}"
        )


def check_label_head(hparams: Mapping[str, Any], data: LightningDataModule) -> None:
    """Refuse a label head that cannot be used.

    Raises:
        InputError: it has too few labels.
    """
    head = data.label_head if "top_n" in hparams else None  # without it there is no SSMS
    if head is not None and len(head.labels) < hparams["top_n"]:
        raise InputError(
            f"model.top_n is {hparams['top_n']}, but the data's label head has only {len(head.labels)} labels"
        )


def check_trainer(trainer: Trainer, owns_optimization: bool) -> None:
    """Refuse switches of the trainer that cannot work here.

    Args:
        trainer: the trainer.
        owns_optimization: whether the module steps two optimisers by itself, which some switches do not reach.

    Raises:
        InputError: the switch has another name here, or is not supported.
    """
    for switch, (off, ours) in OWN_SWITCHES.items():
        value = getattr(trainer, switch)
        if owns_optimization and trainer.state.fn == TrainerFn.FITTING and value and value != off:
            raise InputError(f"trainer.{switch}={value} does not reach two optimisers: use model.{ours}={value}")
    if trainer.precision not in PRECISIONS:
        raise InputError(
            f"trainer.precision: {trainer.precision} is not supported; use {' or '.join(PRECISIONS)} "
            "(float16 would need loss scaling, and the metrics need embeddings in float32)"
        )
    strategy = trainer.strategy
    if not isinstance(strategy, SingleDeviceStrategy | DDPStrategy) or isinstance(strategy, DeepSpeedStrategy):
        # Gradients are averaged over ranks that each hold the whole model; sharded ones would be mixed up silently.
        raise InputError(f"trainer.strategy: {type(strategy).__name__} is not supported; use auto or ddp")
