"""What all callbacks of analysis share: each serves the modules of some stages and refuses all others."""

from typing import Generic, TypeVar

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_ss2a.errors import InputError
from lightning_ss2a.training.base import MeasuredModule

M = TypeVar("M", bound=MeasuredModule)


class StageCallback(Callback, Generic[M]):
    """A callback for the modules of some stages.

    Attributes:
        stages: classes of these modules.
    """

    stages: tuple[type[M], ...]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses a module of another stage; see :meth:`module`."""
        self.module(pl_module)

    def module(self, pl_module: LightningModule) -> M:
        """Returns the module as one of :attr:`stages`.

        Raises:
            InputError: it is none; names the callback and the stages that it serves.
        """
        if not isinstance(pl_module, self.stages):
            needed = " or ".join(stage.__name__ for stage in self.stages)
            raise InputError(
                f"{type(self).__name__}: does not go with {type(pl_module).__name__}; use it with {needed}"
            )
        return pl_module
