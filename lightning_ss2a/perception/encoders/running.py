"""Runs networks of encoders: in batches, in the precision asked for, loaded once for all parts that use them."""

from collections.abc import Callable, Hashable, Sequence
from functools import cached_property
from typing import Any, Literal, TypeVar, get_args
from weakref import WeakValueDictionary

import torch
from torch import nn

from lightning_ss2a.errors import InputError, one_line

T = TypeVar("T")
Network = TypeVar("Network", bound=nn.Module)
Precision = Literal["float32", "bfloat16", "float16"]

_LOADED: WeakValueDictionary[Hashable, nn.Module] = WeakValueDictionary()


class LoadedWhenUsed:
    """Goes to other processes without what it has loaded: cached properties are made anew there, once they are used."""

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out the values of cached properties: networks, processors, tokenizers."""
        own = type(self)
        return {name: x for name, x in vars(self).items() if not isinstance(getattr(own, name, None), cached_property)}


def check_batch_size(batch_size: int) -> int:
    """Gives the batch size back.

    Raises:
        InputError: it is below 1.
    """
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}, needs at least 1")
    return batch_size


def check_running(batch_size: int, precision: Precision) -> None:
    """Checks how an encoder is to run.

    Raises:
        InputError: the batch size is below 1, or there is no such precision.
    """
    check_batch_size(batch_size)
    if precision not in get_args(Precision):
        raise InputError(f"precision is {precision!r}, needs {', '.join(get_args(Precision))}")


def usable_device(device: str) -> torch.device:
    """Gives the device of a name.

    Raises:
        InputError: torch has no such device here.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter: torch is built without CUDA
        raise InputError(f"device is {device!r}, which cannot be used here ({one_line(error)})") from error
    return torch.device(device)


def batches(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """Cuts items into batches of a size; the last may be smaller."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def batches_alike(marks: Sequence[Hashable], size: int) -> list[Sequence[int]]:
    """Groups the numbers of equal marks, in order, and cuts each group into batches of a size."""
    groups: dict[Hashable, list[int]] = {}
    for number, mark in enumerate(marks):
        groups.setdefault(mark, []).append(number)
    return [batch for group in groups.values() for batch in batches(group, size)]


def autocast(device: str, precision: Precision) -> torch.autocast:
    """Makes a context in which matrix products are computed in a precision; sums and normalisations stay in float32."""
    dtype = torch.float16 if precision == "float16" else torch.bfloat16
    return torch.autocast(torch.device(device).type, dtype, enabled=precision != "float32")


def load_once(key: Hashable, load: Callable[[], Network]) -> Network:
    """Loads a network, or gives the one that was loaded under this key, as long as somebody uses it."""
    network = _LOADED.get(key)
    if network is None:
        network = _LOADED[key] = load().eval().requires_grad_(False)
    return network  # type: ignore[return-value]  # what a key was loaded by decides its type
