"""Options of what a stage's validation measures."""

from dataclasses import dataclass

from lightning_ss2a.options import OptionCheck


@dataclass(frozen=True)
class MeasuringOptions:
    """Options of a stage's metrics.

    Args:
        top_n: labels a side that SSMS compares (N of the paper), at least 1.
        translator_checkpoint: what translates audio to the visual space for the CLIP score: checkpoint of an
            ``AudioToVisualModule``, or safetensors file with a linear map (``weight``, ``bias``); null: a ridge
            regression fitted on the training split.
    """

    top_n: int = 10
    translator_checkpoint: str | None = None

    def __post_init__(self) -> None:
        OptionCheck("model.measuring").at_least(1, top_n=self.top_n)
