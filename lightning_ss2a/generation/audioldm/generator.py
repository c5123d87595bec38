"""``AudioLDM``: sounds CLAP embeddings by latent diffusion (Liu et al. 2023)."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize

from lightning_ss2a.errors import InputError
from lightning_ss2a.generation.audioldm.batching import fitting_batch, in_batches
from lightning_ss2a.generation.audioldm.checkpoint import (
    FILES,
    SAMPLE_RATE,
    Networks,
    check_same_text_half,
    load_networks,
)
from lightning_ss2a.generation.audioldm.options import AudioLDMOptions
from lightning_ss2a.generation.audioldm.sampling import decode, denoise, draw_generator, draw_noise, within_range
from lightning_ss2a.generation.audioldm.schedulers import make_scheduler
from lightning_ss2a.generation.protocols import Rendering, SoundRequest
from lightning_ss2a.options import OptionCheck
from lightning_ss2a.perception.encoders.clap import CLAPAudioEncoder
from lightning_ss2a.perception.encoders.running import LoadedWhenUsed, Precision, check_running, usable_device
from lightning_ss2a.perception.identity import identify
from lightning_ss2a.perception.media.waveform import at_rate
from lightning_ss2a.perception.weights import ModelCard, WeightsStatus, files_at, find_weights, joined, obtain_weights

PART = "generator"
MODEL = "diffusers/AudioLDM"
REPOSITORY = "cvssp/audioldm-s-full-v2"
SECONDS = 10.24
"""What the paper calls 10 s: 163,840 samples, as many as AudioLDM was trained on."""
LEAST_SECONDS = 0.1
HEARD_PEAK = 0.5
"""To which AudioLDM's own CLAP brings a sound before it hears it."""
EMPTY_TEXT = (0, 2)
"""RoBERTa's tokens of the empty text: its start and its end."""


class Draw(NamedTuple):
    """One candidate of one item."""

    embedding: Tensor
    seed: int
    candidate: int


class AudioLDM(LoadedWhenUsed):
    """Sounds embeddings of the CLAP that an AudioLDM was trained with, 512 wide, at 16 kHz.

    The parts of a checkpoint are composed here, since diffusers' pipeline is deprecated; with the same noise they give
    what it gives. Guidance's unconditional half, the embedding of the empty text, is computed once. Of each item
    several candidates are drawn, each with a random generator of its own on the CPU, so that a sound depends on its
    embedding, seed, length and the options alone, up to rounding: neither on the batch nor on the device.

    Which CLAP's embeddings it understands decides the checkpoint. An original checkpoint holds that CLAP, and
    ``audio_encoder`` is the identity of the :class:`~lightning_ss2a.perception.CLAPAudioEncoder` made of the same file
    as in ``configs/perception/paper.yaml``: 16,000 Hz, peak 0.5. diffusers' folder holds its text half only: then
    ``clap`` must name an encoder, and is refused unless its text half has the same weights.

    The two may not sound alike. The authors' UNet has 32 channels a head (64 in AudioLDM-L), and so has an original
    checkpoint here. What diffusers' script converts has 8 heads in every level, with the same weights: a folder is run
    as its own ``unet/config.json`` says, as diffusers runs it. Where both are at hand, take the original.

    Args:
        path: AudioLDM's original ``.ckpt``, or diffusers' folder; None: the hub's folder.
        repository: on the hub, with such a folder.
        clap: the encoder that made the embeddings, and that ranks candidates; None: that of the original checkpoint. It
            runs where the generator does.
        options: how sounds are drawn.
        batch_size: sounds at once, each candidate counted, of two rows of the UNet with guidance; None: on a GPU as
            many as fit into 80 % of the free memory, by what one step and one decoding of a single sound take at most,
            but 64 at most; on a CPU 4. Where memory runs out all the same, it is halved.
        device: where it runs, such as ``cuda:0``.
        precision: of the UNet, in whose passes the time goes; the rest is float32. It is no part of the identity.
        compile: compile the UNet, which takes a minute or more at the first sounds.

    Raises:
        InputError: an option is out of its range; once it is used: files are missing, damaged or not what they should
            be, or ``clap`` is another one.
    """

    sample_rate = SAMPLE_RATE
    is_retrieval = False

    def __init__(
        self,
        path: str | None = None,
        repository: str = REPOSITORY,
        clap: CLAPAudioEncoder | None = None,
        options: AudioLDMOptions = AudioLDMOptions(),  # noqa: B008  # frozen
        batch_size: int | None = None,
        device: str = "cpu",
        precision: Precision = "float32",
        compile: bool = False,
    ) -> None:
        check_running(1 if batch_size is None else batch_size, precision)
        self.path, self.repository, self.clap, self.options = path, repository, clap, options
        self.batch_size, self.device, self.precision, self.compile = batch_size, device, precision, compile
        self._fitting: dict[int, int] = {}

    def describe(self) -> ModelCard:
        """Says what it is and where its files are looked for; loads and downloads nothing."""
        found, fault = find_weights(PART, self.path, self.repository, self._files), ""
        if self.clap is not None:
            card = self.clap.describe()
            found, fault = joined(found, card.weights), card.fault
        note = f"sounds at 16 kHz, best those of {SECONDS} s; speech without words"
        return ModelCard(PART, MODEL, "CC-BY-NC-SA-4.0", found, note, fault)

    def load(self) -> None:
        """See :meth:`~lightning_ss2a.perception.weights.Loadable.load`."""
        _ = self._unet, self._empty_text
        self._hearing.load()

    @cached_property
    def identity(self) -> str:
        """Model, weights and options."""
        return identify(MODEL, self._weights.sha256() or "", self.options.summary)

    @cached_property
    def audio_encoder(self) -> str:
        """Identity of the CLAP whose embeddings it understands.

        Raises:
            InputError: diffusers' folder, and no ``clap``.
        """
        return self._hearing.identity

    @cached_property
    def width(self) -> int:
        """Numbers in an embedding."""
        return self._networks.width

    def generate(self, requests: Sequence[SoundRequest], seconds: float = SECONDS) -> list[Rendering]:
        """Sounds requests by their mixed embeddings.

        Args:
            requests: what is wanted; sources, weights and labels are not read.
            seconds: length of each sound, at least 0.1; the best are those as long as in training, 10.24 s.

        Returns:
            A rendering each. ``score`` is the cosine of the sound's CLAP embedding to the wanted one. ``details``:
            ``generator``, ``seed``, ``seconds``, ``precision``, ``scores`` of all candidates by what they are ranked
            by, ``candidate``: the number of the chosen one, and ``scaled_from_peak`` where it went beyond 1.

        Raises:
            InputError: an embedding is not finite or of another width, or a sound is not finite; names the item.
        """
        OptionCheck().at_least(LEAST_SECONDS, seconds=seconds)
        wanted = self._checked(requests)
        if not requests:
            return []
        count = self.options.candidates
        draws = [
            Draw(embedding, request.seed, candidate)
            for request, embedding in zip(requests, wanted, strict=True)
            for candidate in range(count)
        ]
        samples = round(seconds * SAMPLE_RATE)
        size = self.batch_size or self._fitting_batch(samples)
        waveforms, fitted = in_batches(lambda batch: self._sound(batch, samples), draws, size, PART)
        if fitted < size:
            self.batch_size = fitted  # later calls need not find out again
        embeddings = self._heard([request.key for request in requests for _ in range(count)], waveforms)
        return [
            self._best(request, waveforms[start : start + count], embeddings[start : start + count], seconds)
            for start, request in zip(range(0, len(draws), count), requests, strict=True)
        ]

    def _best(self, request: SoundRequest, candidates: Sequence[Tensor], heard: Tensor, seconds: float) -> Rendering:
        """Keeps the best of an item's candidates, whose embeddings are [candidates, D]."""
        similarity = cosine_similarity(heard, request.embedding[None].float().cpu(), dim=-1)
        scores = similarity if self.options.ranking == "wanted" else heard @ self._empty_text.cpu()
        best = int(scores.argmax())
        waveform, peak = within_range(candidates[best])
        details = {
            "generator": self.identity,
            "precision": self.precision,
            "seed": request.seed,
            "seconds": seconds,
            "candidate": best,
            "scores": scores.tolist(),
            **({"scaled_from_peak": peak} if peak > 1 else {}),
        }
        return Rendering(waveform.numpy(), float(similarity[best]), details)

    def _checked(self, requests: Sequence[SoundRequest]) -> list[Tensor]:
        for request in requests:
            if tuple(request.embedding.shape) != (self.width,):
                shape = list(request.embedding.shape)
                raise InputError(f"{request.key}: its embedding has shape {shape}, AudioLDM sounds [{self.width}]")
            if not request.embedding.isfinite().all():
                raise InputError(f"{request.key}: its embedding is not finite")
        return [request.embedding.float() for request in requests]

    def _heard(self, keys: Sequence[str], waveforms: Sequence[Tensor]) -> Tensor:
        """Embeds sounds as CLAP hears them: unit vectors, [sounds, D]."""
        for key, waveform in zip(keys, waveforms, strict=True):
            if not waveform.isfinite().all():
                advice = "; take bfloat16 or float32" if self.precision == "float16" else ""
                raise InputError(f"{key}: its sound is not finite in precision {self.precision}{advice}")
        rate = self._hearing.sample_rate
        return self._hearing.encode([at_rate(waveform.numpy(), SAMPLE_RATE, rate) for waveform in waveforms])

    @torch.inference_mode()
    def _sound(self, draws: Sequence[Draw], samples: int, steps: int | None = None) -> list[Tensor]:
        """Draws sounds in one batch: waveforms on the CPU, float32 [samples] each."""
        networks, options = self._networks, self.options
        generators = [draw_generator(draw.seed, draw.candidate) for draw in draws]
        latents = denoise(
            self._unet if steps is None else networks.unet,
            make_scheduler(options.scheduler if steps is None else "ddim", networks.schedule),
            torch.stack([draw.embedding for draw in draws]).to(self.device),
            self._empty_text,
            draw_noise(networks.latent_shape(samples), generators),
            generators,
            steps=steps or options.steps,
            eta=options.eta if steps is None else 0.0,
            guidance_scale=options.guidance_scale,
        )
        waveforms = decode(networks.vae, networks.vocoder, latents)[:, :samples]
        return list(waveforms.float().cpu())

    def _fitting_batch(self, samples: int) -> int:
        if samples not in self._fitting:
            one = Draw(torch.zeros(self.width), 0, 0)
            device = usable_device(self.device)
            self._fitting[samples] = fitting_batch(lambda: self._sound([one], samples, steps=1), device)
        return self._fitting[samples]

    @property
    def _files(self) -> tuple[str, ...]:
        return files_at(self.path, FILES)

    @cached_property
    def _weights(self) -> WeightsStatus:
        return obtain_weights(PART, self.path, self.repository, self._files)

    @cached_property
    def _hearing(self) -> CLAPAudioEncoder:
        """The CLAP on both sides: it made the wanted embeddings, and hears what is made of them."""
        if self.clap is not None:
            self.clap.device = self.device
            return self.clap
        if len(self._files) > 1:
            raise InputError(
                f"{PART}: {self._weights.where} holds only the text half of its CLAP; {PART}.clap must name the "
                f"encoder of the embeddings, or {PART}.path AudioLDM's original .ckpt"
            )
        return CLAPAudioEncoder(
            str(self._weights.location), sample_rate=SAMPLE_RATE, peak=HEARD_PEAK, device=self.device
        )

    @cached_property
    def _networks(self) -> Networks:
        device = usable_device(self.device)
        hearing = self._hearing
        networks = load_networks(self._weights.location, PART)
        if self.clap is not None:
            check_same_text_half(self._weights.location, hearing.towers, PART)
        if networks.width != hearing.width:
            raise InputError(
                f"{PART}: {self._weights.where}: sounds embeddings of width {networks.width}, "
                f"its CLAP {hearing.identity} has {hearing.width}"
            )
        nn.Module.to(networks.unet, device, getattr(torch, self.precision))  # diffusers' own warns of nothing
        networks.vae.to(device)
        networks.vocoder.to(device)
        return networks

    @cached_property
    def _unet(self) -> Any:
        return torch.compile(self._networks.unet) if self.compile else self._networks.unet

    @cached_property
    @torch.inference_mode()
    def _empty_text(self) -> Tensor:
        """Embedding of the empty text, a unit vector [D]."""
        tokens = torch.tensor([EMPTY_TEXT], device=self.device)
        embeddings, _ = self._hearing.towers.read(tokens, torch.ones_like(tokens))
        return normalize(embeddings[0].float(), dim=-1)
