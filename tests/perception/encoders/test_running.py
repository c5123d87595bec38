import gc

import pytest
import torch

from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.encoders.running import autocast, batches, check_batch_size, load_once


def test_batches_hold_every_item_once():
    assert batches("abcde", 2) == ["ab", "cd", "e"]
    assert batches([], 2) == []


def test_a_batch_size_below_one_is_refused():
    assert check_batch_size(1) == 1
    with pytest.raises(InputError, match="batch_size is 0"):
        check_batch_size(0)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_matrix_products_have_the_precision_asked_for(precision: str):
    with autocast("cpu", precision):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == getattr(torch, precision)


def test_a_network_is_loaded_once_while_somebody_uses_it():
    loaded = []

    def load() -> torch.nn.Module:
        loaded.append(torch.nn.Linear(1, 1))
        return loaded[-1]

    first, second = load_once("key", load), load_once("key", load)
    assert first is second
    assert not first.training
    assert not first.weight.requires_grad
    del first, second
    loaded.clear()
    gc.collect()
    load_once("key", load)
    assert len(loaded) == 1
