import numpy as np
import pytest
import torch
from PIL import Image

from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.detectors.crops import cut_box, pick_detections, source_crops
from lightning_ss2a.perception.detectors.protocols import Detections
from lightning_ss2a.perception.media.files import load_image


def detections(*boxes: tuple[float, float, float, float]) -> Detections:
    scores = torch.linspace(0.9, 0.5, len(boxes))
    return Detections(torch.tensor(boxes).reshape(-1, 4), scores, tuple(f"thing {i}" for i in range(len(boxes))))


def picture(height: int, width: int) -> np.ndarray:
    """A picture whose every pixel tells where it is: red its column, green its row."""
    rows, columns = np.indices((height, width))
    return np.stack([columns, rows, np.zeros_like(rows)], axis=-1).astype(np.uint8)


def test_the_surest_that_are_not_tiny_are_picked():
    found = detections((0, 0, 50, 50), (0, 0, 15.9, 90), (0, 0, 90, 15.9), (3, 3, 19, 19), (0, 0, 80, 80))
    picked = pick_detections(found, most=2)
    assert picked.labels == ("thing 0", "thing 3")  # a shorter side of exactly 16 stays
    assert picked.boxes.tolist() == [[0, 0, 50, 50], [3, 3, 19, 19]]
    torch.testing.assert_close(picked.scores, found.scores[[0, 3]])
    assert pick_detections(found).labels == ("thing 0", "thing 3", "thing 4")
    assert len(pick_detections(found, shortest_side=0)) == 5
    assert len(pick_detections(detections())) == 0


def test_at_most_as_many_as_the_published_run_are_picked():
    assert len(pick_detections(detections(*[(0, 0, 30, 30)] * 40))) == 16


def test_at_least_one_must_be_allowed():
    with pytest.raises(InputError, match="most is 0"):
        pick_detections(detections(), most=0)


def test_a_box_holds_every_pixel_that_it_touches():
    crop = cut_box(picture(40, 60), [9.2, 4.0, 12.1, 5.9])
    assert crop[..., 0].tolist() == [[9, 10, 11, 12]] * 2
    assert crop[:, 0, 1].tolist() == [4, 5]
    assert cut_box(picture(40, 60), [0, 0, 60, 40]).shape == (40, 60, 3)
    assert cut_box(picture(40, 60), [59.9, 39.9, 60, 40]).tolist() == [[[59, 39, 0]]]


def test_padded_crops_are_prepared_as_whole_pictures_are(tmp_path):
    image = picture(40, 60)
    Image.fromarray(image[10:20, 3:33]).save(tmp_path / "part.png")
    whole = load_image((tmp_path / "part.png").read_bytes(), "part.png")
    (crop,) = source_crops(image, detections((3, 10, 33, 20)))
    np.testing.assert_array_equal(crop, whole)
    assert crop.shape == (30, 30, 3)
    (tall,) = source_crops(image, detections((5, 0, 6, 40)))
    assert (tall[:, 19] == image[:40, 5]).all()
    assert (np.delete(tall, 19, axis=1) == 255).all()


def test_stretched_crops_fill_the_square():
    image = picture(40, 60)
    square, wide = source_crops(image, detections((3, 10, 23, 30), (0, 0, 60, 20)), "stretched")
    np.testing.assert_array_equal(square, image[10:30, 3:23])
    assert wide.shape == (60, 60, 3)
    assert np.abs(wide[30, :, 0].astype(int) - np.arange(60)).max() <= 1
    assert np.abs(wide[:, 30, 1] - (np.arange(60) + 0.5) / 3 + 0.5).max() <= 1


def test_no_detections_give_no_crops():
    assert source_crops(picture(4, 4), detections()) == []
