"""Sends objects full of arrays between processes as one block of shared memory.

Tensors one by one would take a file descriptor each, of which a process has about a thousand; arrays would be copied
through a pipe.
"""

import pickle
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_ALIGNMENT = 64


@dataclass(frozen=True)
class Packed:
    """An object on its way.

    Attributes:
        frame: the object without its arrays, pickled.
        memory: the bytes of all arrays, uint8.
        places: first byte and number of bytes of each.
    """

    frame: bytes
    memory: Tensor
    places: list[tuple[int, int]]

    def unpack(self) -> Any:
        """Makes the object again; its arrays lie in the memory that was sent."""
        whole = self.memory.numpy().data
        return pickle.loads(self.frame, buffers=[whole[start : start + size] for start, size in self.places])


def pack(content: object) -> Packed:
    """Packs an object that can be pickled, for another process of this program."""
    buffers: list[pickle.PickleBuffer] = []
    frame = pickle.dumps(content, protocol=5, buffer_callback=buffers.append)
    views = [buffer.raw() for buffer in buffers]
    places, end = [], 0
    for view in views:
        places.append((end, view.nbytes))
        end += -(-view.nbytes // _ALIGNMENT) * _ALIGNMENT
    memory = torch.empty(end, dtype=torch.uint8).share_memory_()
    whole = memory.numpy().data
    for (start, size), view in zip(places, views, strict=True):
        whole[start : start + size] = view
    return Packed(frame, memory, places)
