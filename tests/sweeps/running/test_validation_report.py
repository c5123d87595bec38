"""What a trial's validations were, and whether it is to go on."""

import math
from types import SimpleNamespace
from typing import Any

import torch

from lightning_ss2a.sweeps.running.validation_report import ValidationReport


class Asked:
    """Says stop at a step; keeps what it heard."""

    def __init__(self, stop_at: int = 99) -> None:
        self.heard: list[tuple[int, float]] = []
        self.stop_at = stop_at

    def __call__(self, step: int, value: float) -> bool:
        self.heard.append((step, value))
        return step >= self.stop_at


def validate(report: ValidationReport, values: list[float], broadcast: Any = lambda stop: stop, **more: Any) -> Any:
    trainer = SimpleNamespace(
        sanity_checking=False,
        is_global_zero=True,
        should_stop=False,
        state=SimpleNamespace(fn="fit"),
        strategy=SimpleNamespace(broadcast=broadcast),
    )
    vars(trainer).update(more)
    for epoch, value in enumerate(values):
        trainer.current_epoch, trainer.callback_metrics = epoch, {"val/x": torch.tensor(value)}
        report.on_validation_end(trainer, None)
    return trainer


def test_each_validation_is_reported_by_epochs_done():
    asked = Asked()
    trainer = validate(ValidationReport({}, "val/x", asked), [1.0, 3.0, 2.0])
    assert asked.heard == [(1, 1.0), (2, 3.0), (3, 2.0)]
    assert not trainer.should_stop


def test_the_best_validation():
    for maximize, best in ((True, 3.0), (False, 1.0)):
        report = ValidationReport({"val/x": maximize}, None, None)
        validate(report, [2.0, math.nan, 3.0, 1.0])
        assert report.best == {"val/x": best}
    report = ValidationReport({"val/y": True, "val/x": True}, None, None)
    validate(report, [math.nan, 0.5])
    assert report.best == {"val/x": 0.5}


def test_a_run_stops_when_told_to():
    report = ValidationReport({}, "val/x", Asked(stop_at=2))
    assert validate(report, [1.0, 1.0]).should_stop
    assert report.pruned


def test_a_rank_without_a_connection_stops_with_the_others():
    report = ValidationReport({}, "val/x", None)
    assert validate(report, [1.0], broadcast=lambda stop: True, is_global_zero=False).should_stop
    assert report.pruned


def test_what_is_not_reported():
    asked = Asked()
    validate(ValidationReport({}, "val/x", asked), [1.0], sanity_checking=True)
    validate(ValidationReport({}, "val/x", asked), [1.0], state=SimpleNamespace(fn="validate"))
    validate(ValidationReport({}, "val/x", asked), [math.nan])
    validate(ValidationReport({}, "val/other", asked), [1.0])
    validate(ValidationReport({}, None, asked), [1.0])
    assert asked.heard == []
