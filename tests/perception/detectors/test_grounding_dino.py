"""A Grounding DINO of the true architecture, small and of random weights, in the layout of the hub's repository."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.detectors.grounding_dino import FILES, GroundingDINO, broadened, pack_labels
from lightning_ss2a.perception.detectors.protocols import Detections, Detector
from lightning_ss2a.perception.identity import sha256_of
from tests.perception.prepared_elsewhere import assert_pictures_may_be_prepared_elsewhere

pytest.importorskip("transformers")
pytest.importorskip("torchvision")
WORDS = ["dog", "cat", "guitar", "acoustic", "electric", "bell", "rain", "car", "engine", "steam", "train", "bird"]
MOST_TOKENS = 16
QUERIES = 20


def tokenizer():
    """BERT's, with few words, and with its numbers for the marks that part phrases, which the network knows."""
    from transformers import BertTokenizerFast

    words = [f"[unused{number}]" for number in range(1100)]
    for number, word in {
        0: "[PAD]",
        100: "[UNK]",
        101: "[CLS]",
        102: "[SEP]",
        103: "[MASK]",
        1012: ".",
        1029: "?",
    }.items():
        words[number] = word
    words[200 : 200 + len(WORDS)] = WORDS
    words[300:326] = [chr(code) for code in range(97, 123)]
    words[340:366] = [f"##{chr(code)}" for code in range(97, 123)]
    return BertTokenizerFast(vocab={word: number for number, word in enumerate(words)}, model_max_length=512)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import (
        BertConfig,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        SwinConfig,
    )

    torch.manual_seed(0)
    config = GroundingDinoConfig(
        backbone_config=SwinConfig(
            embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4, out_indices=[2, 3, 4]
        ),
        text_config=BertConfig(
            vocab_size=1100, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
        ),
        num_queries=QUERIES, d_model=64, max_text_len=MOST_TOKENS,
        encoder_layers=2, encoder_ffn_dim=16, encoder_attention_heads=2,
        decoder_layers=2, decoder_ffn_dim=16, decoder_attention_heads=2,
    )  # fmt: skip
    network = GroundingDinoForObjectDetection(config)
    with torch.no_grad():
        network.model.decoder.layer_norm.weight *= 0.15  # so that few scores are 0 or 1
        for head in network.bbox_embed:  # which starts at zero: every box a point of the grid
            head.layers[-1].weight.normal_(std=2)
            head.layers[-1].bias[2:] = 1.5
    path = tmp_path_factory.mktemp("grounding-dino")
    network.save_pretrained(path)
    GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 107}).save_pretrained(path)
    tokenizer().save_pretrained(path)
    return path


def pictures() -> list[np.ndarray]:
    """Pictures of blobs: wide, square, wide again, tall, and as good as a line."""
    generator = np.random.default_rng(0)

    def picture(height: int, width: int) -> np.ndarray:
        blobs = generator.integers(0, 256, (max(2, height // 16), max(2, width // 16), 3), dtype=np.uint8)
        return np.array(Image.fromarray(blobs).resize((width, height)))

    return [picture(80, 120), picture(96, 96), picture(80, 120), picture(70, 3), picture(1, 90)]


def processed(folder: Path, image: np.ndarray, names: list[str], only: list[int]) -> tuple[Tensor, Tensor, list[str]]:
    """Detects by the library's own steps: boxes, scores and phrases of all tokens that are likelier than 0.

    Args:
        folder: of the model.
        image: the picture.
        names: of the classes.
        only: tokens that count; the processor counts [CLS], full stops and [SEP], too.
    """
    from transformers import AutoModelForZeroShotObjectDetection, GroundingDinoProcessor

    processor = GroundingDinoProcessor.from_pretrained(folder)
    inputs = processor(images=image, text=[names], return_tensors="pt")
    with torch.no_grad():
        outputs = AutoModelForZeroShotObjectDetection.from_pretrained(folder).eval()(**inputs)
    others = [token for token in range(outputs.logits.shape[-1]) if token not in only]
    outputs.logits[..., others] = -torch.inf
    (result,) = processor.post_process_grounded_object_detection(
        outputs, inputs.input_ids, threshold=0.3, text_threshold=0.3, target_sizes=[image.shape[:2]]
    )
    order = result["scores"].argsort(descending=True)
    labels = [result["text_labels"][number] for number in order.tolist()]
    return result["boxes"][order], result["scores"][order], labels


def cut(boxes: Tensor, image: np.ndarray) -> Tensor:
    height, width = image.shape[:2]
    return boxes.clamp(min=torch.zeros(4), max=torch.tensor([width, height, width, height]))


def assert_equal(found: Detections, expected: Detections) -> None:
    assert found.labels == expected.labels
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.boxes, expected.boxes, rtol=0, atol=1e-2)


@pytest.mark.parametrize("number", [0, 1, 3])
def test_classes_of_one_word_are_found_as_by_the_processor(folder: Path, number: int):
    image = pictures()[number]
    names = ["Dog", "car", "bell"]  # [CLS] dog . car . bell . [SEP]
    if number == 3:  # which is made broader
        image = broadened(image)
    boxes, scores, phrases = processed(folder, image, names, only=[1, 3, 5])
    (found,) = GroundingDINO(names, str(folder), conf=0.3, iou=1.0).detect([image])
    assert len(found) == len(scores) > 0
    torch.testing.assert_close(found.scores, scores, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.boxes, cut(boxes, image), rtol=0, atol=1e-2)
    assert all(label.lower() in phrase.split() for label, phrase in zip(found.labels, phrases, strict=True))
    assert len(set(found.labels)) > 1


def test_the_score_of_a_class_of_several_words_is_the_mean_of_theirs(folder: Path):
    from transformers import AutoModelForZeroShotObjectDetection, GroundingDinoProcessor

    names = ["acoustic guitar", "bell", "zip"]  # [CLS] acoustic guitar . bell . z ##i ##p . [SEP]
    image = pictures()[0]
    inputs = GroundingDinoProcessor.from_pretrained(folder)(images=image, text=[names], return_tensors="pt")
    with torch.no_grad():
        outputs = AutoModelForZeroShotObjectDetection.from_pretrained(folder).eval()(**inputs)
    tokens = outputs.logits[0].sigmoid().numpy()
    classes = np.stack([tokens[:, 1:3].mean(1), tokens[:, 4], tokens[:, 6:9].mean(1)], axis=1)
    (found,) = GroundingDINO(names, str(folder), conf=0.0, iou=1.0).detect([image])
    order = np.argsort(-classes.max(axis=1))
    np.testing.assert_allclose(found.scores.numpy(), classes.max(axis=1)[order], atol=1e-5)
    assert found.labels == tuple(names[number] for number in classes.argmax(axis=1)[order])
    assert len(found) == QUERIES


def test_classes_of_several_prompts_are_joined(folder: Path):
    names = [*WORDS, "steam engine"]
    options = {"conf": 0.3, "iou": 1.0, "max_det": 100}
    (found,) = GroundingDINO(names, str(folder), **options).detect(pictures()[:1])
    parts = [names[:7], names[7:]]  # [CLS], seven words with their full stops, [SEP]: 16 tokens
    each = [GroundingDINO(part, str(folder), **options).detect(pictures()[:1])[0] for part in parts]
    scores = torch.cat([part.scores for part in each])
    order = scores.argsort(descending=True)
    labels = [label for part in each for label in part.labels]
    expected = Detections(
        torch.cat([part.boxes for part in each])[order], scores[order], tuple(labels[i] for i in order.tolist())
    )
    assert_equal(found, expected)
    assert all(len(part) for part in each)


def test_detections_are_as_the_protocol_says(folder: Path):
    detector = GroundingDINO(WORDS, str(folder), iou=0.7)
    assert isinstance(detector, Detector)
    for image, found in zip(pictures(), detector.detect(pictures()), strict=True):
        height, width = image.shape[:2]
        assert (found.boxes >= 0).all()
        assert (found.boxes <= torch.tensor([width, height, width, height])).all()
        assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
        assert (found.scores.diff() <= 0).all()
        assert ((found.scores > 0.25) & (found.scores <= 1)).all()
        assert set(found.labels) <= set(detector.labels)
        assert 0 < len(found) <= 64
    assert detector.detect([]) == []


def test_what_is_found_does_not_depend_on_the_batch(folder: Path):
    detector = GroundingDINO(WORDS, str(folder), iou=0.7)
    images = pictures()
    together = detector.detect(images)
    for image, found in zip(images, together, strict=True):
        assert_equal(detector.detect([image])[0], found)
        assert_equal(detector.detect([image[:, ::-1].copy()[:, ::-1]])[0], found)  # in whatever order it lies in memory
    for found, expected in zip(detector.detect(images[::-1]), together[::-1], strict=True):
        assert_equal(found, expected)


def test_pictures_may_be_prepared_by_processes_without_the_network(folder: Path):
    assert_pictures_may_be_prepared_elsewhere(GroundingDINO(WORDS, str(folder), iou=0.7), pictures())


def test_only_boxes_of_the_same_class_suppress_each_other(folder: Path):
    def overlaps(found: Detections) -> list[tuple[str, str]]:
        boxes = found.boxes
        corners = torch.maximum(boxes[:, None, :2], boxes[:, :2]), torch.minimum(boxes[:, None, 2:], boxes[:, 2:])
        pairs = (corners[1] - corners[0] > 0).all(dim=-1).triu(1).nonzero().tolist()
        return [(found.labels[i], found.labels[j]) for i, j in pairs]

    def same(iou: float) -> list[bool]:
        found = GroundingDINO(WORDS, str(folder), iou=iou).detect(pictures())
        return [one == other for detections in found for one, other in overlaps(detections)]

    assert any(same(1.0))
    assert same(0.0)
    assert not any(same(0.0))


def test_labels_are_packed_into_few_prompts():
    labels = ["Dog", "St. Bell?", *WORDS[:8]]
    first, second = pack_labels(labels, tokenizer(), MOST_TOKENS)
    assert (first.text, first.classes) == ("dog. st bell. dog. cat. guitar. acoustic.", (0, 1, 2, 3, 4, 5))
    assert first.spans == ((1, 2), (3, 6), (7, 8), (9, 10), (11, 12), (13, 14))
    assert (second.text, second.classes) == ("electric. bell. rain. car.", (6, 7, 8, 9))
    for prompt in (first, second):
        tokens = tokenizer()(prompt.text).input_ids
        assert len(tokens) <= MOST_TOKENS
        for number, (start, end) in zip(prompt.classes, prompt.spans, strict=True):
            words = tokenizer().convert_ids_to_tokens(tokens[start:end])
            written = "".join(words).replace("##", "")
            assert written == "".join(letter for letter in labels[number].lower() if letter.isalpha())
    row = first.weights(MOST_TOKENS)[1]
    torch.testing.assert_close(row[3:6], torch.full((3,), 1 / 3))
    assert row.sum() == 1


def test_a_label_that_no_prompt_holds_is_named(folder: Path):
    with pytest.raises(InputError, match=r"'abcdefghijklmn' has 14 tokens, needs at most 13"):
        GroundingDINO(["dog", "abcdefghijklmn"], str(folder)).detect(pictures())


def test_narrow_pictures_are_made_broader():
    image = np.zeros((3, 90, 3), np.uint8)
    broad = broadened(image)
    assert broad.shape == (6, 90, 3)
    assert (broad[:3] == 0).all()
    assert (broad[3:] == (124, 116, 104)).all()
    assert broadened(image.transpose(1, 0, 2)).shape == (90, 6, 3)
    square = np.zeros((6, 90, 3), np.uint8)
    assert broadened(square) is square


def test_its_identity_tells_weights_classes_and_options_apart_without_loading_them(folder: Path):
    detector = GroundingDINO(["dog", "cat"], str(folder))
    sha256 = sha256_of(*(folder / name for name in FILES))[:12]
    assert detector.identity.startswith(f"transformers/GroundingDINO@{sha256}+2labels")
    assert detector.identity.endswith("-conf0.25-iou0-most64-v1")
    others = [GroundingDINO(["cat", "dog"], str(folder)), GroundingDINO(["dog", "cat"], str(folder), conf=0.3)]
    assert len({detector.identity, *(other.identity for other in others)}) == 3
    assert "_network" not in vars(detector)
    card = detector.describe()
    assert (card.part, card.licence, card.weights.present) == ("detector", "Apache-2.0", True)


def test_missing_files_are_named(tmp_path: Path):
    problem = GroundingDINO(["dog"], str(tmp_path)).describe().weights.problem
    assert all(name in problem for name in FILES)


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_one_line(folder: Path, tmp_path: Path, name: str):
    for file in FILES:
        (tmp_path / file).write_bytes((folder / file).read_bytes())
    (tmp_path / name).write_bytes((folder / name).read_bytes()[:60])
    with pytest.raises(InputError, match="cannot be loaded as a GroundingDino") as error:
        GroundingDINO(["dog"], str(tmp_path)).load()
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_weights_that_lack_a_part_are_refused(folder: Path, tmp_path: Path):
    from safetensors.torch import load_file, save_file

    for file in FILES:
        (tmp_path / file).write_bytes((folder / file).read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.text_projection.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks weights of Grounding DINO: model.text_projection.weight"):
        GroundingDINO(["dog"], str(tmp_path)).detect(pictures())


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([], {}, "detector.labels is empty"),
        (["dog", " . "], {}, "' . ' names nothing"),
        (["Dog", "cat", "dog."], {}, "'Dog' is there twice"),
        (["dog"], {"conf": 1.5}, "detector.conf is 1.5, needs 0 to 1"),
        (["dog"], {"iou": -0.1}, "detector.iou is -0.1"),
        (["dog"], {"max_det": 0}, "detector.max_det is 0"),
        (["dog"], {"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_options_out_of_range(labels: list[str], options: dict, message: str):
    with pytest.raises(InputError, match=message):
        GroundingDINO(labels, **options)
