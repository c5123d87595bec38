import numpy as np
import pytest
import torch

from lightning_ss2a.losses import cosine_distance_loss, reconstruction_loss


def cosine_distance_by_hand(prediction: torch.Tensor, target: torch.Tensor) -> float:
    x, y = prediction.double().numpy(), target.double().numpy()
    cosine = (x * y).sum(-1) / np.sqrt((x**2).sum(-1) * (y**2).sum(-1))
    return float(np.abs(1 - cosine).mean())


def test_losses_equal_float64_formula():
    audio, from_audio, from_visual = torch.randn(3, 6, 8, generator=torch.Generator().manual_seed(0))
    halves = [cosine_distance_by_hand(each, audio) for each in (from_audio, from_visual)]
    assert cosine_distance_loss(from_audio, audio).item() == pytest.approx(halves[0], rel=1e-6)
    assert reconstruction_loss(audio, from_audio, from_visual).item() == pytest.approx(sum(halves) / 2, rel=1e-6)


def test_extremes():
    rows = torch.eye(3)
    assert cosine_distance_loss(5 * rows, rows) == 0
    assert cosine_distance_loss(-rows, rows) == 2
    assert cosine_distance_loss(rows, rows) < cosine_distance_loss(rows.roll(1, 0), rows)


def test_bfloat16_is_widened():
    rows = torch.randn(4, 8).bfloat16()
    assert cosine_distance_loss(rows, rows.float()).dtype == torch.float32


def test_gradient_reaches_both_reconstructions():
    audio = torch.randn(4, 8)
    predictions = [torch.randn(4, 8, requires_grad=True) for _ in range(2)]
    reconstruction_loss(audio, *predictions).backward()
    assert all(prediction.grad.norm() > 0 for prediction in predictions)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"one shape, got \(2, 3\) and \(1, 3\)"):
        cosine_distance_loss(torch.ones(2, 3), torch.ones(1, 3))
