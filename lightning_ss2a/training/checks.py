"""Refuse data and switches of the trainer that do not go with a model."""

from collections.abc import Sequence

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, SingleDeviceStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn

from lightning_ss2a.callbacks.trainer_state import callbacks_of
from lightning_ss2a.data import ShardDataModule
from lightning_ss2a.errors import InputError
from lightning_ss2a.training.step import Step

PRECISIONS = ("32-true", "bf16-mixed")


def check_width(data: ShardDataModule, field: str, **width: int | None) -> None:
    """Refuses data of another width than the model's.

    Args:
        data: with a manifest.
        field: field of the data.
        width: the model's, by the name of its option.

    Raises:
        InputError: the field is missing or has another width.
    """
    if field not in data.manifest.fields:
        raise InputError(
            f"{data.datasets[0]}: a data set of kind {data.manifest.kind}, without field {field!r}; this model needs it"
        )
    found = data.manifest.fields[field].width
    for name, expected in width.items():
        if expected != found:
            raise InputError(f"model.{name} is {expected}, but the data's embeddings have width {found}")


def check_kind(data: ShardDataModule, kinds: Sequence[str], model: str) -> None:
    """Refuses data of another kind.

    Raises:
        InputError: names the kinds that the model takes.
    """
    if data.manifest.kind not in kinds:
        raise InputError(
            f"{data.datasets[0]}: a data set of kind {data.manifest.kind}; {model} needs {' or '.join(kinds)}"
        )


def check_label_head(data: ShardDataModule, top_n: int) -> None:
    """Refuses a label head that has fewer labels than SSMS compares.

    Raises:
        InputError: names both numbers.
    """
    head = data.label_head
    if head is not None and len(head.labels) < top_n:
        raise InputError(
            f"model.measuring.top_n is {top_n}, but the data's label head has only {len(head.labels)} labels"
        )


def check_trainer(trainer: Trainer, owns_optimization: bool, step: Step = "eager") -> None:
    """Refuses switches and callbacks of the trainer that cannot work here.

    Args:
        trainer: the trainer.
        owns_optimization: whether the module steps two optimisers by itself, which some switches do not reach.
        step: how the module computes a step.

    Raises:
        InputError: the switch has another name here, or is not supported; or a callback waits for what never comes.
    """
    if owns_optimization and trainer.state.fn == TrainerFn.FITTING:
        message = "trainer.{0}={1} does not reach two optimisers: use model.optimization.{2}={1}"
        if clip := trainer.gradient_clip_val:
            raise InputError(message.format("gradient_clip_val", clip, "gradient_clip_norm"))
        if (batches := trainer.accumulate_grad_batches) > 1:
            raise InputError(message.format("accumulate_grad_batches", batches, "accumulate_batches"))
        if step != "eager":
            _check_callbacks(trainer, step)
    for name in ("check_val_every_n_epoch", "val_check_interval"):
        every = getattr(trainer, name, None)  # Lightning has no interval of batches where one of time is given
        if every is not None and every <= 0:
            raise InputError(f"trainer.{name} is {every}, needs more than 0 (limit_val_batches=0 switches it off)")
    if trainer.precision not in PRECISIONS:
        raise InputError(
            f"trainer.precision: {trainer.precision} is not supported; use {' or '.join(PRECISIONS)} "
            "(float16 would need loss scaling, and the metrics need embeddings in float32)"
        )
    strategy = trainer.strategy
    if not isinstance(strategy, SingleDeviceStrategy | DDPStrategy) or isinstance(strategy, DeepSpeedStrategy):
        # Gradients are averaged over ranks that each hold the whole model; sharded ones would be mixed up silently.
        raise InputError(f"trainer.strategy: {type(strategy).__name__} is not supported; use auto or ddp")


def _check_callbacks(trainer: Trainer, step: Step) -> None:
    """Refuses callbacks with hooks around a backward pass, where Lightning's is not called."""
    for callback in callbacks_of(trainer):
        for hook in ("on_before_backward", "on_after_backward"):
            if getattr(type(callback), hook) is not getattr(Callback, hook):
                raise InputError(
                    f"trainer.callbacks: {type(callback).__name__}.{hook} would never be called with "
                    f"model.step={step}; use model.step=eager"
                )


def warn_without_effect(reason: str, *options: tuple[str, object, object]) -> None:
    """Warns of options that change nothing, where they are not as usual.

    Args:
        reason: the option because of which they have no effect, and its value.
        options: name without ``model.``, value and default of each.
    """
    for name, value, usual in options:
        if value != usual:
            rank_zero_warn(f"model.{name}={value} has no effect with {reason}")
