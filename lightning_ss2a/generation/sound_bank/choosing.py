"""Chooses real sounds by their embeddings. Arrays in, numbers out.

Letters: S sources, N sounds, V views, W width.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from lightning_ss2a.builders.splits import connected_rows

EXCLUDED = -1e6
"""Similarity of sounds that must not be chosen."""


def similarities(wanted: np.ndarray, embeddings: np.ndarray) -> np.ndarray:
    """Computes the cosine of each wanted embedding to each sound: to the mean of its views' directions.

    Args:
        wanted: [S, W], none zero.
        embeddings: [N, V, W].

    Returns:
        float64 [S, N].
    """
    return _unit(wanted) @ _unit(_unit(embeddings).mean(axis=1)).T


def hubness(expected: np.ndarray, embeddings: np.ndarray) -> np.ndarray:
    """Computes how near each sound is to everything that may be wanted: the mean cosine.

    Predicted embeddings lie closer together than those of sounds, near their mean, and a few sounds that lie there, too
    are the nearest of most: hubs (Radovanovic et al., Hubs in Space, JMLR 2010). Less this mean, the similarity tells
    how much nearer than usual a sound is, as in the correction of hubs for zero-shot retrieval (Dinu et al., 2015).

    Args:
        expected: [M, W], none zero.
        embeddings: [N, V, W].

    Returns:
        float64 [N].
    """
    return similarities(expected, embeddings).mean(axis=0)


def sources_alike(wanted: np.ndarray, same: float, labels: Sequence[str]) -> list[int]:
    """Joins sources that want nearly the same sound: those with a cosine of at least ``same``, and what these join.

    So are sources of one label: three cows may moo in one voice, and not one as a cow and one as a camel.

    Args:
        wanted: [S, W].
        same: the least cosine of two that may share a sound.
        labels: what each is called; empty where nothing is known.

    Returns:
        for each source, the number of the first source that it is joined with.
    """
    names = np.array([label.casefold() for label in labels])
    called_alike = (names[:, None] == names) & (names != "")
    alike = (_unit(wanted) @ _unit(wanted).T >= same) | called_alike
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
    nearness = similarity[members].sum(axis=0)
    for sound in np.argsort(-nearness, kind="stable")[:candidates].tolist():
        changed = [sound if own else old for old, own in zip(chosen, members, strict=True)]
        if sound not in taken and changed != chosen and nearness[sound] > EXCLUDED:
            yield changed


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors.astype(np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
