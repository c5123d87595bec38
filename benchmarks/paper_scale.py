"""How long would the manifold train at the paper's scale (168 epochs of 106,514 pairs, bf16, batch 1,024) on one H200?

Nothing is trained here; benchmarks/gpu.py measures it where there is a GPU. A step of ManifoldModule (both turns,
forward and backward) runs on fake tensors under bf16 autocast, and every operation is counted: its FLOPs, the bytes
that it reads and writes, and that it is launched once. The optimisers' traffic is added in closed form. Then:

- what the card needs: FLOPs and the bytes of casts and optimisers, at the rates that plain products and copies reached
  on an H200 on an earlier day (torch 2.11);
- what the host needs: operations, at the host time of each as a step took it there through Lightning, eager. The card
  waits for the host where that is longer.

Both are for the step alone: callbacks, validation and the teacher's consistency come on top, see docs/performance.md.

    python benchmarks/paper_scale.py [--batch-size 1024]
"""

import argparse
import json

from paper_sizes import AUDIO_WIDTH, BATCH_SIZE, EPOCHS, GOAL_SECONDS, PAIRS, VISUAL_WIDTH, steps_of
from paper_sizes.work import step_work

from lightning_ss2a.models import ManifoldOptions

BF16_FLOPS, BYTES_PER_SECOND = 771e12, 4.2e12
"""Measured on an H200 by plain products of bf16 matrices and by copies."""

FLOAT32_FLOPS = 67e12
"""Of its data sheet, without TF32."""

HOST_SECONDS = 29.0e-3 / 1080
"""Of an operation: a step of 1,080 took 29.0 ms on an H200's host, of which the card computed for about 4."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE)
    batch_size = parser.parse_args().batch_size
    work = step_work(ManifoldOptions(), (VISUAL_WIDTH, AUDIO_WIDTH), batch_size)
    count, steps = work.count, steps_of(PAIRS, EPOCHS, batch_size)
    card, host = work.lower_bound_seconds(BF16_FLOPS, FLOAT32_FLOPS, BYTES_PER_SECOND), count.operations * HOST_SECONDS
    print(f"{work.parameters / 1e6:.1f} M parameters; {steps:,} steps of {batch_size} pairs; of one step, counted:")
    print(f"  {count.bf16_flops / 1e9:,.0f} GFLOP in bf16, {count.float32_flops / 1e9:,.1f} in float32 (contrastive)")
    print(f"  {count.matmul_bytes / 1e9:.2f} GB through matrix products, {count.other_bytes / 1e9:.2f} GB elementwise,")
    print(f"  {work.weight_bytes / 1e9:.2f} GB through casts and optimisers; {count.operations} operations")
    print(f"projected for one H200, eager: the card needs {card * 1e3:.1f} ms a step, {card * steps:.0f} s in all,")
    print(f"  and the host {host * 1e3:.1f} ms, {host * steps:.0f} s in all")
    seconds = max(card, host) * steps
    result = {"seconds": round(seconds, 1), "card_seconds": round(card * steps, 1), "how": "projected, H200, eager"}
    ratio = round(seconds / GOAL_SECONDS, 2)
    print(json.dumps({"benchmark": "paper_scale", "ratio": ratio, "goal": 1.0, "holds": ratio <= 1, **result}))


if __name__ == "__main__":
    main()
