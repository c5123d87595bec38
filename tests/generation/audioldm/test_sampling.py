"""The way from noise to sounds, with networks that need no weights."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_ss2a.generation.audioldm.batching import AT_ONCE_ON_CPU, MOST_AT_ONCE, fitting_batch, in_batches
from lightning_ss2a.generation.audioldm.sampling import decode, denoise, draw_generator, draw_noise, within_range
from lightning_ss2a.generation.audioldm.schedulers import SCHEDULE, SCHEDULERS, make_scheduler

SHAPE = (2, 3, 4)
EMPTY = torch.tensor([0.5, -1.0])


class Unet:
    """Predicts noise that depends on all that it is given, and counts its passes."""

    dtype = torch.float32

    def __init__(self) -> None:
        self.rows: list[int] = []

    def __call__(self, x: Tensor, timestep: Tensor, encoder_hidden_states: None, class_labels: Tensor) -> Any:
        self.rows.append(len(x))
        pull = class_labels.sum(dim=1)[:, None, None, None]
        return SimpleNamespace(sample=torch.tanh(x + pull) * (1 + timestep / 2000))


def sample(scheduler: str, embeddings: Tensor, seeds: list[int], unet: Any = None, **options: Any) -> Tensor:
    generators = [draw_generator(seed, 0) for seed in seeds]
    noise = draw_noise(SHAPE, generators)
    how = {"steps": 6, "eta": float(scheduler == "ddim"), "guidance_scale": 2.5, **options}
    return denoise(unet or Unet(), make_scheduler(scheduler, SCHEDULE), embeddings, EMPTY, noise, generators, **how)


@pytest.mark.parametrize("scheduler", list(SCHEDULERS))
@pytest.mark.parametrize("steps", [1, 6])
def test_a_latent_depends_neither_on_the_batch_nor_on_its_place(scheduler: str, steps: int):
    embeddings = torch.tensor([[0.1, 0.2], [0.5, -0.3], [1.0, 0.4]])
    together = sample(scheduler, embeddings, [7, 8, 9], steps=steps)
    backwards = sample(scheduler, embeddings.flip(0), [9, 8, 7], steps=steps).flip(0)
    alone = torch.cat([sample(scheduler, embeddings[n : n + 1], [7 + n], steps=steps) for n in range(3)])
    torch.testing.assert_close(backwards, together, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(alone, together, rtol=1e-5, atol=1e-5)
    assert together.isfinite().all()
    other = sample(scheduler, embeddings, [7, 8, 10], steps=steps)
    assert other[:2].allclose(together[:2], rtol=1e-5, atol=1e-5)
    assert (other[2] - together[2]).abs().max() > 0.01


def test_ddim_is_the_formula_of_its_paper():
    """Song et al. 2021, Eq. 12 and 16, with guidance as Ho and Salimans 2022 have it; two steps by hand."""
    alphas = (1 - torch.linspace(0.0015**0.5, 0.0195**0.5, 1000, dtype=torch.float64) ** 2).cumprod(0)
    embedding = torch.tensor([[0.3, 0.9]])
    for eta in (0.0, 0.6):
        generator = draw_generator(3, 0)
        x = draw_noise(SHAPE, [generator]).double()
        for timestep, before in ((501, 1), (1, 0)):
            each = [
                Unet()(x, torch.tensor(timestep), None, label[None].double()).sample for label in (EMPTY, embedding[0])
            ]
            noise = each[0] + 2.5 * (each[1] - each[0])
            now, then = alphas[timestep], alphas[before]
            sigma = eta * ((1 - then) / (1 - now)).sqrt() * (1 - now / then).sqrt()
            clean = (x - (1 - now).sqrt() * noise) / now.sqrt()
            x = then.sqrt() * clean + (1 - then - sigma**2).sqrt() * noise
            if eta:
                x = x + sigma * torch.randn(1, *SHAPE, generator=generator)
        found = sample("ddim", embedding, [3], steps=2, eta=eta)
        torch.testing.assert_close(found, x.float(), rtol=1e-4, atol=1e-4)


def test_guidance_is_one_pass_a_step_and_none_where_it_is_one():
    guided, plain = Unet(), Unet()
    sample("ddim", torch.ones(3, 2), [1, 2, 3], guided, steps=4)
    sample("ddim", torch.ones(3, 2), [1, 2, 3], plain, steps=4, guidance_scale=1.0)
    assert (guided.rows, plain.rows) == ([6] * 4, [3] * 4)


def test_noise_is_drawn_by_seed_and_candidate():
    drawn = {(seed, n): draw_noise(SHAPE, [draw_generator(seed, n)]) for seed in (0, 1) for n in (0, 1)}
    assert drawn[0, 1].equal(draw_noise(SHAPE, [draw_generator(0, 1)]))
    assert len({float(noise.sum()) for noise in drawn.values()}) == 4


def test_latents_are_divided_by_the_scale_that_training_multiplied_by():
    config = SimpleNamespace(scaling_factor=0.5)
    vae = SimpleNamespace(decode=lambda z: SimpleNamespace(sample=z.sum(dim=1, keepdim=True)), config=config)
    latents = torch.rand(2, 3, 4, 5)
    torch.testing.assert_close(decode(vae, lambda x: x, latents), 2 * latents.sum(dim=1))


@pytest.mark.parametrize(("loudest", "expected"), [(0.5, 0.5), (1.0, 1.0), (4.0, 1.0)])
def test_a_waveform_is_scaled_never_clipped(loudest: float, expected: float):
    waveform = torch.tensor([0.25, -1.0, 0.5]) * loudest
    found, peak = within_range(waveform)
    assert peak == loudest
    torch.testing.assert_close(found, waveform * expected / loudest)


def test_batches_are_halved_until_they_fit():
    sizes = []

    def run(batch: list[int]) -> list[int]:
        sizes.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [10 * item for item in batch]

    assert in_batches(run, list(range(9)), 8, "generator") == ([10 * item for item in range(9)], 2)
    assert sizes == [8, 4, 2, 2, 2, 2, 1]
    assert in_batches(run, [], 8, "generator") == ([], 8)


def test_another_error_is_not_taken_for_memory():
    def run(batch: list[int]) -> list[int]:
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        in_batches(run, [1, 2], 2, "generator")


def test_on_a_cpu_nothing_is_measured():
    assert fitting_batch(lambda: pytest.fail("ran"), torch.device("cpu")) == AT_ONCE_ON_CPU


def test_on_a_gpu_a_batch_is_what_fits_by_what_one_takes(monkeypatch: pytest.MonkeyPatch):
    calls: list[str] = []
    for name, value in {
        "empty_cache": None,
        "reset_peak_memory_stats": None,
        "memory_allocated": 100,
        "max_memory_allocated": 350,
        "mem_get_info": (1000, 2000),
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, name=name, value=value: (calls.append(name), value)[1])
    assert fitting_batch(lambda: calls.append("run"), torch.device("cuda")) == 3  # 80 % of 1000, 250 each
    assert [call for call in calls if call in ("run", "reset_peak_memory_stats", "max_memory_allocated")] == [
        "run",
        "reset_peak_memory_stats",
        "run",
        "max_memory_allocated",
    ]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (10**9, 10**9))
    assert fitting_batch(lambda: None, torch.device("cuda")) == MOST_AT_ONCE
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (10, 10**9))
    assert fitting_batch(lambda: None, torch.device("cuda")) == 1
