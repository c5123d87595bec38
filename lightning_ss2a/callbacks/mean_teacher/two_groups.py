"""Two groups of similarities: a mixture of two Gaussians, how far they are apart, and where one becomes the likelier.

The mixture is fitted by expectation-maximisation from the best split in two (2-means, exact on sorted values), so that
the same similarities always give the same groups. Equal similarities count once: a density has none, and many of
them, as of pairs that are in the data more than once, would pass for a group of their own.
"""

from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy.optimize import brentq

MOST_STEPS = 500
CONVERGED = 1e-8
"""Gain of a step in mean log likelihood at which the fit ends."""
LEAST_VARIANCE = 1e-4
"""Of a group, relative to the variance of all: on a single similarity its density would be infinite."""


@dataclass(frozen=True)
class TwoGroups:
    """A mixture of two Gaussians, the group of the lower mean first.

    Attributes:
        share: part of the similarities in each, sums to 1.
        mean: of each.
        deviation: standard deviation of each.
    """

    share: tuple[float, float]
    mean: tuple[float, float]
    deviation: tuple[float, float]

    @property
    def separation(self) -> float:
        """Ashman's D (Ashman, Bird and Zepf 1994), √2 |μ₁ - μ₂| / √(σ₁² + σ₂²); from 2 on two groups are apart."""
        (low, high), (first, second) = self.mean, self.deviation
        return sqrt(2) * (high - low) / sqrt(first**2 + second**2)

    @property
    def boundary(self) -> float | None:
        """Similarity between the means at which both groups are equally likely; None: one is likelier all the way."""
        low, high = self.mean
        if self.log_odds(low) >= 0 or self.log_odds(high) <= 0:
            return None
        return float(brentq(self.log_odds, low, high))

    def log_odds(self, similarity: float) -> float:
        """Computes the log odds of the upper group at a similarity."""
        lower, upper = self.log_densities(np.array([similarity]))[0]
        return float(upper - lower)

    def log_densities(self, values: np.ndarray) -> np.ndarray:
        """Computes the logarithm of share times density of each value [n] in each group, [n, 2]."""
        return log_densities(values, np.array(self.share), np.array(self.mean), np.array(self.deviation))


def fit_two_groups(ordered: np.ndarray) -> TwoGroups:
    """Fits the mixture to sorted values, not all equal, float64 [values]; equal ones count once."""
    ordered = np.unique(ordered)
    upper = (np.arange(len(ordered)) >= best_split(ordered)).astype(np.float64)
    parameters = estimate(ordered, np.stack([1 - upper, upper], 1))
    last = -np.inf
    for _ in range(MOST_STEPS):
        joint = log_densities(ordered, *parameters)
        total = np.logaddexp(joint[:, :1], joint[:, 1:])
        likelihood = float(total.mean())
        if likelihood - last < CONVERGED:
            break
        last, parameters = likelihood, estimate(ordered, np.exp(joint - total))
    order = np.argsort(parameters[1], kind="stable")
    share, mean, deviation = ((float(x[order[0]]), float(x[order[1]])) for x in parameters)
    return TwoGroups(share, mean, deviation)


def best_split(ordered: np.ndarray) -> int:
    """Finds how many of the lowest values make the first of two groups with the least squares about their means."""
    below = np.arange(1, len(ordered))
    mean_below = np.cumsum(ordered)[:-1] / below
    mean_above = np.cumsum(ordered[::-1])[-2::-1] / (len(ordered) - below)
    return int(np.argmax(below * (len(ordered) - below) * (mean_above - mean_below) ** 2)) + 1


def estimate(values: np.ndarray, belonging: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Estimates share, mean and deviation [2] of each group from how far each value [n] belongs to each, [n, 2]."""
    size = np.maximum(belonging.sum(0), np.finfo(np.float64).tiny)
    mean = values @ belonging / size
    variance = ((values[:, None] - mean) ** 2 * belonging).sum(0) / size
    return size / len(values), mean, np.sqrt(np.maximum(variance, LEAST_VARIANCE * values.var()))


def log_densities(values: np.ndarray, share: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Computes the logarithm of share times density of each value in each group, [n, 2]."""
    scaled = (values[:, None] - mean) / deviation
    return np.log(share) - np.log(deviation * sqrt(2 * np.pi)) - scaled**2 / 2
