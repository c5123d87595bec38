"""What the stages with one network and one optimiser share; a stage adds its network, losses and numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_ss2a.data.loading.tensors import Batch
from lightning_ss2a.training.checks import check_choices, check_minima, warn_if_given
from lightning_ss2a.training.measured import MeasuredModule
from lightning_ss2a.training.optimization import average_over_ranks, build_adamw, build_schedule, run_progress


class StageModule(MeasuredModule):
    """One network, one AdamW, optimised by Lightning: all switches of the trainer work as they are documented there.

    A stage defines :attr:`network`, :meth:`losses`, and what :class:`MeasuredModule` asks for. Its hyperparameters have
    ``learning_rate``, ``weight_decay``, ``warmup_steps``, ``schedule`` and ``compile_model``.

    Resuming is exact from checkpoints between optimiser steps; Lightning forgets the gradients of batches that wait for
    their step (``accumulate_grad_batches``), and no checkpoint callback saves there but in the middle of an epoch's
    validation (``val_check_interval``).
    """

    @property
    def network(self) -> nn.Module:
        """What is trained."""
        raise NotImplementedError

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """``loss``, which is minimised, and the terms that it is made of, scalars by name."""
        raise NotImplementedError

    def check_hyperparameters(self) -> None:
        """Refuse numbers out of range and names that are none, once ``save_hyperparameters`` knows them.

        Raises:
            InputError: names the parameter.
        """
        check_minima(self.hparams)
        check_choices(type(self), self.hparams)
        for names, reason in self.without_effect().items():
            warn_if_given(type(self), self.hparams, names, reason)

    def without_effect(self) -> dict[tuple[str, ...], str]:
        """Hyperparameters that change nothing because of others, and why: ``{names: reason}``."""
        drawn = self.hparams.get("embedding") != "mean"
        return {} if drawn else {("draws",): "model.embedding=mean: nothing is drawn"}

    def networks_to_compile(self) -> Sequence[nn.Module]:
        """What ``compile_model`` compiles, in place, so that checkpoints keep their names."""
        return [self.network]

    def configure_model(self) -> None:
        """Compile, if asked to."""
        if self.hparams.compile_model:
            for network in self.networks_to_compile():
                network.compile()

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW with its schedule, stepped once an optimiser step."""
        hparams = self.hparams
        optimizer = build_adamw(self.network.parameters(), hparams.learning_rate, hparams.weight_decay)
        schedule = build_schedule(optimizer, hparams.warmup_steps, hparams.schedule, self._progress)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    @property
    def has_pending_batches(self) -> bool:
        """Whether batches wait for the step that they belong to, which a checkpoint taken now would lose."""
        return self.trainer.fit_loop._should_accumulate()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of a batch; its terms are logged where loggers write."""
        self.seed_step(batch_idx)
        terms = self.losses(batch)
        if self.is_logged or self.is_last_batch(batch_idx):
            self._log_training({name: value.detach().float() for name, value in terms.items()})
        return terms["loss"]

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Log the gradient norm, before clipping, where loggers write."""
        if self.is_logged:
            gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
            self.log("train/gradient_norm", nn.utils.get_total_norm(gradients))

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as the trainer says; under bf16 too, where Lightning refuses fused optimisers.

        They step on scaled gradients only under float16, which :func:`check_trainer` refuses.
        """
        if not gradient_clip_val:
            return
        if gradient_clip_algorithm == "value":
            nn.utils.clip_grad_value_(self.network.parameters(), gradient_clip_val)
        else:
            nn.utils.clip_grad_norm_(self.network.parameters(), gradient_clip_val)

    @property
    def is_logged(self) -> bool:
        """Whether loggers write at the step that this batch belongs to."""
        interval = self.trainer.log_every_n_steps
        return interval > 0 and (self.trainer.global_step + 1) % interval == 0

    def _progress(self) -> float:
        return run_progress(self.trainer, self.trainer.accumulate_grad_batches)

    def _log_training(self, terms: Mapping[str, Tensor]) -> None:
        terms = average_over_ranks(dict(terms))  # each rank's loss is that of its own rows
        self.log("train/loss", terms.pop("loss"), prog_bar=True)
        self.log_dict({f"train/loss_{name}": value for name, value in terms.items()})
        self.log("train/learning_rate", self.optimizers().param_groups[0]["lr"])
