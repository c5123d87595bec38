"""Layers on the same inputs: eagerly as if called, compiled as one product."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._dynamo.testing import AotEagerAndRecordGraphs

from lightning_ss2a.models.layers.linear import apply_linear

LAYERS = (nn.Linear(4, 3), nn.Linear(4, 5, bias=False), nn.Linear(4, 3))


def values_and_gradients(inputs: Tensor, together) -> list[Tensor]:
    outputs = together(inputs)
    loss = sum((k + 1) * output.square().sum() for k, output in enumerate(outputs))
    return [*outputs, *torch.autograd.grad(loss, [p for layer in LAYERS for p in layer.parameters()] + [inputs])]


def targets_of(recorder: AotEagerAndRecordGraphs) -> list:
    return [node.target for graph in recorder.graphs for node in graph.graph.nodes]


def test_eagerly_each_layer_is_called():
    inputs = torch.randn(2, 7, 4)
    for found, layer in zip(apply_linear(inputs, *LAYERS), LAYERS, strict=True):
        assert torch.equal(found, layer(inputs))


@pytest.mark.parametrize("shape", [(4,), (7, 4), (2, 7, 4)])
def test_compiled_it_is_one_product_of_the_same_value(shape: tuple[int, ...]):
    recorder = AotEagerAndRecordGraphs()
    inputs = torch.randn(shape, requires_grad=True)
    compiled = torch.compile(lambda x: apply_linear(x, *LAYERS), backend=recorder, fullgraph=True)
    for found, expected in zip(
        values_and_gradients(inputs, compiled),
        values_and_gradients(inputs, lambda x: [layer(x) for layer in LAYERS]),
        strict=True,
    ):
        torch.testing.assert_close(found, expected)
    assert targets_of(recorder).count(F.linear) == 1


def test_compiled_a_single_layer_copies_no_weights():
    recorder = AotEagerAndRecordGraphs()
    compiled = torch.compile(lambda x: apply_linear(x, LAYERS[0]), backend=recorder)
    torch.testing.assert_close(compiled(torch.ones(7, 4))[0], LAYERS[0](torch.ones(7, 4)))
    assert torch.cat not in targets_of(recorder)


def test_compiled_under_autocast_outputs_have_the_dtype_of_a_call():
    inputs = torch.randn(7, 4)
    compiled = torch.compile(lambda x: apply_linear(x, *LAYERS), backend="aot_eager")
    with torch.autocast("cpu", torch.bfloat16):
        for found, layer in zip(compiled(inputs), LAYERS, strict=True):
            assert found.dtype == torch.bfloat16
            torch.testing.assert_close(found, layer(inputs), rtol=0.02, atol=0.02)
