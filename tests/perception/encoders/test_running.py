import gc

import pytest
import torch

from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.encoders.running import autocast, batches, check_running, load_once, usable_device


def test_batches_hold_every_item_once():
    assert batches("abcde", 2) == ["ab", "cd", "e"]
    assert batches([], 2) == []


def test_ways_of_running_that_there_are_not_are_named():
    check_running(1, "bfloat16")
    with pytest.raises(InputError, match="batch_size is 0, needs at least 1"):
        check_running(0, "float32")
    with pytest.raises(InputError, match="precision is 'fp16', needs float32, bfloat16, float16"):
        check_running(1, "fp16")
    assert usable_device("cpu") == torch.device("cpu")
    for name in ("cuda:99", "gpu"):
        with pytest.raises(InputError, match=f"device is '{name}', which cannot be used here"):
            usable_device(name)


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
