"""How loud each source is, where a mixer knows only sets of sources: an average over sets.

A Remixer reads a set: a token twice, or twice as long, is nothing that it was trained on. It was trained on which
sources there are. So a source of weight w (the loudest has 1) is in the set for a part w of all levels t in (0, 1]:

    a(w) = integral over t of a({m: w_m >= t})

the Lovász extension of a function of sets. Equal weights give a of all sources, a source of weight 0 is left out, what
lies between changes evenly, whatever the weights' unit; there are as many sets as there are different weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Levels:
    """Sets of sources and their shares.

    Attributes:
        sets: which sources are in each set, bool [sets, sources]; each set is a part of the one before.
        shares: above 0, with a sum of 1, float32 [sets].
    """

    sets: Tensor
    shares: Tensor


def levels_of(weights: Sequence[float]) -> Levels:
    """Finds the sets of sources that weights mean.

    Args:
        weights: of the sources, at least one above 0, none negative.
    """
    relative = torch.tensor(weights, dtype=torch.float64)
    relative = relative / relative.max()
    steps = relative[relative > 0].unique()  # rising
    shares = steps.diff(prepend=steps.new_zeros(1))
    return Levels(relative >= steps.unsqueeze(1), shares.float())
