"""Chooses real sounds by their embeddings. Arrays in, numbers out.

Letters: S sources, N sounds, V views, W width.
"""

from collections.abc import Iterator

import numpy as np
from scipy.optimize import linear_sum_assignment

from lightning_ss2a.builders.splits import connected_rows


def similarities(wanted: np.ndarray, embeddings: np.ndarray) -> np.ndarray:
    """Computes the cosine of each wanted embedding to each sound: to the mean of its views' directions.

    Args:
        wanted: [S, W], none zero.
        embeddings: [N, V, W].

    Returns:
        float64 [S, N].
    """
    return _unit(wanted) @ _unit(_unit(embeddings).mean(axis=1)).T


def sources_alike(wanted: np.ndarray, same: float) -> list[int]:
    """Joins sources that want nearly the same sound: those with a cosine of at least ``same``, and what these join.

    Args:
        wanted: [S, W].
        same: the least cosine of two that may share a sound.

    Returns:
        for each source, the number of the first source that it is joined with.
    """
    alike = _unit(wanted) @ _unit(wanted).T >= same
    return connected_rows([[(*sorted((i, int(j))),) for j in np.flatnonzero(row)] for i, row in enumerate(alike)])


def assigned_sounds(similarity: np.ndarray, alike: list[int]) -> list[int]:
    """Gives each source a sound, another one unless sources are alike, so that the similarities' sum is the largest.

    Args:
        similarity: [S, N].
        alike: which sources may share, see :func:`sources_alike`; no more kinds of them than sounds.

    Returns:
        the number of each source's sound.
    """
    kinds = sorted(set(alike))
    members = np.array([[owner == kind for owner in alike] for kind in kinds])  # [kinds, S]
    rows, columns = linear_sum_assignment(members @ similarity, maximize=True)
    sound_of = {kinds[row]: int(column) for row, column in zip(rows, columns, strict=True)}
    return [sound_of[kind] for kind in alike]


def alternatives(
    chosen: list[int], kind: int, similarity: np.ndarray, alike: list[int], candidates: int
) -> Iterator[list[int]]:
    """Lists what else could be chosen for one kind of source: its nearest sounds that no other kind has.

    Args:
        chosen: the number of each source's sound.
        kind: of the sources that get another sound, as in ``alike``.
        similarity: [S, N].
        alike: see :func:`sources_alike`.
        candidates: how many of the nearest sounds are looked at, the one that is chosen included.

    Yields:
        the same choice but for these sources.
    """
    members = [owner == kind for owner in alike]
    taken = {sound for sound, own in zip(chosen, members, strict=True) if not own}
    for sound in np.argsort(-similarity[members].sum(axis=0), kind="stable")[:candidates].tolist():
        changed = [sound if own else old for old, own in zip(chosen, members, strict=True)]
        if sound not in taken and changed != chosen:
            yield changed


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors.astype(np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
