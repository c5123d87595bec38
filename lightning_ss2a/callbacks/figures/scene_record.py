"""Validation scenes kept for figures, in bounded memory: sums over all of them, and some of them whole.

Shapes: B scenes, S sources, T iterations of Cycle Mix, G groups of scenes by their number of sources.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import one_hot, pad

from lightning_ss2a.data.loading.tensors import (
    Batch,
    RaggedRows,
    Rows,
    count,
    join,
    ragged_column,
    take,
    tensor_column,
)
from lightning_ss2a.models import RemixerOptions

GROUPS = ("1", "2", "3", "4", "5 or more")
"""Groups of scenes, by the sources seen in them."""
MEANS = ("sources", "global", "rest", "uniform", "effective", "slots")
"""Columns of the means by group, see :func:`_means`."""
GOLDEN = 0x9E3779B97F4A7C15 - 2**64
"""The golden ratio's fraction, in 64 bits: its multiples modulo 1 are spread more evenly than random numbers."""


@dataclass
class SceneRecord:
    """The scenes of a validation epoch.

    Whole are kept the scenes whose index times the golden ratio has the lowest fractions: they lie evenly over the
    split, whatever its order, and are the same every epoch, in any batches and on any number of ranks.

    Attributes:
        max_rows: most scenes that are kept whole.
        totals: float64 sums over all scenes: ``scenes`` [G], ``means`` [G, len(MEANS)], ``history`` [G, T].
        parts: the scenes kept, see :func:`scene_rows`; up to twice ``max_rows`` until they are thinned.
    """

    max_rows: int
    totals: dict[str, Tensor] = field(default_factory=dict)
    parts: list[Rows] = field(default_factory=list)

    def add(self, rows: Rows) -> None:
        """Takes in the scenes of a batch."""
        self._add_totals(_totals(rows))
        self.parts.append(rows)
        if sum(map(count, self.parts)) > 2 * self.max_rows:
            self.parts = [_thin(join(self.parts), self.max_rows)]

    def rows(self) -> Rows:
        """Returns the scenes kept, in the order of the split."""
        rows = _thin(join(self.parts), self.max_rows)
        return take(rows, tensor_column(rows, "index").argsort())

    def mean(self, name: str, groups: bool = True) -> Tensor:
        """Averages ``means`` or ``history`` over the scenes of each group, NaN without any; or over all scenes."""
        sums, scenes = self.totals[name], self.totals["scenes"]
        return sums / scenes.unsqueeze(1) if groups else sums.sum(0) / scenes.sum()

    def gathered(self) -> "SceneRecord":
        """Gathers the records of all ranks into one; a collective call, so every rank makes it, also without scenes."""
        if not (dist.is_available() and dist.is_initialized()):
            return self
        mine = SceneRecord(self.max_rows, self.totals, [self.rows()] if self.parts else [])
        records = [mine] * dist.get_world_size()
        dist.all_gather_object(records, mine)
        return merged(records)

    def _add_totals(self, totals: Mapping[str, Tensor]) -> None:
        self.totals = {name: value + self.totals.get(name, 0) for name, value in totals.items()}


def merged(records: Sequence[SceneRecord]) -> SceneRecord:
    """Merges the records of several ranks into one."""
    together = SceneRecord(records[0].max_rows)
    for record in records:
        together.parts += record.parts
        if record.totals:
            together._add_totals(record.totals)
    return together


def scene_rows(outputs: Mapping[str, Tensor], batch: Batch, use_global: bool, options: RemixerOptions) -> Rows:
    """Collects what is kept of a batch of scenes, on the CPU.

    Args:
        outputs: ``attention`` [B, slots] and, with Cycle Mix, ``history`` [B, T].
        batch: ``valid`` [B, S], ``classes`` [B, any] (-1: none), ``key``, ``index`` [B].
        use_global: whether slot 0 is the global embedding.
        options: the Remixer's: are empty slots attended to?

    Returns:
        ``key``; ``index``; ``group``, the position in ``GROUPS``; ``global``, the share of the global embedding, 0
        without one; ``tokens``, over which attention is spread, [cls] included; ``shares`` and ``classes`` of the
        sources that have a slot; ``history``. All shares are of 1.
    """
    shown: Rows = {name: value.detach().float().cpu() for name, value in outputs.items() if name != "attention"}
    attention = outputs["attention"].detach().float().cpu()
    there = batch["valid"].cpu()
    number, shares = there.sum(1), attention[:, int(use_global) :]
    valid = there[:, : shares.shape[1]]
    shares = shares[:, : valid.shape[1]]
    classes = batch["classes"].cpu()
    classes = pad(classes, (0, valid.shape[1] - classes.shape[1]), value=-1)  # or cropped: the first have a slot
    offsets = pad(valid.sum(1).cumsum(0), (1, 0))
    tokens = valid.sum(1) + int(use_global) if options.mask_padding else number * 0 + options.max_slots
    return shown | {
        "key": np.array(batch["key"], dtype=np.str_),
        "index": batch["index"].cpu(),
        "group": number.clamp(1, len(GROUPS)) - 1,
        "global": attention[:, 0] if use_global else torch.zeros(len(number)),
        "tokens": tokens + 1,
        "shares": RaggedRows(shares[valid], offsets),
        "classes": RaggedRows(classes[valid], offsets),
    }


def _totals(rows: Rows) -> dict[str, Tensor]:
    # A product, since adding by index sums in no fixed order.
    member = one_hot(tensor_column(rows, "group"), len(GROUPS)).double().T
    summed = {"means": _means(rows)} | ({"history": tensor_column(rows, "history")} if "history" in rows else {})
    return {"scenes": member.sum(1)} | {name: member @ value.double() for name, value in summed.items()}


def _means(rows: Rows) -> Tensor:
    """Computes what is averaged of each scene, [B, len(MEANS)].

    Shares of all sources, of the global embedding and of the rest; the share of all sources if all tokens had the same;
    the effective number of sources, exp of the entropy of how attention is spread among them; and their real number.
    """
    shares, valid = ragged_column(rows, "shares").padded()
    of_global, tokens = tensor_column(rows, "global"), tensor_column(rows, "tokens")
    summed, slots = shares.sum(1), valid.sum(1)
    effective = torch.special.entr(shares / summed.clamp_min(1e-12).unsqueeze(1)).sum(1).exp()
    rest = 1 - summed - of_global
    return torch.stack([summed, of_global, rest, slots / tokens, effective, slots], dim=1)


def _thin(rows: Rows, max_rows: int) -> Rows:
    return take(rows, (tensor_column(rows, "index") * GOLDEN).argsort()[:max_rows])
