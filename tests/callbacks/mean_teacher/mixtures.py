"""Similarities as a teacher gives them to matching and mismatched pairs, with the truth."""

from typing import Any

import numpy as np

from lightning_ss2a.callbacks.mean_teacher.elbow import ElbowOptions


def mixture(pairs: int, rate: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines (float32) and which pairs are mismatched: two bells far apart, the better one with a long lower tail.

    Means, spreads and quantiles are those that a teacher trained on 20,000 annotated pairs of the simulated world (768
    and 512 dimensions, 10 epochs) gives to 80,000 others.
    """
    random = np.random.default_rng(seed)
    mismatched = random.random(pairs) < rate
    matching = 0.97 - random.gamma(5.2, 0.0145, pairs)
    similarity = np.where(mismatched, random.normal(0.01, 0.158, pairs), matching)
    return np.clip(similarity, -1, 1).astype(np.float32), mismatched


STRONG = ((0.035, 0.12), (0.887, 0.035))
"""Mean and standard deviation of the mismatched pairs and of the matching ones, by a teacher that tells them apart."""
WEAK = ((0.45, 0.11), (0.70, 0.09))
"""By one that confuses them: a matching pair is more similar than a mismatched one in 96 of 100 cases."""


def bells(
    pairs: int, rate: float, seed: int, teacher: tuple[tuple[float, float], tuple[float, float]]
) -> tuple[np.ndarray, np.ndarray]:
    """Cosines (float32) and which pairs are mismatched, both of them normally distributed."""
    random = np.random.default_rng(seed)
    mismatched = random.random(pairs) < rate
    bad, good = (random.normal(*one, pairs) for one in teacher)
    return np.clip(np.where(mismatched, bad, good), -1, 1).astype(np.float32), mismatched


def unlimited(**options: Any) -> ElbowOptions:
    """Options of the paper's elbow, by default without limits to what it drops."""
    return ElbowOptions(**{"min_kept_fraction": 0.0, "min_pairs": 1, "least_separation": None, **options})
