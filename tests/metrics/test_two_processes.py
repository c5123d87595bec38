"""Metrics of whole sets of sounds: what two processes compute is what one does. All in one pair of processes."""

import pytest
from torch import Tensor
from torchmetrics import Metric

from tests.distributed import run_distributed
from tests.metrics import (
    test_clap_score,
    test_clustering,
    test_discriminant,
    test_frechet,
    test_inception_score,
    test_kernel,
    test_offset,
    test_paired_kl,
    test_ssms,
)
from tests.metrics.metric_tester import BY_RANK, MetricChecks, Values, assert_same_bits, values_of_rank

CHECKS: tuple[type[MetricChecks], ...] = (
    test_clap_score.TestClapScore,
    test_clustering.TestPartitionCoefficient,
    test_clustering.TestPublished,
    test_discriminant.TestDiscriminantTest,
    test_discriminant.TestProportional,
    test_frechet.TestMoreRowsThanColumns,
    test_frechet.TestFewerRowsThanColumns,
    test_frechet.TestExtrapolated,
    test_inception_score.TestInceptionScore,
    test_kernel.TestKernelAudioDistance,
    test_kernel.TestSubsets,
    test_offset.TestDesynchronization,
    test_offset.TestWeightedMeanAbsoluteOffset,
    test_paired_kl.TestPairedKL,
    test_paired_kl.TestSigmoid,
    test_ssms.TestLabelsOfDifferentNumber,
)


def all_values_of_rank(cases: list[tuple[Metric, dict[str, Tensor]]]) -> list[list[Values]]:
    """On each rank: for every metric its values for every split."""
    return [values_of_rank(metric, inputs, BY_RANK) for metric, inputs in cases]


@pytest.mark.filterwarnings("ignore:FAD of")
def test_two_processes_give_the_same_bits():
    cases = [(checks.make(), checks.inputs) for checks in CHECKS]
    ranks = run_distributed(all_values_of_rank, cases)
    assert len(ranks) == 2
    for by_case in ranks:
        for checks, by_split in zip(CHECKS, by_case, strict=True):
            assert len(by_split) == len(BY_RANK)
            for found in by_split:
                assert_same_bits(found, checks().in_one_batch())
