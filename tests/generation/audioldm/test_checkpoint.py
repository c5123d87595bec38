"""Both layouts of a checkpoint: names, sizes, and what is wrong with a file."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lightning_ss2a.errors import InputError
from lightning_ss2a.generation.audioldm.checkpoint import FILES, Networks, load_networks
from lightning_ss2a.generation.audioldm.original import (
    autoencoder_state,
    part_of,
    unet_config,
    unet_state,
    unet_weights,
)
from tests.generation.audioldm.audioldm_files import (
    CHANNELS,
    LAYERS,
    ORIGINAL,
    Parts,
    original_state,
    random_parts,
    write_folder,
    write_original,
)
from tests.perception.encoders.clap_files import write_tokenizer

UNET = "model.diffusion_model."


@pytest.fixture(scope="module")
def parts() -> Parts:
    return random_parts()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return write_tokenizer(tmp_path_factory.mktemp("roberta"))


@pytest.fixture(scope="module")
def state(parts: Parts) -> dict[str, Tensor]:
    return original_state(parts)


def check_equal(networks: Networks, parts: Parts) -> None:
    for name in ("unet", "vae", "vocoder"):
        expected, found = getattr(parts, name).state_dict(), getattr(networks, name).state_dict()
        assert list(expected) == list(found)
        for weight, value in expected.items():
            assert value.equal(found[weight]), f"{name} {weight}"


def test_an_original_checkpoint_gives_the_averaged_weights_under_diffusers_names(parts: Parts, tmp_path: Path):
    networks = load_networks(write_original(parts, tmp_path / ORIGINAL), "generator")
    check_equal(networks, parts)
    assert networks.vae.config.scaling_factor == pytest.approx(0.4)
    for name, value in parts.scheduler.config.items():
        assert name.startswith("_") or networks.schedule.get(name, value) == value
    heads = [block.attentions[0].transformer_blocks[0].attn1.heads for block in networks.unet.down_blocks[1:]]
    assert heads == [width // 32 for width in CHANNELS[1:]]


def test_a_folder_gives_its_own_weights_sizes_and_schedule(parts: Parts, tokenizer: Any, tmp_path: Path):
    folder = write_folder(parts, tmp_path, tokenizer)
    file = folder / "vae/diffusion_pytorch_model.safetensors"
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = load_file(file)
    for new, old in older.items():
        weights = {name.replace(f".{new}.", f".{old}."): value for name, value in weights.items()}
    save_file(weights, file)  # as diffusers wrote it when AudioLDM was converted
    networks = load_networks(folder, "generator")
    check_equal(networks, parts)
    assert networks.schedule["beta_end"] == 0.0195
    assert networks.latent_shape(163_840) == (8, 256, 4)
    assert networks.latent_shape(10_400) == (8, 17, 4)


def test_names_are_those_of_diffusers_converter(state: dict[str, Tensor]):
    converter = pytest.importorskip("diffusers.pipelines.stable_diffusion.convert_from_ckpt")
    unet = unet_weights(state)
    config = {"layers_per_block": LAYERS, "class_embed_type": None, "addition_embed_type": None}
    expected = converter.convert_ldm_unet_checkpoint(dict(unet), config, skip_extract_state_dict=True)
    expected |= {f"class_embedding.{end}": unet[f"film_emb.{end}"] for end in ("weight", "bias")}
    found = unet_state(unet)
    assert set(found) == set(expected)
    assert all(found[name].equal(value) for name, value in expected.items())

    vae = {name: value for name, value in part_of(state, "first_stage_model.").items() if "vocoder" not in name}
    expected = converter.convert_ldm_vae_checkpoint({f"first_stage_model.{n}": v for n, v in vae.items()}, {})
    found = autoencoder_state(vae)
    assert set(found) == set(expected)
    assert all(found[name].equal(value) for name, value in expected.items())


def test_heads_of_a_large_unet_are_wider(state: dict[str, Tensor]):
    unet = unet_weights(state)
    wide = {name: value.repeat_interleave(8, dim=0) for name, value in unet.items() if "out_layers.3" in name}
    assert unet_config(unet)["attention_head_dim"] == [1, 2, 3]
    assert unet_config({**unet, **wide})["attention_head_dim"] == [4, 8, 12]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (f"{UNET}out.0.bias", None, "its unet: lacks conv_norm_out.bias$"),
        (f"{UNET}film_emb.weight", None, "not an original AudioLDM checkpoint: lacks film_emb.weight"),
        (f"{UNET}extra.weight", torch.ones(1), "lacks model_ema.diffusion_modelextraweight"),
        ("model_ema.diffusion_modelout0bias", None, "lacks model_ema.diffusion_modelout0bias"),
        ("model_ema.diffusion_modelout0bias", torch.ones(3), r"its unet: has conv_norm_out.bias of shape \[3\]"),
        ("first_stage_model.decoder.conv_in.bias", None, "its vae: lacks decoder.conv_in.bias"),
        ("first_stage_model.decoder.more.bias", torch.ones(1), "its vae: has decoder.more.bias too much"),
        ("first_stage_model.vocoder.ups.2.bias", torch.ones(2), r"its vocoder: has upsampler.2.bias of shape \[2\]"),
        ("first_stage_model.vocoder.conv_post.bias", None, "its vocoder: lacks conv_post.bias"),
        ("scale_factor", None, "not an original AudioLDM checkpoint: lacks scale_factor"),
        ("scale_factor", torch.ones(2), "not an original AudioLDM checkpoint"),
    ],
)
def test_a_weight_that_is_missing_misshapen_or_too_much_is_named(
    parts: Parts, tmp_path: Path, name: str, value: Tensor | None, message: str
):
    file = write_original(parts, tmp_path / ORIGINAL, {name: value})
    with pytest.raises(InputError, match=message) as error:
        load_networks(file, "generator")
    assert str(error.value).startswith(f"generator: {file}: ")
    assert "\n" not in str(error.value)


def test_a_checkpoint_without_averages_gives_its_only_weights(parts: Parts, state: dict[str, Tensor], tmp_path: Path):
    none = {name: None for name in state if name.startswith("model_ema.")}
    networks = load_networks(write_original(parts, tmp_path / ORIGINAL, none), "generator")
    torch.testing.assert_close(networks.unet.conv_out.bias, parts.unet.conv_out.bias + 0.1)


@pytest.mark.parametrize(
    ("file", "key", "value", "message"),
    [
        ("model_index.json", "_class_name", "AudioLDM2Pipeline", "holds a AudioLDM2Pipeline, not an AudioLDMPipeline"),
        ("vae/config.json", "latent_channels", 4, r"vae/diffusion_pytorch_model.safetensors: has .* of shape"),
        ("unet/config.json", "norm_num_groups", 7, "unet/.*: no network of these sizes"),
        ("vocoder/config.json", "sampling_rate", 22_050, "sample rate of the vocoder is 22050, needs 16000"),
    ],
)
def test_a_folder_of_another_kind_is_refused(
    parts: Parts, tokenizer: Any, tmp_path: Path, file: str, key: str, value: Any, message: str
):
    config = write_folder(parts, tmp_path, tokenizer) / file
    config.write_text(json.dumps({**json.loads(config.read_text()), key: value}))
    with pytest.raises(InputError, match=message) as error:
        load_networks(tmp_path, "generator")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [file for file in FILES if not file.startswith("text_encoder")])
def test_a_damaged_file_is_named(parts: Parts, tokenizer: Any, tmp_path: Path, name: str):
    file = write_folder(parts, tmp_path, tokenizer) / name
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(InputError, match=str(file)) as error:
        load_networks(tmp_path, "generator")
    assert "\n" not in str(error.value)
