"""What a step of the manifold asks of a card: FLOPs, bytes, operations; and the time that it cannot beat."""

from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from lightning_ss2a.models import ManifoldOptions
from lightning_ss2a.training import ManifoldModule
from paper_sizes.steps import frozen

OPTIMIZER_BYTES = 7 * 4
"""AdamW a parameter: reads parameter, gradient and two moments, writes three of them, float32."""


@dataclass
class Count(TorchDispatchMode):
    """Counts what it sees: FLOPs by precision, bytes, and operations that launch a kernel."""

    bf16_flops: int = 0
    float32_flops: int = 0
    matmul_bytes: int = 0
    cast_bytes: int = 0
    other_bytes: int = 0
    operations: int = 0

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Run the operation and count it."""
        result = function(*args, **(kwargs or {}))
        outputs = [x for x in tree_leaves(result) if isinstance(x, torch.Tensor)]
        inputs = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        if function.is_view or not outputs:
            return result
        moved = sum(x.numel() * x.element_size() for x in (*inputs, *outputs))
        self.operations += 1
        counter = flop_registry.get(function.overloadpacket)
        if function is torch.ops.aten._to_copy.default:
            self.cast_bytes += moved
            return result
        if counter is None:
            self.other_bytes += moved
            return result
        flops = counter(*args, **(kwargs or {}), out_val=result)
        self.matmul_bytes += moved
        if outputs[0].dtype == torch.bfloat16:
            self.bf16_flops += flops
        else:
            self.float32_flops += flops
        return result


@dataclass(frozen=True)
class StepWork:
    """What one step of both turns asks for.

    Attributes:
        count: of forward and backward.
        parameters: weights, each stepped once.
    """

    count: Count
    parameters: int

    @property
    def weight_bytes(self) -> int:
        """Bytes of casts and optimisers, which kernels of their own move, compiled or not."""
        return self.count.cast_bytes + self.parameters * OPTIMIZER_BYTES

    def lower_bound_seconds(self, bf16_flops: float, float32_flops: float, bytes_per_second: float) -> float:
        """Seconds that a card needs at least, at these rates a second.

        Products run at the full rate, whatever their widths; activations cost nothing beside them, as if all
        elementwise operations were fused into products; casts and optimisers move their bytes once.
        """
        arithmetic = self.count.bf16_flops / bf16_flops + self.count.float32_flops / float32_flops
        return arithmetic + self.weight_bytes / bytes_per_second


def step_work(options: ManifoldOptions, widths: tuple[int, int], batch_size: int, bf16: bool = True) -> StepWork:
    """One step of both turns of a ``ManifoldModule``, on fake tensors.

    Args:
        options: architecture of the manifold.
        widths: of the visual and the audio embeddings.
        batch_size: rows.
        bf16: under autocast to bf16; else in float32.
    """
    visual_width, audio_width = widths
    with FakeTensorMode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        module = ManifoldModule(visual_width, audio_width, options)
        batch = {"visual": torch.randn(batch_size, visual_width), "audio": torch.randn(batch_size, audio_width)}
        halves = (module.projector_parameters, module.reconstructor_parameters)
        with Count() as count:
            for turn, losses in enumerate((module.losses, module.reconstructor_losses)):
                with frozen(halves[1 - turn]):
                    losses(batch)["loss"].backward()
        return StepWork(count, sum(p.numel() for half in halves for p in half))
