"""A tiny random CLIP of the true classes, in the layouts that real weights come in."""

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.encoders.clip import CLIPImageEncoder, CLIPTextEncoder
from lightning_ss2a.perception.encoders.protocols import ImageEncoder, PreparingImageEncoder, TextEncoder
from lightning_ss2a.perception.encoders.running import Precision
from lightning_ss2a.perception.identity import sha256_of
from lightning_ss2a.perception.weights import Described

open_clip = pytest.importorskip("open_clip")
safetensors = pytest.importorskip("safetensors.torch")

TINY, TINY_GELU = "ViT-tiny-of-tests-quickgelu", "ViT-tiny-of-tests"
CONFIG = {
    "embed_dim": 24,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
TEXTS = ["a photo of a dog", "", "rain on a tin roof " * 30]


@pytest.fixture(scope="module", autouse=True)
def architectures(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("architectures")
    (folder / f"{TINY}.json").write_text(json.dumps(CONFIG))
    (folder / f"{TINY_GELU}.json").write_text(json.dumps({**CONFIG, "quick_gelu": False}))
    open_clip.add_model_config(folder)


@pytest.fixture(scope="module")
def network(architectures: None) -> Any:
    torch.manual_seed(0)
    network = open_clip.CLIP(**CONFIG).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network


@pytest.fixture(scope="module")
def folder(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a repository of open_clip on the hub holds."""
    folder = tmp_path_factory.mktemp("clip")
    preprocess = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3], "interpolation": "bicubic"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG, "preprocess_cfg": preprocess}))
    safetensors.save_file(network.state_dict(), folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((32, 32), (40, 77), (120, 50))]


@pytest.fixture(scope="module")
def image_encoder(folder: Path) -> CLIPImageEncoder:
    return CLIPImageEncoder(str(folder), architecture=TINY, batch_size=2)


@pytest.fixture(scope="module")
def text_encoder(folder: Path) -> CLIPTextEncoder:
    return CLIPTextEncoder(str(folder), architecture=TINY, batch_size=2)


def test_pictures_are_what_open_clip_makes_of_the_same_folder(
    image_encoder: CLIPImageEncoder, folder: Path, images: list[np.ndarray]
):
    pillow = pytest.importorskip("PIL.Image")
    network, transform = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    pixels = torch.stack([transform(pillow.fromarray(image)) for image in images])
    torch.testing.assert_close(torch.stack([image_encoder.prepare(image) for image in images]), pixels, rtol=0, atol=0)
    with torch.inference_mode():
        expected = network.eval().encode_image(pixels, normalize=True)
    torch.testing.assert_close(image_encoder.encode(images), expected, rtol=1e-5, atol=1e-6)


def test_preparation_is_resizing_cutting_and_scaling(image_encoder: CLIPImageEncoder):
    image = np.full((64, 96, 3), (255, 0, 128), np.uint8)
    image[:, :16] = image[:, -16:] = 7  # the sides, which are cut off
    pixels = image_encoder.prepare(image)
    expected = (torch.tensor([1, 0, 128 / 255]) - torch.tensor([0.5, 0.4, 0.3])) / torch.tensor([0.2, 0.25, 0.3])
    torch.testing.assert_close(pixels[:, :, 4:-4], expected[:, None, None].expand(3, 32, 24))


def test_texts_are_what_open_clip_makes_of_them(text_encoder: CLIPTextEncoder, network: Any):
    tokens = open_clip.get_tokenizer(TINY)(TEXTS)
    with torch.inference_mode():
        expected = network.encode_text(tokens)
    features = text_encoder.features(TEXTS)
    assert features.texts == tuple(TEXTS)
    torch.testing.assert_close(features.embeddings, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(text_encoder.encode(TEXTS), normalize(expected, dim=-1), rtol=1e-5, atol=1e-6)


def test_what_a_prior_reads_is_what_transformers_gives_it(text_encoder: CLIPTextEncoder, network: Any):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.CLIPTextModelWithProjection(
        transformers.CLIPTextConfig(
            vocab_size=49408,
            hidden_size=32,
            intermediate_size=128,
            projection_dim=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            hidden_act="quick_gelu",
            eos_token_id=49407,
        )
    ).eval()
    theirs.load_state_dict(_transformers_state(network), strict=False)
    tokens = open_clip.get_tokenizer(TINY)(TEXTS)
    features = text_encoder.features(TEXTS)
    assert features.hidden is not None
    assert features.mask is not None
    with torch.inference_mode():
        output = theirs(input_ids=tokens)
    torch.testing.assert_close(features.embeddings, output.text_embeds, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(features.hidden, output.last_hidden_state, rtol=1e-4, atol=1e-5)
    assert features.hidden.shape == (3, 77, 32)
    assert features.mask.sum(dim=1).tolist() == [7, 2, 77]  # start, words, end


def _transformers_state(network: Any) -> dict[str, torch.Tensor]:
    state = network.state_dict()
    names = {
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "attn.out_proj": "self_attn.out_proj",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
    }
    theirs = {
        "text_model.embeddings.token_embedding.weight": state["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": state["positional_embedding"],
        "text_model.final_layer_norm.weight": state["ln_final.weight"],
        "text_model.final_layer_norm.bias": state["ln_final.bias"],
        "text_projection.weight": state["text_projection"].T,
    }
    for layer in range(2):
        old, new = f"transformer.resblocks.{layer}", f"text_model.encoder.layers.{layer}"
        for kind in ("weight", "bias"):
            theirs |= {f"{new}.{value}.{kind}": state[f"{old}.{key}.{kind}"] for key, value in names.items()}
            for part, value in zip("qkv", state[f"{old}.attn.in_proj_{kind}"].chunk(3), strict=True):
                theirs[f"{new}.self_attn.{part}_proj.{kind}"] = value
    return theirs


def test_embeddings_are_unit_vectors_and_do_not_depend_on_the_batch(
    image_encoder: CLIPImageEncoder, text_encoder: CLIPTextEncoder, images: list[np.ndarray]
):
    for encoder, items in ((image_encoder, images), (text_encoder, TEXTS)):
        together = encoder.encode(items)
        assert together.shape == (3, encoder.width) == (3, 24)
        assert together.dtype == torch.float32
        torch.testing.assert_close(together.norm(dim=-1), torch.ones(3))
        alone = torch.cat([encoder.encode([item]) for item in items])
        torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)
        assert encoder.encode([]).shape == (0, 24)
    assert text_encoder.features([]).hidden.shape == (0, 77, 32)


def test_pictures_may_be_prepared_by_processes_without_the_network(
    image_encoder: CLIPImageEncoder, images: list[np.ndarray]
):
    assert isinstance(image_encoder, PreparingImageEncoder)
    expected = image_encoder.encode(images)
    sent = pickle.dumps(image_encoder.prepare)
    assert len(sent) < 20_000, "the network goes along"
    prepared = torch.stack([pickle.loads(sent)(image) for image in images])
    assert torch.equal(image_encoder.encode_prepared(prepared), expected)
    assert image_encoder.encode_prepared(prepared[:0]).shape == (0, 24)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_lower_precision_changes_little(
    folder: Path, image_encoder: CLIPImageEncoder, images: list[np.ndarray], precision: Precision
):
    low = CLIPImageEncoder(str(folder), architecture=TINY, precision=precision)
    embeddings, full = low.encode(images), image_encoder.encode(images)
    assert embeddings.dtype == torch.float32
    assert (embeddings * full).sum(dim=-1).min() > 0.99
    assert not torch.equal(embeddings, full)
    assert low.identity == image_encoder.identity


def test_both_encoders_share_a_network(image_encoder: CLIPImageEncoder, text_encoder: CLIPTextEncoder):
    assert image_encoder._network is text_encoder._network


def test_they_are_what_builders_ask_for(image_encoder: CLIPImageEncoder, text_encoder: CLIPTextEncoder, folder: Path):
    assert isinstance(image_encoder, ImageEncoder)
    assert isinstance(text_encoder, TextEncoder)
    digest = _digest(folder)[:12]
    assert image_encoder.identity == f"open_clip/{TINY}@{digest}+bicubic32-v1"
    assert text_encoder.identity == f"open_clip/{TINY}@{digest}+bpe77-v1"


@pytest.fixture
def openai_file(network: Any, tmp_path: Path) -> Path:
    """A TorchScript archive in half precision with three numbers beside the weights, as OpenAI's are."""
    half = copy.deepcopy(network).half()

    class Archive(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, child in half.named_children():
                self.add_module(name, _Holder(child))
            for name, parameter in half.named_parameters(recurse=False):
                self.register_parameter(name, parameter)
            for name, value in (("input_resolution", 32), ("context_length", 77), ("vocab_size", 49408)):
                self.register_buffer(name, torch.tensor(value))

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels

    path = tmp_path / "ViT-tiny.pt"
    torch.jit.save(torch.jit.script(Archive()), path)
    return path


class _Holder(torch.nn.Module):
    """Holds weights under the names of another module, which TorchScript need not understand."""

    def __init__(self, source: torch.nn.Module) -> None:
        super().__init__()
        for name, child in source.named_children():
            self.add_module(name, _Holder(child))
        for name, parameter in source.named_parameters(recurse=False):
            self.register_parameter(name, parameter)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels


def test_openais_own_file_is_read_and_says_its_activation(openai_file: Path, text_encoder: CLIPTextEncoder):
    lone = CLIPTextEncoder(str(openai_file), architecture=TINY)
    assert (lone.encode(TEXTS) * text_encoder.encode(TEXTS)).sum(dim=-1).min() > 0.9999
    with pytest.raises(InputError, match=f"was trained with QuickGELU, and {TINY_GELU} computes GELU; .* {TINY}"):
        CLIPTextEncoder(str(openai_file), architecture=TINY_GELU).load()


def test_a_training_checkpoint_is_read(network: Any, tmp_path: Path, text_encoder: CLIPTextEncoder):
    state = {f"module.{name}": value for name, value in network.state_dict().items()}
    torch.save({"epoch": 3, "best": np.float64(0.5), "state_dict": state}, tmp_path / "epoch_3.pt")
    lone = CLIPTextEncoder(str(tmp_path / "epoch_3.pt"), architecture=TINY)
    torch.testing.assert_close(lone.encode(TEXTS), text_encoder.encode(TEXTS))


@pytest.mark.parametrize("name", ["", "open_clip_model.safetensors"])
def test_another_activation_than_the_configurations_is_refused(folder: Path, name: str):
    encoder = CLIPImageEncoder(str(folder / name), architecture=TINY_GELU)
    with pytest.raises(InputError, match=r"image encoder: .* take the architecture ViT-tiny-of-tests-quickgelu"):
        encoder.encode([np.zeros((8, 8, 3), np.uint8)])
    assert CLIPImageEncoder(str(folder / name), architecture=TINY)._weights.sha256() == _digest(folder)


def _digest(folder: Path) -> str:
    return sha256_of(folder / "open_clip_config.json", folder / "open_clip_model.safetensors")


def test_other_weights_architectures_and_options_are_one_line(folder: Path, tmp_path: Path):
    state = safetensors.load_file(folder / "open_clip_model.safetensors")
    del state["ln_final.bias"]
    safetensors.save_file({**state, "other": torch.zeros(1)}, tmp_path / "a.safetensors")
    (tmp_path / "b.pt").write_bytes(b"no weights")
    (tmp_path / "open_clip_model.safetensors").touch()
    (tmp_path / "open_clip_config.json").write_text("[]")
    for path, architecture, message in (
        (tmp_path / "a.safetensors", TINY, f"not a {TINY}: lacks ln_final.bias, and 1 more differences"),
        (tmp_path / "b.pt", TINY, "b.pt: not a file of weights"),
        (tmp_path, TINY, "open_clip_config.json: not the configuration of an open_clip model"),
        (folder, TINY + "s", f"did you mean {TINY}"),
        (folder, "roberta-ViT-B-32", "roberta-ViT-B-32 has towers of another kind"),
        (tmp_path / "gone", TINY, "text_encoder.path must name a folder that holds open_clip_config.json"),
    ):
        with pytest.raises(InputError, match=message) as error:
            CLIPTextEncoder(str(path), architecture=architecture).encode(TEXTS)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="batch_size is 0"):
        CLIPImageEncoder(batch_size=0)


def test_describing_loads_nothing(tmp_path: Path):
    encoder = CLIPImageEncoder(str(tmp_path))
    assert isinstance(encoder, Described)
    card = encoder.describe()
    assert (card.part, card.model) == ("image encoder", "open_clip/ViT-L-14-quickgelu")
    assert card.weights.missing == ("open_clip_config.json", "open_clip_model.safetensors")


def test_the_true_architecture_has_the_papers_sizes(tmp_path: Path):
    encoder = CLIPTextEncoder()
    assert encoder.width == 768
    empty = encoder.features([])
    assert empty.hidden is not None
    assert empty.hidden.shape == (0, 77, 768)
    (tmp_path / "ViT-L-14.pt").touch()  # a picture is prepared without them
    white = CLIPImageEncoder(str(tmp_path / "ViT-L-14.pt")).prepare(np.full((300, 500, 3), 255, np.uint8))
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # openai/CLIP, clip.py
    expected = (1 - torch.tensor(mean)) / torch.tensor(std)
    torch.testing.assert_close(white, expected[:, None, None].expand(3, 224, 224))
