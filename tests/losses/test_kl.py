import pytest
import torch
from torch.distributions import Normal
from torch.distributions import kl_divergence as reference

from lightning_ss2a.losses import kl_divergence


def test_equals_torch_distributions():
    mean, log_variance = torch.randn(2, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = reference(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(-1).mean()
    torch.testing.assert_close(kl_divergence(mean, log_variance), expected)


def test_standard_normal_has_none_and_gradients_flow():
    mean, log_variance = torch.zeros(2, 3, requires_grad=True), torch.zeros(2, 3, requires_grad=True)
    assert kl_divergence(mean, log_variance) == 0
    kl_divergence(mean + 1, log_variance - 1).backward()
    assert torch.allclose(mean.grad, torch.tensor(0.5))  # mean / batch
    assert (log_variance.grad < 0).all()


def test_bfloat16_is_widened():
    assert kl_divergence(torch.zeros(1, 2).bfloat16(), torch.zeros(1, 2).bfloat16()).dtype == torch.float32


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"one shape, got \(2, 3\) and \(3,\)"):
        kl_divergence(torch.ones(2, 3), torch.ones(3))
