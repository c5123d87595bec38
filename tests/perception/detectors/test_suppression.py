import numpy as np
import pytest
import torch

from lightning_ss2a.perception.detectors.suppression import intersection_over_union, suppress


def random_boxes(count: int, seed: int = 0) -> torch.Tensor:
    corners = np.random.default_rng(seed).integers(0, 60, (count, 2, 2))
    corners.sort(axis=1)
    return torch.from_numpy(corners.reshape(count, 4)).float()


def painted(box: torch.Tensor) -> np.ndarray:
    left, top, right, bottom = box.int().tolist()
    canvas = np.zeros((60, 60), bool)
    canvas[top:bottom, left:right] = True
    return canvas


def test_overlap_is_that_of_pixels_counted():
    boxes = random_boxes(12)
    overlaps = intersection_over_union(boxes[:5], boxes[5:])
    for i, first in enumerate(boxes[:5]):
        for j, second in enumerate(boxes[5:]):
            both, either = (painted(first) & painted(second)).sum(), (painted(first) | painted(second)).sum()
            assert overlaps[i, j].item() == pytest.approx(both / either if either else 0)


def test_the_surer_of_two_that_overlap_stays():
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10], [0, 0, 10, 5]])
    scores = torch.tensor([0.5, 0.9, 0.4, 0.6])
    assert suppress(boxes, scores, 0.5).tolist() == [1, 3, 2]  # the last covers half of the first: not more than 0.5
    assert suppress(boxes, scores, 0.9).tolist() == [1, 3, 0, 2]
    assert suppress(boxes, scores, 0.0).tolist() == [1, 2]


def test_what_was_dropped_drops_nothing():
    chain = torch.tensor([[0.0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]])
    assert suppress(chain, torch.tensor([0.9, 0.8, 0.7]), 0.4).tolist() == [0, 2]


def test_of_equally_sure_boxes_the_earlier_stays():
    assert suppress(torch.tensor([[0.0, 0, 9, 9]] * 3), torch.ones(3), 0.5).tolist() == [0]


def test_it_agrees_with_torchvision():
    operations = pytest.importorskip("torchvision.ops")
    for seed in range(5):
        boxes, scores = random_boxes(40, seed), torch.rand(40, generator=torch.Generator().manual_seed(seed))
        assert suppress(boxes, scores, 0.3).tolist() == operations.nms(boxes, scores, 0.3).tolist()


def test_no_boxes():
    assert suppress(torch.empty(0, 4), torch.empty(0), 0.5).tolist() == []
