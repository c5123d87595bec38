"""Losses of flat parameters: the same terms and gradients as by the parameters themselves."""

import functools

import pytest
import torch
from torch import nn
from torch._dynamo.testing import AotEagerAndRecordGraphs

from lightning_ss2a.losses import ContrastiveOptions
from lightning_ss2a.models import Manifold, ManifoldOptions
from lightning_ss2a.training.manifold_losses import ManifoldLosses
from lightning_ss2a.training.step.flat_adamw import FlatParameters
from lightning_ss2a.training.step.flat_losses import FlatLosses
from lightning_ss2a.training.variational import SamplingOptions


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(4, 3), nn.Linear(3, 2)
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(self.first(inputs))) * self.scale


def losses_of(network: Network, factor: float = 1.0):
    def losses(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        square = network(inputs["x"]).square().mean()
        return {"loss": square * inputs.get("weight", 1.0) * factor, "square": square}

    return losses


@pytest.fixture(autouse=True)
def without_compiler(request: pytest.FixtureRequest):
    with torch.compiler.set_stance("default" if "compiles" in request.keywords else "force_eager"):
        yield


def flats_of(network: Network) -> tuple[list[FlatParameters], list[FlatParameters]]:
    first = [FlatParameters([network.first.weight]), FlatParameters([network.first.bias, network.scale])]
    return first, [FlatParameters(list(network.second.parameters()))]


def test_gradients_are_those_by_the_parameters():
    plain, network = Network(), Network()
    moved, still = flats_of(network)
    inputs = {"x": torch.randn(5, 4), "weight": torch.tensor(3.0)}
    terms, gradients = FlatLosses(network, losses_of(network), moved, still)(inputs)
    expected = losses_of(plain)(inputs)
    expected["loss"].backward()
    assert {name: value.item() for name, value in terms.items()} == pytest.approx(
        {name: value.item() for name, value in expected.items()}
    )
    assert not any(value.requires_grad for value in terms.values())
    torch.testing.assert_close(gradients[0], plain.first.weight.grad.flatten())
    torch.testing.assert_close(gradients[1], torch.cat([plain.first.bias.grad, plain.scale.grad[None]]))
    assert len(gradients) == 2  # none by what stays still
    assert all(p.grad is None for p in network.parameters())


@pytest.fixture
def regions(monkeypatch: pytest.MonkeyPatch) -> list[torch.fx.GraphModule]:
    """Collects the regions that are compiled, by a compiler that takes no time."""
    recorder = AotEagerAndRecordGraphs()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=recorder))
    return recorder.graphs


def differentiates(region: torch.fx.GraphModule) -> bool:
    return any(node.target is torch.autograd.grad for node in region.graph.nodes)


@pytest.mark.compiles
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize(("chunk_size", "in_one_region"), [(None, True), (3, False)])
def test_losses_and_gradients_are_one_region(
    regions: list[torch.fx.GraphModule], chunk_size: int | None, in_one_region: bool, bf16: bool
):
    """What the compiler cannot trace, as chunked losses, splits it; values are the same."""
    torch.manual_seed(0)
    sizes = ManifoldOptions(8, projector_widths=(6, 6, 8, 8), reconstructor_widths=(7, 7), dropout=0.0)
    manifold = Manifold(5, 6, sizes)
    batch = {"visual": torch.randn(9, 5), "audio": torch.randn(9, 6)}
    losses = ManifoldLosses(manifold, SamplingOptions("mean"), ContrastiveOptions(chunk_size=chunk_size), 0.1)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        expected = losses.all_terms(batch)
    expected["loss"].backward()
    moved = [FlatParameters([p for p in manifold.parameters() if p.requires_grad])]
    gradient = torch.cat([p.grad.flatten() for p in moved[0].parameters])
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        terms, gradients = FlatLosses(manifold, losses.all_terms, moved)(batch)
    tolerance = {"rtol": 0.05, "atol": 0.02 * float(gradient.abs().max())} if bf16 else {"rtol": 1e-4, "atol": 1e-6}
    for name, value in terms.items():
        torch.testing.assert_close(value, expected[name].detach(), rtol=0.02 if bf16 else 1e-5, atol=1e-5)
    torch.testing.assert_close(gradients[0], gradient, **tolerance)
    assert [differentiates(region) for region in regions].count(True) == in_one_region
    assert (len(regions) == 1) == in_one_region


@pytest.mark.compiles
def test_what_is_kept_out_of_autocast_is_differentiated_out_of_it(regions: list[torch.fx.GraphModule]):
    plain, network, inputs = Network(), Network(), {"x": torch.randn(50, 4)}

    def losses_of_exact(network: Network):
        def losses(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            with torch.autocast("cpu", enabled=False):
                return {"loss": network(inputs["x"]).square().mean()}

        return losses

    losses_of_exact(plain)(inputs)["loss"].backward()
    moved = [FlatParameters(list(network.parameters()))]
    with torch.autocast("cpu", torch.bfloat16):
        _, (gradient,) = FlatLosses(network, losses_of_exact(network), moved)(inputs)
    expected = torch.cat([p.grad.flatten() for p in plain.parameters()])
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-7)
    assert len(regions) == 1


@pytest.mark.slow
@pytest.mark.compiles
def test_every_instance_has_its_variants_to_itself():
    """More of them than torch keeps of one function, each with a constant of its own; and a dropout that differs."""
    for factor in range(1, 11):
        network = Network()
        losses = FlatLosses(network, losses_of(network, float(factor)), *flats_of(network))
        inputs = {"x": torch.ones(5, 4)}
        terms, _ = losses(inputs)
        assert terms["loss"].item() == pytest.approx(factor * terms["square"].item())
        with torch.compiler.set_stance("fail_on_recompile"):
            losses(inputs)


@pytest.mark.slow
@pytest.mark.compiles
def test_what_a_callback_does_to_the_network_is_noticed():
    """Such as to freeze its dropout."""
    network = Network()
    network.drop = nn.Dropout(0.5)

    def losses(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        dropped = network.drop(inputs["x"])
        return {"loss": network(dropped).square().mean(), "zeros": (dropped == 0).float().mean()}

    flat, inputs = FlatLosses(network, losses, *flats_of(network)), {"x": torch.ones(50, 4)}
    assert flat(inputs)[0]["zeros"] > 0.2
    network.eval()
    assert flat(inputs)[0]["zeros"] == 0
    network.train()
    network.drop.p = 0.0
    assert flat(inputs)[0]["zeros"] == 0
