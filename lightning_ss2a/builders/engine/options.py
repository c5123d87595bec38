"""Options of a build, without Lightning: the command line reads them in no time."""

from dataclasses import dataclass
from typing import Literal

from lightning_ss2a.options import OptionCheck

MediaKind = Literal["pairs", "scenes", "videos"]


@dataclass(frozen=True)
class BuildTrainer:
    """Where a build runs. Only ``accelerator``, ``precision`` and ``threads`` have a say in the rows' last bits.

    Attributes:
        accelerator: as of Lightning's Trainer: auto, cpu, gpu.
        devices: of each node, or auto: all GPUs, or one processor. On processors each is a process.
        num_nodes: machines, started as Lightning is by torchrun or SLURM; they share the output folder.
        precision: of the encoders that can choose (matrix products only); None: as their own options say.
        num_workers: processes that decode, for each device; 0: none, each device waits for its media.
        threads: of the computations of each device's process on the processor.
    """

    accelerator: str = "auto"
    devices: int | str = "auto"
    num_nodes: int = 1
    precision: Literal["float32", "bfloat16", "float16"] | None = None
    num_workers: int = 2
    threads: int = 1

    def __post_init__(self) -> None:
        check = OptionCheck("trainer")
        check.at_least(1, num_nodes=self.num_nodes, threads=self.threads)
        check.at_least(0, num_workers=self.num_workers)
