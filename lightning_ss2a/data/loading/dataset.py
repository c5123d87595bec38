"""Gives notebooks and scripts the rows of a split."""

from collections.abc import Iterator
from functools import cached_property

from lightning_ss2a.data.format.compatibility import load_manifests
from lightning_ss2a.data.loading.loaders import EvaluationLoader
from lightning_ss2a.data.loading.shard_rows import ShardRows, columns_of
from lightning_ss2a.data.loading.streaming import StreamRows
from lightning_ss2a.data.loading.tensors import Batch, to_batch
from lightning_ss2a.errors import InputError


class ShardDataset:
    """One split of one data set, in its order.

    Iterating gives dict batches: float32 embeddings, int64 ``class_index``, ``pair_origin``, ``group`` and ``index``,
    the ``key`` of each row; scenes have ``sources`` [rows, longest, width] with the mask ``valid`` [rows, longest];
    videos ``frames`` and ``timestamps``. A field with several views is the mean of its views' embeddings.

    Args:
        path: folder or URL of the data set.
        split: name of the split.
        batch_size: rows of a batch when iterating.

    Raises:
        InputError: there is no such split.
    """

    def __init__(self, path: str, split: str, batch_size: int = 1024) -> None:
        self.manifest = load_manifests(str(path))[0]
        self.split = split
        self.batch_size = batch_size
        check_split(split, str(path), list(self.manifest.splits), option="split")
        self._files = ShardRows([str(path)], [self.manifest], [[split]], columns_of(self.manifest, evaluation=True))

    def __len__(self) -> int:
        return self._files.total

    def __iter__(self) -> Iterator[Batch]:
        return iter(EvaluationLoader(StreamRows(self._files), self.batch_size))

    def columns(self) -> Batch:
        """Reads the whole split as one batch."""
        return StreamRows(self._files).read(0, len(self))

    @cached_property
    def views(self) -> Batch:
        """The fields that have several views, all views of each row: float32 [rows, views, width]."""
        columns = to_batch(self._files.read_all())
        return {name: columns[name] for name in self._files.views}


def check_split(split: str, dataset: str, splits: list[str], option: str) -> str:
    """Checks that a split exists, and returns its name.

    Raises:
        InputError: it does not.
    """
    if split not in splits:
        raise InputError(f"{dataset}: {option} is {split!r}, but the data set has only {splits}")
    return split
