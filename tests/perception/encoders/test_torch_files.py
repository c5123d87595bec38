from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.encoders.torch_files import fill, is_torchscript, read_state

safetensors = pytest.importorskip("safetensors.torch")


@pytest.mark.parametrize("layout", ["safetensors", "plain", "training", "old", "torchscript"])
def test_weights_are_read_from_every_layout(layout: str, tmp_path: Path):
    network = torch.nn.Linear(2, 3)
    path, state = tmp_path / "weights.pt", network.state_dict()
    if layout == "safetensors":
        path = tmp_path / "weights.safetensors"
        safetensors.save_file(state, path)
    elif layout == "torchscript":
        torch.jit.save(torch.jit.script(network), path)
    elif layout == "training":
        torch.save({"epoch": np.int64(3), "map": np.float64(0.5), "f": np.float32(1), "state_dict": state}, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=layout == "plain")
    read = read_state(path)
    assert read.keys() == state.keys()
    assert all(torch.equal(read[name], state[name]) for name in state)
    assert is_torchscript(path) == (layout == "torchscript")


class Pickled:
    """What only unpickling would read."""


def test_nothing_is_unpickled_and_the_reason_is_one_line(tmp_path: Path):
    torch.save({"state_dict": {}, "options": Pickled()}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(b"PK\x03\x04 no archive")
    (tmp_path / "c.safetensors").write_bytes(b"none")
    torch.save([1, 2], tmp_path / "d.pt")
    for name, message in (
        ("a.pt", "a.pt: not a file of weights, or a damaged one"),
        ("b.pt", "b.pt: not a file of weights"),
        ("c.safetensors", "c.safetensors: not a file of weights"),
        ("d.pt", "d.pt: holds a list, no weights by name"),
    ):
        with pytest.raises(InputError, match=message) as error:
            read_state(tmp_path / name)
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < len(str(tmp_path)) + 250


def test_a_network_is_filled_and_a_difference_is_named():
    network = torch.nn.BatchNorm1d(2)
    state = {name: torch.ones_like(value) for name, value in network.state_dict().items()}
    del state["num_batches_tracked"]
    fill(network, state, "file", computed=lambda name: name == "num_batches_tracked")
    assert network.weight.tolist() == network.running_mean.tolist() == [1, 1]
    with pytest.raises(InputError, match=r"^file: lacks num_batches_tracked$"):
        fill(network, state, "file", computed=lambda name: False)
    other = {**state, "weight": torch.zeros(3), "more": torch.zeros(1)}
    with pytest.raises(InputError, match=r"^file: has more too much, and 1 more difference"):
        fill(network, other, "file", computed=lambda name: name == "num_batches_tracked")
    assert network.weight.tolist() == [1, 1]
