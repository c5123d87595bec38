"""Draws sounds: noise to latents by guided diffusion, latents to spectrograms to waveforms. Tensors in, tensors out.

Shapes: B sounds, D width of an embedding, C x T x F latents (8 channels, a quarter of the frames, 16 bands).
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_ss2a.generation.audioldm.schedulers import step_options


def draw_generator(seed: int, candidate: int) -> torch.Generator:
    """Makes the random generator of one candidate of an item; on the CPU, so that every device sees the same noise."""
    digest = hashlib.sha256(json.dumps([seed, candidate]).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))


def draw_noise(shape: tuple[int, int, int], generators: Sequence[torch.Generator]) -> Tensor:
    """Draws the noise that the diffusion starts from, each sound's by its own generator: float32 [B, C, T, F]."""
    return torch.cat([torch.randn(1, *shape, generator=generator) for generator in generators])


def denoise(
    unet: Any,
    scheduler: Any,
    embeddings: Tensor,
    unconditional: Tensor,
    noise: Tensor,
    generators: list[torch.Generator],
    *,
    steps: int,
    eta: float,
    guidance_scale: float,
) -> Tensor:
    """Turns noise into latents. With guidance a step is one pass of 2 B rows, the unconditional ones first.

    Args:
        unet: predicts noise, in the precision of its own weights; all else is float32.
        scheduler: a new one.
        embeddings: what is wanted, [B, D], on the device of the network.
        unconditional: the embedding that guidance leads away from, [D].
        noise: [B, C, T, F].
        generators: of each sound's noise at later steps, on the CPU.
        steps: of the scheduler.
        eta: see :class:`~lightning_ss2a.generation.audioldm.options.AudioLDMOptions`, as the next.
        guidance_scale: 1: without guidance.

    Returns:
        float32 [B, C, T, F].
    """
    guided = guidance_scale > 1
    labels = torch.cat([unconditional.expand_as(embeddings), embeddings]) if guided else embeddings
    dtype = unet.dtype
    labels = labels.to(dtype)
    scheduler.set_timesteps(steps)
    latents = noise.to(embeddings.device) * scheduler.init_noise_sigma
    options = step_options(scheduler, eta, generators)
    # The scheduler looks timesteps up on the CPU, so that no step waits for the device.
    for timestep, on_device in zip(scheduler.timesteps, scheduler.timesteps.to(latents.device), strict=True):
        inputs = scheduler.scale_model_input(latents, timestep).to(dtype)
        if guided:
            inputs = torch.cat([inputs, inputs])
        predicted = unet(inputs, on_device, encoder_hidden_states=None, class_labels=labels).sample.float()
        if guided:
            without, wanted = predicted.chunk(2)
            predicted = without + guidance_scale * (wanted - without)
        latents = scheduler.step(predicted, timestep, latents, **options).prev_sample
    return latents


def decode(vae: Any, vocoder: Any, latents: Tensor) -> Tensor:
    """Turns latents into waveforms: float32 [B, C, T, F] to [B, samples], on their device."""
    spectrograms = vae.decode(latents / vae.config.scaling_factor).sample  # [B, 1, frames, bands]
    waveforms: Tensor = vocoder(spectrograms.squeeze(1))
    return waveforms


def within_range(waveform: Tensor) -> tuple[Tensor, float]:
    """Scales a waveform down to 1 where it goes beyond, and gives the peak that it had; never clips."""
    peak = float(waveform.abs().max())
    return (waveform / peak if peak > 1 else waveform), peak
