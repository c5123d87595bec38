"""Encodes pictures and texts with a CLIP of open_clip, by default OpenAI's ViT-L/14 (768-d)."""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from lightning_ss2a.errors import InputError, did_you_mean
from lightning_ss2a.files import to_path
from lightning_ss2a.perception.encoders.protocols import TextFeatures
from lightning_ss2a.perception.encoders.running import (
    LoadedWhenUsed,
    Precision,
    autocast,
    batches,
    check_running,
    load_once,
    usable_device,
)
from lightning_ss2a.perception.encoders.torch_files import fill, is_torchscript, read_state
from lightning_ss2a.perception.identity import identify
from lightning_ss2a.perception.packages import media_package
from lightning_ss2a.perception.weights import ModelCard, WeightsStatus, files_at, find_weights, obtain_weights

ARCHITECTURE = "ViT-L-14-quickgelu"
"""OpenAI's weights were trained with QuickGELU; open_clip's ``ViT-L-14`` has another activation and only warns."""
REPOSITORY = "timm/vit_large_patch14_clip_224.openai"
CONFIG_FILE, WEIGHTS_FILE = "open_clip_config.json", "open_clip_model.safetensors"

_OPENAI_MARKS = frozenset({"input_resolution", "context_length", "vocab_size"})
"""Numbers that OpenAI's own files hold beside the weights."""
_OTHER_TOWERS = {
    "custom_text",
    "multimodal_cfg",
    "hf_model_name",
    "timm_model_name",
    "hf_tokenizer_name",
    "tokenizer_kwargs",
}


class _CLIP(LoadedWhenUsed):
    """What the encoders of both sides share."""

    part: ClassVar[str]
    note: ClassVar[str]

    def __init__(
        self,
        path: str | None = None,
        repository: str = REPOSITORY,
        architecture: str = ARCHITECTURE,
        batch_size: int = 64,
        device: str = "cpu",
        precision: Precision = "float32",
    ) -> None:
        check_running(batch_size, precision)
        self.path = path
        self.repository = repository
        self.architecture = architecture
        self.batch_size = batch_size
        self.device = device
        self.precision = precision

    def describe(self) -> ModelCard:
        """Says what it is and where its files are looked for; loads and downloads nothing."""
        status = find_weights(self.part, *self._place())
        licence = "MIT (OpenAI's weights and open_clip)"
        return ModelCard(self.part, self._model, licence, status, self.note)

    def load(self) -> None:
        """See :meth:`~lightning_ss2a.perception.weights.Loadable.load`."""
        _ = self._network

    @cached_property
    def width(self) -> int:
        """Numbers in an embedding."""
        return int(self._config["embed_dim"])

    @property
    def _model(self) -> str:
        return f"open_clip/{self.architecture}"

    def _identify(self, preparation: str) -> str:
        return identify(self._model, self._weights.sha256() or "", preparation)

    def _place(self) -> tuple[str | None, str, tuple[str, ...]]:
        """Path, repository and names of the files; a file of weights beside its configuration means the folder."""
        both = (CONFIG_FILE, WEIGHTS_FILE)
        if self.path is not None:
            place = to_path(self.path)
            if place.name == WEIGHTS_FILE and place.with_name(CONFIG_FILE).is_file():
                return str(place.parent), self.repository, both
        return self.path, self.repository, files_at(self.path, both)

    @cached_property
    def _weights(self) -> WeightsStatus:
        return obtain_weights(self.part, *self._place())

    @cached_property
    def _config(self) -> dict[str, Any]:
        """Sizes of the architecture, as open_clip lists them."""
        open_clip = media_package("open_clip", extra="paper")
        config = open_clip.get_model_config(self.architecture)
        if config is None:
            advice = did_you_mean(self.architecture, open_clip.list_models())
            raise InputError(f"{self.part}: open_clip has no architecture {self.architecture}; {advice}")
        if _OTHER_TOWERS & {*config, *config["text_cfg"], *config["vision_cfg"]}:
            raise InputError(f"{self.part}: {self.architecture} has towers of another kind than {ARCHITECTURE}")
        return config

    @cached_property
    def _stored_config(self) -> dict[str, Any]:
        """What lies beside the weights about their architecture and preparation; of a lone file nothing."""
        config, *others = self._weights.found
        return _read_config(config) if others else {}

    @cached_property
    def _network(self) -> Any:
        file = self._weights.found[-1]
        return load_once(("clip", str(file), self.architecture, self.device), lambda: self._load(file))

    def _load(self, file: Path) -> Any:
        stored = self._stored_config
        state = read_state(file)
        openai = is_torchscript(file) or state.keys() >= _OPENAI_MARKS
        if stored or openai:
            self._check_activation(file, stored["model_cfg"].get("quick_gelu", False) if stored else True)
        weights = {name.removeprefix("module."): state[name] for name in state.keys() - _OPENAI_MARKS}
        network = media_package("open_clip", extra="paper").CLIP(**self._config)
        fill(network, weights, f"{self.part}: {file}: not a {self.architecture}", computed=lambda name: False)
        return network.to(usable_device(self.device))

    def _check_activation(self, file: Path, quick_gelu: bool) -> None:
        if quick_gelu != self._config.get("quick_gelu", False):
            trained, computed = ("QuickGELU", "GELU") if quick_gelu else ("GELU", "QuickGELU")
            name = self.architecture.removesuffix("-quickgelu")
            raise InputError(
                f"{self.part}: {file} was trained with {trained}, and {self.architecture} computes {computed}; "
                f"take the architecture {name}{'-quickgelu' if quick_gelu else ''}"
            )


class CLIPImageEncoder(_CLIP):
    """Encodes pictures with a CLIP of open_clip: unit vectors.

    A picture's shorter side is resized to what the network sees (bicubic, with antialiasing) and the middle is cut out,
    by open_clip's own transform.

    Args:
        path: ``open_clip_model.safetensors``, another file of the weights (OpenAI's ``ViT-L-14.pt``), or a folder with
            ``open_clip_config.json`` and ``open_clip_model.safetensors``; None: the hub's.
        repository: on the hub, with those two files.
        architecture: open_clip's name; its activation must be that of the weights. A lone file that is not OpenAI's own
            does not say which that is, and the architecture is taken at its word.
        batch_size: pictures at once.
        device: where it runs, such as ``cuda:0``.
        precision: of matrix products. It is no part of the identity.

    Raises:
        InputError: the batch size is below 1; once used, too: a package or a file is missing or not what it should be.
    """

    part = "image encoder"
    note = "one vector for a whole picture; learnt from captions of the web, with their biases"

    @cached_property
    def identity(self) -> str:
        """Model, weights and preparation."""
        return self._identify(f"bicubic{self._config['vision_cfg']['image_size']}-v1")

    def prepare(self, image: np.ndarray) -> Tensor:
        """Prepares an RGB picture, uint8 [height, width, 3], for the network: float32 [3, side, side]."""
        prepared: Tensor = self._transform(media_package("PIL.Image").fromarray(image))
        return prepared

    def encode(self, images: Sequence[np.ndarray]) -> Tensor:
        """Embeds RGB pictures, uint8 [height, width, 3] each, of any size: unit vectors, float32 [images, width]."""
        prepared = (torch.stack([*map(self.prepare, batch)]) for batch in batches(images, self.batch_size))
        found = [self.encode_prepared(pixels) for pixels in prepared]
        return torch.cat(found) if found else torch.empty(0, self.width)

    def encode_prepared(self, pixels: Tensor) -> Tensor:
        """Embeds prepared pictures, [images, 3, side, side]: unit vectors, float32 [images, width]."""
        found = [self._embed(batch) for batch in pixels.split(self.batch_size)] if len(pixels) else []
        return torch.cat(found) if found else torch.empty(0, self.width)

    @torch.inference_mode()
    def _embed(self, pixels: Tensor) -> Tensor:
        with autocast(self.device, self.precision):
            embeddings = self._network.encode_image(pixels.to(self.device))
        return normalize(embeddings.float(), dim=-1).cpu()

    @cached_property
    def _transform(self) -> Any:
        transforms = media_package("open_clip.transform", extra="paper")
        stored = self._stored_config.get("preprocess_cfg", {})
        options = {**stored, "size": self._config["vision_cfg"]["image_size"]}
        options = transforms.merge_preprocess_dict(transforms.PreprocessCfg(), options)
        return transforms.image_transform_v2(transforms.PreprocessCfg(**options), is_train=False)


class CLIPTextEncoder(_CLIP):
    """Encodes texts with a CLIP of open_clip: unit vectors, and what a prior reads.

    A text is cut after 77 tokens, start and end among them.

    Args:
        path: see :class:`CLIPImageEncoder`, as the others; with the same files both encoders share one network.
        repository: on the hub.
        architecture: open_clip's name.
        batch_size: texts at once.
        device: where it runs.
        precision: of matrix products.

    Raises:
        InputError: see :class:`CLIPImageEncoder`.
    """

    part = "text encoder"
    note = "English captions of up to 77 tokens"

    @cached_property
    def identity(self) -> str:
        """Model, weights and preparation."""
        return self._identify(f"bpe{self._config['text_cfg']['context_length']}-v1")

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Embeds texts: unit vectors, float32 [texts, width]."""
        return normalize(self.features(texts).embeddings, dim=-1)

    def features(self, texts: Sequence[str]) -> TextFeatures:
        """Gives what a prior reads of texts.

        Returns:
            Projected embeddings [texts, width], not normalised; hidden states after the last normalisation [texts, 77,
            hidden width]; a mask that is true from the start to the end of the text.
        """
        found = [self._read(batch) for batch in batches(texts, self.batch_size)] or [self._nothing()]
        embeddings, hidden, mask = (torch.cat(parts) for parts in zip(*found, strict=True))
        return TextFeatures(tuple(texts), embeddings, hidden, mask)

    @torch.inference_mode()
    def _read(self, texts: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        tokens = self._tokenizer(list(texts))  # [texts, 77]
        hidden: list[Tensor] = []
        hook = self._network.ln_final.register_forward_hook(lambda _module, _inputs, output: hidden.append(output))
        try:
            with autocast(self.device, self.precision):
                embeddings = self._network.encode_text(tokens.to(self.device))
        finally:
            hook.remove()
        end = tokens.argmax(dim=-1, keepdim=True)  # the end of a text has the largest number
        mask = torch.arange(tokens.shape[1]) <= end
        return embeddings.float().cpu(), hidden[0].float().cpu(), mask

    def _nothing(self) -> tuple[Tensor, Tensor, Tensor]:
        tokens, hidden = self._config["text_cfg"]["context_length"], self._config["text_cfg"]["width"]
        return torch.empty(0, self.width), torch.empty(0, tokens, hidden), torch.empty(0, tokens, dtype=torch.bool)

    @cached_property
    def _tokenizer(self) -> Any:
        tokens = self._config["text_cfg"]["context_length"]
        return media_package("open_clip", extra="paper").SimpleTokenizer(context_length=tokens)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        return {"model_cfg": dict(config["model_cfg"]), "preprocess_cfg": dict(config.get("preprocess_cfg", {}))}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not the configuration of an open_clip model ({error!r})") from error
