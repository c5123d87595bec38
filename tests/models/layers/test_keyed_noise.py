"""Noise belongs to a row: whatever its batch, its process and torch's own generators."""

import json
from pathlib import Path

import pytest
import torch

from lightning_ss2a.models.layers.keyed_noise import keyed_generator, keyed_normal
from tests.processes import status_of

CPU = torch.device("cpu")
KEYS = [f"row{n}" for n in range(40)]


def test_a_row_has_the_same_noise_in_any_batch_and_order():
    alone = torch.cat([keyed_normal(3, [key], 7, CPU) for key in KEYS])
    assert torch.equal(keyed_normal(3, KEYS, 7, CPU), alone)
    assert torch.equal(keyed_normal(3, KEYS[::-1], 7, CPU), alone.flip(0))
    assert torch.equal(keyed_normal(3, [KEYS[5]] * 3, 7, CPU), alone[[5, 5, 5]])


def test_torch_generators_neither_matter_nor_move():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = keyed_normal(0, KEYS, 3, CPU)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(keyed_normal(0, KEYS, 3, CPU), first)


def test_seeds_and_keys_change_it():
    rows = torch.cat([keyed_normal(seed, KEYS, 4, CPU) for seed in (0, 1, -1, 10)])
    assert len(rows.unique(dim=0)) == 4 * len(KEYS)
    # The seed cannot run into the key.
    assert not torch.equal(keyed_normal(1, ["1:a"], 4, CPU), keyed_normal(11, [":a"], 4, CPU))


@pytest.mark.parametrize(("one", "other"), [("7", 7), ("clé", "clé".encode())])
def test_a_key_may_be_text_bytes_or_a_number(one, other):
    assert torch.equal(keyed_normal(0, [one], 4, CPU), keyed_normal(0, [other], 4, CPU))


def test_it_is_standard_normal():
    noise = keyed_normal(0, range(400), 100, CPU)
    assert noise.dtype == torch.float32
    assert abs(float(noise.mean())) < 4 / 200  # 4 standard errors of 40 000 numbers
    assert float(noise.std()) == pytest.approx(1, abs=0.015)
    assert float(torch.corrcoef(noise)[0, 1:].abs().max()) < 0.45  # rows know nothing of each other
    assert keyed_normal(0, [], 100, CPU).shape == (0, 100)


def draw(file: Path) -> None:
    file.write_text(json.dumps(keyed_normal(5, ["a", b"b", 3], 2, CPU).tolist()))


def test_another_process_draws_the_same(tmp_path: Path):
    assert status_of(draw, tmp_path / "drawn") == 0
    assert json.loads((tmp_path / "drawn").read_text()) == keyed_normal(5, ["a", b"b", 3], 2, CPU).tolist()


def test_a_generator_goes_on_where_it_was():
    generator = keyed_generator(0, "row", CPU)
    parts = [torch.randn(3, generator=generator) for _ in range(2)]
    assert torch.equal(torch.cat(parts)[:3], keyed_normal(0, ["row"], 3, CPU)[0])
    assert not torch.equal(*parts)
