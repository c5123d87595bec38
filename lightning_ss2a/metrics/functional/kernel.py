"""Kernel audio distance (KAD): how far apart are two sets of embeddings, without taking them for normal?"""

import warnings

import torch
from torch import Tensor

from lightning_ss2a.metrics.functional.frechet import check_sets, enough_rows
from lightning_ss2a.metrics.functional.moments import in_content_order

KERNEL_SCALE = 100
_MATRIX_ELEMENTS = 2**22  # kernel values held at a time: 32 MiB of float64


def kernel_audio_distance(
    generated: Tensor,
    reference: Tensor,
    bandwidth: float | None = None,
    bandwidth_rows: int = 5000,
    subset_rows: int | None = None,
    subsets: int = 10,
    seed: int = 0,
) -> Tensor:
    r"""Computes the unbiased squared maximum mean discrepancy of two sets of embeddings, times 100 (Chung et al. 2025).

    .. math:: 100 \left(\frac{\sum_{i \ne j} k(g_i, g_j)}{N (N - 1)} + \frac{\sum_{i \ne j} k(r_i, r_j)}{M (M - 1)}
        - \frac{2 \sum_{i, j} k(g_i, r_j)}{N M}\right), \quad k(x, y) = e^{-\|x - y\|^2 / 2 h^2}

    In float64, whatever order the rows come in.

    Args:
        generated: embeddings of generated sounds, ``[N, D]``, N at least 2.
        reference: embeddings of real sounds, ``[M, D]``, M at least 2.
        bandwidth: h; None: the median distance between rows of the reference, which does not change with the method
            that is measured.
        bandwidth_rows: where the reference has more rows, so many of them give the median.
        subset_rows: where given, the mean over subsets of so many rows of each set, which is cheaper; None: all rows.
        subsets: subsets, drawn without replacement.
        seed: seed of the subsets, and of the rows that give the median.

    Returns:
        The distance, a float32 scalar. Its mean is 0 for two sets of one distribution, so that it is below 0 about
        half of the time. NaN, with a warning, where a set has fewer than 2 rows, or where half of the reference's
        rows are equal, so that the bandwidth is 0.

    Raises:
        ValueError: If the widths differ, a set is not two-dimensional, or an option is out of range.
        InputError: If a row holds NaN or infinity.

    Example:
        >>> import torch
        >>> from lightning_ss2a.metrics.functional import kernel_audio_distance
        >>> reference = torch.tensor([[0.0], [2.0]])  # bandwidth 2
        >>> kernel_audio_distance(reference + 100, reference)  # 100 (exp(-1 / 2) + exp(-1 / 2) - 0)
        tensor(121.3061)
    """
    check_kernel_options(bandwidth, bandwidth_rows, subset_rows, subsets)
    check_sets(generated, reference)
    nothing = torch.full((), torch.nan, device=generated.device)
    if not enough_rows("KAD", len(generated), len(reference)):
        return nothing
    generated, reference = (in_content_order(rows.double()) for rows in (generated, reference))
    # Distances stay, and lose fewer digits near the origin; rows that are equal stay so.
    generated, reference = generated - reference[0], reference - reference[0]
    generator = torch.Generator().manual_seed(seed)
    h = bandwidth or median_distance(_draw(reference, bandwidth_rows, generator))
    if h == 0:
        warnings.warn(
            "KAD: half of the reference's rows are equal, so that its bandwidth is 0 and KAD NaN; pass bandwidth",
            stacklevel=2,
        )
        return nothing
    if subset_rows is None:
        return (KERNEL_SCALE * squared_discrepancy(generated, reference, h)).float()
    drawn = [[_draw(rows, subset_rows, generator) for rows in (generated, reference)] for _ in range(subsets)]
    return (KERNEL_SCALE * torch.stack([squared_discrepancy(x, y, h) for x, y in drawn]).mean()).float()


def check_kernel_options(bandwidth: float | None, bandwidth_rows: int, subset_rows: int | None, subsets: int) -> None:
    """Raises ValueError for an option of :func:`kernel_audio_distance` that is out of range."""
    if bandwidth is not None and not bandwidth > 0:
        raise ValueError(f"bandwidth must be above 0, got {bandwidth}")
    for name, value, least in (
        ("bandwidth_rows", bandwidth_rows, 2),
        ("subset_rows", subset_rows, 2),
        ("subsets", subsets, 1),
    ):
        if value is not None and value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")


def reference_bandwidth(reference: Tensor, bandwidth_rows: int = 5000, seed: int = 0) -> float:
    """Finds the bandwidth that :func:`kernel_audio_distance` takes by itself, of rows ``[M, D]``, M at least 2."""
    ordered = in_content_order(reference.double())
    return median_distance(_draw(ordered - ordered[0], bandwidth_rows, torch.Generator().manual_seed(seed)))


def median_distance(rows: Tensor) -> float:
    """Finds the median distance between two different rows of ``[N, D]``, the lower of two in the middle."""
    return float(torch.pdist(rows).median())


def squared_discrepancy(x: Tensor, y: Tensor, bandwidth: float) -> Tensor:
    """Computes the unbiased squared maximum mean discrepancy under a Gaussian kernel, a float64 scalar.

    Args:
        x: rows, ``[N, D]`` float64.
        y: rows, ``[M, D]`` float64.
        bandwidth: standard deviation of the kernel.
    """
    x_once, y_once = (torch.ones(1, len(rows), dtype=torch.int64, device=rows.device) for rows in (x, y))
    return squared_discrepancies(x, y, x_once, y_once, bandwidth)[0]


def squared_discrepancies(x: Tensor, y: Tensor, x_counts: Tensor, y_counts: Tensor, bandwidth: float) -> Tensor:
    """Computes the same of rows that are drawn several times over, each kernel value once for all draws.

    Args:
        x: rows, ``[N, D]`` float64.
        y: rows, ``[M, D]`` float64.
        x_counts: how often each row is there in each draw, ``[draws, N]`` int64.
        y_counts: likewise, ``[draws, M]``.
        bandwidth: standard deviation of the kernel.

    Returns:
        ``[draws]`` float64; NaN or infinity where a draw has fewer than 2 rows of a set.
    """
    x_counts, y_counts = x_counts.double(), y_counts.double()
    x_size, y_size = x_counts.sum(1), y_counts.sum(1)
    within = [
        (_kernel_sums(rows, rows, counts, counts, bandwidth) - size) / (size * (size - 1))
        for rows, counts, size in ((x, x_counts, x_size), (y, y_counts, y_size))
    ]
    return within[0] + within[1] - 2 * _kernel_sums(x, y, x_counts, y_counts, bandwidth) / (x_size * y_size)


def _kernel_sums(x: Tensor, y: Tensor, x_counts: Tensor, y_counts: Tensor, bandwidth: float) -> Tensor:
    """Sums the kernel over all pairs of rows in each draw, ``[draws]``, some rows at a time: memory stays bounded."""
    rows = max(1, _MATRIX_ELEMENTS // len(y))
    squares = y.square().sum(1)
    total = x.new_zeros(len(x_counts))
    for part, counts in zip(x.split(rows), x_counts.split(rows, dim=1), strict=True):
        distances = (part.square().sum(1, keepdim=True) + squares - 2 * part @ y.T).clamp(min=0)  # squared, [C, M]
        total += ((counts @ (distances / (-2 * bandwidth**2)).exp()) * y_counts).sum(1)
    return total


def _draw(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draws rows without replacement, all where there are no more than ``count``."""
    if len(rows) <= count:
        return rows
    return rows[torch.randperm(len(rows), generator=generator)[:count].to(rows.device)]
