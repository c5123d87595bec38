"""benchmarks/gpu.py, tiny, on the CPU; and what it does where a part fails or takes too long."""

import json
import multiprocessing
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PARTS = [
    "card",
    "manifold",
    "compiled",
    "graph",
    "command",
    "precision",
    "overhead",
    "residency",
    "teacher",
    "contrastive",
    "remixer",
    "cycle_mix",
    "equality",
    "perception",
    "generation",
]


def run_script(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """From another folder, as on a machine where nothing is installed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import gpu

    return gpu


@pytest.fixture
def run_apart(gpu: ModuleType) -> Callable:
    """In a forked process."""

    def run(function: Callable, deadline: float = 60.0):
        return gpu.run_apart(multiprocessing.get_context("fork"), function, (), deadline)

    return run


FIGURES = {
    "card": "lower_bound_ms",
    "manifold": "projected_seconds",
    "command": "projected_seconds",
    "precision": "tf32_times_lower_bound",
    "overhead": "bf16_ratio",
    "residency": "device_ms_a_step",
    "teacher": "average_and_consistency_ms_a_step",
    "contrastive": "plain_over_chunks",
    "remixer": "epoch_seconds",
    "cycle_mix": "scenes_2_ratio",
    "compiled": "compile_seconds",
    "graph": "eager_over_graph",
}
EQUAL = {
    "graph": {"graph_equal": True, "graph_repeat_equal": True, "graph_resume_equal": True},
    "equality": {"repeat_equal": True, "resume_equal": True, "residency_equal": True},
}
FEW = ["card", "manifold", "equality"]
"""Parts that need neither the compiler nor a large package: all of them take half a minute."""


@pytest.mark.parametrize("names", [pytest.param(PARTS, marks=pytest.mark.slow), FEW], ids=["all", "few"])
def test_smoke_runs_parts(tmp_path: Path, names: list[str]):
    chosen = [] if names is PARTS else [word for name in names for word in ("--part", name)]
    run = run_script("--smoke", *chosen, folder=tmp_path)
    lines = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    assert run.returncode == 0, run.stdout + run.stderr
    assert [line["part"] for line in lines[:-1]] == names
    assert not any("error" in line for line in lines)
    parts = {line["part"]: line for line in lines[:-1]}
    for part in names:
        assert part not in FIGURES or isinstance(parts[part][FIGURES[part]], float)
        assert parts[part].items() >= EQUAL.get(part, {}).items()
    if names is PARTS:
        for package, figure in {
            "open_clip": "clip_bf16_encode_prepared_ratio",
            "transformers": "clap_bf16_encode_ratio",
        }.items():
            assert find_spec(package) is None or isinstance(parts["perception"][figure], float)
        assert find_spec("transformers") is None or isinstance(parts["generation"]["clips_per_second"], float)
    assert lines[-1].items() >= {"benchmark": "gpu", "ratio": None, "holds": False, "failed": []}.items()
    assert list(tmp_path.iterdir()) == []


def test_lists_parts_and_wheels_at_once(tmp_path: Path):
    listing = run_script("--list", folder=tmp_path).stdout
    assert [line.split()[0] for line in listing.splitlines()] == PARTS
    wheels = run_script("--wheels", folder=tmp_path).stdout
    assert "webdataset==" in wheels.splitlines()[-1]


def test_wheels_can_be_carried_to_a_machine(gpu: ModuleType):
    assert sum(size for _, size in gpu.WHEELS.values()) < 60_000


def test_perception_says_which_packages_are_missing(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch):
    from gpu_parts import perception

    figures = {}
    monkeypatch.setattr(perception, "find_spec", lambda package: None if package != "safetensors" else "there")
    perception.run(None, lambda **values: figures.update(values))
    assert figures == {
        "clip_left_out": "not installed: open_clip, PIL",
        "clap_left_out": "not installed: transformers",
        "goal": 0.8,
    }


def test_generation_says_which_packages_are_missing(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch):
    from gpu_parts import generation

    figures = {}
    monkeypatch.setattr(generation, "find_spec", lambda package: None if package == "diffusers" else "there")
    generation.run(None, lambda **values: figures.update(values))
    assert figures == {"left_out": "not installed: diffusers", "goal": 5.0}


def test_wheels_are_the_tested_versions(gpu: ModuleType):
    tested = dict(re.findall(r"^([\w-]+)==([\w.]+)", (ROOT / "constraints.txt").read_text(), re.M))
    assert {name: tested[name] for name in gpu.WHEELS} == {name: version for name, (version, _) in gpu.WHEELS.items()}


def test_part_that_takes_too_long_is_killed_with_its_children(run_apart: Callable):
    held, holding = os.pipe()

    def slow(report: Callable) -> None:
        report(first=1, third=1 / 3)
        subprocess.run(["sleep", "60"], pass_fds=[holding])

    start = time.monotonic()
    outcome = run_apart(slow, 1.0)
    assert (outcome.figures, outcome.error) == ({"first": 1, "third": 0.3333}, "timed out after 1 s")
    os.close(holding)
    assert os.read(held, 1) == b""  # at the end of the last process that holds the other end
    os.close(held)
    assert time.monotonic() - start < 30


def test_part_that_fails_keeps_its_figures(run_apart: Callable):
    def failing(report: Callable) -> None:
        report(first=1)
        raise ValueError("one\ntwo")

    def dying(report: Callable) -> None:
        report(first=1)
        os._exit(7)

    assert [run_apart(failing).error, run_apart(dying).error] == ["ValueError: one", "ended with exit status 7"]
    assert run_apart(failing).figures == {"first": 1}


def test_parts_are_left_out_when_the_budget_is_spent(gpu: ModuleType, tmp_path: Path):
    outcomes = gpu.run_parts(multiprocessing.get_context("fork"), gpu.PARTS, str(tmp_path), True, time.monotonic())
    assert {outcome.error for outcome in outcomes.values()} == {"left out: the budget is spent"}
    assert gpu.summary(outcomes, False)["failed"] == PARTS


@pytest.mark.parametrize(
    ("figures", "ratio", "holds"),
    [
        ({"manifold": {"projected_seconds": 60.0}}, 0.8, True),
        ({"manifold": {"projected_seconds": 60.0}, "command": {"projected_seconds": 90.0}}, 1.2, False),
        ({"manifold": {"projected_seconds": 60.0}, "command": {}}, 0.8, True),
        ({"manifold": {"projected_seconds": 60.0}, "equality": {"resume_equal": False}}, 0.8, False),
        ({"card": {}}, None, False),
    ],
)
def test_last_line_judges_the_projected_seconds(gpu: ModuleType, figures: dict, ratio: float | None, holds: bool):
    outcomes = {name: gpu.Outcome(values) for name, values in figures.items()}
    line = gpu.summary(outcomes, smoke=False)
    assert (line["ratio"], line["holds"]) == (ratio, holds)
