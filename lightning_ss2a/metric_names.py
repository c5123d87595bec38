"""Names of logged metrics: ``METRIC`` of the model's own prediction, ``METRIC_baseline/NAME`` of a baseline."""

from collections.abc import Iterable

OWN = "prediction"
"""The model's own prediction, where predictions are told apart by name."""

_BASELINE = "_baseline/"


def baseline_metric(metric: str, baseline: str) -> str:
    """Names what a metric says of a baseline."""
    return f"{metric}{_BASELINE}{baseline}"


def is_baseline(name: str) -> bool:
    """Tells whether a logged metric is that of a baseline."""
    return _BASELINE in name


def baselines_among(names: Iterable[str]) -> list[str]:
    """Finds the baselines that logged metrics are of, in the order in which they come first."""
    return list(dict.fromkeys(name.rpartition(_BASELINE)[2] for name in names if is_baseline(name)))
