"""AdamW on buffers does what AdamW on their parameters does, and saves what that saves."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from lightning_ss2a.training.optimization import OptimizationOptions, build_adamw
from lightning_ss2a.training.step.flat_adamw import FlatAdamW, FlatParameters

OPTIONS = OptimizationOptions(learning_rate=0.01, weight_decay=0.1)


class Network(nn.Module):
    """A scalar comes first among what is not decayed, as the temperature of a manifold does."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.layers = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.layers(inputs) * self.scale


def gradients(network: nn.Module, number: int) -> list[torch.Tensor]:
    torch.manual_seed(number)
    return [torch.randn_like(p) for p in network.parameters()]


def step(network: nn.Module, optimizer: AdamW, number: int) -> None:
    own = dict(zip(map(id, network.parameters()), gradients(network, number), strict=True))
    if isinstance(optimizer, FlatAdamW):
        for flat in filter(None, optimizer.flats):
            flat.values.grad = flat.join([own[id(p)] for p in flat.parameters])
    else:
        for p in network.parameters():
            p.grad = own[id(p)]
    optimizer.step()


def both() -> tuple[tuple[Network, AdamW], tuple[Network, FlatAdamW]]:
    plain, flat = Network(), Network()
    return (plain, build_adamw(plain.parameters(), OPTIONS)), (flat, build_adamw(flat.parameters(), OPTIONS, flat=True))


def assert_same_weights(one: nn.Module, other: nn.Module) -> None:
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def assert_same_state(one: dict, other: dict) -> None:
    assert one["param_groups"] == other["param_groups"]
    assert one["state"].keys() == other["state"].keys()
    for number, state in one["state"].items():
        assert list(state) == list(other["state"][number])
        for name, value in state.items():
            torch.testing.assert_close(value, other["state"][number][name], rtol=1e-6, atol=1e-7)


def test_steps_and_state_are_those_of_adamw():
    (plain, adamw), (flat, flat_adamw) = both()
    assert_same_state(adamw.state_dict(), flat_adamw.state_dict())  # before the first step, too
    for number in range(5):
        for optimizer in (adamw, flat_adamw):
            for group in optimizer.param_groups:
                group["lr"] = 0.01 / (number + 1)
        step(plain, adamw, number)
        step(flat, flat_adamw, number)
    assert_same_weights(plain, flat)
    assert_same_state(adamw.state_dict(), flat_adamw.state_dict())


@pytest.mark.parametrize("first", ["plain", "flat"])
@pytest.mark.parametrize("then", ["plain", "flat"])
def test_a_run_goes_on_with_either(first: str, then: str):
    (reference, adamw), _ = both()
    for number in range(6):
        step(reference, adamw, number)

    network, optimizer = dict(zip(("plain", "flat"), both(), strict=True))[first]
    for number in range(3):
        step(network, optimizer, number)
    file = io.BytesIO()
    torch.save({"weights": network.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    network, optimizer = dict(zip(("plain", "flat"), both(), strict=True))[then]
    network.load_state_dict(saved["weights"])
    optimizer.load_state_dict(saved["optimizer"])
    for number in range(3, 6):
        step(network, optimizer, number)
    assert_same_weights(network, reference)
    assert_same_state(optimizer.state_dict(), adamw.state_dict())


def test_the_state_of_other_parameters_is_refused():
    _, (_, optimizer) = both()
    other = build_adamw(nn.Linear(2, 2).parameters(), OPTIONS)
    with pytest.raises(ValueError, match="other parameter groups"):
        optimizer.load_state_dict(other.state_dict())


def test_state_of_other_shapes_is_refused():
    """The fused kernel would write past its end."""
    optimizer = build_adamw(nn.Linear(3, 2).parameters(), OPTIONS, flat=True)
    other = nn.Linear(2, 2)
    adamw = build_adamw(other.parameters(), OPTIONS)
    step(other, adamw, 0)
    with pytest.raises(ValueError, match="other shapes"):
        optimizer.load_state_dict(adamw.state_dict())


def frozen_in_part(network: Network) -> Network:
    network.scale.requires_grad_(False)
    network.layers[0].weight.requires_grad_(False)
    return network


def test_state_that_lacks_parameters_is_refused():
    network = frozen_in_part(Network())
    adamw = build_adamw(network.parameters(), OPTIONS)
    for p in network.parameters():
        p.grad = torch.ones_like(p) if p.requires_grad else None
    adamw.step()
    _, (_, optimizer) = both()
    with pytest.raises(ValueError, match="did not move all"):
        optimizer.load_state_dict(adamw.state_dict())


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("then", [False, True])
def test_what_requires_no_gradient_is_left_alone_and_has_no_state(first: bool, then: bool):
    states, networks = [], []
    for ways in ((False, False), (first, then)):
        network, saved = frozen_in_part(Network()), None
        held = network.scale.data_ptr(), network.layers[0].weight.data_ptr()
        for number, flat in enumerate(ways):
            optimizer = build_adamw(network.parameters(), OPTIONS, flat=flat)
            if saved is not None:
                optimizer.load_state_dict(saved)
            own = {id(p): g for p, g in zip(network.parameters(), gradients(network, number), strict=True)}
            for p in network.parameters():
                p.grad = own[id(p)] if p.requires_grad else None
            for buffer in filter(None, getattr(optimizer, "flats", [])):
                buffer.values.grad = buffer.join([own[id(p)] for p in buffer.parameters])
            optimizer.step()
            saved = optimizer.state_dict()
        assert held == (network.scale.data_ptr(), network.layers[0].weight.data_ptr())
        states.append(saved)
        networks.append(network)
    assert_same_weights(*networks)
    assert_same_state(*states)
    assert torch.equal(networks[1].scale, Network().scale)


def test_parameters_become_views_that_whoever_holds_them_sees():
    network = Network()
    before, held = copy.deepcopy(network.state_dict()), network.layers[0].weight
    flat = FlatParameters(list(network.parameters()))
    assert network.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with torch.no_grad():
        flat.values.fill_(3.0)
    assert (held == 3).all()
    assert network.scale.item() == 3


def test_an_empty_group_stays_empty():
    bias = nn.Parameter(torch.ones(3))
    optimizer = build_adamw([bias], OPTIONS, flat=True)
    optimizer.flats[1].values.grad = torch.ones(3)
    optimizer.step()
    assert [group["params"] for group in optimizer.state_dict()["param_groups"]] == [[], [0]]
    twin = build_adamw([nn.Parameter(torch.ones(3))], OPTIONS, flat=True)
    twin.load_state_dict(optimizer.state_dict())
    assert_same_state(twin.state_dict(), optimizer.state_dict())
