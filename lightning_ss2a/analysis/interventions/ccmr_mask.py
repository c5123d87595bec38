"""A mask that weakens the contrast as much as CCMR's, but does not know which pairs are alike."""

from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from lightning_ss2a.losses import contrastive


class ConstantCcmrMask(Callback):
    """Gives all other pairs of a batch the mean of their CCMR mask, while a manifold is trained; matching pairs 1.

    A control for Eq. 7: what the mask does by its choice of pairs is lost, what it does by weakening the contrast is
    kept. In one process.
    """

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Puts the constant mask in place of the other."""
        self._rows = contrastive._Mask.rows
        masked = self._rows

        def rows(mask: Any, start: int, stop: int) -> Tensor:
            values = masked(mask, start, stop)
            matching = torch.eye(len(mask.visual), values.shape[1], dtype=torch.bool, device=values.device)[start:stop]
            return torch.where(matching, 1.0, values[~matching].mean())

        contrastive._Mask.rows = rows  # type: ignore[assignment,method-assign]  # the seam that this control needs

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Puts the mask back."""
        contrastive._Mask.rows = self._rows  # type: ignore[method-assign]  # as it was

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        """Puts the mask back."""
        if hasattr(self, "_rows"):
            self.on_train_end(trainer, pl_module)
