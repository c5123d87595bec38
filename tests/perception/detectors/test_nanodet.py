import hashlib
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.detectors import nanodet
from lightning_ss2a.perception.detectors.nanodet import NanoDet, decode_boxes, letterbox, place_in_square, prepare_image
from lightning_ss2a.perception.detectors.protocols import Detector
from lightning_ss2a.perception.detectors.suppression import intersection_over_union
from tests.perception.prepared_elsewhere import assert_pictures_may_be_prepared_elsewhere

HERE = Path(__file__).parent
PHOTOGRAPHS = HERE / "photographs"


@pytest.fixture(scope="module")
def detector() -> NanoDet:
    return NanoDet()


def photograph(name: str) -> np.ndarray:
    return np.asarray(Image.open(PHOTOGRAPHS / name).convert("RGB"))


def pattern() -> np.ndarray:
    height, width = np.mgrid[0:416, 0:416].astype(np.float32)
    waves = [np.sin(height / 17) * np.cos(width / 23), np.sin((height + width) / 31), np.cos(height * width / 5000)]
    return (1.5 * np.stack(waves)[None]).astype(np.float32)


def test_the_network_gives_what_tensorflow_js_gives():
    """nanodet_tfjs.npz: each 97th output for the pattern, by @tensorflow/tfjs 4.22.0 on the published model."""
    session = onnxruntime.InferenceSession(nanodet.FOLDER / nanodet.MODEL_FILE, providers=["CPUExecutionProvider"])
    expected = np.load(HERE / "nanodet_tfjs.npz")
    for name in expected.files:
        (output,) = session.run([name], {"image": pattern()})
        np.testing.assert_allclose(output.ravel()[::97], expected[name], rtol=1e-4, atol=2e-5)


def test_the_file_is_the_one_whose_sha256_stands_beside_it():
    digest, name = (nanodet.FOLDER / "nanodet.onnx.sha256").read_text().split()
    assert hashlib.sha256((nanodet.FOLDER / name).read_bytes()).hexdigest() == digest
    for licence in ("NOTICE", "LICENSE-APACHE", "LICENSE-MIT"):
        assert (nanodet.FOLDER / licence).is_file()


@pytest.mark.parametrize(
    ("name", "things"),
    [
        ("sheep.jpg", [("sheep", (72, 26, 226, 211))]),
        ("cow.jpg", [("cow", (72, 91, 289, 215)), ("cow", (83, 55, 133, 87)), ("cow", (253, 56, 286, 85))]),
        ("duck.jpg", [("bird", (38, 65, 256, 268))]),
    ],
)
def test_things_in_photographs_are_found_where_they_are(detector, name, things):
    (found,) = detector.detect([photograph(name)])
    assert len(found) == len(things)
    overlaps = intersection_over_union(found.boxes, torch.tensor([box for _, box in things]).float())
    assert sorted(overlaps.argmax(dim=1).tolist()) == list(range(len(things)))
    assert overlaps.amax(dim=1).min() > 0.7
    assert list(found.labels) == [things[i][0] for i in overlaps.argmax(dim=1).tolist()]
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)


def test_what_is_found_depends_on_the_picture_alone(detector):
    pictures = [photograph(name) for name in ("sheep.jpg", "cow.jpg", "duck.jpg")]
    for picture, together in zip(pictures, detector.detect(pictures), strict=True):
        (alone,) = detector.detect([picture])
        assert torch.equal(alone.boxes, together.boxes)
        assert torch.equal(alone.scores, together.scores)
        assert alone.labels == together.labels
    assert detector.detect([]) == []


def test_boxes_are_in_pixels_of_the_picture_whatever_its_shape(detector):
    """A wide picture with the sheep at its right: the box is where the sheep is."""
    sheep = photograph("sheep.jpg")
    wide = np.full((232, 700, 3), 255, np.uint8)
    wide[:, 380:] = sheep
    (found,) = detector.detect([wide])
    assert found.labels == ("sheep",)
    expected = torch.tensor([[72.0 + 380, 26, 226 + 380, 211]])
    assert intersection_over_union(found.boxes, expected).item() > 0.8


def test_pictures_may_be_prepared_by_processes_without_the_network(detector):
    assert_pictures_may_be_prepared_elsewhere(detector, [photograph("cow.jpg"), np.zeros((30, 900, 3), np.uint8)])


@pytest.mark.parametrize("shape", [(1, 1), (900, 3), (1, 2000)])
def test_pictures_of_any_size(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    (found,) = NanoDet(threshold=0).detect([image])
    assert len(found) > 0
    assert (found.boxes >= 0).all()
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
    assert (found.boxes <= torch.tensor([shape[1], shape[0]] * 2)).all()
    assert set(found.labels) <= set(NanoDet.labels)


def test_a_threshold_of_one_finds_nothing():
    (found,) = NanoDet(threshold=1).detect([photograph("sheep.jpg")])
    assert found.boxes.shape == (0, 4)
    assert found.scores.shape == (0,)
    assert len(found) == 0


def test_a_picture_is_put_in_the_middle_of_a_black_square():
    picture = np.full((100, 200, 3), 255, np.uint8)
    square = letterbox(picture)
    assert square.shape == (416, 416, 3)
    assert place_in_square(picture) == ((416, 208), (0, 104))
    assert (square[104:312] == 255).all()
    assert (square[:104] == 0).all()
    assert (square[312:] == 0).all()


def test_pixels_are_blue_first_and_not_divided_by_255():
    red = np.zeros((416, 416, 3), np.uint8)
    red[..., 0] = 255
    prepared = prepare_image(red)
    assert prepared.shape == (1, 3, 416, 416)
    expected = [-103.53 / 57.375, -116.28 / 57.12, (255 - 123.675) / 58.395]
    assert prepared[0, :, 7, 9].tolist() == pytest.approx(expected)


def test_a_distance_is_the_mean_of_its_distribution_from_the_middle_of_a_place():
    distances = [torch.zeros(52 * 52, 44), torch.zeros(26 * 26, 44), torch.zeros(13 * 13, 44)]
    distances[1][27] = torch.nn.functional.one_hot(torch.tensor([1, 2, 3, 10]), 11).flatten() * 100.0
    boxes = decode_boxes(distances)
    assert boxes.shape == (52 * 52 + 26 * 26 + 13 * 13, 4)
    assert boxes[0].tolist() == pytest.approx([4 - 40, 4 - 40, 4 + 40, 4 + 40])  # even: 5 strides of 8 on all sides
    # The 28th place of stride 16 is the second of the second row: its middle is at 24, 24.
    assert boxes[52 * 52 + 27].tolist() == pytest.approx([24 - 16, 24 - 32, 24 + 48, 24 + 160])


def test_its_identity_and_its_card(detector):
    assert isinstance(detector, Detector)
    assert len(detector.labels) == 80
    assert detector.identity == "nanodet-g-416-coco@3761c8b42d9f+letterbox416-score0.4-iou0.5-most64-v1"
    assert NanoDet(threshold=0.3).identity != detector.identity
    card = detector.describe()
    assert card.weights.present
    assert card.licence.startswith("Apache-2.0")
    assert "COCO" in card.note


@pytest.mark.parametrize(("option", "value"), [("threshold", 1.5), ("threshold", -0.1), ("overlap", 2.0)])
def test_a_number_out_of_its_range(option, value):
    with pytest.raises(InputError, match=rf"detector\.{option} is {value}, needs 0 to 1"):
        NanoDet(**{option: value})


def test_a_missing_file(tmp_path):
    missing = NanoDet(path=str(tmp_path))
    assert not missing.describe().weights.present
    with pytest.raises(InputError, match=r"detector: .*lacks nanodet\.onnx; detector\.path must name"):
        missing.detect([photograph("sheep.jpg")])


def test_a_file_that_is_no_model(tmp_path):
    (tmp_path / "nanodet.onnx").write_bytes(b"hello")
    with pytest.raises(InputError, match=r"nanodet\.onnx: not an ONNX model"):
        NanoDet(path=str(tmp_path)).detect([photograph("sheep.jpg")])
