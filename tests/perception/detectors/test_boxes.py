import numpy as np
import torch

from lightning_ss2a.perception.detectors.boxes import batches_of_one_shape, detections_of

IMAGE = np.zeros((40, 60, 3), np.uint8)  # 60 wide, 40 high
NAMES = ("cat", "dog", "bell")


def test_boxes_are_cut_to_the_picture_sorted_and_named():
    boxes = torch.tensor([[-5.0, 10, 20, 50], [10, 10, 70, 30], [1, 2, 3, 4]])
    found = detections_of(boxes, torch.tensor([0.3, 0.9, 0.3]), torch.tensor([2.0, 0, 1]), NAMES, IMAGE, most=5)
    assert found.labels == ("cat", "bell", "dog")  # equal scores stay in the order in which they came
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.3, 0.3]))
    torch.testing.assert_close(found.boxes, torch.tensor([[10.0, 10, 60, 30], [0, 10, 20, 40], [1, 2, 3, 4]]))
    assert found.boxes.dtype == found.scores.dtype == torch.float32
    assert len(found) == 3


def test_empty_boxes_and_those_outside_the_picture_are_left_out():
    nan = float("nan")
    boxes = torch.tensor([[61.0, 0, 70, 10], [5, 5, 5, 9], [9, 9, 3, 3], [nan, 0, 1, 1], [0, 0, 1, 1]])
    found = detections_of(boxes, torch.linspace(0.9, 0.1, 5), torch.zeros(5), NAMES, IMAGE, most=5)
    assert found.boxes.tolist() == [[0, 0, 1, 1]]


def test_only_the_surest_are_kept():
    boxes = torch.tensor([[0.0, 0, 5, 5]]).repeat(3, 1)
    found = detections_of(boxes, torch.tensor([0.1, 0.3, 0.2]), torch.arange(3), NAMES, IMAGE, most=2)
    assert found.labels == ("dog", "bell")


def test_nothing_found():
    found = detections_of(torch.empty(0, 4), torch.empty(0), torch.empty(0), NAMES, IMAGE, most=2)
    assert (len(found), found.boxes.shape) == (0, (0, 4))


def test_batches_hold_pictures_of_one_shape():
    images = [np.zeros((height, 8, 3), np.uint8) for height in (4, 5, 4, 4, 5)]
    assert list(batches_of_one_shape(images, 2)) == [[0, 2], [3], [1, 4]]
    assert list(batches_of_one_shape([], 2)) == []
