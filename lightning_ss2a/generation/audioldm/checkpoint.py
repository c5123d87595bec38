"""Loads the networks of an AudioLDM from either layout: diffusers' folder, or the original checkpoint."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_ss2a.errors import InputError, one_line
from lightning_ss2a.generation.audioldm.original import (
    AUTOENCODER,
    VOCODER,
    autoencoder_config,
    autoencoder_state,
    part_of,
    unet_config,
    unet_state,
    unet_weights,
    vocoder_config,
    vocoder_state,
)
from lightning_ss2a.generation.audioldm.schedulers import SCHEDULE
from lightning_ss2a.perception.encoders.clap_towers import Towers, laion_state, transformers_state
from lightning_ss2a.perception.encoders.torch_files import fill, read_state
from lightning_ss2a.perception.packages import media_package

SAMPLE_RATE = 16_000
"""Of AudioLDM's sounds, in hertz."""
HOP = 160
"""Samples of a frame of its spectrograms."""
FILES = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "vocoder/config.json",
    "vocoder/model.safetensors",
    "text_encoder/model.safetensors",
)
"""Of diffusers' folder. Its tokenizer is not read: the tokens of the empty text are known."""

_PIPELINE = "AudioLDMPipeline"
_CONFIGS = {"unet": "unet/config.json", "vae": "vae/config.json", "vocoder": "vocoder/config.json"}
_OLDER_NAMES = (
    (r"\.query\.", ".to_q."),
    (r"\.key\.", ".to_k."),
    (r"\.value\.", ".to_v."),
    (r"\.proj_attn\.", ".to_out.0."),
)
"""Of the autoencoder's attentions, in folders that diffusers saved before 0.16."""
_COMPUTED = re.compile(r"^(mean|scale)$|\.(position_ids|token_type_ids)$")
"""What a network computes itself: the vocoder's unused normalisation, RoBERTa's numbers of places."""


@dataclass(frozen=True)
class Networks:
    """What sounds an embedding.

    Attributes:
        unet: predicts the noise in latents, given an embedding.
        vae: decodes latents to log-mel spectrograms.
        vocoder: turns spectrograms into waveforms.
        schedule: configuration of the noise schedule that the UNet was trained with.
    """

    unet: Any
    vae: Any
    vocoder: Any
    schedule: Mapping[str, Any]

    @property
    def width(self) -> int:
        """Numbers in an embedding."""
        return int(self.unet.config.projection_class_embeddings_input_dim)

    @property
    def scale(self) -> int:
        """Frames of a spectrogram for each of the latents."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    def latent_shape(self, samples: int) -> tuple[int, int, int]:
        """Gives channels, times and bands of the latents of a sound that is at least so long."""
        frames = -(-samples // HOP)
        return self.unet.config.in_channels, -(-frames // self.scale), self.vocoder.config.model_in_dim // self.scale


def load_networks(source: Path, part: str) -> Networks:
    """Loads the networks, in float32, on the CPU.

    Args:
        source: diffusers' folder, or the original checkpoint.
        part: whose they are, for messages.

    Raises:
        InputError: a file is damaged, or a weight is missing, of another shape or too much; names it.
    """
    networks = _from_folder(source, part) if source.is_dir() else _from_file(source, part)
    _check_fit(networks, f"{part}: {source}")
    return networks


def check_same_text_half(source: Path, towers: Towers, part: str) -> None:
    """Checks that a checkpoint was trained with a CLAP, by the text half, which every layout of a checkpoint holds.

    Args:
        source: see :func:`load_networks`.
        towers: of the CLAP.
        part: whose they are, for messages.

    Raises:
        InputError: a weight differs by more than rounding to half precision does; names the first.
    """
    expected = read_state(source / FILES[-1]) if source.is_dir() else transformers_state(laion_state(source, part))
    found = transformers_state({name.removeprefix("network."): value for name, value in towers.state_dict().items()})
    for name, weight in expected.items():
        if not name.startswith(("text_model.", "text_projection.")) or _COMPUTED.search(name):
            continue
        if name not in found or not _alike(weight, found[name].to(weight.device)):
            raise InputError(
                f"{part}: {source}: was trained with another CLAP than {part}.clap: {name} of their text halves "
                "differs; name the CLAP of the same AudioLDM, which is in its original .ckpt"
            )


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one.float(), other.float(), rtol=1e-3, atol=1e-6)


def _from_file(file: Path, part: str) -> Networks:
    state = read_state(file)
    where = f"{part}: {file}"
    try:
        scale_factor = float(state["scale_factor"])
        unet = unet_weights(state)
        first_stage = part_of(state, AUTOENCODER)
        vocoder = part_of(first_stage, VOCODER)
        vae = {name: value for name, value in first_stage.items() if not name.startswith(VOCODER)}
        configs = {
            "unet": unet_config(unet),
            "vae": autoencoder_config(vae, scale_factor),
            "vocoder": vocoder_config(vocoder, SAMPLE_RATE),
        }
    except KeyError as error:
        raise InputError(f"{where}: not an original AudioLDM checkpoint: lacks {error.args[0]}") from error
    except (IndexError, ValueError, RuntimeError) as error:  # a weight, or scale_factor, of another number of axes
        raise InputError(f"{where}: not an original AudioLDM checkpoint ({one_line(error)})") from error
    states = {"unet": unet_state(unet), "vae": autoencoder_state(vae), "vocoder": vocoder_state(vocoder)}
    networks = {name: _filled(name, configs[name], states[name], f"{where}: its {name}") for name in configs}
    return Networks(**networks, schedule=SCHEDULE)


def _from_folder(folder: Path, part: str) -> Networks:
    index = _json(folder / FILES[0])
    if index.get("_class_name") != _PIPELINE:
        raise InputError(f"{part}: {folder / FILES[0]}: holds a {index.get('_class_name')}, not an {_PIPELINE}")
    networks = {}
    for name, config in _CONFIGS.items():
        weights = next(folder / file for file in FILES if file.startswith(f"{name}/") and file.endswith(".safetensors"))
        state = read_state(weights)
        if name == "vae":
            state = {_newer_name(old): value for old, value in state.items()}
        networks[name] = _filled(name, _json(folder / config), state, f"{part}: {weights}")
    return Networks(**networks, schedule=_json(folder / FILES[1]))


def _filled(name: str, config: Mapping[str, Any], state: Mapping[str, Tensor], where: str) -> Any:
    """Makes a network and copies its weights into it."""
    try:
        network = _new_network(name, config)
    except Exception as error:  # whatever a wrong value makes diffusers, transformers and torch raise
        raise InputError(f"{where}: no network of these sizes ({one_line(error)})") from error
    fill(network, state, where, lambda weight: bool(_COMPUTED.search(weight)))
    return network.eval().requires_grad_(False)


def _new_network(name: str, config: Mapping[str, Any]) -> Any:
    if name == "vocoder":
        transformers = media_package("transformers", extra="paper")
        return transformers.SpeechT5HifiGan(transformers.SpeechT5HifiGanConfig(**config))
    diffusers = media_package("diffusers")
    kind = diffusers.UNet2DConditionModel if name == "unet" else diffusers.AutoencoderKL
    return kind.from_config(dict(config))


def _check_fit(networks: Networks, where: str) -> None:
    """Checks that the networks go together as AudioLDM's do."""
    unet, vae, vocoder = networks.unet.config, networks.vae.config, networks.vocoder.config
    if unet.class_embed_type != "simple_projection":
        raise InputError(f"{where}: its UNet is not conditioned on a CLAP embedding ({unet.class_embed_type})")
    hop = int(torch.tensor(vocoder.upsample_rates).prod())
    for name, found, needed in (
        ("latent channels of the autoencoder", vae.latent_channels, unet.in_channels),
        ("sample rate of the vocoder", vocoder.sampling_rate, SAMPLE_RATE),
        ("hop of the vocoder", hop, HOP),
        ("rest of the vocoder's bands by the autoencoder's scale", vocoder.model_in_dim % networks.scale, 0),
    ):
        if found != needed:
            raise InputError(f"{where}: {name} is {found}, needs {needed}")


def _newer_name(name: str) -> str:
    for older, newer in _OLDER_NAMES:
        name = re.sub(older, newer, name)
    return name


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read ({one_line(error)})") from error
    if not isinstance(content, dict):
        raise InputError(f"{file}: holds a {type(content).__name__}, no configuration")
    return content
