import numpy as np
import pytest

from lightning_ss2a.data.format.columns import Ragged, zero_vectors

VECTORS = [[0, 1], [0, 0], [-0.0, 0], [1, 0], [0, -1], [0, 0]]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_vectors_of_zeros(dtype: type):
    vectors = np.array(VECTORS, dtype)
    assert zero_vectors(vectors).tolist() == [1, 2, 5]
    assert zero_vectors(vectors.reshape(2, 3, 2)).tolist() == [0, 1]
    assert zero_vectors(vectors[:0]).tolist() == []
    assert zero_vectors(Ragged(vectors, np.array([0, 1, 1, 4, 5, 6]))).tolist() == [2, 4]
