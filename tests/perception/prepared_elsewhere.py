"""Prepares media as a worker does, with what arrives there of a model, and compares with what the model does itself."""

import pickle
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_ss2a.perception.detectors.protocols import PreparingDetector
from lightning_ss2a.perception.encoders.protocols import PreparingAudioEncoder

MOST_BYTES = 20_000
"""Of what is sent to a worker: no network is as small."""


def sent(prepare: Callable[[np.ndarray], Tensor]) -> Callable[[np.ndarray], Tensor]:
    """A preparation as it arrives in another process."""
    data = pickle.dumps(prepare)
    assert len(data) < MOST_BYTES, "the network goes along"
    return pickle.loads(data)


def prepared_by_one_thread(prepare: Callable[[np.ndarray], Tensor], media: Sequence[np.ndarray]) -> list[Tensor]:
    """As a worker of torch's DataLoader prepares them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [sent(prepare)(medium) for medium in media]
    finally:
        torch.set_num_threads(threads)


def assert_sounds_may_be_prepared_elsewhere(encoder: Any, sounds: Sequence[np.ndarray]) -> None:
    assert isinstance(encoder, PreparingAudioEncoder)
    expected = encoder.encode(sounds)
    prepared = prepared_by_one_thread(encoder.prepare, sounds)
    assert torch.equal(encoder.encode_prepared(prepared), expected)
    assert encoder.encode_prepared([]).shape == (0, encoder.width)


def assert_pictures_may_be_prepared_elsewhere(detector: Any, pictures: Sequence[np.ndarray]) -> None:
    assert isinstance(detector, PreparingDetector)
    expected = detector.detect(pictures)
    assert any(len(found) for found in expected)
    prepared = prepared_by_one_thread(detector.prepare, pictures)
    assert all(each.dtype == torch.uint8 for each in prepared), "what travels is small"
    for found, own in zip(detector.detect_prepared(pictures, prepared), expected, strict=True):
        assert torch.equal(found.boxes, own.boxes)
        assert torch.equal(found.scores, own.scores)
        assert found.labels == own.labels
    assert detector.detect_prepared([], []) == []
