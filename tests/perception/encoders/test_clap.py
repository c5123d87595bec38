"""Small random CLAPs of LAION's own classes, in every layout that real weights come in."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from lightning_ss2a.data import LabelHead
from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.encoders.clap import (
    CLAPAudioEncoder,
    CLAPTextEncoder,
    read_labels,
)
from lightning_ss2a.perception.encoders.clap_towers import transformers_state
from lightning_ss2a.perception.encoders.protocols import AudioEncoder, TextEncoder
from lightning_ss2a.perception.encoders.running import Precision
from lightning_ss2a.perception.identity import sha256_of
from lightning_ss2a.perception.weights import Described, check_weights
from tests.perception.encoders.clap_files import laion_clap, write_audioldm, write_laion, write_tokenizer
from tests.perception.encoders.clap_files import sounds as three_sounds
from tests.perception.prepared_elsewhere import assert_sounds_may_be_prepared_elsewhere

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*timm.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*meshgrid.*"),
]

TEXTS = ["rain", "a dog barks", "", "rain on a tin roof " * 20]


@pytest.fixture(scope="module")
def network() -> Any:
    return laion_clap(tiny=True)


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("roberta")
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def laion_file(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_laion(network, tmp_path_factory.mktemp("laion") / "630k-audioset-best.pt")


@pytest.fixture(scope="module")
def folder(network: Any, laion_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As transformers saves it, with its tokenizer."""
    folder = tmp_path_factory.mktemp("transformers")
    transformers = pytest.importorskip("transformers")
    loaded = CLAPAudioEncoder(str(laion_file))._towers.network
    other = transformers.ClapModel(loaded.config)
    other.load_state_dict(transformers_state(network.state_dict()), strict=False)
    other.save_pretrained(folder)
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def audio_encoder(laion_file: Path) -> CLAPAudioEncoder:
    return CLAPAudioEncoder(str(laion_file), batch_size=2)


@pytest.fixture(scope="module")
def text_encoder(laion_file: Path, tokenizer_folder: Path) -> CLAPTextEncoder:
    return CLAPTextEncoder(str(laion_file), tokenizer=str(tokenizer_folder), batch_size=3)


@pytest.fixture(scope="module")
def sounds() -> list[np.ndarray]:
    return three_sounds()


@torch.inference_mode()
def laions_own(network: Any, sounds: list[np.ndarray]) -> torch.Tensor:
    """What LAION's code gives: up to 10 s its own padding, above that the first 10 s."""
    features = pytest.importorskip("laion_clap.training.data").get_audio_features
    items = [
        features({}, torch.from_numpy(sound[:480_000]), 480_000, "rand_trunc", "repeatpad", network.audio_cfg)
        for sound in sounds
    ]
    return network.get_audio_embedding(items)


@pytest.mark.slow
def test_sounds_are_what_laions_code_makes_of_them(
    audio_encoder: CLAPAudioEncoder, network: Any, sounds: list[np.ndarray]
):
    torch.testing.assert_close(audio_encoder.encode(sounds), laions_own(network, sounds), rtol=1e-4, atol=1e-5)


def test_texts_are_what_laions_code_makes_of_them(
    text_encoder: CLAPTextEncoder, network: Any, tokenizer_folder: Path, tmp_path: Path
):
    tokenizer = write_tokenizer(tmp_path)
    tokens = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=77, return_tensors="pt")
    with torch.inference_mode():
        expected = network.encode_text(tokens, device="cpu")
    features = text_encoder.features(TEXTS)
    torch.testing.assert_close(features.embeddings, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(text_encoder.encode(TEXTS), normalize(expected, dim=-1), rtol=1e-5, atol=2e-6)
    assert features.hidden is not None
    assert features.mask is not None
    assert features.hidden.shape == (4, 77, 768)
    torch.testing.assert_close(features.mask.long(), tokens["attention_mask"])


def test_every_layout_gives_the_same_embeddings(
    audio_encoder: CLAPAudioEncoder,
    text_encoder: CLAPTextEncoder,
    network: Any,
    folder: Path,
    tokenizer_folder: Path,
    sounds: list[np.ndarray],
    tmp_path: Path,
):
    checkpoint = write_audioldm(network, tmp_path / "audioldm-s-full-v2.ckpt")
    others = (
        (CLAPAudioEncoder(str(checkpoint)), CLAPTextEncoder(str(checkpoint), tokenizer=str(tokenizer_folder))),
        (CLAPAudioEncoder(str(folder)), CLAPTextEncoder(str(folder))),
    )
    for audio, text in others:
        torch.testing.assert_close(audio.encode(sounds), audio_encoder.encode(sounds), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(text.encode(TEXTS), text_encoder.encode(TEXTS), rtol=1e-5, atol=1e-6)
        assert audio.identity != audio_encoder.identity


def test_embeddings_are_unit_vectors_and_do_not_depend_on_the_batch(
    audio_encoder: CLAPAudioEncoder, text_encoder: CLAPTextEncoder, sounds: list[np.ndarray]
):
    for encoder, items in ((audio_encoder, sounds), (text_encoder, TEXTS)):
        together = encoder.encode(items)
        assert together.shape == (len(items), encoder.width) == (len(items), 512)
        assert together.dtype == torch.float32
        torch.testing.assert_close(together.norm(dim=-1), torch.ones(len(items)))
        alone = torch.cat([encoder.encode([item]) for item in items])
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
        assert encoder.encode([]).shape == (0, 512)


def test_what_comes_after_ten_seconds_is_not_heard(audio_encoder: CLAPAudioEncoder, sounds: list[np.ndarray]):
    changed = sounds[2].copy()
    changed[480_000:] = 0
    torch.testing.assert_close(audio_encoder.encode([changed]), audio_encoder.encode([sounds[2]]))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_lower_precision_changes_little(
    laion_file: Path, audio_encoder: CLAPAudioEncoder, sounds: list[np.ndarray], precision: Precision
):
    low = CLAPAudioEncoder(str(laion_file), precision=precision)
    embeddings, full = low.encode(sounds), audio_encoder.encode(sounds)
    assert embeddings.dtype == torch.float32
    assert (embeddings * full).sum(dim=-1).min() > 0.99
    assert not torch.equal(embeddings, full)
    assert low.identity == audio_encoder.identity


def test_both_encoders_share_a_network(audio_encoder: CLAPAudioEncoder, text_encoder: CLAPTextEncoder):
    assert audio_encoder._towers is text_encoder._towers


def test_they_are_what_builders_ask_for(
    audio_encoder: CLAPAudioEncoder, text_encoder: CLAPTextEncoder, laion_file: Path, tokenizer_folder: Path
):
    assert isinstance(audio_encoder, AudioEncoder)
    assert isinstance(text_encoder, TextEncoder)
    digest = sha256_of(laion_file)[:12]
    assert audio_encoder.identity == f"transformers/CLAP@{digest}+first10s-48000hz-v1"
    as_audioldm = CLAPAudioEncoder(str(laion_file), sample_rate=16_000, peak=0.5)
    assert as_audioldm.identity == f"transformers/CLAP@{digest}+first10s-16000hz-peak0.5-v1"
    both = sha256_of(laion_file, tokenizer_folder / "tokenizer.json")[:12]
    assert text_encoder.identity == f"transformers/CLAP@{both}+bpe77-v1"


def test_labels_become_a_head_of_their_texts(
    laion_file: Path, tokenizer_folder: Path, text_encoder: CLAPTextEncoder, sounds: list[np.ndarray], tmp_path: Path
):
    labels = tmp_path / "class_labels_indices.csv"
    labels.write_text('index,mid,display_name\n0,/m/09x0r,Speech\n1,/m/0t3,"Male speech, man speaking"\n')
    encoder = CLAPAudioEncoder(str(laion_file), labels=str(labels), tokenizer=str(tokenizer_folder))
    head = encoder.label_head()
    assert isinstance(head, LabelHead)
    assert head.labels == ("Speech", "Male speech, man speaking")
    prototypes = text_encoder.encode(["This is a sound of Speech.", "This is a sound of Male speech, man speaking."])
    audio = encoder.encode(sounds)
    torch.testing.assert_close(head.scores(audio), audio @ prototypes.T)
    assert encoder.identity == CLAPAudioEncoder(str(laion_file)).identity
    (tmp_path / "head.safetensors").write_bytes(head.to_bytes())
    assert read_labels(tmp_path / "head.safetensors") == head.labels
    assert CLAPAudioEncoder(str(laion_file)).label_head() is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name\nDog\n", "needs a column display_name"),
        (b"display_name\n", "holds no labels"),
        (b"display_name\nDog\n \n", "holds an empty label"),
        (b"\xff\xfe", "not a csv file of labels"),
        (None, "cannot be read"),
    ],
)
def test_a_wrong_file_of_labels_is_one_line(content: bytes | None, message: str, tmp_path: Path):
    path = tmp_path / "labels.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=f"audio_encoder.labels: .*labels.csv: .*{message}"):
        read_labels(path)
    card = CLAPAudioEncoder(str(tmp_path / "gone.ckpt"), labels=str(path), tokenizer=str(tmp_path)).describe()
    with pytest.raises(
        InputError, match=f"gone.ckpt does not exist; .*lacks tokenizer.json; .*labels.csv: .*{message}"
    ):
        check_weights([card])


def test_a_tower_that_tells_nothing_apart_is_refused(network: Any, tokenizer_folder: Path, tmp_path: Path):
    still = {name: torch.zeros_like(network.state_dict()[name]) for name in ("text_projection.0.weight",)}
    still["audio_projection.0.weight"] = torch.zeros_like(network.state_dict()["audio_projection.0.weight"])
    file = str(write_laion(network, tmp_path / "collapsed.pt", still))
    with pytest.raises(InputError, match=r"text encoder: .*collapsed.pt: its text tower .*nearly the same .*1\.0000"):
        CLAPTextEncoder(file, tokenizer=str(tokenizer_folder)).encode(["rain"])
    with pytest.raises(InputError, match=r"audio encoder: .*collapsed.pt: its audio tower .*nearly the same"):
        CLAPAudioEncoder(file).encode([np.ones(10, np.float32)])


def test_wrong_files_are_one_line(network: Any, laion_file: Path, folder: Path, tmp_path: Path):
    torch.save({"state_dict": {"text_model.weight": torch.zeros(1)}}, tmp_path / "half.ckpt")
    torch.save({"state_dict": network}, tmp_path / "pickled.pt")
    (tmp_path / "damaged.pt").write_bytes(laion_file.read_bytes()[:5000])
    fused = write_laion(network, tmp_path / "fused.pt", {"audio_branch.patch_embed.fusion_model.x": torch.zeros(1)})
    bands = write_laion(network, tmp_path / "bands.pt", {"audio_branch.logmel_extractor.melW": torch.zeros(513, 64)})
    shape = write_laion(network, tmp_path / "shape.pt", {"audio_branch.norm.bias": torch.zeros(3)})
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "config.json").write_text('{"audio_config": {"depths": 3}}')
    (tmp_path / "folder" / "model.safetensors").touch()
    for path, message in (
        (tmp_path / "half.ckpt", "half.ckpt: holds no CLAP with an HTSAT audio tower"),
        (tmp_path / "pickled.pt", "pickled.pt: not a file of weights"),
        (tmp_path / "damaged.pt", "damaged.pt: not a file of weights"),
        (fused, "fused.pt: a CLAP with feature fusion"),
        (bands, "bands.pt: its CLAP hears other mel bands"),
        (shape, r"shape.pt: has audio_model.audio_encoder.norm.bias of shape \[3\], needs \[64\]"),
        (tmp_path / "folder", "config.json: not a CLAP's"),
        (tmp_path, "lacks config.json, model.safetensors; audio_encoder.path must name a folder"),
        (tmp_path / "gone.ckpt", "gone.ckpt does not exist; audio_encoder.path must name the file"),
    ):
        with pytest.raises(InputError, match=message) as error:
            CLAPAudioEncoder(str(path)).load()
        assert "\n" not in str(error.value)
        assert str(error.value).startswith("audio encoder: ") or "not a file of weights" in str(error.value)


def test_a_wrong_tokenizer_and_options_are_one_line(laion_file: Path, tmp_path: Path):
    tokenizers = pytest.importorskip("tokenizers")
    tokenizers.Tokenizer(tokenizers.models.BPE({"<pad>": 0, "a": 1}, [])).save(str(tmp_path / "other.json"))
    (tmp_path / "broken.json").write_text("{}")
    for name, message in (
        ("other.json", r"other.json: not the tokenizer of this CLAP: 2 tokens, <pad> is 0"),
        ("broken.json", "broken.json: not a tokenizer"),
        ("gone", "text encoder: .*gone does not exist"),
    ):
        with pytest.raises(InputError, match=message):
            CLAPTextEncoder(str(laion_file), tokenizer=str(tmp_path / name)).encode(["rain"])
    with pytest.raises(InputError, match="the sound is empty"):
        CLAPAudioEncoder(str(laion_file)).prepare(np.empty(0, np.float32))
    with pytest.raises(InputError, match="sample_rate is 0"):
        CLAPAudioEncoder(sample_rate=0)


def test_sounds_may_be_prepared_by_processes_without_the_network(laion_file: Path, sounds: list[np.ndarray]):
    assert_sounds_may_be_prepared_elsewhere(CLAPAudioEncoder(str(laion_file), batch_size=2), sounds)
    quiet = CLAPAudioEncoder(str(laion_file), sample_rate=16_000, peak=0.5)
    assert_sounds_may_be_prepared_elsewhere(quiet, [sounds[0][:30_000], 0.1 * sounds[1]])


def test_describing_loads_nothing(tmp_path: Path, laion_file: Path):
    card = CLAPAudioEncoder(str(tmp_path)).describe()
    assert (card.part, card.model) == ("audio encoder", "transformers/CLAP")
    assert card.weights.missing == ("config.json", "model.safetensors")
    text = CLAPTextEncoder(str(laion_file), tokenizer=str(tmp_path))
    assert isinstance(text, Described)
    assert text.describe().weights.missing == ("tokenizer.json",)
    assert CLAPTextEncoder(str(tmp_path)).describe().weights.missing[-1] == "tokenizer.json"
