"""``lightning predict``: CMSS embeddings into a data set of their own."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lightning_ss2a.data import FieldSpec, ShardWriter

COLUMNS = ("visual", "audio", "class_index", "origin", "group")


class CMSSShardWriter(Callback):
    """Writes the CMSS embeddings of ``predict_step`` as a data set of kind ``pairs``, float16, in the source's order.

    Keys, classes, origins and groups are the source's. The fields are named ``visual`` and ``audio`` as there, and
    their encoder is ``cmss:CHECKPOINT``, so that they are never taken for CLIP or CLAP embeddings.

    Args:
        output: folder of the data set; None: ``cmss`` in the run's folder. It must not exist yet.
        split: name of the split written.
    """

    def __init__(self, output: str | None = None, split: str = "predict") -> None:
        self.output = output
        self.split = split
        self._writer: ShardWriter | None = None

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the data set on rank zero."""
        if not trainer.is_global_zero:
            return
        folder = Path(self.output or Path(trainer.log_dir or trainer.default_root_dir) / "cmss")
        encoder = f"cmss:{Path(trainer.ckpt_path).name if trainer.ckpt_path else 'untrained'}"
        width = pl_module.hparams.manifold_width
        source = trainer.datamodule.manifest
        self._writer = ShardWriter(
            folder,
            kind="pairs",
            fields={name: FieldSpec(width=width, encoder=encoder) for name in ("visual", "audio")},
            classes=source.classes,
            origin=source.origin,
            licence=source.licence,
        )

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: dict[str, Any],
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the rows of all ranks; ranks hold consecutive batches, so their order is the source's."""
        columns = {name: outputs[name].cpu().numpy() for name in COLUMNS}
        columns["key"] = np.array(outputs["key"], dtype=np.bytes_)
        for rank_columns in _from_all_ranks(columns, trainer.world_size):
            if self._writer is not None and len(rank_columns["key"]):
                self._writer.write(self.split, rank_columns)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the data set; its manifest is written last."""
        if self._writer is not None:
            self._writer.close()
            rank_zero_info(
                f"CMSS embeddings: {self._writer.folder}. Look at them: ss2a shards inspect {self._writer.folder}"
            )
            self._writer = None


def _from_all_ranks(columns: dict[str, np.ndarray | Tensor], world_size: int) -> list[dict[str, np.ndarray]]:
    if world_size == 1:
        return [columns]
    gathered: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(gathered, columns)
    return gathered
