import functools

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from sklearn.metrics.pairwise import rbf_kernel
from torch import Tensor

from lightning_ss2a.errors import InputError
from lightning_ss2a.metrics import KernelAudioDistance
from lightning_ss2a.metrics.functional import kernel_audio_distance
from tests.metrics.metric_tester import MetricChecks

GENERATED = torch.randn(20, 9, generator=torch.Generator().manual_seed(1)) * 1.2 + 0.3
REFERENCE = torch.randn(20, 9, generator=torch.Generator().manual_seed(2))
INPUTS = {"generated": GENERATED, "reference": REFERENCE}


def discrepancy(x: np.ndarray, y: np.ndarray, bandwidth: float) -> float:
    """By scikit-learn's kernel, which has gamma = 1 / (2 h²)."""
    kernel = functools.partial(rbf_kernel, gamma=1 / (2 * bandwidth**2))
    within = [(kernel(z).sum() - np.trace(kernel(z))) / (len(z) * (len(z) - 1)) for z in (x, y)]
    return 100 * float(sum(within) - 2 * kernel(x, y).mean())


def median(rows: np.ndarray) -> float:
    """The lower median, as kadtk's torch.median."""
    return float(np.quantile(pdist(rows), 0.5, method="lower"))


def reference(inputs: dict[str, Tensor]) -> dict[str, float]:
    x, y = (inputs[name].double().numpy() for name in ("generated", "reference"))
    return {"value": discrepancy(x, y, median(y))}


class TestKernelAudioDistance(MetricChecks):
    make = KernelAudioDistance
    inputs = INPUTS
    reference = staticmethod(reference)


def reference_of_subsets(inputs: dict[str, Tensor]) -> dict[str, float]:
    generator = torch.Generator().manual_seed(5)
    x, y = (rows.double().numpy()[np.lexsort(rows.numpy().T[::-1])] for rows in inputs.values())
    h = median(y[torch.randperm(20, generator=generator)[:15].numpy()])
    values = []
    for _ in range(3):
        a, b = (rows[torch.randperm(20, generator=generator)[:12].numpy()] for rows in (x, y))
        values.append(discrepancy(a, b, h))
    return {"value": float(np.mean(values))}


class TestSubsets(MetricChecks):
    make = functools.partial(KernelAudioDistance, bandwidth_rows=15, subset_rows=12, subsets=3, seed=5)
    inputs = INPUTS
    reference = staticmethod(reference_of_subsets)


def test_sizes_may_differ_and_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch):
    whole = kernel_audio_distance(GENERATED[:7], REFERENCE)
    expected = discrepancy(GENERATED[:7].numpy(), REFERENCE.numpy(), median(REFERENCE.numpy()))
    assert whole.item() == pytest.approx(expected, rel=1e-5)
    monkeypatch.setattr("lightning_ss2a.metrics.functional.kernel._MATRIX_ELEMENTS", 50)
    torch.testing.assert_close(kernel_audio_distance(GENERATED[:7], REFERENCE), whole)


def test_bandwidth_is_of_the_reference_alone():
    """kadtk takes the generated sounds' (its issue 9), so that a method chooses the scale that it is measured by."""
    bandwidth = median(REFERENCE.double().numpy())
    for generated in (GENERATED, 100 * GENERATED):
        torch.testing.assert_close(
            kernel_audio_distance(generated, REFERENCE), kernel_audio_distance(generated, REFERENCE, bandwidth)
        )


def test_its_mean_is_0_for_one_distribution():
    values = []
    for seed in range(60):
        x, y = torch.randn(2, 30, 4, generator=torch.Generator().manual_seed(seed))
        values.append(kernel_audio_distance(x, y, bandwidth=2.0).item())
    assert abs(np.mean(values)) < 3 * np.std(values) / 60**0.5
    assert min(values) < 0 < max(values)


def test_identical_sets_are_just_below_0():
    # -2 (1 - mean kernel of two rows) / N: what takes the bias away from sets that are drawn apart.
    kernel = rbf_kernel(REFERENCE.double().numpy(), gamma=1 / 8)
    apart = (kernel.sum() - 20) / (20 * 19)
    found = kernel_audio_distance(REFERENCE, REFERENCE.flip(0), bandwidth=2.0)
    assert found.item() == pytest.approx(-100 * 2 * (1 - apart) / 20, rel=1e-5)


def test_a_large_mean_costs_no_digits():
    x, y = GENERATED.double(), REFERENCE.double()
    torch.testing.assert_close(kernel_audio_distance(x + 1e6, y + 1e6), kernel_audio_distance(x, y))


def test_constant_embeddings_need_a_bandwidth():
    constant = torch.ones(8, 3)
    with pytest.warns(UserWarning, match="half of the reference's rows are equal"):
        assert kernel_audio_distance(GENERATED[:, :3], constant).isnan()
    assert kernel_audio_distance(constant, constant, bandwidth=1.0) == 0
    # Two points at a distance of 3 (1 + 1 - 2 exp(-9 / 2)).
    apart = kernel_audio_distance(constant + 3**0.5, constant, bandwidth=1.0)
    assert apart.item() == pytest.approx(200 * (1 - np.exp(-4.5)), rel=1e-5)


@pytest.mark.parametrize("sizes", [(1, 5), (5, 1)])
def test_one_row_is_not_enough(sizes: tuple[int, int]):
    with pytest.warns(UserWarning, match="KAD needs at least 2 rows of each set"):
        assert kernel_audio_distance(GENERATED[: sizes[0]], REFERENCE[: sizes[1]]).isnan()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bandwidth": 0.0}, "bandwidth must be above 0, got 0.0"),
        ({"bandwidth_rows": 1}, "bandwidth_rows must be at least 2, got 1"),
        ({"subset_rows": 1}, "subset_rows must be at least 2, got 1"),
        ({"subsets": 0}, "subsets must be at least 1, got 0"),
    ],
)
def test_bad_options_are_named(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        KernelAudioDistance(**options)
    with pytest.raises(ValueError, match=message):
        kernel_audio_distance(GENERATED, REFERENCE, **options)


def test_bad_rows_are_named():
    broken = GENERATED.clone()
    broken[3, 0] = torch.inf
    with pytest.raises(InputError, match="generated: row 3 of 20 holds NaN or infinity"):
        KernelAudioDistance().update(generated=broken)
    with pytest.raises(ValueError, match="one width, got generated 9, reference 4"):
        kernel_audio_distance(GENERATED, REFERENCE[:, :4])
    with pytest.raises(ValueError, match="needs generated, reference or both"):
        KernelAudioDistance().update()
