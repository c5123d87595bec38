"""Options of an evaluation, without Lightning: the command line reads them in no time."""

from dataclasses import dataclass

from lightning_ss2a.options import OptionCheck


@dataclass(frozen=True)
class HearingTrainer:
    """Where sounds are heard and pictures are seen.

    Attributes:
        accelerator: as of Lightning's Trainer: auto, cpu, gpu.
        devices: of each node, or auto: all GPUs, or one processor. On processors each is a process.
        num_nodes: machines, started as Lightning is by torchrun or SLURM; they share all folders.
        threads: of the computations of each device's process on the processor.
    """

    accelerator: str = "auto"
    devices: int | str = "auto"
    num_nodes: int = 1
    threads: int = 1

    def __post_init__(self) -> None:
        OptionCheck("trainer").at_least(1, num_nodes=self.num_nodes, threads=self.threads)
