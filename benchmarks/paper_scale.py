"""How long does the manifold train at the paper's scale (168 epochs of 106,514 pairs, bf16, batch 1,024) on one GPU?

With a GPU: measured. Trainer.fit runs configs/paper/manifold.yaml on random embeddings of the paper's widths, and the
seconds of a step are multiplied by the paper's steps.

Without: projected for one H200. A step of ManifoldModule (both turns, forward and backward) runs on fake tensors under
bf16 autocast, and every operation is counted: its FLOPs, the bytes that it reads and writes, and that it is launched
once. The optimisers' traffic is added in closed form. Three times follow from the card's data sheet:

- arithmetic: FLOPs at a stated share of the dense bf16 peak (float32 for the contrastive loss);
- memory: bytes of the operations that are bound by them, as launched one by one (torch.compile fuses most of them);
- launches: operations, at a stated time each; the GPU waits for the host where that is longer.

    python benchmarks/paper_scale.py [--batch-size 1024] [--steps 200] [--compile true|false]
"""

import argparse
import json
import logging
import statistics
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from step_overhead import AUDIO_WIDTH, VISUAL_WIDTH, StepTimes, frozen, write_data
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from lightning_ss2a.cli.lightning import build_cli
from lightning_ss2a.training import ManifoldModule

CONFIG = Path(__file__).parent.parent / "configs" / "paper" / "manifold.yaml"
PAIRS, EPOCHS = 106_514, 168
GOAL_SECONDS = 60.0

# NVIDIA H200 SXM data sheet: dense bf16 and float32 (no sparsity, no TF32), HBM3e.
BF16_FLOPS, FLOAT32_FLOPS, BYTES_PER_SECOND = 989e12, 67e12, 4.8e12
MATMUL_EFFICIENCY = 0.5
"""Share of the peak that layers of these widths reach with 1,024 to 2,048 rows."""
BANDWIDTH_EFFICIENCY = 0.75
LAUNCH_SECONDS = {"eager": 6e-6, "compiled": 1.5e-6}
"""Host time of an operation: dispatched through autograd, or replayed by compiled code around fused kernels."""
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

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
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


def count_step(batch_size: int) -> tuple[Count, int]:
    """One step of both turns at the paper's sizes, and the number of parameters."""
    with FakeTensorMode(), torch.autocast("cpu", torch.bfloat16):
        module = ManifoldModule(VISUAL_WIDTH, AUDIO_WIDTH)
        batch = {"visual": torch.randn(batch_size, VISUAL_WIDTH), "audio": torch.randn(batch_size, AUDIO_WIDTH)}
        halves = (module.projector_parameters, module.reconstructor_parameters)
        with Count() as count:
            for turn, losses in enumerate((module.losses, module.reconstructor_losses)):
                with frozen(halves[1 - turn]):
                    losses(batch)["loss"].backward()
        return count, sum(p.numel() for half in halves for p in half)


def project(batch_size: int) -> dict:
    """Seconds of all steps on one H200, by what bounds them."""
    count, parameters = count_step(batch_size)
    steps = PAIRS // batch_size * EPOCHS
    # Weights are cast and optimised by kernels of their own, compiled or not.
    weights = count.cast_bytes + parameters * OPTIMIZER_BYTES
    arithmetic = (count.bf16_flops / BF16_FLOPS + count.float32_flops / FLOAT32_FLOPS) / MATMUL_EFFICIENCY
    bandwidth = BYTES_PER_SECOND * BANDWIDTH_EFFICIENCY
    unfused, weight_traffic = count.other_bytes / bandwidth, weights / bandwidth
    print(f"{parameters / 1e6:.1f} M parameters; {steps:,} steps of {batch_size} pairs; of one step:")
    print(f"  {count.bf16_flops / 1e9:,.0f} GFLOP in bf16, {count.float32_flops / 1e9:,.1f} in float32 (contrastive)")
    print(f"  {count.matmul_bytes / 1e9:.2f} GB through matrix products, {count.other_bytes / 1e9:.2f} GB elementwise,")
    print(f"  {weights / 1e9:.2f} GB through casts and optimisers; {count.operations} operations")
    print(f"  arithmetic {arithmetic * 1e3:.2f} ms, elementwise {unfused * 1e3:.2f} ms, casts and optimisers", end=" ")
    print(f"{weight_traffic * 1e3:.2f} ms")
    eager = max(arithmetic + unfused + weight_traffic, count.operations * LAUNCH_SECONDS["eager"])
    # Fused, an activation is written and read once around the products: bytes that the products' efficiency covers.
    compiled = max(arithmetic + weight_traffic, count.operations * LAUNCH_SECONDS["compiled"])
    print(f"projected for one H200: eager {eager * steps:.0f} s, compiled {compiled * steps:.0f} s")
    return {"seconds": round(compiled * steps, 1), "seconds_eager": round(eager * steps, 1), "how": "projected, H200"}


def measure(batch_size: int, steps: int, compile_model: bool) -> dict:
    """Seconds of all steps on this GPU, from the median of the steps of one epoch through Lightning."""
    times = StepTimes()
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder) / "data", rows=8 * batch_size)
        arguments = ["-c", str(CONFIG), f"--data.datasets={folder}/data", f"--data.batch_size={batch_size}"]
        arguments += ["--trainer.callbacks=[]", "--trainer.logger=false", "--trainer.enable_checkpointing=false"]
        arguments += ["--trainer.enable_progress_bar=false", "--trainer.devices=1", "--trainer.limit_val_batches=0"]
        arguments += [f"--model.compile_model={str(compile_model).lower()}", f"--trainer.max_steps={steps}"]
        cli = build_cli([*arguments, "--trainer.max_epochs=-1"], run=False)
        cli.trainer.callbacks.append(times)
        cli.trainer.fit(cli.model, cli.datamodule)
    step = statistics.median(times.seconds(warm_up=20))
    total = step * (PAIRS // batch_size) * EPOCHS
    print(f"{torch.cuda.get_device_name()}: {step * 1e3:.2f} ms a step, {total:.0f} s for the paper's epochs")
    return {"seconds": round(total, 1), "how": f"measured, {torch.cuda.get_device_name()}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=200, help="measured steps, with a GPU")
    parser.add_argument("--compile", default="true", choices=["true", "false"], help="with a GPU")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    if torch.cuda.is_available():
        result = measure(options.batch_size, options.steps, options.compile == "true")
    else:
        result = project(options.batch_size)
    holds = result["seconds"] <= GOAL_SECONDS
    ratio = round(result["seconds"] / GOAL_SECONDS, 2)
    print(json.dumps({"benchmark": "paper_scale", "ratio": ratio, "goal": 1.0, "holds": holds, **result}))


if __name__ == "__main__":
    main()
