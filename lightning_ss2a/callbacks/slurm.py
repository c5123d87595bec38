"""What lets a Slurm job go on after it was requeued: a checkpoint that is its own, and the request to run it again."""

import hashlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.plugins.environments import SLURMEnvironment

from lightning_ss2a.callbacks.trainer_state import cluster_environment_of
from lightning_ss2a.files import local_path


@dataclass(frozen=True)
class SlurmJob:
    """A job that Slurm may run again.

    Attributes:
        id: its number, with that of the task in an array.
        signal: which Slurm sends before it ends the job (``sbatch --signal``).
    """

    id: str
    signal: signal.Signals

    @property
    def checkpoint(self) -> str:
        """Name of the checkpoint that this command, of all that the job's script holds, goes on from."""
        command = hashlib.sha256("\0".join(sys.argv[1:]).encode()).hexdigest()[:8]
        return f"slurm-{self.id}-{command}.ckpt"

    def requeue(self) -> str:
        """Asks Slurm to run the job again; returns what came of it."""
        command = ["scontrol", "requeue", self.id]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            return f"{' '.join(command)} failed ({error}): submit the job again yourself"
        if done.returncode:
            return f"{' '.join(command)} failed ({done.stderr.strip()}): submit the job again yourself"
        return f"Slurm runs job {self.id} again, which goes on from there."


def slurm_job(trainer: Trainer) -> SlurmJob | None:
    """Finds the job that a trainer runs in; None where there is none, or it does not want to be requeued."""
    environment = cluster_environment_of(trainer)
    if (
        not isinstance(environment, SLURMEnvironment)
        or not environment.auto_requeue
        or "SLURM_JOB_ID" not in os.environ
    ):
        return None
    number = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        number = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return SlurmJob(number, environment.requeue_signal or signal.SIGUSR1)


def requeued_checkpoint(trainer: Trainer) -> Path | None:
    """Finds the newest checkpoint that this job has left in a run folder of this command; None if there is none."""
    job = slurm_job(trainer)
    if job is None:
        return None
    # Not by run_folder, which settles the version of a folder that is yet to be made. Without a logger, the command has
    # given each run a root of its own, beside the others.
    logger = trainer.logger
    named = logger and (logger.root_dir or logger.save_dir)
    root = Path(local_path(named)) if named else Path(local_path(trainer.default_root_dir)).parent
    found = [path for place in (".", "*") for path in root.glob(f"{place}/checkpoints/{job.checkpoint}")]
    return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)
