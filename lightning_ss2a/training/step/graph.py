"""A function of tensors that is captured as a CUDA graph and replayed, so that its Python runs a few times only.

Source: the whole-network capture of PyTorch's notes on CUDA graphs.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from lightning_ss2a.errors import InputError, one_line

Inputs = dict[str, Tensor]
Function = Callable[[Inputs], Any]
"""Tensors to a tree of tensors; what else it reads must stay where it is, and hold host numbers that never change."""

WARM_UP = 3
"""Calls of each shape before it is captured: they compile, and let libraries choose kernels and take memory."""
MOST_GRAPHS = 8
"""Shapes that are captured; each holds memory of its own, so that others run as they are."""


class Recorder(Protocol):
    """Warms up and captures functions."""

    def warm_up(self, function: Function, inputs: Inputs) -> Any:
        """Calls a function that is to be captured later."""
        ...

    def capture(self, function: Function, inputs: Inputs) -> tuple[Callable[[], None], Callable[[], Any]]:
        """Captures a function of tensors whose memory stays the same.

        Returns:
            what replays it, and what gives its outputs: the same tensors after each replay.
        """
        ...


class CudaRecorder:
    """Records CUDA graphs on a stream of its own, as capturing asks for.

    Draws follow the device's generator: each replay draws on from where that stands, as a call would.
    """

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()

    def warm_up(self, function: Function, inputs: Inputs) -> Any:
        """Calls the function on the stream."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            outputs = function(inputs)
        torch.cuda.current_stream().wait_stream(self._stream)
        return outputs

    def capture(self, function: Function, inputs: Inputs) -> tuple[Callable[[], None], Callable[[], Any]]:
        """Captures the function; nothing is computed yet."""
        graph = torch.cuda.CUDAGraph()
        # thread_local: what other threads do on the card meanwhile, such as pinning batches, is none of its business.
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            outputs = function(inputs)
        return graph.replay, lambda: outputs


class StandIn:
    """Does what :class:`CudaRecorder` does where there is no graph: a replay calls the function again.

    Inputs are read from, and outputs written to, the same tensors each time, as a graph does.
    """

    def warm_up(self, function: Function, inputs: Inputs) -> Any:
        """Calls the function."""
        return function(inputs)

    def capture(self, function: Function, inputs: Inputs) -> tuple[Callable[[], None], Callable[[], Any]]:
        """Keeps the function; nothing is computed yet."""
        kept: list[Any] = []

        def replay() -> None:
            outputs = function(inputs)
            if not kept:
                kept.append(outputs)
            for old, new in zip(_tensors(kept[0]), _tensors(outputs), strict=True):
                old.copy_(new)

        return replay, lambda: kept[0]


class Replayed:
    """A function that runs as it is for some calls of each shape, and is captured and replayed after that.

    Its outputs are the same tensors each time it is replayed, and hold their values until the next call. The first
    calls compute what they should, so that warming up leaves no trace.

    Args:
        function: computes a tree of tensors from a batch's, without a look at their values.
        recorder: how it is captured.
    """

    def __init__(self, function: Function, recorder: Recorder) -> None:
        self._function, self._recorder = function, recorder
        self._calls: dict[tuple, int] = {}
        self._graphs: dict[tuple, _Graph] = {}

    def __call__(self, inputs: Inputs) -> Any:
        """Computes the function.

        Raises:
            InputError: it does what no graph can hold.
        """
        shape = tuple((name, tuple(x.shape), x.dtype) for name, x in inputs.items())
        if (graph := self._graphs.get(shape)) is not None:
            return graph(inputs)
        calls = self._calls[shape] = self._calls.get(shape, 0) + 1
        if calls <= WARM_UP or len(self._graphs) == MOST_GRAPHS:
            # As the graph's own tensors will lie: for others it would be compiled anew, which no capture survives.
            return self._recorder.warm_up(self._function, {name: x.contiguous() for name, x in inputs.items()})
        graph = self._graphs[shape] = _Graph(self._function, self._recorder, inputs)
        return graph(inputs)


class _Graph:
    """A captured function and the tensors that it reads."""

    def __init__(self, function: Function, recorder: Recorder, inputs: Inputs) -> None:
        self._inputs = {name: x.clone(memory_format=torch.contiguous_format) for name, x in inputs.items()}
        try:
            self._replay, self._outputs = recorder.capture(function, self._inputs)
        except RuntimeError as error:
            raise InputError(
                f"model.step=graph: the step cannot be captured as a CUDA graph ({one_line(error)}); use "
                "model.step=compiled"
            ) from error

    def __call__(self, inputs: Inputs) -> Any:
        torch._foreach_copy_(list(self._inputs.values()), list(inputs.values()))
        self._replay()
        return self._outputs()


def _tensors(tree: Any) -> list[Tensor]:
    found: list[Tensor] = []
    tree_map_only(Tensor, found.append, tree)
    return found
