"""AudioLDM in batches, the architecture of audioldm-s-full-v2 at random weights, against diffusers' pipeline."""

from importlib.util import find_spec
from pathlib import Path

from generate import GOAL, TINY, Architecture, measure

from gpu_parts.inputs import Inputs
from gpu_parts.process import Report

PACKAGES = ("diffusers", "transformers", "safetensors")


def run(inputs: Inputs, report: Report) -> None:
    """Time clips of 10.24 s in bfloat16, if the packages are there."""
    missing = [package for package in PACKAGES if find_spec(package) is None]
    if missing:
        report(left_out=f"not installed: {', '.join(missing)}", goal=GOAL)
        return
    sizes = inputs.sizes
    folder = Path(inputs.folder) / "generation"
    folder.mkdir()
    architecture = TINY if inputs.smoke else Architecture()
    report(**measure(architecture, folder, sizes.clips, sizes.sampler_steps, sizes.turns), goal=GOAL)
