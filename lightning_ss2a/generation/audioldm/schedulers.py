"""diffusers' samplers by name; each is made from the noise schedule that a checkpoint was trained with."""

from collections.abc import Mapping
from inspect import signature
from typing import Any

from lightning_ss2a.perception.packages import media_package

SCHEDULE: Mapping[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.0015,
    "beta_end": 0.0195,
    "steps_offset": 1,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "prediction_type": "epsilon",
}
"""AudioLDM's, which its original checkpoints do not state."""

SCHEDULERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "ddim": ("DDIMScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "lms": ("LMSDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler-ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "dpm-solver++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "dpm-solver++-sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "deis": ("DEISMultistepScheduler", {}),
}
"""Class in diffusers, and what it is told besides the schedule."""


def make_scheduler(name: str, schedule: Mapping[str, Any]) -> Any:
    """Makes a scheduler, which keeps the state of one run.

    Args:
        name: a key of ``SCHEDULERS``.
        schedule: the configuration of a diffusers scheduler of any class.
    """
    kind, options = SCHEDULERS[name]
    return getattr(media_package("diffusers"), kind).from_config(dict(schedule), **options)


def step_options(scheduler: Any, eta: float, generators: list[Any]) -> dict[str, Any]:
    """Gives what a scheduler's step takes besides the prediction: its noise, where it adds any."""
    offered = {"eta": eta, "generator": generators}
    return {name: value for name, value in offered.items() if name in signature(scheduler.step).parameters}
