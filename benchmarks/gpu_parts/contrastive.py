"""Peak memory and seconds of the contrastive loss, forward and backward: in chunks of rows, and plain."""

from contrastive_memory import measure

from gpu_parts.inputs import Inputs
from gpu_parts.process import Report


def run(inputs: Inputs, report: Report) -> None:
    """Measure the largest batch in chunks, and a smaller one both ways."""
    (largest, smaller), chunks = inputs.sizes.contrastive, inputs.sizes.chunks
    cases = [(largest, chunk) for chunk in chunks] + [(smaller, chunk) for chunk in (*chunks, None)]
    peaks: dict[int | None, float] = {}
    for batch, chunk in cases:
        measured = measure(batch, chunk)
        how = f"chunks_{chunk}" if chunk else "plain"
        report(**{f"rows_{batch}_{how}_gib": measured["bytes"] / 2**30, f"rows_{batch}_{how}_s": measured["seconds"]})
        peaks[chunk] = measured["bytes"]  # the smaller batch comes last
    report(plain_over_chunks=peaks[None] / max(1, peaks[chunks[0]]))
