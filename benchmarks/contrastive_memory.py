"""Peak memory of the contrastive loss with CCMR mask, forward and backward: the plain formula against chunks of rows.

Each case runs in a process of its own and reports how far its memory rose above what the inputs take: the resident
peak of the process on a CPU, the allocator's peak on CUDA. A law is fitted to the batches measured (plain grows with
the square of the batch, chunks with the batch) and read off at 65,536.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from lightning_ss2a.losses import ContrastiveOptions, contrastive_loss

WIDTH = 768
BATCHES = (1024, 2048, 4096, 8192, 16384)
CHUNK_SIZE = 512
MODELLED_BATCH = 65536
GOAL = 10.0
GIB = 2**30
PLAIN_BYTES = 40  # what the plain formula needs per entry of its matrices at most, to skip what cannot fit


def resident_memory(field: str) -> int:
    """Bytes of this process: ``VmRSS`` now, ``VmHWM`` at its peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def measure(batch: int, chunk_size: int | None) -> dict[str, float]:
    """Extra bytes and seconds of one forward and backward."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)

    def step(rows: int) -> None:
        contrastive_loss(
            visual_embedding[:rows],
            audio_embedding[:rows],
            temperature,
            visual=visual[:rows],
            audio=audio[:rows],
            options=ContrastiveOptions(ccmr_alpha=0.35, chunk_size=chunk_size),
        ).backward()

    visual, audio = torch.randn(2, batch, WIDTH, device=device)
    visual_embedding, audio_embedding = torch.randn(2, batch, WIDTH, device=device).unbind()
    for tensor in (visual_embedding, audio_embedding):
        tensor.requires_grad_().grad = torch.zeros_like(tensor)
    temperature = torch.tensor(14.0, device=device, requires_grad=True)
    step(64)  # loads kernels and starts threads
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if device == "cuda" else resident_memory("VmRSS")
    start = time.perf_counter()
    step(batch)
    if device == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else resident_memory("VmHWM")
    return {"bytes": peak - before, "seconds": seconds}


def measure_apart(batch: int, chunk_size: int | None) -> dict[str, float]:
    """The same in a fresh process."""
    command = [sys.executable, __file__, str(batch), str(chunk_size or 0)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def free_memory() -> int:
    """Bytes that a new process may take."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/meminfo has no MemAvailable")


def fit_law(peaks: dict[int, float], powers: tuple[int, int]):
    """Least relative squares of ``a * batch**p + b * batch**q``."""
    batches, values = np.array(list(peaks)), np.array(list(peaks.values()))
    basis = np.stack([batches**power for power in map(float, powers)], axis=1)
    factors, *_ = np.linalg.lstsq(basis / values[:, None], np.ones(len(values)), rcond=None)
    return lambda batch: float(sum(f * float(batch) ** p for f, p in zip(factors, powers, strict=True)))


def main() -> None:
    if not torch.cuda.is_available() and not Path("/proc/self/status").exists():
        raise SystemExit("contrastive_memory needs CUDA, or Linux's /proc to read a process's peak memory")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    print(f"contrastive loss with CCMR mask, width {WIDTH}, float32, chunks of {CHUNK_SIZE} rows; {device}")
    print(f"{'batch':>8} {'plain GiB':>10} {'chunked GiB':>12} {'ratio':>7} {'plain s':>8} {'chunked s':>10}")
    plain, chunked = {}, {}
    for batch in BATCHES:
        chunks = measure_apart(batch, CHUNK_SIZE)
        chunked[batch] = chunks["bytes"]
        if PLAIN_BYTES * batch**2 > free_memory():
            print(
                f"{batch:>8} {'no room':>10} {chunks['bytes'] / GIB:>12.3f} {'':>7} {'':>8} {chunks['seconds']:>10.2f}"
            )
            continue
        whole = measure_apart(batch, None)
        plain[batch] = whole["bytes"]
        print(
            f"{batch:>8} {whole['bytes'] / GIB:>10.3f} {chunks['bytes'] / GIB:>12.3f} "
            f"{whole['bytes'] / chunks['bytes']:>7.1f} {whole['seconds']:>8.2f} {chunks['seconds']:>10.2f}"
        )
    plain_law, chunked_law = fit_law(plain, (2, 1)), fit_law(chunked, (1, 0))
    laws = plain_law(MODELLED_BATCH), chunked_law(MODELLED_BATCH)
    print(f"{MODELLED_BATCH:>8} {laws[0] / GIB:>10.3f} {laws[1] / GIB:>12.3f} {laws[0] / laws[1]:>7.1f}   (fitted law)")
    largest = BATCHES[-1]
    if largest not in plain:
        print(f"too little memory for the plain formula at {largest}: its peak is read off the law")
    ratio = plain.get(largest, plain_law(largest)) / chunked[largest]
    line = {"benchmark": "contrastive_memory", "ratio": round(ratio, 2), "goal": GOAL, "holds": ratio >= GOAL}
    print(json.dumps(line))


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(measure(int(sys.argv[1]), int(sys.argv[2]) or None)))
    else:
        main()
