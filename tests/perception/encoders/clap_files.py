"""Makes random CLAPs with LAION's own classes, and writes them in the layouts that real weights come in."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor

VOCABULARY = 280


def laion_clap(tiny: bool) -> Any:
    """A random CLAP: one layer of RoBERTa, and HTSAT-tiny, or a smaller HTSAT."""
    pytest.importorskip("laion_clap")
    transformers = pytest.importorskip("transformers")
    module = sys.modules["clap_module.model"]
    config = transformers.RobertaConfig(
        vocab_size=VOCABULARY,
        num_hidden_layers=1,
        intermediate_size=64,
        max_position_embeddings=514,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
    )
    roberta = SimpleNamespace(from_pretrained=lambda _: transformers.RobertaModel(config))
    torch.manual_seed(0)
    with patch.object(module, "RobertaModel", roberta):
        if tiny:
            with patch.object(module, "create_htsat_model", _small_htsat):
                sizes = {**_sizes(), "embed_dim": 64}
                sizes["text_cfg"]["model_type"] = "roberta"
                network = module.CLAP(**sizes)
        else:
            network, _ = sys.modules["clap_module"].create_model("HTSAT-tiny", "roberta")
    _spread(network)
    return network.eval()


def _sizes() -> dict[str, Any]:
    path = Path(sys.modules["clap_module"].__file__).parent / "model_configs" / "HTSAT-tiny.json"
    return json.loads(path.read_text())


def _small_htsat(config: Any, _fusion: bool, _fusion_type: str) -> Any:
    htsat = sys.modules["clap_module.htsat"].HTSAT_Swin_Transformer
    return htsat(embed_dim=16, depths=[1, 2, 1], num_heads=[1, 2, 4], num_classes=5, config=config)


def _spread(network: Any) -> None:
    """Makes weights so large that different inputs have different embeddings."""
    for name, parameter in network.named_parameters():
        if "extractor" not in name and "norm" not in name.lower():
            torch.nn.init.normal_(parameter, std=0.1)
    network.audio_branch.bn0.running_mean.uniform_(-50, -30)
    network.audio_branch.bn0.running_var.uniform_(200, 600)


def write_laion(network: Any, path: Path, changes: Mapping[str, Tensor] | None = None) -> Path:
    """What LAION publishes: a training checkpoint, of a model in DistributedDataParallel, of an older transformers."""
    state = {**network.state_dict(), **(changes or {})}
    state["text_branch.embeddings.position_ids"] = torch.arange(514)[None]
    state = {f"module.{name}": value for name, value in state.items()}
    torch.save({"epoch": 45, "name": "best", "map": np.float64(0.5), "state_dict": state}, path)
    return path


def write_audioldm(network: Any, path: Path) -> Path:
    """What AudioLDM publishes: its CLAP under a prefix, beside its other networks."""
    state = {f"cond_stage_model.model.{name}": value for name, value in network.state_dict().items()}
    state["cond_stage_model.model.text_branch.embeddings.position_ids"] = torch.arange(514)[None]
    state["model.diffusion_model.time_embed.0.weight"] = torch.zeros(4, 4)
    torch.save({"state_dict": state, "global_step": 1}, path)
    return path


def write_tokenizer(folder: Path) -> Any:
    """RoBERTa's tokenizer with a few words, saved by transformers; gives the tokenizer."""
    transformers = pytest.importorskip("transformers")
    alphabet = pytest.importorskip("tokenizers.pre_tokenizers").ByteLevel.alphabet()
    merges = [("a", "i"), ("r", "ai"), ("rai", "n"), ("Ġ", "d"), ("Ġd", "o")]
    words = ["<s>", "<pad>", "</s>", "<unk>", *sorted(alphabet), *(a + b for a, b in merges), "<mask>"]
    tokenizer = transformers.RobertaTokenizer({word: i for i, word in enumerate(words)}, merges)
    tokenizer.save_pretrained(folder)
    return tokenizer


def sounds() -> list[np.ndarray]:
    """3 s of noise, 10 s of a rising tone and 12 s of clicks that fade, at 48 kHz."""
    generator, time = np.random.default_rng(0), np.arange(576_000) / 48_000
    noise = generator.uniform(-0.5, 0.5, 144_000)
    tone = 0.5 * np.sin(2 * np.pi * 60 * 2 ** (0.8 * time[:480_000]) * time[:480_000])
    clicks = generator.uniform(-1, 1, 576_000) * np.exp(-20 * (time % 0.5))
    return [sound.astype(np.float32) for sound in (noise, tone, clicks)]
