"""``lightning fit -c configs/paper/manifold.yaml`` as it is but for its printed summary.

So with teacher, filter, figures, checkpoints and logger.
"""

import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from paper_sizes import BATCH_SIZE, EPOCHS, PAIRS, steps_of
from paper_sizes.steps import wait

from gpu_parts.inputs import Inputs, peak_memory, reset_peak_memory, smaller_model
from gpu_parts.process import Report
from lightning_ss2a.cli.lightning import build_cli

CONFIG = Path(__file__).parents[2] / "configs" / "paper" / "manifold.yaml"


class EpochTimes(Callback):
    """When each epoch starts and its last step ends, and how long validation takes."""

    def __init__(self) -> None:
        self.starts: list[float] = []
        self.seconds: list[float] = []
        self.steps: list[int] = []
        self.validation_seconds = 0.0
        self._validation_start = 0.0

    def on_train_epoch_start(self, trainer: Trainer, *_: object) -> None:
        """Note it."""
        wait()
        self.starts.append(time.perf_counter())

    def on_train_batch_end(self, trainer: Trainer, *ended: Any) -> None:
        """Note the last one's; what comes after it is validation and checkpoints."""
        steps = ended[-1] + 1
        if steps == trainer.num_training_batches:
            wait()
            self.seconds.append(time.perf_counter() - self.starts[-1])
            self.steps.append(steps)

    def on_validation_start(self, *_: object) -> None:
        """Note it."""
        self._validation_start = time.perf_counter()

    def on_validation_end(self, *_: object) -> None:
        """Note it."""
        self.validation_seconds = time.perf_counter() - self._validation_start


def run(inputs: Inputs, report: Report) -> None:
    """Run one epoch of the teacher's stage and some of the student's, the last of them validated; take the last."""
    dataset, sizes, times = inputs.dataset("pairs", report), inputs.sizes, EpochTimes()
    arguments = smaller_model(inputs, "manifold", sizes.manifold)
    arguments += [f"--data.datasets={dataset}", f"--data.batch_size={sizes.batch_size}"]
    arguments += [f"--trainer.max_epochs={sizes.epochs}", f"--trainer.check_val_every_n_epoch={sizes.epochs}"]
    arguments += ["--trainer.devices=1", f"--trainer.logger.save_dir={inputs.folder}/runs"]
    arguments += ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    arguments += ["--trainer.callbacks.EMATeacher.teacher_epochs=1", "--trainer.callbacks.RunSummary=false"]
    reset_peak_memory()
    start = time.perf_counter()
    build_cli(["fit", "-c", str(CONFIG), *arguments], callbacks=[times])
    startup, step = times.starts[0] - start, times.seconds[-1] / times.steps[-1]
    report(
        startup_seconds=startup,
        student_ms_a_step=step * 1e3,
        validation_seconds=times.validation_seconds,
        whole_seconds=time.perf_counter() - start,
        # The student's steps in all epochs, and a validation every fourth, as the file says.
        projected_seconds=startup + step * steps_of(PAIRS, EPOCHS, BATCH_SIZE) + times.validation_seconds * EPOCHS / 4,
        how="projected from the last epoch's ms a step",
        **peak_memory(),
    )
