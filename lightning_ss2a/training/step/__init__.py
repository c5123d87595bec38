"""How a training step is computed: eagerly, by compiled functions of flat parameters, or replayed as a CUDA graph."""

from typing import Literal

Step = Literal["eager", "compiled", "graph"]
"""How a module computes the gradients of a step."""
