"""Makes checkpoints of ours from the authors' released files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_ss2a.checkpoints import read_json_object, read_torch_file
from lightning_ss2a.errors import InputError
from lightning_ss2a.files import make_folder
from lightning_ss2a.losses import ContrastiveOptions
from lightning_ss2a.models import CycleMixOptions
from lightning_ss2a.models.published import (
    PARTS,
    Settings,
    read_aggregator_weights,
    read_manifold_weights,
    read_remixer_weights,
)
from lightning_ss2a.training.base import MeasuredModule
from lightning_ss2a.training.checkpoint_io import save_untrained
from lightning_ss2a.training.manifold import ManifoldModule
from lightning_ss2a.training.optimization import AlternatingOptimizationOptions, OptimizationOptions
from lightning_ss2a.training.remixer import RemixerModule
from lightning_ss2a.training.temporal_aggregation import TemporalAggregationModule

LEARNING_RATE = 1e-4
"""Of the paper, for all three."""
CYCLE_MIX = CycleMixOptions(65, 64, score="std", feedback="replace", var_samples=64, feedback_samples=64)
"""Of the released scripts for pictures and composed sources: 64 rounds after the first."""


def import_published(weights: str, config: str, aggregator: str | None, output: Path) -> list[Path]:
    """Turns the released files into checkpoints of the modules that train such networks here.

    Args:
        weights: ``ssv2a.pth``.
        config: ``ssv2a.json``.
        aggregator: ``agg.pth``; None: no temporal aggregator is made.
        output: folder of the checkpoints; it is made if it is not there.

    Returns:
        ``manifold.ckpt``, ``remixer.ckpt`` and, if there is an aggregator, ``temporal_aggregation.ckpt``.

    Raises:
        InputError: a file is none of these, its tensors are missing, too many or misshapen, or the folder cannot be
            made.
    """
    modules = _modules(weights, config)
    if aggregator is not None:
        modules["temporal_aggregation"] = _aggregation(aggregator)
    make_folder(output, "the checkpoints")
    return [save_untrained(module, output / f"{name}.ckpt") for name, module in modules.items()]


def _modules(weights: str, config: str) -> dict[str, MeasuredModule]:
    state = _read_parts(weights)
    settings = Settings(read_json_object(config, "config"), config)
    found = read_manifold_weights(state, settings, weights)
    mixer = read_remixer_weights(state, settings, found, weights)
    manifold = ManifoldModule(
        found.visual_width,
        found.audio_width,
        manifold=found.options,
        contrastive=ContrastiveOptions(ccmr_alpha=settings.number("manifold.cr_weight")),
        kl_weight=settings.number("manifold.kl_weight"),
        optimization=AlternatingOptimizationOptions(learning_rate=LEARNING_RATE),
    )
    manifold.manifold.load_state_dict(found.weights)
    remixer = RemixerModule(
        found.visual_width,
        found.audio_width,
        manifold_architecture=found.options.architecture(),
        remixer=mixer.options,
        kl_weight=settings.number("remixer.styler.kl_weight"),
        optimization=OptimizationOptions(learning_rate=LEARNING_RATE),
        cycle_mix=CYCLE_MIX,
    )
    remixer.manifold.load_state_dict(found.weights)
    remixer.remixer.load_state_dict(mixer.weights)
    return {"manifold": manifold, "remixer": remixer}


def _aggregation(path: str) -> TemporalAggregationModule:
    content = read_torch_file(path, "aggregator")
    found = read_aggregator_weights(_tensors(content, path, "weights by name"), path)
    module = TemporalAggregationModule(
        found.audio_width,
        aggregator=found.options,
        optimization=OptimizationOptions(learning_rate=LEARNING_RATE),
    )
    module.aggregator.load_state_dict(found.weights)
    return module


def _read_parts(path: str) -> dict[str, Tensor]:
    """Reads ``ssv2a.pth``, each tensor under its part."""
    content = read_torch_file(path, "source", PARTS, "the authors' ssv2a.pth")
    return {
        f"{part}.{name}": tensor
        for part in PARTS
        for name, tensor in _tensors(content[part], path, f"weights by name in its {part}").items()
    }


def _tensors(content: Any, path: str, what: str) -> dict[str, Tensor]:
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(f"{path}: has no {what}")
    for name, value in content.items():
        if not (value.is_floating_point() and value.isfinite().all()):
            raise InputError(f"{path}: has {name} with numbers that are not finite, or whole ones")
    return {str(name): value for name, value in content.items()}
