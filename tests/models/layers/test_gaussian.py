import pytest
import torch
from torch.distributions import Normal, kl_divergence

from lightning_ss2a.models import DiagonalGaussian


def test_sample_has_the_stated_moments():
    gaussian = DiagonalGaussian(torch.full((200_000, 1), 3.0), torch.full((200_000, 1), 4.0).log())
    for draws in (1, 16):
        torch.manual_seed(0)
        sample = gaussian.sample(draws)
        assert sample.mean().item() == pytest.approx(3, abs=0.02)
        assert sample.std().item() == pytest.approx(2 / draws**0.5, rel=0.01)
    assert torch.allclose(gaussian.std, torch.tensor(2.0))


def test_closed_form_has_the_distribution_of_averaged_draws():
    gaussian = DiagonalGaussian(torch.zeros(20_000), torch.zeros(20_000))
    averaged = torch.stack([gaussian.sample() for _ in range(9)]).mean(0)
    assert averaged.std().item() == pytest.approx(gaussian.sample(9).std().item(), rel=0.03)


def test_sample_is_reparameterised():
    mean, log_variance = torch.zeros(4, 3, requires_grad=True), torch.zeros(4, 3, requires_grad=True)
    DiagonalGaussian(mean, log_variance).sample().sum().backward()
    assert torch.equal(mean.grad, torch.ones(4, 3))
    assert log_variance.grad.norm() > 0


def test_kl_equals_torch_distributions():
    mean, log_variance = torch.randn(2, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(-1).mean()
    torch.testing.assert_close(DiagonalGaussian(mean, log_variance).kl(), expected)


def test_standard_normal_has_no_kl_and_gradients_flow():
    mean, log_variance = torch.zeros(2, 3, requires_grad=True), torch.zeros(2, 3, requires_grad=True)
    assert DiagonalGaussian(mean, log_variance).kl() == 0
    DiagonalGaussian(mean + 1, log_variance - 1).kl().backward()
    assert torch.allclose(mean.grad, torch.tensor(0.5))  # mean / batch
    assert (log_variance.grad < 0).all()


def test_kl_of_bfloat16_is_widened():
    assert DiagonalGaussian(*torch.zeros(2, 1, 2).bfloat16()).kl().dtype == torch.float32


def test_arguments_are_checked():
    with pytest.raises(ValueError, match=r"one shape, got \(2,\) and \(3,\)"):
        DiagonalGaussian(torch.zeros(2), torch.zeros(3))
    with pytest.raises(ValueError, match=r"one shape, got \(2, 3\) and \(3,\)"):
        DiagonalGaussian(torch.ones(2, 3), torch.ones(3))
    with pytest.raises(ValueError, match="draws must be at least 1, got 0"):
        DiagonalGaussian(torch.zeros(2), torch.zeros(2)).sample(0)
