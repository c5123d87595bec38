"""Cycle Mix at the paper's sizes, for few and for many scenes of four sources, against Algorithm 1 as it is written."""

import statistics

import torch
from cycle_mix import GOALS, Tokens, networks, peer, scenes, seconds
from paper_sizes.steps import device

from gpu_parts.inputs import Inputs
from gpu_parts.process import Report
from lightning_ss2a.models import CycleMixOptions, cycle_mix

SOURCES = 4


def run(inputs: Inputs, report: Report) -> None:
    """Time ours, and one iteration of the peer's."""
    iterations, samples = inputs.sizes.draws
    options = CycleMixOptions(iterations=iterations, samples=samples)
    torch.set_grad_enabled(False)
    remixer, manifold = networks(device())
    for count in inputs.sizes.mixed:
        tokens = scenes(count, SOURCES, device())

        def ours(tokens: Tokens = tokens, count: int = count) -> None:
            cycle_mix(remixer, manifold, *tokens, range(count), options=options)

        def theirs(tokens: Tokens = tokens) -> None:
            peer(remixer, manifold, tokens, remixer.options.max_slots, 1, samples)

        ours()
        mixed = statistics.median(seconds(ours) for _ in range(3))
        report(**{f"scenes_{count}_seconds": mixed})
        peer(remixer, manifold, tokens, remixer.options.max_slots, 1, 1)
        apart = seconds(theirs) * iterations
        report(**{f"scenes_{count}_peer_seconds": apart, f"scenes_{count}_ratio": apart / mixed})
    report(goal=GOALS[SOURCES])
