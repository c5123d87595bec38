"""``lightning predict``: embeddings written as a data set of their own."""

from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from lightning_ss2a.callbacks.outputs import run_folder
from lightning_ss2a.callbacks.protocols import Prediction, embeds_pairs, predicts_embeddings
from lightning_ss2a.callbacks.trainer_state import data_of
from lightning_ss2a.checkpoints import weights_digest
from lightning_ss2a.data import FieldSpec, ShardDataModule, ShardWriter
from lightning_ss2a.data.format.block_layout import slice_columns
from lightning_ss2a.data.format.columns import Columns, Ragged
from lightning_ss2a.data.format.compatibility import origins_of, widest_field
from lightning_ss2a.data.format.manifest import MANIFEST
from lightning_ss2a.data.format.writer import check_output
from lightning_ss2a.data.loading.shard_rows import ShardRows
from lightning_ss2a.data.loading.tensors import Column, RaggedRows
from lightning_ss2a.errors import InputError
from lightning_ss2a.files import to_path
from lightning_ss2a.models import Manifold
from lightning_ss2a.options import OptionCheck

COLUMNS = ("visual", "audio", "class_index", "pair_origin", "group")
ROWS_AT_ONCE = 4096
"""Rows whose predictions wait for the rest of them, which is read from the source's shards a block at a time."""

Sampling = Literal["mean", "draw", "cycle_mix"]


class PredictionWriter(Callback):
    """Writes what ``predict_step`` gives as a data set, row by row in the source's order, on rank zero.

    Splits and folds are the source's. The data set appears when it is whole; a run that stops leaves nothing.

    Args:
        output: folder of the data set; None: one in the run's folder. It must not hold a data set yet; what an
            interrupted run left there is replaced.
    """

    FOLDER: ClassVar[str]
    """In the run's folder, if no output is named."""

    def __init__(self, output: str | None = None) -> None:
        self.output = output
        self._writer: ShardWriter | None = None
        self._written: set[str] = set()
        self._splits: list[str] = []
        self._ends = np.zeros(0, np.int64)

    def begin(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Gets ready, on every rank.

        Returns:
            what the writer of the data set is told beside folder, classes and where rows come from.

        Raises:
            InputError: the module predicts other things.
        """
        raise NotImplementedError

    def gathered(self, outputs: dict[str, Any]) -> dict[str, np.ndarray]:
        """Takes what rank zero needs of a batch's predictions, with the ``index`` of each row."""
        raise NotImplementedError

    def add(self, columns: dict[str, np.ndarray]) -> None:
        """Takes the gathered columns of a rank, on rank zero; the next rows each time."""
        raise NotImplementedError

    def finish(self) -> None:
        """Writes what is left, on rank zero."""

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens the data set on rank zero.

        Raises:
            InputError: the module predicts other things, or the folder holds a data set or tars of others.
        """
        options, data = self.begin(trainer, pl_module), data_of(trainer)
        default = run_folder(trainer) / self.FOLDER
        folder = to_path(self.output or default)
        if (folder / MANIFEST).exists():
            raise InputError(f"{folder} holds a data set; remove it, or name another output of {type(self).__name__}")
        check_output(folder, overwrite=True)
        self._written = set()
        self._splits, self._ends = _splits_of_rows(data)
        if trainer.is_global_zero:
            options = origins_of(data.manifests) | options
            self._writer = ShardWriter(folder, classes=data.manifest.classes, overwrite=True, **options)

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
        for columns in _from_all_ranks(self.gathered(outputs), trainer.world_size):
            if self._writer is not None and len(columns["index"]):
                self.add(columns)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Closes the data set; its manifest is written last."""
        if self._writer is None:
            return
        self.finish()
        folds = data_of(trainer).manifest.folds
        if folds and self._written.issuperset(folds):  # not where only some splits were predicted
            self._writer.folds = tuple(folds)
        self._writer.close()
        folder, self._writer = self._writer.folder, None
        rank_zero_info(f"Predictions: {folder}. Look at them:  ss2a shards inspect {quote(str(folder))}")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Removes what was written."""
        if self._writer is not None:
            self._writer.abandon()
            self._writer = None

    def write_rows(self, columns: Columns, index: np.ndarray) -> None:
        """Writes consecutive rows, each into the split of its number."""
        assert self._writer is not None
        for split, start, stop in self._runs(index):
            self._writer.write(split, slice_columns(columns, start, stop))
            self._written.add(split)

    def _runs(self, index: np.ndarray) -> Iterator[tuple[str, int, int]]:
        """Cuts consecutive rows where a split ends."""
        of_row = np.searchsorted(self._ends, index, side="right")
        for number in np.unique(of_row):
            rows = np.flatnonzero(of_row == number)
            yield self._splits[number], int(rows[0]), int(rows[-1]) + 1


class CMSSShardWriter(PredictionWriter):
    """Writes the CMSS embeddings of ``predict_step`` as a data set of kind ``pairs``, float16, in the source's order.

    Splits, folds, keys, classes, origins and groups are the source's. The fields are named ``visual`` and ``audio`` as
    there, and their encoder is ``cmss:CHECKPOINT:DIGEST`` (of the manifold's weights), so that they are never taken for
    CLIP or CLAP embeddings, nor for those of another manifold. There is no label head: it reads audio embeddings.

    Args:
        output: folder of the data set; None: ``cmss`` in the run's folder. It must not hold one yet; what an
            interrupted run left there is replaced.
    """

    FOLDER = "cmss"

    def begin(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """See :class:`PredictionWriter`."""
        manifold: Manifold = embeds_pairs(pl_module, self).evaluated_manifold
        spec = FieldSpec(
            width=manifold.options.width, encoder=f"cmss:{_checkpoint(trainer)}:{weights_digest(manifold)}"
        )
        return {"kind": "pairs", "fields": dict.fromkeys(("visual", "audio"), spec)}

    def gathered(self, outputs: dict[str, Any]) -> dict[str, np.ndarray]:
        """See :class:`PredictionWriter`."""
        columns = {name: outputs[name].cpu().numpy() for name in (*COLUMNS, "index")}
        return columns | {"key": np.array(outputs["key"], dtype=np.bytes_)}

    def add(self, columns: dict[str, np.ndarray]) -> None:
        """See :class:`PredictionWriter`."""
        index = columns.pop("index")
        self.write_rows(dict(columns), index)


class PredictionShardWriter(PredictionWriter):
    """Writes the embeddings that a Remixer, an aggregator, a mapper or a translator predicts, beside their rows.

    The data set is the source, of its kind and to the bit, with one field more: ``predicted_audio``, or
    ``predicted_visual`` of a translator, float16. They live in the space of the field that they stand for (``audio``,
    or what is seen), whose encoder the manifest names as ever. Their own encoder is
    ``ss2a-SAMPLING:CHECKPOINT:DIGEST in SPACE``, so that predictions of other weights are never taken for these.

    Args:
        output: folder of the data set; None: ``predictions`` in the run's folder. It must not hold one yet; what an
            interrupted run left there is replaced.
        sampling: the ``mean`` of the predicted Gaussian, one ``draw``, or ``cycle_mix`` as the model sets it, where the
            stage has it; None: a diffusion mapper's draw, of all others the mean.
        seed: of draws, at least 0. Each row draws by its key, whatever batch and process it is in.
    """

    FOLDER = "predictions"

    def __init__(self, output: str | None = None, sampling: Sampling | None = None, seed: int = 0) -> None:
        super().__init__(output)
        check = OptionCheck("PredictionShardWriter")
        if sampling is not None:
            check.one_of(get_args(Sampling), sampling=sampling)
        check.at_least(0, seed=seed)
        self.sampling, self.seed = sampling, seed
        self._field = ""
        self._source: ShardRows | None = None
        self._waiting: list[dict[str, np.ndarray]] = []

    def begin(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """See :class:`PredictionWriter`."""
        module, data = predicts_embeddings(pl_module, self), data_of(trainer)
        sampling = self.sampling or module.samplings[0]
        if sampling not in module.samplings:
            raise InputError(
                f"PredictionShardWriter.sampling is {sampling}, and this {type(pl_module).__name__} predicts by "
                f"{' or '.join(module.samplings)}"
            )
        module.prediction = Prediction(sampling, self.seed)
        self._field, self._waiting = f"predicted_{module.PREDICTS}", []
        manifests = data.manifests
        kept = [name for name in data.manifest.columns if name != self._field]
        self._source = ShardRows(data.datasets, manifests, data.splits("predict"), kept)
        space = data.manifest.fields[module.PREDICTS]
        encoder = f"ss2a-{sampling}:{_checkpoint(trainer)}:{weights_digest(pl_module)} in {space.encoder}"
        fields = {name: widest_field(name, manifests) for name in data.manifest.fields if name != self._field}
        fields[self._field] = FieldSpec(space.width, encoder, role=module.PREDICTS)
        how = f"{type(pl_module).__name__} of {_checkpoint(trainer)}, {sampling}, seed {self.seed}"
        made_by = (origins_of(manifests)["made_by"] or {}) | {self._field: how}
        return {"kind": data.manifest.kind, "fields": fields, "made_by": made_by, "label_head": data.label_head}

    def gathered(self, outputs: dict[str, Any]) -> dict[str, np.ndarray]:
        """See :class:`PredictionWriter`."""
        return {name: outputs[name].cpu().numpy() for name in ("index", "predicted")}

    def add(self, columns: dict[str, np.ndarray]) -> None:
        """See :class:`PredictionWriter`."""
        self._waiting.append(columns)
        if sum(len(part["index"]) for part in self._waiting) >= ROWS_AT_ONCE:
            self.finish()

    def finish(self) -> None:
        """Writes the rows that wait, with all else that the source's shards say of them."""
        if not self._waiting:
            return
        assert self._source is not None
        index, predicted = (np.concatenate([part[name] for part in self._waiting]) for name in ("index", "predicted"))
        self._waiting = []
        rows = self._source.read(np.array([[index[0], index[-1] + 1]]))
        columns = {name: _as_written(column) for name, column in rows.items()}
        self.write_rows(columns | {self._field: predicted}, index)


def _as_written(column: Column) -> np.ndarray | Ragged:
    if isinstance(column, RaggedRows):
        return Ragged(column.values.numpy(), column.offsets.numpy())
    return column if isinstance(column, np.ndarray) else column.numpy()


def _splits_of_rows(data: ShardDataModule) -> tuple[list[str], np.ndarray]:
    """Lists the splits in the order in which rows are numbered, and the number of the row after each."""
    parts = [
        (split, manifest.rows(split))
        for manifest, splits in zip(data.manifests, data.splits("predict"), strict=True)
        for split in splits
    ]
    return [split for split, _ in parts], np.cumsum([rows for _, rows in parts])


def _checkpoint(trainer: Trainer) -> str:
    return Path(trainer.ckpt_path).name if trainer.ckpt_path else "untrained"


def _from_all_ranks(columns: dict[str, np.ndarray], world_size: int) -> list[dict[str, np.ndarray]]:
    if world_size == 1:
        return [columns]
    gathered: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(gathered, columns)
    return gathered
