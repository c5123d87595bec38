"""Reads the networks of AudioLDM's original checkpoint: sizes off the tensors, names as diffusers has them.

An original checkpoint is one file of ``model.diffusion_model.*`` (the UNet), ``model_ema.*`` (its average over the
training, names without dots), ``first_stage_model.*`` (autoencoder and vocoder), ``cond_stage_model.model.*`` (CLAP)
and ``scale_factor``. Names and sizes are those of haoheliu/AudioLDM.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

State = Mapping[str, Tensor]

UNET, AVERAGE = "model.diffusion_model.", "model_ema."
AUTOENCODER, VOCODER = "first_stage_model.", "vocoder."
_AVERAGED = AVERAGE + "diffusion_model"
_RESNET = (
    ("in_layers.0", "norm1"),
    ("in_layers.2", "conv1"),
    ("emb_layers.1", "time_emb_proj"),
    ("out_layers.0", "norm2"),
    ("out_layers.3", "conv2"),
    ("skip_connection", "conv_shortcut"),
)
_OUTSIDE_BLOCKS = (
    (r"^time_embed\.0\.", "time_embedding.linear_1."),
    (r"^time_embed\.2\.", "time_embedding.linear_2."),
    (r"^film_emb\.", "class_embedding."),
    (r"^input_blocks\.0\.0\.", "conv_in."),
    (r"^middle_block\.0\.", "mid_block.resnets.0."),
    (r"^middle_block\.1\.", "mid_block.attentions.0."),
    (r"^middle_block\.2\.", "mid_block.resnets.1."),
    (r"^out\.0\.", "conv_norm_out."),
    (r"^out\.2\.", "conv_out."),
)
_AUTOENCODER_NAMES = (
    (r"\.norm_out\.", ".conv_norm_out."),
    (r"\.nin_shortcut\.", ".conv_shortcut."),
    (r"\.mid\.attn_1\.norm\.", ".mid_block.attentions.0.group_norm."),
    (r"\.mid\.attn_1\.([qkv])\.", r".mid_block.attentions.0.to_\1."),
    (r"\.mid\.attn_1\.proj_out\.", ".mid_block.attentions.0.to_out.0."),
    (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
    (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
    (r"\.down\.(\d+)\.block\.", r".down_blocks.\1.resnets."),
    (r"\.down\.(\d+)\.downsample\.", r".down_blocks.\1.downsamplers.0."),
    (r"\.up\.(\d+)\.block\.", r".up_blocks.\1.resnets."),
    (r"\.up\.(\d+)\.upsample\.", r".up_blocks.\1.upsamplers.0."),
)
_WIDE_HEADS_FROM = 256
"""Channels of a UNet's first level, from which a head of its attention has 64 channels (AudioLDM-L), else 32. Weights
do not tell; diffusers' conversion script takes 8 heads everywhere, which is another network."""
_UPSAMPLING = (5, 4, 2, 2, 2)
"""Of the vocoder, whose product is its hop, 160 samples."""
_DILATIONS = (1, 3, 5)


def part_of(state: State, prefix: str) -> dict[str, Tensor]:
    """Gives the weights under a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def unet_weights(state: State) -> dict[str, Tensor]:
    """Gives the weights of the UNet by their own names: the averaged ones where the file has these.

    Raises:
        KeyError: it has some of them only; names the first that lacks.
    """
    plain = part_of(state, UNET)
    if not any(name.startswith(_AVERAGED) for name in state):
        return plain
    return {name: state[_AVERAGED + name.replace(".", "")] for name in plain}


def unet_config(state: State) -> dict[str, Any]:
    """Reads the sizes of a UNet, for diffusers' ``UNet2DConditionModel``.

    Args:
        state: see :func:`unet_weights`.

    Raises:
        KeyError: a weight is missing.
    """
    starts = _level_starts(state)
    channels = [state[f"input_blocks.{start}.0.out_layers.3.weight"].shape[0] for start in starts]
    attends = [f"input_blocks.{start}.1.norm.weight" in state for start in starts]
    head = 64 if channels[0] >= _WIDE_HEADS_FROM else 32
    film, time = state["film_emb.weight"], state["time_embed.2.weight"]
    return {
        "in_channels": state["input_blocks.0.0.weight"].shape[1],
        "out_channels": state["out.2.weight"].shape[0],
        "down_block_types": ["CrossAttnDownBlock2D" if attention else "DownBlock2D" for attention in attends],
        "up_block_types": ["CrossAttnUpBlock2D" if attention else "UpBlock2D" for attention in attends[::-1]],
        "block_out_channels": channels,
        "cross_attention_dim": channels,  # no text: both attentions of a block look at the sound itself
        "attention_head_dim": [max(1, width // head) for width in channels],  # diffusers' word for numbers of heads
        "layers_per_block": _layers_per_block(state),
        "class_embed_type": "simple_projection",
        "projection_class_embeddings_input_dim": film.shape[1],
        "class_embeddings_concat": state["middle_block.0.emb_layers.1.weight"].shape[1] != time.shape[0],
    }


def unet_state(state: State) -> dict[str, Tensor]:
    """Renames the weights of a UNet; names that it does not know stay."""
    layers = _layers_per_block(state)
    return {_unet_name(name, layers): value for name, value in state.items()}


def autoencoder_config(state: State, scale_factor: float) -> dict[str, Any]:
    """Reads the sizes of an autoencoder, for diffusers' ``AutoencoderKL``.

    Args:
        state: weights by their own names.
        scale_factor: by which latents were multiplied in training.

    Raises:
        KeyError: a weight is missing.
    """
    levels = _count(state, "encoder.down.{}.block.0.conv1.weight")
    return {
        "in_channels": state["encoder.conv_in.weight"].shape[1],
        "out_channels": state["decoder.conv_out.weight"].shape[0],
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "block_out_channels": [state[f"encoder.down.{level}.block.0.conv1.weight"].shape[0] for level in range(levels)],
        "layers_per_block": _count(state, "encoder.down.0.block.{}.conv1.weight"),
        "latent_channels": state["post_quant_conv.weight"].shape[0],
        "scaling_factor": scale_factor,
    }


def autoencoder_state(state: State) -> dict[str, Tensor]:
    """Renames the weights of an autoencoder; its attentions' 1 x 1 convolutions become matrices."""
    levels = _count(state, "decoder.up.{}.block.0.conv1.weight")
    renamed = {}
    for name, value in state.items():
        # The decoder's levels are numbered from the spectrogram on, diffusers' from the latents on.
        name = re.sub(r"^decoder\.up\.(\d+)", lambda found: f"decoder.up.{levels - 1 - int(found[1])}", name)
        name = _renamed(name, _AUTOENCODER_NAMES)
        renamed[name] = value.flatten(1) if ".attentions.0.to_" in name and value.ndim == 4 else value
    return renamed


def vocoder_config(state: State, sample_rate: int) -> dict[str, Any]:
    """Reads the sizes of a HiFi-GAN, for transformers' ``SpeechT5HifiGan``.

    Args:
        state: weights by their own names.
        sample_rate: of its sounds, in hertz.

    Raises:
        KeyError: a weight is missing.
    """
    first = state["conv_pre.weight"]  # [channels, bands, 7]
    blocks = _count(state, "resblocks.{}.convs1.0.weight") // len(_UPSAMPLING)
    return {
        "model_in_dim": first.shape[1],
        "sampling_rate": sample_rate,
        "upsample_initial_channel": first.shape[0],
        "upsample_rates": list(_UPSAMPLING),
        "upsample_kernel_sizes": [state[f"ups.{level}.weight"].shape[2] for level in range(len(_UPSAMPLING))],
        "resblock_kernel_sizes": [state[f"resblocks.{block}.convs1.0.weight"].shape[2] for block in range(blocks)],
        "resblock_dilation_sizes": [list(_DILATIONS)] * blocks,
        "normalize_before": False,
    }


def vocoder_state(state: State) -> dict[str, Tensor]:
    """Renames the weights of a HiFi-GAN."""
    return {re.sub(r"^ups\.", "upsampler.", name): value for name, value in state.items()}


def _unet_name(name: str, layers: int) -> str:
    """Gives diffusers' name of a weight: blocks come in levels, of ``layers`` going down and one more going up."""
    if name.startswith(("input_blocks.", "output_blocks.")) and not name.startswith("input_blocks.0."):
        side, number, part, rest = name.split(".", 3)
        down = side == "input_blocks"
        level, layer = divmod(int(number) - 1 if down else int(number), layers + 1)
        block = f"{'down' if down else 'up'}_blocks.{level}"
        if rest.startswith("op."):
            name = f"{block}.downsamplers.0.conv.{rest.removeprefix('op.')}"
        elif rest.startswith("conv."):
            name = f"{block}.upsamplers.0.{rest}"
        else:
            name = f"{block}.{'resnets' if part == '0' else 'attentions'}.{layer}.{rest}"
    name = _renamed(name, _OUTSIDE_BLOCKS)
    for original, own in _RESNET:
        name = name.replace(f".{original}.", f".{own}.")
    return name


def _level_starts(state: State) -> list[int]:
    """Numbers of the input blocks with which levels begin."""
    blocks = _count(state, "input_blocks.{}.0.", prefix=True)
    return list(range(1, blocks, _layers_per_block(state) + 1))


def _layers_per_block(state: State) -> int:
    """Counts the residual blocks in front of the first downsampling; in all, where there is none."""
    blocks = _count(state, "input_blocks.{}.0.", prefix=True)
    downsampling = (number for number in range(blocks) if f"input_blocks.{number}.0.op.weight" in state)
    return next(downsampling, blocks) - 1


def _count(state: State, pattern: str, prefix: bool = False) -> int:
    """Counts weights, or prefixes of weights, whose names differ in a number, from 0 on."""
    number = 0
    while _has(state, pattern.format(number), prefix):
        number += 1
    return number


def _has(state: Iterable[str], name: str, prefix: bool) -> bool:
    return any(each.startswith(name) for each in state) if prefix else name in state


def _renamed(name: str, patterns: Sequence[tuple[str, str]]) -> str:
    for pattern, replacement in patterns:
        name = re.sub(pattern, replacement, name)
    return name
