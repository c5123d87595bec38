"""AdamW on parameters that lie side by side in one buffer, so that a step is one kernel and no Python for each."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

STEPS = "step"
"""Name of the one number in AdamW's state; all others are moments, of a parameter's shape."""


class FlatParameters:
    """Parameters that lie side by side in one buffer, of which they become views.

    Args:
        parameters: at least one, all of one device and dtype; what else refers to them goes on seeing their values.

    Attributes:
        parameters: as given.
        values: the buffer, [all their elements]; the leaf that is differentiated and optimised in their place.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        self._sizes = [p.numel() for p in self.parameters]
        self.values = nn.Parameter(self.join([p.detach() for p in self.parameters]))
        for parameter, view in zip(self.parameters, self.split(self.values.detach()), strict=True):
            parameter.data = view

    def split(self, flat: Tensor) -> list[Tensor]:
        """Cuts a tensor of the buffer's size into views of the parameters' shapes."""
        parts = flat.split(self._sizes)
        return [part.view(p.shape) for part, p in zip(parts, self.parameters, strict=True)]

    def join(self, tensors: Iterable[Tensor]) -> Tensor:
        """Lays tensors of the parameters' shapes side by side, in a new buffer."""
        return torch.cat([tensor.reshape(-1) for tensor in tensors])

    def part(self) -> None:
        """Gives each parameter memory of its own again, as whoever saves or sends one alone expects."""
        for parameter in self.parameters:
            parameter.data = parameter.data.clone()


class PlainAdamW(AdamW):
    """AdamW that does not look for GPUs at each step, to see whether a graph captures it: none does here.

    Where there is a CUDA build of torch and no GPU, looking takes as long as a layer (torch 2.11).
    """

    def _accelerator_graph_capture_health_check(self) -> None:
        pass


class FlatAdamW(PlainAdamW):
    """AdamW that optimises the buffers of :class:`FlatParameters`, one for each group.

    Parameters that require no gradient stay out of the buffers and where they are, as AdamW leaves them.

    What it saves and loads is what ``AdamW`` over the parameters themselves does, so that a run may go on with either.

    Args:
        groups: of parameters, as ``AdamW`` takes them; empty ones stay empty.
        lr: learning rate.

    Attributes:
        flats: the trained parameters of each group; None where there is none.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], lr: float) -> None:
        self._counts = [len(group["params"]) for group in groups]
        self._trained = [[n for n, p in enumerate(group["params"]) if p.requires_grad] for group in groups]
        trained = [[p for p in group["params"] if p.requires_grad] for group in groups]
        self.flats = [FlatParameters(parameters) if parameters else None for parameters in trained]
        flat_groups = [
            {**group, "params": [flat.values] if flat else []} for group, flat in zip(groups, self.flats, strict=True)
        ]
        super().__init__(flat_groups, lr=lr, fused=True)

    @property
    def filled(self) -> list[FlatParameters]:
        """The buffers that there are."""
        return [flat for flat in self.flats if flat]

    def state_dict(self) -> dict[str, Any]:
        """Returns state and options as ``AdamW`` over the parameters has them; moments are views of the buffers'."""
        saved = super().state_dict()
        numbers = self._numbers()
        state: dict[int, dict[str, Tensor]] = {}
        for group, flat, trained in zip(saved["param_groups"], self.flats, self._trained_of(numbers), strict=True):
            if flat and (own := saved["state"].get(group["params"][0])):
                state |= zip(trained, _split_state(flat, own), strict=True)
        groups = [{**group, "params": own} for group, own in zip(saved["param_groups"], numbers, strict=True)]
        return {**saved, "state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes what :meth:`state_dict`, or that of ``AdamW`` over the same parameters, returned.

        Raises:
            ValueError: it belongs to other parameters, or to steps that moved others.
        """
        groups = state_dict["param_groups"]
        if [len(group["params"]) for group in groups] != self._counts:
            raise ValueError("loaded state dict contains other parameter groups than this optimiser has")
        state: dict[int, dict[str, Tensor]] = {}
        trained = self._trained_of([group["params"] for group in groups])
        for number, (flat, numbers) in enumerate(zip(self.flats, trained, strict=True)):
            own = [state_dict["state"][n] for n in numbers if n in state_dict["state"]]
            if flat and own:
                state[number] = _join_state(flat, own)
        flat_groups = [
            {**group, "params": [number] if flat else []}
            for number, (group, flat) in enumerate(zip(groups, self.flats, strict=True))
        ]
        super().load_state_dict({**state_dict, "state": state, "param_groups": flat_groups})

    def _numbers(self) -> list[list[int]]:
        """Numbers the parameters of each group, as AdamW does in what it saves."""
        numbers = iter(range(sum(self._counts)))
        return [[next(numbers) for _ in range(count)] for count in self._counts]

    def _trained_of(self, numbers: Sequence[Sequence[int]]) -> list[list[int]]:
        """Takes the numbers of those that lie in the buffers."""
        return [[own[n] for n in trained] for own, trained in zip(numbers, self._trained, strict=True)]


def _split_state(flat: FlatParameters, state: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Cuts the state of a buffer into that of its parameters."""
    # A count of steps for each: AdamW would count one that all share up once for each of them.
    parts = {
        name: [value.clone() for _ in flat.parameters] if name == STEPS else flat.split(value)
        for name, value in state.items()
    }
    return [dict(zip(parts, values, strict=True)) for values in zip(*parts.values(), strict=True)]


def _join_state(flat: FlatParameters, states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Joins the state of all parameters of a buffer to its own.

    Raises:
        ValueError: it is not of these parameters, or they are not equally many steps old. A fused kernel would read and
            write past the end of what is too short.
    """
    if len(states) != len(flat.parameters) or len({float(state[STEPS]) for state in states}) > 1:
        raise ValueError("loaded state dict comes from steps that did not move all parameters of a group alike")
    for state, parameter in zip(states, flat.parameters, strict=True):
        if any(value.shape != parameter.shape for name, value in state.items() if name != STEPS):
            raise ValueError("loaded state dict contains moments of other shapes than this optimiser's parameters")
    return {
        name: value.clone() if name == STEPS else flat.join([state[name] for state in states])
        for name, value in states[0].items()
    }
