"""Everything that only a GPU can show, in at most eight minutes on one H200, the most important first.

A JSON line a part, and a last one for the whole: seconds that the paper's 168 epochs of 106,514 pairs would take,
projected from measured ms a step, over what the design allows. Each part runs in a process of its own with a deadline;
it prints its figures as it goes, and one that fails or takes too long costs the others nothing. The processes are
forked from one that has imported everything, so that starting them takes no time. Data are simulated, at the paper's
widths and number of pairs.

    python benchmarks/gpu.py [--budget 480] [--part NAME] [--smoke]
    python benchmarks/gpu.py --list        # the parts
    python benchmarks/gpu.py --wheels      # what a machine with torch and lightning needs besides

With --smoke everything is tiny and runs once, on a CPU too. It works from a checkout, without installation. See
docs/performance.md.
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT)]

from gpu_parts.process import Figures, Outcome, run_apart  # noqa: E402
from gpu_parts.start import find_gpu, run_part  # noqa: E402
from paper_sizes import GOAL_SECONDS  # noqa: E402

BUDGET = 480.0
START_SECONDS = 120.0
"""The first process may take so long to import everything."""
EQUALITIES = ("repeat_equal", "resume_equal", "residency_equal", "ssms_equal")
GRAPH_EQUALITIES = ("graph_equal", "graph_repeat_equal", "graph_resume_equal")


@dataclass(frozen=True)
class Part:
    """A module of ``gpu_parts``.

    Attributes:
        name: of the module.
        deadline: seconds that it may take.
        about: what it shows.
    """

    name: str
    deadline: float
    about: str


PARTS = (
    Part("card", 60, "what the card reaches in plain products and copies; what a step needs at least"),
    Part("manifold", 60, "a step in bf16, eager, through Lightning: ms, GPU busy, peak memory, seconds projected"),
    Part("compiled", 150, "the step with step=compiled; compiling takes a minute, which later parts find done"),
    Part("graph", 90, "the step with step=graph, and its weights against those of compiled steps, repeated, resumed"),
    Part("command", 90, "lightning fit -c configs/paper/manifold.yaml as it is: start-up, ms a step, validation"),
    Part("precision", 45, "the step in float32 and with TF32"),
    Part("overhead", 60, "Lightning against a bare loop of the same calls"),
    Part("residency", 45, "rows on the GPU against rows in memory and streaming"),
    Part("teacher", 60, "with the teacher's average, and with the consistency loss"),
    Part("contrastive", 45, "memory of the contrastive loss at 65,536 rows, and plain against chunks at 16,384"),
    Part("remixer", 75, "an epoch of the Remixer"),
    Part("cycle_mix", 60, "Cycle Mix, 64 x 64 draws, for 4 and 512 scenes, against Algorithm 1 as it is written"),
    Part("equality", 75, "repeated, resumed and resident runs to the last bit; SSMS on CPU and GPU"),
    Part("perception", 90, "CLIP ViT-L/14 and CLAP HTSAT-tiny at random weights, against bare passes; peak memory"),
    Part("generation", 120, "AudioLDM at random weights in batches, bf16, against diffusers' pipeline; peak memory"),
)

WHEELS = {
    "webdataset": ("1.0.2", 75),
    "braceexpand": ("0.1.7", 6),
    "jsonargparse": ("4.53.0", 178),
    "docstring_parser": ("0.18.0", 22),
    "typeshed_client": ("2.15.0", 808),
    "omegaconf": ("2.4.0", 254),
    "kneed": ("0.9.0", 11),
    "shtab": ("1.13.0", 23),
    "open_clip_torch": ("3.3.0", 1512),
    "timm": ("1.0.31", 2734),
    "ftfy": ("6.3.1", 44),
    "wcwidth": ("0.9.4", 768),
    "transformers": ("5.24.0", 13233),
    "tokenizers": ("0.23.3", 3317),
    "safetensors": ("0.8.0", 504),
    "regex": ("2026.11.19", 791),
    "huggingface_hub": ("2.4.0", 837),
    "httpx2": ("2.16.2", 96),
    "httpcore2": ("2.16.2", 84),
    "h11": ("0.16.0", 37),
    "anyio": ("4.16.0", 132),
    "idna": ("3.20", 68),
    "truststore": ("0.10.5", 19),
    "diffusers": ("0.42.1", 6207),
    "importlib_metadata": ("10.2.0", 33),
    "zipp": ("4.1.2", 10),
}
"""Versions and KB of what ``lightning_ss2a`` needs for this besides torch, lightning, torchmetrics, tensorboard, scipy,
matplotlib and rich. From open_clip_torch on they are for the parts ``perception`` and ``generation``, which also want
torchvision, pillow and requests, and leave out what is not there. Of these tokenizers, safetensors, wcwidth and regex
are compiled, the last for one version of Python."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds for all parts together")
    parser.add_argument(
        "--part", action="append", choices=[part.name for part in PARTS], help="only this one, or these"
    )
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, once each; figures say nothing")
    parser.add_argument("--list", action="store_true", help="list the parts")
    parser.add_argument("--wheels", action="store_true", help="list packages that have to be carried, and exit")
    options = parser.parse_args()
    if options.list or options.wheels:
        print(listing() if options.list else wheels())
        return
    end = time.monotonic() + options.budget
    os.environ["PYTHONPATH"] = os.pathsep.join([*sys.path[:2], os.environ.get("PYTHONPATH", "")])
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = f"{folder}/compiled"  # what one part has compiled others find there
        context, device = start_processes()
        print(f"torch {device['torch']}, {device['gpu'] or 'no GPU'}, {os.cpu_count()} CPU cores", flush=True)
        if device["gpu"] is None and not options.smoke:
            print("no GPU: nothing is measured; --smoke runs every part, tiny, on a CPU")
            print(json.dumps({"benchmark": "gpu", "ratio": None, "goal": 1.0, "holds": False, "skipped": "no GPU"}))
            return
        parts = [part for part in PARTS if not options.part or part.name in options.part]
        outcomes = run_parts(context, parts, folder, options.smoke, end)
    line = summary(outcomes, options.smoke)
    print(json.dumps(line))
    sys.exit(1 if line["failed"] else 0)


def start_processes() -> tuple[BaseContext, Figures]:
    """How processes start, and what they see: the name of the GPU, if any.

    They are forked from a server that has imported everything but has never touched the GPU; where CUDA will not have
    that, each starts anew.
    """
    context: BaseContext = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([f"gpu_parts.{part.name}" for part in PARTS])
    outcome = run_apart(context, find_gpu, (), START_SECONDS)
    if outcome.error is not None:
        print(f"forked processes: {outcome.error}; starting each anew", flush=True)
        context = multiprocessing.get_context("spawn")
        outcome = run_apart(context, find_gpu, (), START_SECONDS)
    if outcome.error is not None:
        sys.exit(f"no process could be started: {outcome.error}")
    return context, outcome.figures


def run_parts(context: BaseContext, parts: list[Part], folder: str, smoke: bool, end: float) -> dict[str, Outcome]:
    """Run parts one after the other until the budget is spent, and print a line for each."""
    outcomes: dict[str, Outcome] = {}
    for part in parts:
        left = end - time.monotonic()
        if left <= 1:
            outcomes[part.name] = Outcome(error="left out: the budget is spent")
        else:
            print(f"{part.name}: {part.about}", flush=True)
            known = {name: outcome.figures for name, outcome in outcomes.items()}
            arguments = (part.name, folder, smoke, known)
            outcomes[part.name] = run_apart(context, run_part, arguments, min(part.deadline, left))
        print(json.dumps(part_line(part.name, outcomes[part.name])), flush=True)
    return outcomes


def part_line(name: str, outcome: Outcome) -> Figures:
    """The JSON line of a part: what it reported, also if it did not get to its end."""
    line = {"part": name, **outcome.figures, "seconds": round(outcome.seconds, 1)}
    return line if outcome.error is None else {**line, "error": outcome.error}


def summary(outcomes: dict[str, Outcome], smoke: bool) -> Figures:
    """The last line: all the paper's epochs against what the design allows them, and what is not as it must be.

    The command is judged if it got to its end, with all that it does besides training, else the step alone.
    """
    figures = {name: outcome.figures for name, outcome in outcomes.items()}
    projected = [figures.get(part, {}).get("projected_seconds") for part in ("command", "manifold")]
    seconds = None if smoke else next((x for x in projected if x is not None), None)
    ratio = None if seconds is None else round(seconds / GOAL_SECONDS, 2)
    compared = {**figures.get("equality", {}), **figures.get("graph", {})}
    unequal = [name for name in (*EQUALITIES, *GRAPH_EQUALITIES) if compared.get(name) is False]
    holds = ratio is not None and ratio <= 1 and not unequal
    failed = [name for name, outcome in outcomes.items() if outcome.error is not None]
    line = {"benchmark": "gpu", "ratio": ratio, "goal": 1.0, "holds": holds, "seconds": seconds}
    return {**line, "smoke": smoke, "unequal": unequal, "failed": failed}


def listing() -> str:
    return "\n".join(f"{part.name:12} {part.deadline:4.0f} s at most  {part.about}" for part in PARTS)


def wheels() -> str:
    names = " ".join(f"{name}=={version}" for name, (version, _) in WHEELS.items())
    total = sum(size for _, size in WHEELS.values())
    lines = [f"{name:18}{version:>8}{size:>6} KB" for name, (version, size) in WHEELS.items()]
    return "\n".join([*lines, f"{total} KB in all:", f"pip download --no-deps -d wheels {names}"])


if __name__ == "__main__":
    main()
