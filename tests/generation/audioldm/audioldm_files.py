"""Makes small random AudioLDMs of the true architecture, and writes them in both layouts that real weights come in."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

WIDTH = 24
CHANNELS = (32, 64, 96)
LAYERS = 2
BANDS = 16
SCALE_FACTOR = 0.4
ORIGINAL = "audioldm-tiny.ckpt"


@dataclass(frozen=True)
class Parts:
    """All networks of an AudioLDM."""

    unet: Any
    vae: Any
    vocoder: Any
    clap: Any
    scheduler: Any


def random_parts(seed: int = 0) -> Parts:
    """An AudioLDM whose sounds are loud and depend on everything: embedding, noise and each of its networks."""
    pytest.importorskip("transformers")
    import diffusers
    import transformers

    torch.manual_seed(seed)
    unet = diffusers.UNet2DConditionModel(
        sample_size=16,
        in_channels=8,
        out_channels=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=CHANNELS,
        layers_per_block=LAYERS,
        cross_attention_dim=CHANNELS,
        attention_head_dim=[1, 2, 3],  # 32 channels a head
        class_embed_type="simple_projection",
        projection_class_embeddings_input_dim=WIDTH,
        class_embeddings_concat=True,
    )
    nn.init.normal_(unet.class_embedding.weight, std=1.0)
    vae = diffusers.AutoencoderKL(
        in_channels=1,
        out_channels=1,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 32, 64),
        layers_per_block=1,
        latent_channels=8,
        scaling_factor=SCALE_FACTOR,
    )
    vocoder = transformers.SpeechT5HifiGan(
        transformers.SpeechT5HifiGanConfig(
            model_in_dim=BANDS,
            sampling_rate=16000,
            upsample_initial_channel=64,
            upsample_rates=[5, 4, 2, 2, 2],
            upsample_kernel_sizes=[16, 16, 8, 4, 4],
            resblock_kernel_sizes=[3, 5],
            resblock_dilation_sizes=[[1, 3, 5]] * 2,
            normalize_before=False,
        )
    )
    nn.init.normal_(vae.decoder.conv_out.weight, std=0.3)  # spectrograms that differ from frame to frame
    for name, parameter in vocoder.named_parameters():
        # Kernels that keep loudness, and offsets that do not drown what comes in.
        nn.init.normal_(parameter, std=0.1 if name.endswith("bias") else 1.2 / math.sqrt(parameter[0].numel()))
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.0015,
        beta_end=0.0195,
        beta_schedule="scaled_linear",
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=False,
    )
    parts = Parts(unet, vae, vocoder, random_clap(), scheduler)
    for network in (unet, vae, vocoder):
        network.eval().requires_grad_(False)
    return parts


def random_clap() -> Any:
    """A CLAP that tells texts and sounds apart."""
    import transformers

    sizes = {"vocab_size": 280, "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1}
    text = {**sizes, "intermediate_size": 64, "max_position_embeddings": 514, "layer_norm_eps": 1e-5}
    audio = {"patch_embeds_hidden_size": 16, "hidden_size": 64, "depths": [1, 1, 1], "num_attention_heads": [1, 2, 4]}
    config = transformers.ClapConfig(text_config=text, audio_config=audio, projection_dim=WIDTH)
    clap = transformers.ClapModel(config)
    for parameter in clap.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.1)
    decibels = clap.audio_model.audio_encoder.batch_norm
    decibels.running_mean.uniform_(-50, -30)
    decibels.running_var.uniform_(200, 600)
    return clap.eval().requires_grad_(False)


def text_encoder(parts: Parts) -> Any:
    """The text half of its CLAP, as diffusers' pipeline holds it."""
    import transformers

    network = transformers.ClapTextModelWithProjection(parts.clap.config.text_config)
    halves = ("text_model.", "text_projection.")
    network.load_state_dict({n: v for n, v in parts.clap.state_dict().items() if n.startswith(halves)}, strict=False)
    return network.eval()


def pipeline(parts: Parts, tokenizer: Any) -> Any:
    """diffusers' own pipeline of these networks."""
    from diffusers import AudioLDMPipeline

    made = AudioLDMPipeline(
        vae=parts.vae,
        text_encoder=text_encoder(parts),
        tokenizer=tokenizer,
        unet=parts.unet,
        scheduler=parts.scheduler,
        vocoder=parts.vocoder,
    )
    made.set_progress_bar_config(disable=True)
    return made


def original_state(parts: Parts) -> dict[str, Tensor]:
    """All weights by the names of haoheliu/AudioLDM; those of the UNet differ from their average over the training."""
    unet = original_unet(parts.unet.state_dict())
    average = {"model_ema." + f"diffusion_model.{name}".replace(".", ""): value for name, value in unet.items()}
    return {
        **{f"model.diffusion_model.{name}": value + 0.1 for name, value in unet.items()},
        **average,
        "model_ema.decay": torch.tensor(0.9999),
        "model_ema.num_updates": torch.tensor(7),
        "betas": torch.linspace(0.0015**0.5, 0.0195**0.5, 1000) ** 2,
        "scale_factor": torch.tensor(SCALE_FACTOR),
        "logvar": torch.zeros(1000),
        **{f"first_stage_model.{name}": value for name, value in original_vae(parts.vae.state_dict()).items()},
        **{
            "first_stage_model.vocoder." + name.replace("upsampler.", "ups."): value
            for name, value in parts.vocoder.state_dict().items()
            if name not in ("mean", "scale")
        },
        **{f"cond_stage_model.model.{name}": value for name, value in original_clap(parts.clap.state_dict()).items()},
        "cond_stage_model.model.text_branch.embeddings.position_ids": torch.arange(514)[None],
    }


def original_unet(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names in the order in which the original's constructor numbers its blocks."""
    levels = len(CHANNELS)
    prefixes = {"conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}
    prefixes |= {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2"}
    prefixes |= {"class_embedding": "film_emb", "mid_block.resnets.0": "middle_block.0"}
    prefixes |= {"mid_block.attentions.0": "middle_block.1", "mid_block.resnets.1": "middle_block.2"}
    number = 1
    for level in range(levels):
        for layer in range(LAYERS):
            prefixes[f"down_blocks.{level}.resnets.{layer}"] = f"input_blocks.{number}.0"
            prefixes[f"down_blocks.{level}.attentions.{layer}"] = f"input_blocks.{number}.1"
            number += 1
        if level < levels - 1:
            prefixes[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{number}.0.op"
            number += 1
    number = 0
    for level in range(levels):
        attends = f"up_blocks.{level}.attentions.0.norm.weight" in state
        for layer in range(LAYERS + 1):
            prefixes[f"up_blocks.{level}.resnets.{layer}"] = f"output_blocks.{number}.0"
            prefixes[f"up_blocks.{level}.attentions.{layer}"] = f"output_blocks.{number}.1"
            number += 1
        prefixes[f"up_blocks.{level}.upsamplers.0"] = f"output_blocks.{number - 1}.{2 if attends else 1}"
    inner = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1"}
    inner |= {"norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
    renamed = {}
    for name, value in state.items():
        prefix = next(one for one in prefixes if name.startswith(f"{one}."))
        rest = name.removeprefix(f"{prefix}.")
        if ".resnets." in f".{prefix}.":
            part, end = rest.rsplit(".", 1)
            rest = f"{inner[part]}.{end}"
        renamed[f"{prefixes[prefix]}.{rest}"] = value
    return renamed


def original_vae(state: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, value in state.items():
        name = re.sub(r"decoder\.up_blocks\.(\d)", lambda found: f"decoder.up.{2 - int(found[1])}", name)
        for new, old in (
            ("conv_norm_out", "norm_out"),
            ("conv_shortcut", "nin_shortcut"),
            ("mid_block.attentions.0.group_norm", "mid.attn_1.norm"),
            ("mid_block.attentions.0.to_out.0", "mid.attn_1.proj_out"),
            ("mid_block.attentions.0.to_", "mid.attn_1."),
            ("mid_block.resnets.0", "mid.block_1"),
            ("mid_block.resnets.1", "mid.block_2"),
            ("down_blocks", "down"),
            ("resnets", "block"),
            ("downsamplers.0", "downsample"),
            ("upsamplers.0", "upsample"),
        ):
            name = name.replace(new, old)
        convolution = re.search(r"attn_1\.(q|k|v|proj_out)\.weight", name)
        renamed[name] = value[..., None, None] if convolution else value
    return renamed


def original_clap(state: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {"text_transform.sequential.0.weight": torch.zeros(2, 2)}
    for name, value in state.items():
        if name.startswith("logit_scale"):
            continue
        if name.startswith("audio_model."):
            for new, old in (
                ("audio_model.audio_encoder.batch_norm", "audio_branch.bn0"),
                ("audio_model.audio_encoder", "audio_branch"),
                ("layernorm_before", "norm1"),
                ("layernorm_after", "norm2"),
                ("attention.output.dense", "attn.proj"),
                ("attention.self", "attn"),
                ("intermediate.dense", "mlp.fc1"),
                ("output.dense", "mlp.fc2"),
            ):
                name = name.replace(new, old)
        name = name.replace("text_model.", "text_branch.")
        name = name.replace("_projection.linear1", "_projection.0").replace("_projection.linear2", "_projection.2")
        if ".attn.key." in name or ".attn.value." in name:
            continue
        if ".attn.query." in name:
            source = next(each for each in state if state[each] is value)
            value = torch.cat([state[source.replace("query", part)] for part in ("query", "key", "value")])
            name = name.replace("query", "qkv")
        renamed[name] = value
    return renamed


def write_original(parts: Parts, path: Path, changes: dict[str, Tensor | None] | None = None) -> Path:
    """Writes the original checkpoint; a change of None leaves a weight out."""
    state: dict[str, Tensor | None] = {**original_state(parts), **(changes or {})}
    kept = {name: value for name, value in state.items() if value is not None}
    torch.save({"state_dict": kept, "global_step": 1, "epoch": 0}, path)
    return path


def write_folder(parts: Parts, folder: Path, tokenizer: Any) -> Path:
    """Writes diffusers' folder."""
    pipeline(parts, tokenizer).save_pretrained(folder)
    return folder
