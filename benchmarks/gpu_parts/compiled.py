"""A step of the manifold with ``step: compiled``, bf16, through Lightning; how long compiling takes."""

import time

from lightning.pytorch import Callback
from paper_sizes.steps import wait

from gpu_parts.inputs import Inputs
from gpu_parts.manifold import time_step
from gpu_parts.process import Report


class CompileTime(Callback):
    """Reports how long the first steps take, in which both turns are compiled.

    Args:
        report: takes the figure.
        steps: number of first steps.
    """

    def __init__(self, report: Report, steps: int) -> None:
        self.report, self.steps = report, steps
        self._start = 0.0

    def on_train_start(self, *_: object) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def on_train_batch_end(self, *_: object) -> None:
        """Report after the last of them."""
        self.steps -= 1
        if self.steps == 0:
            wait()
            self.report(compile_seconds=time.perf_counter() - self._start)


def run(inputs: Inputs, report: Report) -> None:
    """Compile and time in one run."""
    time_step(inputs, report, "compiled", [CompileTime(report, steps=2)])
