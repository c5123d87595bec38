"""``lightning predict``: CMSS embeddings written as a data set of their own."""

from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from lightning_ss2a.callbacks.outputs import run_folder
from lightning_ss2a.callbacks.protocols import embeds_pairs
from lightning_ss2a.callbacks.trainer_state import data_of
from lightning_ss2a.checkpoints import weights_digest
from lightning_ss2a.data import FieldSpec, ShardDataModule, ShardWriter
from lightning_ss2a.data.format.manifest import MANIFEST
from lightning_ss2a.data.format.writer import check_output
from lightning_ss2a.errors import InputError
from lightning_ss2a.files import to_path
from lightning_ss2a.models import Manifold

COLUMNS = ("visual", "audio", "class_index", "pair_origin", "group")
Columns = dict[str, np.ndarray]


class CMSSShardWriter(Callback):
    """Writes the CMSS embeddings of ``predict_step`` as a data set of kind ``pairs``, float16, in the source's order.

    Splits, folds, keys, classes, origins and groups are the source's. The fields are named ``visual`` and ``audio`` as
    there, and their encoder is ``cmss:CHECKPOINT:DIGEST`` (of the manifold's weights), so that they are never taken for
    CLIP or CLAP embeddings, nor for those of another manifold. There is no label head: it reads audio embeddings.

    Args:
        output: folder of the data set; None: ``cmss`` in the run's folder. It must not hold one yet; what an
            interrupted run left there is replaced.
    """

    def __init__(self, output: str | None = None) -> None:
        self.output = output
        self._writer: ShardWriter | None = None
        self._written: set[str] = set()
        self._splits: list[str] = []
        self._ends = np.zeros(0, np.int64)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens the data set on rank zero.

        Raises:
            InputError: the module embeds no pairs, or the folder holds a data set or tars of others.
        """
        manifold, data = embeds_pairs(pl_module, self).evaluated_manifold, data_of(trainer)
        default = run_folder(trainer) / "cmss"
        folder = to_path(self.output or default)
        if (folder / MANIFEST).exists():
            raise InputError(f"{folder} holds a data set; remove it, or name another output of CMSSShardWriter")
        check_output(folder, overwrite=True)
        self._written = set()
        self._splits, self._ends = _splits_of_rows(data)
        if not trainer.is_global_zero:
            return
        source = data.manifest
        spec = FieldSpec(width=manifold.options.width, encoder=_encoder(trainer, manifold))
        self._writer = ShardWriter(
            folder,
            kind="pairs",
            fields=dict.fromkeys(("visual", "audio"), spec),
            classes=source.classes,
            provenance=source.provenance,
            licence=source.licence,
            overwrite=True,
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
        """Writes the rows of all ranks; batches are dealt to the ranks in turn, so their order is the source's."""
        columns = {name: outputs[name].cpu().numpy() for name in (*COLUMNS, "index")}
        columns["key"] = np.array(outputs["key"], dtype=np.bytes_)
        for rank_columns in _from_all_ranks(columns, trainer.world_size):
            if self._writer is not None:
                for split, part in self._by_split(rank_columns):
                    self._writer.write(split, part)
                    self._written.add(split)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Closes the data set; its manifest is written last."""
        if self._writer is None:
            return
        folds = data_of(trainer).manifest.folds
        if folds and self._written.issuperset(folds):  # not where only some splits were predicted
            self._writer.folds = tuple(folds)
        self._writer.close()
        folder, self._writer = self._writer.folder, None
        rank_zero_info(f"CMSS embeddings: {folder}. Look at them:  ss2a shards inspect {quote(str(folder))}")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Removes what was written."""
        if self._writer is not None:
            self._writer.abandon()
            self._writer = None

    def _by_split(self, columns: Columns) -> Iterator[tuple[str, Columns]]:
        """Cuts consecutive rows where a split ends."""
        of_row = np.searchsorted(self._ends, columns.pop("index"), side="right")
        for number in np.unique(of_row):
            yield self._splits[number], {name: column[of_row == number] for name, column in columns.items()}


def _splits_of_rows(data: ShardDataModule) -> tuple[list[str], np.ndarray]:
    """Lists the splits in the order in which rows are numbered, and the number of the row after each."""
    parts = [
        (split, manifest.rows(split))
        for manifest, splits in zip(data.manifests, data.splits("predict"), strict=True)
        for split in splits
    ]
    return [split for split, _ in parts], np.cumsum([rows for _, rows in parts])


def _encoder(trainer: Trainer, manifold: Manifold) -> str:
    checkpoint = Path(trainer.ckpt_path).name if trainer.ckpt_path else "untrained"
    return f"cmss:{checkpoint}:{weights_digest(manifold)}"


def _from_all_ranks(columns: Columns, world_size: int) -> list[Columns]:
    if world_size == 1:
        return [columns]
    gathered: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(gathered, columns)
    return gathered
