"""What the callbacks that draw figures share."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor

from lightning_ss2a.drawing import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class FigureCallback(Callback):
    """Draws on the first validation epoch, then each time the epoch has doubled, and on the last epoch."""

    def __init__(self) -> None:
        self._next_epoch = 0

    def state_dict(self) -> dict[str, Any]:
        """Returns when the next figures are due."""
        return {"next_epoch": self._next_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes that back."""
        self._next_epoch = state_dict["next_epoch"]

    def is_due(self, trainer: Trainer) -> bool:
        """Tells whether the validation under way is to be drawn; all ranks agree."""
        epochs = trainer.max_epochs
        last = epochs is not None and epochs != -1 and trainer.current_epoch + 1 >= epochs
        fitting = trainer.state.fn == "fit" and not trainer.sanity_checking
        return fitting and (last or trainer.current_epoch >= self._next_epoch)

    def note_drawn(self, trainer: Trainer) -> None:
        """Waits until the epoch has doubled."""
        self._next_epoch = max(1, 2 * trainer.current_epoch)


def tensors_in(outputs: STEP_OUTPUT) -> Mapping[str, Tensor]:
    """Returns what a validation step has given, by name; nothing of a batch without rows."""
    return outputs if isinstance(outputs, Mapping) else {}


def one_line(name: str) -> str:
    """Writes a name without tabs and line ends, which would begin another column or row."""
    return " ".join(name.split())


def figure_with_axes(width: float, height: float) -> "tuple[Figure, Axes]":
    """Makes a figure that holds one plot, sizes in inches."""
    figure = new_figure(width, height)
    return figure, figure.subplots()
