"""Gives Lightning batches from one or several data sets."""

import hashlib
import math
import os
from collections.abc import Hashable, Iterator, Sequence
from functools import cached_property
from typing import Literal, TypeVar, get_args

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info

from lightning_ss2a.data.format.compatibility import as_list, load_manifests
from lightning_ss2a.data.format.label_head import LabelHead
from lightning_ss2a.data.format.manifest import Manifest, Shard
from lightning_ss2a.data.loading.batch_order import MemoryPlan, StreamPlan, rank_slice
from lightning_ss2a.data.loading.in_memory import MemoryRows, MemorySource
from lightning_ss2a.data.loading.loaders import SPLIT, EvaluationLoader, TrainingLoader, TrainingSource
from lightning_ss2a.data.loading.residency import CPU, Place, Residency, choose_residency
from lightning_ss2a.data.loading.row_selection import checked_rows
from lightning_ss2a.data.loading.shard_rows import ShardRows, columns_of
from lightning_ss2a.data.loading.shared_cache import shared_cache
from lightning_ss2a.data.loading.stage_splits import Stage, StageSplits
from lightning_ss2a.data.loading.streaming import StreamRows, StreamSource
from lightning_ss2a.data.loading.tensors import Rows, bytes_of, move
from lightning_ss2a.data.loading.training_parts import SplitRows, TrainingParts, training_parts
from lightning_ss2a.errors import InputError
from lightning_ss2a.files import is_local, local_path

RowsPerGroup = Literal["all", "one"]

Selectable = TypeVar("Selectable", MemoryRows, ShardRows)


class ShardDataModule(LightningDataModule):
    """Batches from one or several data sets, the same on any number of processes and workers.

    Training: an epoch's order depends on (seed, epoch) alone; rank r takes the r-th contiguous part of every global
    batch; a row has at most ``ceil(weight)`` turns an epoch; less than one global batch is left out, other rows each
    time; a run resumed from any checkpoint goes on with the next batch. Where a field has several views, training shows
    one, drawn anew each time.

    Evaluation: every row once, in order, batches dealt to the ranks in turn; where a rank has none left it gets a batch
    of 0 rows. A field with several views is the mean of its views' embeddings as stored (not normalised).

    Residency ``auto``: ``device`` if the rows take at most 25 % of the free memory of a CUDA device; else ``memory`` if
    they take at most 50 % of the available memory, counted once for each process of the machine; else ``stream``.

    Args:
        datasets: folders or URLs of data sets of one kind, encoders and classes.
        weights: times that a row of each data set is drawn an epoch, on average; 0.25: once in four epochs. None: 1.
        batch_size: rows of a training batch over ALL processes; a process sees ``batch_size`` / processes of them.
        evaluation_batch_size: rows of a validation, test or prediction batch of one process.
        fold: validate (and test) on this fold of the manifest, from 0, train on all others. None: splits by name.
        train_split: split to train on, without ``fold``.
        validation_split: split to validate on, without ``fold``.
        test_split: split to test on. None: the fold, or the split ``test``.
        predict_split: split to predict. None: all splits.
        train_with: with ``fold``, train on the splits ``FOLD_NAME`` of this name, too, of the folds trained on:
            ``translated`` in the demo. Baselines and the CLIP score's translator are fitted without them.
        residency: where rows stay, see above.
        num_workers: processes that read ahead when streaming; 0: one thread. Unused otherwise.
        shuffle_rows: when streaming, rows shuffled with each other; memory needed is about three times that many rows.
        rows_per_group: ``all``, or ``one``: an epoch draws one random row of each group, and validation and test read
            the first row of each group, and so do the baselines. Not when streaming.
        shuffle_pairs: train each row with the audio of another, the same other in every epoch: the baseline "trained
            on shuffled pairs". Where rows are selected, partners are drawn among them, anew for each selection.
            Evaluation keeps the true pairs. Not when streaming.
        seed: seed of all orders.

    Raises:
        InputError: options that contradict each other or the data.
        ShardError: data sets that do not go together.
    """

    def __init__(
        self,
        datasets: str | list[str],
        weights: list[float] | None = None,
        batch_size: int = 1024,
        evaluation_batch_size: int = 1024,
        fold: int | None = None,
        train_split: str = "train",
        validation_split: str = "validation",
        test_split: str | None = None,
        predict_split: str | None = None,
        train_with: str | None = None,
        residency: Residency = "auto",
        num_workers: int = 0,
        shuffle_rows: int = 65536,
        rows_per_group: RowsPerGroup = "all",
        shuffle_pairs: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.datasets = as_list(datasets)
        self.weights = [1.0] * len(self.datasets) if weights is None else list(weights)
        if not self.datasets:
            raise InputError("data.datasets is empty; name at least one folder with a manifest.json")
        if len(self.weights) != len(self.datasets) or not all(0 <= weight < math.inf for weight in self.weights):
            raise InputError(
                f"data.weights needs one number of at least 0 for each of the {len(self.datasets)} data sets, "
                f"found {self.weights}"
            )
        for option, number, least in (
            ("batch_size", batch_size, 1),
            ("evaluation_batch_size", evaluation_batch_size, 1),
            ("num_workers", num_workers, 0),
            ("shuffle_rows", shuffle_rows, 1),
            ("seed", seed, 0),
        ):
            if number < least:
                raise InputError(f"data.{option} is {number}, needs at least {least}")
        for option, choice, choices in (
            ("residency", residency, get_args(Residency)),
            ("rows_per_group", rows_per_group, get_args(RowsPerGroup)),
        ):
            if choice not in choices:
                raise InputError(f"data.{option} is {choice!r}, needs one of {', '.join(choices)}")
        self.batch_size = batch_size
        self.evaluation_batch_size = evaluation_batch_size
        self.stage_splits = StageSplits(fold, train_split, validation_split, test_split, predict_split, train_with)
        self.residency = residency
        self.num_workers = num_workers
        self.shuffle_rows = shuffle_rows
        self.rows_per_group = rows_per_group
        self.shuffle_pairs = shuffle_pairs
        self.seed = seed
        self._place: Place | None = None
        self._tables: dict[str, MemoryRows] = {}
        self._selected: np.ndarray | None = None

    # ---------------------------------------------------------------- what the manifests say

    @cached_property
    def manifests(self) -> list[Manifest]:
        """Manifest of each data set."""
        return load_manifests(self.datasets)

    @property
    def manifest(self) -> Manifest:
        """Manifest of the first data set; kind, fields and classes are those of all."""
        return self.manifests[0]

    @property
    def classes(self) -> list[str]:
        """Class names."""
        return list(self.manifest.classes)

    @cached_property
    def label_head(self) -> LabelHead | None:
        """The label head that comes with the data, if any."""
        for dataset, manifest in zip(self.datasets, self.manifests, strict=True):
            if manifest.label_head is not None:
                return manifest.load_label_head(dataset)
        return None

    def splits(self, stage: Stage) -> list[list[str]]:
        """Names the splits of each data set that a stage reads.

        All data sets are trained on; those without a split for an evaluation are left out of it, if others have one.

        Raises:
            InputError: no such split or fold.
        """
        return self.stage_splits.select(stage, self.datasets, self.manifests)

    # ---------------------------------------------------------------- Lightning's hooks

    def setup(self, stage: str) -> None:
        """Checks the options against the data, and settles where rows stay."""
        if stage == "fit":
            rank_slice(self.batch_size, self._rank, self._world_size)
            self.splits("train")
            self.splits("validation")
        self._settle_residency()

    def train_dataloader(self) -> TrainingLoader:
        """Makes the loader of training batches; stateful."""
        loader = TrainingLoader(self._training_source(), self._trainer_position, dict(self._training_splits()))
        try:
            len(loader)  # too little data is an error now, not in the first epoch
        except InputError as error:
            if self._selected is None:
                raise
            selected = f"{len(self._selected)} of {self._training_rows} training rows are selected"
            raise InputError(f"{error}; {selected}") from None
        return loader

    def val_dataloader(self) -> EvaluationLoader:
        """Makes the loader of validation batches."""
        return self._evaluation_loader("validation")

    def test_dataloader(self) -> EvaluationLoader:
        """Makes the loader of test batches."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> EvaluationLoader:
        """Makes the loader of all rows of the splits to predict, whatever ``rows_per_group``."""
        return self._evaluation_loader("predict")

    def training_rows_loader(self, every_row: bool = False, every_view: bool = False) -> EvaluationLoader:
        """Makes a loader of the training rows as evaluation sees them, in order, the same on every rank.

        Args:
            every_row: also those of ``train_with``, and all of each group with ``rows_per_group=one``, which otherwise
                gives the first: rows of a group are alike, and count once in training too.
            every_view: fields with several views are [rows, views, width] instead of the mean over them.
        """
        rows = self._rows("train") if every_row else self._evaluated("reference")
        return EvaluationLoader(rows.with_every_view() if every_view else rows, self.evaluation_batch_size)

    def training_parts(self, most: int = 5) -> TrainingParts:
        """Divides the training rows for cross-validation; nothing that is alike is in two parts.

        Parts are the folds trained on, each with the rows of ``train_with`` beside it; without folds, or with one,
        groups are dealt to at most ``most`` parts in turn. Data sets share no group.
        """
        group = np.asarray(self.training_columns(["group"])["group"])
        splits = [
            SplitRows(i, position % max(1, len(measured)), position < len(measured), manifest.rows(name))
            for i, (manifest, names, measured) in enumerate(
                zip(self.manifests, self.splits("train"), self.splits("reference"), strict=True)
            )
            for position, name in enumerate(names)
        ]
        return training_parts(group, splits, self.weights, self.rows_per_group == "one", most)

    def measured_training_rows_key(self) -> Hashable:
        """Names all that ``training_rows_loader`` and ``training_parts`` depend on: the same key, the same batches."""
        device = self._device if self._settle_residency() == "device" else CPU
        rows = self._content("reference"), self._content("train"), tuple(self.weights)
        return *rows, str(device), self.rows_per_group, self.evaluation_batch_size

    # ---------------------------------------------------------------- rows to train on, as callbacks choose them

    @property
    def selected_training_rows(self) -> np.ndarray | None:
        """Numbers of the rows that training draws from, int64 [rows], increasing, read only; None: all."""
        return self._selected

    def select_training_rows(self, rows: np.ndarray | None) -> None:
        """Lets training draw from these rows only, from the next ``train_dataloader()`` on.

        An epoch is then what it is of data without the other rows: weights count the rows selected, groups and partners
        of shuffled pairs are drawn among them, partners anew for each selection. Select the same rows on every rank.
        Evaluation reads all rows as ever.

        Args:
            rows: row numbers as in ``batch["index"]``, strictly increasing, int64 [rows]; None: all.

        Raises:
            InputError: no rows, or rows that do not exist or are not strictly increasing.
        """
        if rows is not None:
            rows = checked_rows(rows, self._training_rows)
            if not len(rows):
                raise InputError("no training row is selected; select some, or None for all")
        self._selected = rows

    def training_columns(self, names: Sequence[str]) -> Rows:
        """Reads columns of all training rows, selected or not, in the order of row numbers.

        From memory where training rows are there already; else only these columns are read.

        Args:
            names: such as ``pair_origin``, ``class_index``, ``key``, ``group``.

        Returns:
            Each column [rows, ...] in storage dtype on the CPU, text as numpy ``S``; not to be written to.

        Raises:
            InputError: there is no such column.
        """
        for name in names:
            if name not in self.manifest.columns:
                raise InputError(f"{self.datasets[0]}: no column {name!r}, only {', '.join(self.manifest.columns)}")
        table = self._tables.get(str(self.splits("train")))
        if table is not None and all(name in table.rows for name in names):
            return move({name: table.rows[name] for name in names}, torch.device("cpu"))
        return ShardRows(self.datasets, self.manifests, self.splits("train"), names).read_all()

    def training_rows_subset_loader(self, rows: np.ndarray) -> EvaluationLoader:
        """Makes a loader of these training rows as evaluation sees them, each once, in order, dealt to the ranks.

        Whatever is selected for training, and whatever ``rows_per_group``.

        Args:
            rows: row numbers, strictly increasing, int64 [rows]; the ``index`` of the batches; may be empty.

        Raises:
            InputError: rows that do not exist or are not strictly increasing.
        """
        subset = self._rows("train").select(checked_rows(rows, self._training_rows))
        return EvaluationLoader(subset, self.evaluation_batch_size, self._rank, self._world_size)

    # ---------------------------------------------------------------- how it is done

    @property
    def is_streamed(self) -> bool:
        """Whether rows are read from their files again in each epoch, because they fit in no memory or as asked for."""
        return self._settle_residency() == "stream"

    @property
    def _training_rows(self) -> int:
        return sum(shard.rows for shard in self._shards(self.splits("train")))

    def _shards(self, splits: list[list[str]]) -> Iterator[Shard]:
        """Gives the shards of these splits of each data set."""
        for manifest, names in zip(self.manifests, splits, strict=True):
            for name in names:
                yield from manifest.shards(name)

    @property
    def _rank(self) -> int:
        return self.trainer.global_rank if self.trainer is not None else 0

    @property
    def _world_size(self) -> int:
        return self.trainer.world_size if self.trainer is not None else 1

    @property
    def _device(self) -> torch.device:
        return self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")

    def _trainer_position(self) -> tuple[int, int] | None:
        trainer = self.trainer
        if trainer is None or not trainer.training:
            return None
        overfits = trainer.overfit_batches  # type: ignore[attr-defined]  # Lightning sets it outside of its class
        epoch = 0 if overfits else trainer.current_epoch  # to overfit is to see the same batches again
        return epoch, trainer.fit_loop.epoch_loop.batch_progress.current.ready

    def _settle_residency(self) -> Place:
        if self._place is None:
            size = sum(shard.unpacked_bytes for shard in self._shards([list(m.splits) for m in self.manifests]))
            local_ranks = self.trainer.num_devices if self.trainer is not None else 1
            cache = shared_cache()
            cached = {} if cache is None else {"cached_bytes": cache.bytes_on}
            place, reason = choose_residency(self.residency, size, self._device, local_ranks, **cached)
            if self.trainer is not None:  # free memory differs between ranks, their batches must not
                place = self.trainer.strategy.broadcast(place)
            for option, value, plain in (
                ("rows_per_group", self.rows_per_group, "all"),
                ("shuffle_pairs", self.shuffle_pairs, False),
            ):
                if place == "stream" and value != plain:
                    raise InputError(f"data.{option}={value} needs residency memory or device; {reason}")
            rank_zero_info(reason)
            self._place = place
        return self._place

    def _files(self, stage: Stage, evaluation: bool = True) -> ShardRows:
        return ShardRows(self.datasets, self.manifests, self.splits(stage), columns_of(self.manifest, evaluation))

    def _rows(self, stage: Stage) -> MemoryRows | StreamRows:
        """Gives the rows of a stage as evaluation reads them."""
        return StreamRows(self._files(stage)) if self.is_streamed else self._table(stage)

    def _table(self, stage: Stage) -> MemoryRows:
        """Gives the rows of a stage as tensors, which are loaded once."""
        key = str(self.splits(stage))
        if key not in self._tables:
            device = self._device if self._settle_residency() == "device" else CPU
            self._tables[key] = self._load_or_find(stage, device)
        return self._tables[key]

    def _load_or_find(self, stage: Stage, device: torch.device) -> MemoryRows:
        """Gives the rows of a stage on a device, loaded by this run or an earlier one of this process."""

        def load() -> MemoryRows:
            files = self._files(stage)
            return MemoryRows(move(files.read_all(), device), files.views, files.bounds)

        cache = shared_cache()
        if cache is None:
            return load()
        expected = sum(shard.unpacked_bytes for shard in self._shards(self.splits(stage)))
        key = ("rows", self._content(stage), str(device))
        return cache.get(key, load, lambda table: bytes_of(table.rows), device, expected)

    def _content(self, stage: Stage) -> Hashable:
        """Names what the rows of a stage are: the folders, all that their manifests say, and the splits."""
        where = [os.path.abspath(local_path(d)) if is_local(d) else d for d in self.datasets]
        digests = [manifest.digest for manifest in self.manifests]
        return tuple(zip(where, digests, map(tuple, self.splits(stage)), strict=True))

    def _training_splits(self) -> Iterator[tuple[str, str]]:
        """Names each split that is trained on and what its rows are: their numbers, and a digest of their shards."""
        first = 0
        for i, (manifest, names) in enumerate(zip(self.manifests, self.splits("train"), strict=True), 1):
            for name in names:
                shards, rows = manifest.shards(name), manifest.rows(name)
                digest = hashlib.sha256("".join(shard.sha256 for shard in shards).encode()).hexdigest()[:16]
                of_several = f" of data set {i}" if len(self.datasets) > 1 else ""
                yield f"{SPLIT}{name}{of_several}", f"{rows} rows from row {first} on (sha256 {digest})"
                first += rows

    def _evaluated(self, stage: Stage) -> MemoryRows | StreamRows:
        """Gives the rows of a stage that are measured."""
        if self.rows_per_group == "one" and stage != "predict":  # not when streaming
            return self._table(stage).first_of_groups()
        return self._rows(stage)

    def _evaluation_loader(self, stage: Stage) -> EvaluationLoader:
        return EvaluationLoader(self._evaluated(stage), self.evaluation_batch_size, self._rank, self._world_size)

    def _training_source(self) -> TrainingSource:
        place = self._settle_residency()
        pin = self._device.type == "cuda" and place != "device"
        if place == "stream":
            files = self._selection_of(self._files("train", evaluation=False))
            stream = StreamPlan(files.chunks(), self.weights, self.batch_size, self.shuffle_rows, self.seed)
            return StreamSource(files, stream, self._rank, self._world_size, self.num_workers, pin)
        table = self._selection_of(self._table("train"))
        by_group = self.rows_per_group == "one"
        plan = MemoryPlan(table.units(by_group), self.weights, self.batch_size, self.seed)
        share = rank_slice(self.batch_size, self._rank, self._world_size)
        return MemorySource(table, plan, share, by_group, self.shuffle_pairs, pin)

    def _selection_of(self, rows: Selectable) -> Selectable:
        return rows if self._selected is None else rows.select(self._selected)
