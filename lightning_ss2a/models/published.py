"""The released weights of SS2A as networks of ours: what sizes they have, and which of their names is which of ours.

Nothing here opens a file. Sizes are read off the tensors; the authors' configuration says what tensors do not.
Source: the authors' inference code (wguo86/SSV2A, 7f01d5f).
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_ss2a.errors import InputError
from lightning_ss2a.models.manifold import Manifold, ManifoldOptions
from lightning_ss2a.models.remixer import Remixer, RemixerOptions
from lightning_ss2a.models.temporal_aggregation import (
    TemporalAggregator,
    TemporalAggregatorOptions,
    positional_encoding,
)

State = Mapping[str, Tensor]

PARTS = ("manifold_state", "generator_state", "remixer_state")
"""What ``ssv2a.pth`` holds, beside a time."""
UNUSED = ("manifold_state.self_logit_scale",)
"""Weights that no released code reads."""
AGGREGATOR_HEADS, AGGREGATOR_DROPOUT = 8, 0.2
"""Of the temporal aggregator, whose code takes them from no configuration."""
_SHOWN_FAULTS = 6
_SAME_ENCODING = 1e-3  # of waves at position 1,023 in float32


@dataclass(frozen=True)
class Settings:
    """The authors' configuration, ``ssv2a.json``, whose values are asked for by their dotted names.

    Attributes:
        values: what the file holds.
        where: the file, for messages.
    """

    values: Mapping[str, Any]
    where: str

    def number(self, name: str, default: float | None = None) -> float:
        """Returns a number.

        Raises:
            InputError: If it is missing without a default, or is no number.
        """
        value = self.find(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InputError(f"{self.where}: {name} must be a number, found {value!r}")
        return value

    def count(self, name: str, default: int | None = None) -> int:
        """Returns a whole number.

        Raises:
            InputError: If it is missing without a default, or is no whole number.
        """
        value = self.number(name, default)
        if value != int(value):
            raise InputError(f"{self.where}: {name} must be a whole number, found {value!r}")
        return int(value)

    def find(self, name: str, default: Any = None) -> Any:
        """Returns a value, or the default where the file has none or null."""
        value: Any = self.values
        for key in name.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        return default if value is None else value

    def check(self, expected: Mapping[str, Any], why: str) -> None:
        """Compares values that the file has with those that they must have.

        Raises:
            InputError: If one differs; says why.
        """
        for name, wanted in expected.items():
            if (found := self.find(name, wanted)) != wanted:
                raise InputError(f"{self.where}: {name} is {found!r}, {why} {wanted!r}")


@dataclass(frozen=True)
class PublishedManifold:
    """υ, φ and χ of ``ssv2a.pth``.

    Attributes:
        visual_width: V.
        audio_width: A.
        options: architecture.
        weights: state of a ``Manifold`` of it.
    """

    visual_width: int
    audio_width: int
    options: ManifoldOptions
    weights: dict[str, Tensor]


@dataclass(frozen=True)
class PublishedRemixer:
    """ψ of ``ssv2a.pth``.

    Attributes:
        options: architecture.
        weights: state of a ``Remixer`` of it.
    """

    options: RemixerOptions
    weights: dict[str, Tensor]


@dataclass(frozen=True)
class PublishedAggregator:
    """ω of ``agg.pth``.

    Attributes:
        audio_width: A.
        options: architecture.
        weights: state of a ``TemporalAggregator`` of it.
    """

    audio_width: int
    options: TemporalAggregatorOptions
    weights: dict[str, Tensor]


def read_manifold_weights(state: State, settings: Settings, where: str) -> PublishedManifold:
    """Turns projectors and reconstructor into a manifold of ours.

    Args:
        state: tensors of ``ssv2a.pth``, each under its part, such as ``manifold_state.logit_scale``.
        settings: of ``ssv2a.json``.
        where: the file of the tensors, for messages.

    Raises:
        InputError: If the configuration names another architecture, or a tensor is missing, too much or misshapen.
    """
    for part in ("manifold", "generator"):
        settings.check({f"{part}.arch": "mlp", f"{part}.variational": True}, "and can be imported as")
    settings.check({"generator.disabled": False}, "and can be imported as")
    dropout = settings.number("manifold.dropout", 0.1)  # a default of the authors' code
    settings.check({"generator.dropout": dropout}, "and must be that of the manifold,")
    visual, audio, generator = "manifold_state.clip_encoder", "manifold_state.clap_encoder", "generator_state"
    options = ManifoldOptions(
        width=_length(state, f"{visual}.out_mu.weight", 0, where),
        projector_widths=_trunk_widths(state, visual, where),
        reconstructor_widths=_trunk_widths(state, generator, where),
        dropout=dropout,
        input_scaling=False,
        variant="published",
    )
    for part, widths in (("manifold", options.projector_widths), ("generator", options.reconstructor_widths)):
        residual = {f"{part}.resnet": True} if len(widths) > 2 else {}
        settings.check(residual, "and can be imported as")
        settings.check({f"{part}.layers": list(widths)}, f"but the tensors in {where} have")
    visual_width = _length(state, f"{visual}.model.0.weight", 1, where)
    audio_width = _length(state, f"{audio}.model.0.weight", 1, where)
    sizes = {"clip_dim": visual_width, "clap_dim": audio_width, "manifold_dim": options.width}
    settings.check(sizes, f"but the tensors in {where} have")
    names = {"log_temperature": "manifold_state.logit_scale"}
    for ours, theirs, widths in (
        ("visual_projector", visual, options.projector_widths),
        ("audio_projector", audio, options.projector_widths),
        ("audio_reconstructor", generator, options.reconstructor_widths),
    ):
        named = _variational_names(len(widths), bool(dropout))
        names |= {f"{ours}.{name}": f"{theirs}.{its}" for name, its in named}
    with torch.device("meta"):
        network = Manifold(visual_width, audio_width, options)
    own = {name: value for name, value in state.items() if not name.startswith("remixer_state.")}
    return PublishedManifold(visual_width, audio_width, options, _carry_over(network, names, own, where))


def read_remixer_weights(state: State, settings: Settings, manifold: PublishedManifold, where: str) -> PublishedRemixer:
    """Turns the Remixer into one of ours.

    Args:
        state: tensors of ``ssv2a.pth``, each under its part.
        settings: of ``ssv2a.json``.
        manifold: of the same file.
        where: the file of the tensors, for messages.

    Raises:
        InputError: As :func:`read_manifold_weights` does.
    """
    styler, prefix = "remixer.styler", "remixer_state.styler"
    settings.check({f"{styler}.arch": "transformer", f"{styler}.variational": True}, "and can be imported as")
    if (guidance := settings.find("remixer.guidance", "manifold")) in ("generator", "manifold+generator"):
        raise InputError(f"{settings.where}: remixer.guidance is {guidance!r}, and can be imported as 'manifold'")
    width, layers, expansion = _transformer_sizes(state, f"{prefix}.style_encoder", where)
    sizes = {"embed_dim": width, "num_layers": layers, "exp_rate": expansion}
    settings.check({f"{styler}.{name}": size for name, size in sizes.items()}, f"but the tensors in {where} have")
    dropout = settings.number(f"{styler}.dropout", 0.2)  # defaults of the authors' code, as the heads'
    options = RemixerOptions(
        width=width,
        num_layers=layers,
        num_heads=settings.count(f"{styler}.nhead", 8),
        head_widths=(width,),
        expansion=expansion,
        dropout=dropout,
        input_scaling=False,
        variant="published",
        token_dropout=settings.number("remixer.cfg"),
        token_dropout_mode="parts",
        mask_padding=False,
        max_slots=settings.count("remixer.slot"),
    )
    names = {f"{ours}": f"{prefix}.{theirs}" for ours, theirs in _readout_names(layers, "style_encoder")}
    names |= {"input": f"{prefix}.in_proj"}
    with torch.device("meta"):
        network = Remixer(manifold.options.width, manifold.visual_width, manifold.audio_width, options)
    own = {name: value for name, value in state.items() if name.startswith("remixer_state.")}
    return PublishedRemixer(options, _carry_over(network, names, own, where))


def read_aggregator_weights(state: State, where: str) -> PublishedAggregator:
    """Turns the temporal aggregator into one of ours.

    The encoding of its two summary tokens, a constant, is added to what they have learned.

    Args:
        state: tensors of ``agg.pth``.
        where: the file, for messages.

    Raises:
        InputError: If a tensor is missing, too much or misshapen, or the positional encoding is another.
    """
    width, layers, expansion = _transformer_sizes(state, "encoder", where)
    options = TemporalAggregatorOptions(
        width=width,
        num_layers=layers,
        num_heads=AGGREGATOR_HEADS,
        head_widths=(width,),
        expansion=expansion,
        dropout=AGGREGATOR_DROPOUT,
        input_scaling=False,
        variant="published",
    )
    with torch.device("meta"):
        network = TemporalAggregator(width, options)
    encoding = _find(state, "pe.pe", where)
    expected = positional_encoding(torch.arange(len(encoding)).unsqueeze(1), width, network.resolution)
    if encoding.shape != expected.shape or not torch.allclose(encoding, expected, rtol=0, atol=_SAME_ENCODING):
        raise InputError(f"{where}: pe.pe is not the encoding of positions that the released code computes")
    own = {name: value for name, value in state.items() if name != "pe.pe"}
    weights = _carry_over(network, dict(_readout_names(layers, "encoder")), own, where)
    weights["summary"] = weights["summary"] + encoding[: len(weights["summary"]), 0]
    return PublishedAggregator(width, options, weights)


# ---------------------------------------------------------------- sizes


def _find(state: State, name: str, where: str) -> Tensor:
    if name not in state:
        raise InputError(f"{where}: lacks {name}")
    return state[name]


def _length(state: State, name: str, dimension: int, where: str) -> int:
    """Returns a size of a matrix."""
    tensor = _find(state, name, where)
    if tensor.ndim != 2:
        raise InputError(f"{where}: has {name} of shape {list(tensor.shape)}, needs a matrix")
    return tensor.shape[dimension]


def _trunk_widths(state: State, prefix: str, where: str) -> tuple[int, ...]:
    """Finds the widths of a residual MLP: those of its matrices that are no shortcut, in order."""
    matrix = re.compile(re.escape(prefix) + r"\.model\.1\.model\.(\d+)\.(?:mod\.(\d+)\.)?weight")
    found = [(int(at[1]), int(at[2] or 0), name) for name in state if (at := matrix.fullmatch(name))]
    layers = [state[name].shape[0] for *_, name in sorted(found) if state[name].ndim == 2]
    return (_length(state, f"{prefix}.model.0.weight", 0, where), *layers)


def _transformer_sizes(state: State, prefix: str, where: str) -> tuple[int, int, int]:
    """Finds width, number of layers and expansion of attention blocks."""
    block = re.compile(re.escape(prefix) + r"\.encoder\.(\d+)\..*")
    layers = len({at[1] for name in state if (at := block.fullmatch(name))})
    hidden = f"{prefix}.encoder.0.ffn.linear1.weight"
    width, inner = _length(state, hidden, 1, where), _length(state, hidden, 0, where)
    return width, layers, max(1, inner // width)


# ---------------------------------------------------------------- names


def _variational_names(widths: int, dropout: bool) -> Iterator[tuple[str, str]]:
    """Lists modules of a ``VariationalMLP`` of so many widths, and what they are called there.

    Dropout has a number among the layers only where there is some.
    """
    yield "blocks.input", "model.0"
    pairs, skip = (widths - 1) // 2, int(dropout)
    for pair in range(pairs):
        ours, theirs = f"blocks.blocks.{pair}", f"model.1.model.{2 * pair}"
        for own, place in ((0, 0), (1, 1), (4, 3 + skip), (5, 4 + skip)):
            yield f"{ours}.layers.{own}", f"{theirs}.mod.{place}"
        yield f"{ours}.shortcut", f"{theirs}.proj"
    if widths % 2 == 0:
        for place in (0, 1):
            yield f"blocks.blocks.{pairs}.{place}", f"model.1.model.{2 * pairs + place}"
    yield from (("mean_head", "out_mu"), ("log_variance_head", "out_sigma"))


def _readout_names(layers: int, encoder: str) -> Iterator[tuple[str, str]]:
    """Lists modules of an ``AttentiveReadout`` of so many blocks, and what they are called there."""
    yield "summary", "pred_token"
    for block in range(layers):
        ours, theirs = f"blocks.{block}", f"{encoder}.encoder.{block}"
        for name in ("query", "key", "value"):
            yield f"{ours}.attention.{name}", f"{theirs}.esa.{name}"
        yield f"{ours}.norm", f"{theirs}.esa.norm"
        yield f"{ours}.shortcut", f"{theirs}.esa.highway"
        for own, name in ((0, "norm"), (1, "linear1"), (4, "linear2")):
            yield f"{ours}.feed_forward.{own}", f"{theirs}.ffn.{name}"
    for head, name in (("mean_head", "mu"), ("log_variance_head", "sigma")):
        for own in (0, 1):
            yield f"{head}.{own}", f"head_{name}.model.{own}"
        yield f"{head}.4", f"out_{name}"


def _carry_over(network: nn.Module, names: Mapping[str, str], state: State, where: str) -> dict[str, Tensor]:
    """Gives a network's state its tensors.

    Args:
        network: one of ours, of which only names and shapes count.
        names: their names of our modules and parameters.
        state: their tensors.
        where: the file, for messages.

    Raises:
        InputError: If tensors are missing, too many or of another shape; names them in one line.
    """
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    theirs = {ours: _their_name(ours, names) for ours in shapes}
    faults = [f"lacks {name}" for name in theirs.values() if name not in state]
    faults += [f"has {name} too much" for name in state.keys() - theirs.values() - {*UNUSED}]
    faults += [
        f"has {name} of shape {list(state[name].shape)}, needs {list(shapes[ours])}"
        for ours, name in theirs.items()
        if name in state and state[name].shape != shapes[ours]
    ]
    if faults:
        rest = f"; and {len(faults) - _SHOWN_FAULTS} more" if len(faults) > _SHOWN_FAULTS else ""
        raise InputError(f"{where}: {'; '.join(sorted(faults)[:_SHOWN_FAULTS])}{rest}")
    return {ours: state[name].detach().float().contiguous() for ours, name in theirs.items()}


def _their_name(ours: str, names: Mapping[str, str]) -> str:
    """Finds their name of a parameter, by that of itself or of its module."""
    if ours in names:
        return names[ours]
    module, _, leaf = ours.rpartition(".")
    return f"{names[module]}.{leaf}"
