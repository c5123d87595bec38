"""Does what the user asked for go together: hyperparameters, data and the trainer's switches?"""

from collections.abc import Mapping
from typing import Any

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
        value = hparams[name]
        if value is not None and value < least:
            raise InputError(f"model.{name} must be at least {least}, found {value}")


def warn_without_effect(hparams: Mapping[str, Any]) -> None:
    """Warn of options that change nothing because of others."""
    if hparams["draws"] > 1 and hparams["embedding"] == "mean":
        rank_zero_warn(f"model.draws={hparams['draws']} has no effect with model.embedding=mean: nothing is drawn")
    if not hparams["ccmr_mask_diagonal"] and hparams["ccmr_alpha"] == 0:
        rank_zero_warn("model.ccmr_mask_diagonal=false has no effect with model.ccmr_alpha=0: there is no mask")


def check_data(hparams: Mapping[str, Any], data: LightningDataModule) -> None:
    """Refuse data that the model was not made for.

    Raises:
        InputError: the data's widths are not the model's, or the label head has too few labels.
    """
    for field in ("visual", "audio"):
        width, found = hparams[f"{field}_width"], data.manifest.fields[field].width
        if width != found:
            raise InputError(f"model.{field}_width is {width}, but the data's embeddings have width {found}")
    head = data.label_head
    if head is not None and len(head.labels) < hparams["top_n"]:
        raise InputError(
            f"model.top_n is {hparams['top_n']}, but the data's label head has only {len(head.labels)} labels"
        )


def check_trainer(trainer: Trainer) -> None:
    """Refuse switches of the trainer that cannot work here.

    Raises:
        InputError: the switch has another name here, or is not supported.
    """
    for switch, (off, ours) in OWN_SWITCHES.items():
        value = getattr(trainer, switch)
        if trainer.state.fn == TrainerFn.FITTING and value and value != off:
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
