"""An interruption that loses nothing."""

import shlex
import signal
import threading
from pathlib import Path
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.utilities import rank_zero_info

from lightning_ss2a.callbacks.outputs import run_folder
from lightning_ss2a.callbacks.protocols import HoldsBatches
from lightning_ss2a.callbacks.slurm import SlurmJob, slurm_job
from lightning_ss2a.callbacks.trainer_state import (
    cluster_environment_of,
    is_last_batch,
    is_logging_batch,
    original_handlers_of,
)


class GracefulInterrupt(Callback):
    """Finishes the step on Ctrl-C (or SIGTERM), saves ``interrupted.ckpt`` in the run folder and stops.

    Lightning's own handling stops between two lines of Python: one optimiser may have moved and the other not. Here the
    signal only leaves a note, which is read where a step is complete, so that the checkpoint resumes exactly. A second
    Ctrl-C stops at once. During validation, the step is the first one after it; after the last step of an epoch comes
    its validation, which a resumed run would leave out.

    In a Slurm job, the signal that announces its end (``sbatch --signal=USR1@90``) does the same, and then asks Slurm
    to run the job again; the checkpoint is named after the job, and ``lightning fit`` goes on from it in this job only.

    Several processes agree at the trainer's logging steps, since to agree at each step would cost a wait at each step.
    Where no signals can be had (a thread of a notebook, say), nothing is changed.
    """

    def __init__(self) -> None:
        self._asked = False
        self._agreed = False
        self._requeues = False
        self._job: SlurmJob | None = None
        self._previous: dict[int, Any] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Takes Slurm's signal from Lightning, from now on: one that comes before training starts waits until then."""
        self._asked = self._agreed = self._requeues = False
        self._job = slurm_job(trainer)
        if self._job is None:
            return
        # Lightning would save between two lines of Python, into the working directory, where any job resumes from it.
        cast(SLURMEnvironment, cluster_environment_of(trainer)).auto_requeue = False
        if stage == "fit":
            self._listen(self._job.signal)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listens for the signals while training."""
        self._listen(signal.SIGINT, signal.SIGTERM)

    def _listen(self, *numbers: signal.Signals) -> None:
        if threading.current_thread() is threading.main_thread():
            self._previous |= {number: signal.signal(number, self._ask) for number in numbers}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves and stops, if asked to and no batch waits for its step."""
        if trainer.world_size == 1 or is_logging_batch(trainer, batch_idx):
            # A rank that was asked must not stop alone while the others wait in a collective.
            self._agreed = self._agreed or trainer.strategy.reduce_boolean_decision(self._asked, all=False)
        waits = isinstance(pl_module, HoldsBatches) and pl_module.has_pending_batches
        if self._agreed and not waits and not is_last_batch(trainer, batch_idx):
            self._stop(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves and stops after the validation, if the step to finish was the last of its epoch."""
        if self._agreed:
            self._stop(trainer)

    def _stop(self, trainer: Trainer) -> None:
        folder = run_folder(trainer)
        path = folder / "checkpoints" / ("interrupted.ckpt" if self._job is None else self._job.checkpoint)
        trainer.save_checkpoint(path)
        rank_zero_info(f"\nInterrupted. To go on:  {resume_command(folder, path)}")
        if self._job is not None and trainer.strategy.reduce_boolean_decision(self._requeues, all=False):
            if trainer.is_global_zero:
                rank_zero_info(self._job.requeue())
            trainer.strategy.barrier("requeue")  # where a rank ends, Slurm may kill the others
        raise KeyboardInterrupt

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Gives back the signals as at a good end."""
        self._give_back(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Gives back the signals that are still taken; Lightning has put its own handlers away by now.

        To put back what it had while training would leave the process with a handler that swallows SIGTERM, and the
        processes forked from it too.
        """
        self._give_back(trainer)

    def _give_back(self, trainer: Trainer) -> None:
        for number, handler in self._previous.items():
            if signal.getsignal(number) == self._ask:
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
            # What Lightning took for the handler before its own, and puts back after an exception.
            if original_handlers_of(trainer).get(number) == self._ask:
                original_handlers_of(trainer)[number] = handler
        self._previous.clear()
        if self._job is not None:
            cast(SLURMEnvironment, cluster_environment_of(trainer)).auto_requeue = True

    def _ask(self, number: int, frame: Any) -> None:
        if self._job is not None and number == self._job.signal:
            self._requeues = True
        if self._asked and number == signal.SIGINT:  # Slurm sends SIGTERM after its signal, to a run that still saves
            raise KeyboardInterrupt
        if not self._asked:
            self._asked = True
            rank_zero_info("\nFinishing this step, then saving. Ctrl-C again stops at once.")


def resume_command(folder: Path, checkpoint: Path) -> str:
    """Writes the command that goes on from a checkpoint; its configuration is the run's own where one was saved."""
    config = folder / "config.yaml"
    arguments = shlex.join(["--ckpt_path", str(checkpoint)])
    if not config.exists():
        return f"the same command with {arguments}"
    return f"lightning fit {shlex.join(['-c', str(config)])} {arguments}"
