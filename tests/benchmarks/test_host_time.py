"""The benchmark of host time measures every stage."""

import argparse
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("stage", ["manifold", "remixer", "temporal_aggregation", "audio_to_visual", "v2a_mapper"])
@pytest.mark.parametrize("step", ["eager", "compiled"])
def test_a_step_is_split_into_its_phases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, step: str):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from host_time import PHASES, STAGES, measure

    assert stage in STAGES
    torch.set_num_threads(1)
    options = argparse.Namespace(steps=1, width=16, precision="bf16-mixed", step=step)
    with torch.compiler.set_stance("force_eager"):  # the way there, without the minutes of a compiler
        figures = measure(stage, options, str(tmp_path))
    phases = [figures[phase] for phase in PHASES[step]]
    assert min(phases) > 0
    assert figures["Lightning"] == pytest.approx(figures["step"] - sum(phases))
    assert figures["operations"] > 100
