"""Translates texts to pictures in CLIP's space with the prior of DALL·E 2 (Ramesh et al. 2022), run by diffusers.

Shapes: B texts, S samples of each, T tokens of a text (77), D width of CLIP's space and of its hidden states (768).
"""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from lightning_ss2a.errors import InputError, one_line
from lightning_ss2a.perception.encoders.protocols import TextEncoder, TextFeatures
from lightning_ss2a.perception.encoders.running import Precision, autocast, check_batch_size
from lightning_ss2a.perception.identity import exactly, identify
from lightning_ss2a.perception.packages import media_package
from lightning_ss2a.perception.weights import ModelCard, WeightsStatus, find_weights, obtain_weights

PART = "prior"
MODEL = "diffusers/PriorTransformer"
FILES = ("prior/config.json", "prior/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json")
VERSION = 1
"""Goes up when texts are translated in another way."""


class DiffusionPrior:
    """Samples image embeddings of a text by diffusion, and keeps the one that is closest to the text.

    Noise is seeded by the text itself, so that a text has one translation: in any batch, on any device up to rounding.
    Guidance is that of diffusers' ``KandinskyPriorPipeline``: the unconditional half reads the empty text.

    Args:
        text_encoder: encodes the texts to come; the prior gives the image embeddings of the same CLIP.
        path: a folder laid out as the repository, see ``FILES``; None: the hub's.
        repository: on the hub.
        samples: of each text; the paper's run took 2.
        steps: of the diffusion.
        guidance: how far the text pulls, 1 or more: 1 is without guidance.
        seed: of the noise, with the text.
        batch_size: texts at once; the network sees ``2 * samples`` rows for each.
        device: where it runs.
        precision: of the network's matrix products; the diffusion stays in float32. It is no part of the identity.

    Raises:
        InputError: an option is out of its range; once the weights are used: they are missing, damaged, or of another
            width than the text encoder, as Kandinsky 2.2's are.
    """

    def __init__(
        self,
        text_encoder: TextEncoder,
        path: str | None = None,
        repository: str = "kandinsky-community/kandinsky-2-1-prior",
        samples: int = 2,
        steps: int = 25,
        guidance: float = 4.0,
        seed: int = 0,
        batch_size: int = 32,
        device: str = "cpu",
        precision: Precision = "float32",
    ) -> None:
        for name, value, least in (("samples", samples, 1), ("steps", steps, 2), ("guidance", guidance, 1)):
            if value < least:
                raise InputError(f"{PART}.{name} is {value}, needs at least {least}")
        self.text_encoder = text_encoder
        self.path, self.repository = path, repository
        self.samples, self.steps, self.guidance, self.seed = samples, steps, guidance, seed
        self.batch_size, self.device, self.precision = check_batch_size(batch_size), device, precision

    def describe(self) -> ModelCard:
        """Says what it is and where its files are looked for; loads nothing."""
        status = find_weights(PART, self.path, self.repository, FILES)
        return ModelCard(PART, MODEL, "Apache-2.0", status, "from captions to pictures in CLIP's space")

    def load(self) -> None:
        """See :meth:`~lightning_ss2a.perception.weights.Loadable.load`."""
        _ = self._scheduler, self._unconditional

    @cached_property
    def width(self) -> int:
        """Numbers in an embedding, those of the text encoder."""
        return self.text_encoder.width

    @cached_property
    def identity(self) -> str:
        """Model, weights and sampling, and in brackets the text encoder's identity."""
        sampling = f"steps{self.steps}-guidance{exactly(self.guidance)}-best{self.samples}-seed{self.seed}-v{VERSION}"
        return f"{identify(MODEL, self._weights.sha256() or '', sampling)}({self.text_encoder.identity})"

    @torch.inference_mode()
    def predict(self, features: TextFeatures) -> Tensor:
        """Embeds texts as pictures: unit vectors, float32 [B, D].

        Raises:
            InputError: the text encoder gives no hidden states, or some of another shape than the prior reads.
        """
        conditions = self._conditions(features)
        embeddings = [torch.empty(0, self.width)]
        for start in range(0, len(features.texts), self.batch_size):
            part = slice(start, start + self.batch_size)
            embeddings.append(self._closest(features.texts[part], [condition[part] for condition in conditions]))
        return torch.cat(embeddings)

    def _closest(self, texts: Sequence[str], conditions: Sequence[Tensor]) -> Tensor:
        """Samples embeddings of texts, and keeps of each the closest to its text: [B, D]."""
        generators = [_generator(self.seed, text, sample) for text in texts for sample in range(self.samples)]
        repeated = [condition.repeat_interleave(self.samples, dim=0) for condition in conditions]
        samples = self._sample(repeated, generators).unflatten(0, (len(texts), self.samples))  # [B, S, D]
        best = cosine_similarity(samples, conditions[0][:, None], dim=-1).argmax(dim=1)  # [B]
        return normalize(samples[torch.arange(len(texts), device=best.device), best], dim=-1).float().cpu()

    def _sample(self, conditions: Sequence[Tensor], generators: list[torch.Generator]) -> Tensor:
        """Denoises one embedding for each row of the conditions: [rows, D]."""
        scheduler = self._scheduler
        scheduler.set_timesteps(self.steps)
        guided = [
            torch.cat([empty.expand_as(given), given])
            for empty, given in zip(self._unconditional, conditions, strict=True)
        ]
        noise = torch.cat([torch.randn(1, self.width, generator=generator) for generator in generators])
        latents = noise.to(self.device) * scheduler.init_noise_sigma
        for step, following in zip(scheduler.timesteps, [*scheduler.timesteps[1:], None], strict=True):
            predicted = self._predicted(latents, step, *guided)
            latents = scheduler.step(
                predicted, timestep=step, sample=latents, generator=generators, prev_timestep=following
            ).prev_sample
        return self._network.post_process_latents(latents)

    def _predicted(self, latents: Tensor, step: Tensor, embeddings: Tensor, hidden: Tensor, mask: Tensor) -> Tensor:
        """Predicts the clean embeddings with guidance, from [rows, D] and conditions of [2 rows, ...]."""
        with autocast(self.device, self.precision):
            both = self._network(
                torch.cat([latents, latents]),
                timestep=step,
                proj_embedding=embeddings,
                encoder_hidden_states=hidden,
                attention_mask=mask,
            ).predicted_image_embedding
        unconditional, conditional = both.float().chunk(2)
        return unconditional + self.guidance * (conditional - unconditional)

    def _conditions(self, features: TextFeatures) -> list[Tensor]:
        """Gives what the network reads of texts: embeddings [B, D], hidden states [B, T, D], mask [B, T]."""
        if features.hidden is None or features.mask is None:
            raise InputError(f"{PART}: {self.text_encoder.identity} gives no hidden states, which it reads")
        wanted = (self._network.config.num_embeddings, self.width)
        if tuple(features.hidden.shape[1:]) != wanted:
            raise InputError(
                f"{PART}: {self.text_encoder.identity} gives hidden states of {list(features.hidden.shape[1:])}, "
                f"it reads {list(wanted)}"
            )
        return [part.to(self.device) for part in (features.embeddings, features.hidden, features.mask)]

    @cached_property
    def _unconditional(self) -> list[Tensor]:
        return self._conditions(self.text_encoder.features([""]))

    @cached_property
    def _weights(self) -> WeightsStatus:
        return obtain_weights(PART, self.path, self.repository, FILES)

    @cached_property
    def _scheduler(self) -> Any:
        return load_scheduler(self._weights.location / "scheduler")

    @cached_property
    def _network(self) -> Any:
        check_width(self._weights.location / FILES[0], self.width)
        network = load_network(self._weights.location / "prior")
        if not network.clip_std.any():
            raise InputError(
                f"{self._weights.location / FILES[1]}: clip_std is zero, as in a prior that was never trained"
            )
        return network.eval().to(self.device)


def check_width(config: Path, width: int) -> None:
    """Checks that a prior goes with a text encoder, before its gigabytes are read.

    Args:
        config: the prior's ``config.json``.
        width: of the text encoder.

    Raises:
        InputError: it is not JSON, or the prior is of another width.
    """
    try:
        found = json.loads(config.read_text()).get("embedding_dim")
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{config}: cannot be read ({one_line(error)})") from error
    if found != width:
        raise InputError(
            f"{config}: embedding_dim is {found}, the text encoder's width {width}; "
            "take Kandinsky 2.1's prior with CLIP ViT-L/14 (768); that of Kandinsky 2.2 (1280) goes with another CLIP"
        )


def load_network(folder: Path) -> Any:
    """Loads a ``PriorTransformer`` from its folder.

    Raises:
        InputError: the files are damaged, or hold fewer or other weights than the network has.
    """
    try:
        network, info = media_package("diffusers").PriorTransformer.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False, output_loading_info=True
        )
    except Exception as error:  # diffusers passes on what safetensors, json and torch raise
        raise InputError(f"{folder}: cannot be loaded as a PriorTransformer ({one_line(error)})") from error
    if info["missing_keys"]:
        raise InputError(f"{folder}: lacks weights of a PriorTransformer: {', '.join(sorted(info['missing_keys']))}")
    return network


def load_scheduler(folder: Path) -> Any:
    """Loads an ``UnCLIPScheduler`` from its folder.

    Raises:
        InputError: its file is damaged, or it is not one for predicted embeddings, as a prior's is.
    """
    try:
        scheduler = media_package("diffusers").UnCLIPScheduler.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # diffusers raises OSError, ValueError, TypeError
        raise InputError(f"{folder}: cannot be loaded as an UnCLIPScheduler ({one_line(error)})") from error
    predicts = scheduler.config.prediction_type
    if predicts != "sample":
        raise InputError(f"{folder}: prediction_type is {predicts!r}, a prior's is 'sample'")
    return scheduler


def _generator(seed: int, text: str, sample: int) -> torch.Generator:
    """Makes the random generator of one sample of a text; on the CPU, so that every device sees the same noise."""
    digest = hashlib.sha256(json.dumps([seed, sample, text]).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))
