"""Loads the two towers of a CLAP into transformers' ClapModel, from whatever file holds them.

LAION's ``.pt`` and AudioLDM's ``.ckpt`` name their weights alike, the latter under a prefix; transformers names them
otherwise and keeps query, key and value apart.
"""

import math
import re
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_ss2a.errors import InputError, one_line
from lightning_ss2a.perception.encoders.clap_sounds import mel_matrix
from lightning_ss2a.perception.encoders.torch_files import fill, read_state
from lightning_ss2a.perception.packages import media_package

FOLDER_FILES = ("config.json", "model.safetensors")
"""Of a CLAP that transformers saved."""

_ANCHOR = "audio_branch.patch_embed.proj.weight"
_FUSION = "audio_branch.patch_embed.fusion_model."
_MEL = "audio_branch.logmel_extractor.melW"
_RENAMED = (
    (r"^audio_branch\.bn0\.", "audio_model.audio_encoder.batch_norm."),
    (r"^audio_branch\.", "audio_model.audio_encoder."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.attn\.", ".attention.self."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
    (r"^text_branch\.", "text_model."),
    (r"_projection\.0\.", "_projection.linear1."),
    (r"_projection\.2\.", "_projection.linear2."),
)
_UNUSED = re.compile(r"^(text|audio)_transform\.|_extractor\.|^audio_branch\.(tscam_conv|head)\.|\.attn_mask$")
"""Of LAION's: the projections of a loss, the spectrogram, the classes of AudioSet, masks that are computed."""
_COMPUTED = re.compile(r"\.(relative_position_index|position_ids|token_type_ids)$|^logit_scale")
"""What a network computes from its sizes, and the temperatures of a loss, which embeddings do not depend on."""
_HEAD_WIDTH = 64
"""RoBERTa's; weights do not tell the number of heads."""


class Towers(nn.Module):
    """Both towers of a CLAP.

    Attributes:
        width: numbers in an embedding.
        vocabulary: number of tokens that the text tower knows.
    """

    width: int
    vocabulary: int

    def hear(self, sounds: Tensor) -> Tensor:
        """Embeds sounds as the audio encoder prepares them.

        Their spectrograms [sounds, 1, 1001, 64], or of laion_clap's towers the sounds [sounds, 480000], to
        [sounds, width], normalised or not.
        """
        raise NotImplementedError

    def read(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Embeds texts.

        Args:
            tokens: int64 [texts, tokens].
            mask: which of them belong to the text, int64 [texts, tokens].

        Returns:
            Projected embeddings [texts, width], not normalised, and the last hidden states [texts, tokens, hidden].
        """
        raise NotImplementedError


class ClapTowers(Towers):
    """The towers of transformers' ClapModel."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.width = network.config.projection_dim
        self.vocabulary = network.config.text_config.vocab_size

    def hear(self, sounds: Tensor) -> Tensor:
        """See :meth:`Towers.hear`."""
        return self.network.get_audio_features(input_features=sounds).pooler_output

    def read(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`Towers.read`."""
        output = self.network.text_model(input_ids=tokens, attention_mask=mask)
        return self.network.text_projection(output.pooler_output), output.last_hidden_state


def load_clap_towers(source: Path, where: str) -> ClapTowers:
    """Loads a CLAP.

    Args:
        source: LAION's ``.pt``, AudioLDM's ``.ckpt``, or a folder that transformers saved.
        where: its option, for messages.

    Raises:
        InputError: it is none of these, or made for features of another kind.
    """
    return ClapTowers(_from_folder(source, where) if source.is_dir() else _from_file(source, where))


def laion_state(file: Path, where: str) -> dict[str, Tensor]:
    """Reads the weights of a CLAP by LAION's names, from LAION's ``.pt`` or AudioLDM's ``.ckpt``.

    Raises:
        InputError: it holds none, one that fuses features, or one that hears other mel bands.
    """
    state = read_state(file)
    prefix = next((name.removesuffix(_ANCHOR) for name in state if name.endswith(_ANCHOR)), None)
    if prefix is None:
        raise InputError(f"{where}: {file}: holds no CLAP with an HTSAT audio tower (no {_ANCHOR})")
    own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    if any(name.startswith(_FUSION) for name in own):
        raise InputError(f"{where}: {file}: a CLAP with feature fusion, which crops at random; take one without")
    if _MEL in own and not torch.allclose(own[_MEL].float(), mel_matrix(), atol=1e-6):
        raise InputError(f"{where}: {file}: its CLAP hears other mel bands than LAION's of 50 to 14,000 Hz")
    return own


def transformers_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gives weights with LAION's names those of transformers; query, key and value are cut apart."""
    renamed = {}
    for name, value in state.items():
        if _UNUSED.search(name) or _COMPUTED.search(name):
            continue
        for pattern, replacement in _RENAMED:
            name = re.sub(pattern, replacement, name)
        if ".self.qkv." in name:
            for part, rows in zip(("query", "key", "value"), value.chunk(3), strict=True):
                renamed[name.replace(".qkv.", f".{part}.")] = rows
        else:
            renamed[name] = value
    return renamed


def roberta_sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Reads the sizes of a RoBERTa off its weights ``text_branch.*``, by the names that configurations share."""
    words = state["text_branch.embeddings.word_embeddings.weight"]
    return {
        "vocab_size": words.shape[0],
        "hidden_size": words.shape[1],
        "num_hidden_layers": _number(state, "text_branch.encoder.layer.{}.output.dense.weight"),
        "num_attention_heads": max(1, words.shape[1] // _HEAD_WIDTH),
        "intermediate_size": state["text_branch.encoder.layer.0.intermediate.dense.weight"].shape[0],
        "max_position_embeddings": state["text_branch.embeddings.position_embeddings.weight"].shape[0],
        "type_vocab_size": state["text_branch.embeddings.token_type_embeddings.weight"].shape[0],
        "layer_norm_eps": 1e-5,  # RoBERTa's; ClapTextConfig's own default is BERT's 1e-12
    }


def _from_file(file: Path, where: str) -> Any:
    transformers = media_package("transformers", extra="paper")
    state = laion_state(file, where)
    try:
        config = transformers.ClapConfig(
            text_config=roberta_sizes(state),
            audio_config=_htsat_sizes(state),
            projection_dim=state["audio_projection.2.weight"].shape[0],
        )
        network = transformers.ClapModel(config)
    except (KeyError, ValueError, IndexError) as error:  # no such weight, or sizes that do not go together
        raise InputError(f"{where}: {file}: not the weights of a CLAP ({one_line(error)})") from error
    fill(network, transformers_state(state), f"{where}: {file}", lambda name: bool(_COMPUTED.search(name)))
    return network


def _htsat_sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Reads the sizes of an HTSAT off its weights."""
    layers = _number(state, "audio_branch.layers.{}.blocks.0.norm1.weight")
    blocks = [f"audio_branch.layers.{layer}.blocks" for layer in range(layers)]
    tables = [state[f"{block}.0.attn.relative_position_bias_table"] for block in blocks]  # [(2 window - 1)², heads]
    patches = state[_ANCHOR]  # [width, 1, patch, patch]
    return {
        "patch_embeds_hidden_size": patches.shape[0],
        "patch_size": patches.shape[-1],
        "patch_stride": [patches.shape[-1]] * 2,
        "depths": [_number(state, block + ".{}.norm1.weight") for block in blocks],
        "num_attention_heads": [table.shape[1] for table in tables],
        "window_size": (math.isqrt(tables[0].shape[0]) + 1) // 2,
        "hidden_size": state["audio_branch.norm.weight"].shape[0],
        "mlp_ratio": state[f"{blocks[0]}.0.mlp.fc1.weight"].shape[0] / patches.shape[0],
    }


def _number(state: Mapping[str, Tensor], pattern: str) -> int:
    """Counts weights whose names differ in a number, from 0 on."""
    return next(number for number in count() if pattern.format(number) not in state)


def _from_folder(folder: Path, where: str) -> Any:
    transformers = media_package("transformers", extra="paper")
    try:
        config = transformers.ClapConfig.from_pretrained(folder, local_files_only=True)
        network = transformers.ClapModel(config)
    except Exception as error:  # whatever a wrong value in config.json makes transformers raise
        raise InputError(f"{where}: {folder / FOLDER_FILES[0]}: not a CLAP's ({one_line(error)})") from error
    if config.audio_config.enable_fusion:
        raise InputError(f"{where}: {folder}: a CLAP with feature fusion, which crops at random; take one without")
    weights = folder / FOLDER_FILES[1]
    fill(network, read_state(weights), f"{where}: {weights}", lambda name: bool(_COMPUTED.search(name)))
    return network
