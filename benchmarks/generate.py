"""How many clips a second does AudioLDM sound in batches, against diffusers' pipeline one by one?

Both take the same random networks, embeddings, steps and guidance (DDIM, eta 1, one candidate). The pipeline is given
the unconditional embedding, so that it does not read the empty text for every clip. Beside it, for information: ours as
it is, with every sound heard by CLAP, which the pipeline does not do. On a GPU: the architecture of audioldm-s-full-v2,
clips of 10.24 s, in bfloat16 (the pipeline with all of its networks), batches as large as memory allows. On a CPU: a
tiny one, short clips, float32, all clips in one batch. Timed in turns after a first call of each; medians.

    python benchmarks/generate.py [--clips 64] [--steps 50] [--turns 3]
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from gpu_parts.inputs import peak_memory, reset_peak_memory
from gpu_parts.perception import TINY_CLAP, write_clap
from paper_sizes.steps import device, device_name, wait
from torch import Tensor, nn
from torch.nn.functional import normalize

from lightning_ss2a.generation import AudioLDM, AudioLDMOptions
from lightning_ss2a.generation.audioldm.schedulers import SCHEDULE
from lightning_ss2a.generation.protocols import SoundRequest
from lightning_ss2a.perception import CLAPAudioEncoder

GOAL = 5.0
GUIDANCE = 2.5


@dataclass(frozen=True)
class Architecture:
    """Sizes of an AudioLDM, by default those of audioldm-s-full-v2.

    Attributes:
        channels: of the UNet's levels; all but the first attend.
        layers: residual blocks of a level.
        autoencoder: channels of its levels.
        vocoder: channels behind its first convolution.
        bands: of spectrograms.
        clap: what its CLAP has other than HTSAT-tiny and RoBERTa.
        seconds: of a clip.
    """

    channels: tuple[int, ...] = (128, 256, 384, 640)
    layers: int = 2
    autoencoder: tuple[int, ...] = (128, 256, 512)
    vocoder: int = 1024
    bands: int = 64
    clap: dict[str, Any] = field(default_factory=dict)
    seconds: float = 10.24

    @property
    def width(self) -> int:
        """Numbers in an embedding."""
        return int(self.clap.get("projection_dim", 512))


TINY = Architecture((32, 64), 1, (32, 32), 32, 16, TINY_CLAP, 0.32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=None, help="of a call; default: 64 on a GPU, 16 on a CPU")
    parser.add_argument("--steps", type=int, default=None, help="default: 50 on a GPU, 10 on a CPU")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    on_gpu = device().type == "cuda"
    clips, steps = options.clips or (64 if on_gpu else 16), options.steps or (50 if on_gpu else 10)
    with tempfile.TemporaryDirectory() as folder:
        architecture = Architecture() if on_gpu else TINY
        figures = measure(architecture, Path(folder), clips, steps, options.turns)
    print(f"{device_name()}: clips of {architecture.seconds} s, {steps} steps, guidance {GUIDANCE}")
    print(f"in batches of {figures['batch']}: {figures['clips_per_second']:.3g} clips/s")
    print(f"heard by CLAP, too: {figures['heard_clips_per_second']:.3g} clips/s")
    print(f"diffusers' pipeline, one by one: {figures['pipeline_clips_per_second']:.3g} clips/s")
    ratio = figures.pop("ratio")
    result = {"benchmark": "generate", "ratio": round(ratio, 2), "goal": GOAL, "holds": ratio >= GOAL}
    print(json.dumps(result | {name: float(f"{value:.4g}") for name, value in figures.items()}))


class Unheard(AudioLDM):
    """Draws sounds and keeps them, whatever they are."""

    def _heard(self, keys: Sequence[str], waveforms: Sequence[Tensor]) -> Tensor:
        return torch.zeros(len(waveforms), self.width)


@torch.no_grad()
def measure(architecture: Architecture, folder: Path, clips: int, steps: int, turns: int) -> dict[str, Any]:
    """Time both ways, and give clips a second of each, their ratio, the size of a batch and the peak of memory."""
    place = device()
    precision = "bfloat16" if place.type == "cuda" else "float32"
    torch.manual_seed(0)
    source, clap, pipeline = write_audioldm(folder, architecture)
    pipeline = pipeline.to(place, getattr(torch, precision))
    hearing, unheard = (
        kind(
            str(source),
            clap=CLAPAudioEncoder(str(clap), sample_rate=16_000, peak=0.5),
            options=AudioLDMOptions(steps=steps, guidance_scale=GUIDANCE, candidates=1),
            batch_size=None if place.type == "cuda" else clips,
            device=str(place),
            precision=precision,  # type: ignore[arg-type]
        )
        for kind in (AudioLDM, Unheard)
    )
    embeddings = normalize(torch.randn(clips, architecture.width), dim=-1)
    nothing = torch.empty(0, architecture.width), torch.empty(0), ()
    requests = [SoundRequest(str(n), embedding, *nothing, seed=n) for n, embedding in enumerate(embeddings)]
    few = max(1, clips // 16)  # of the slow way

    def one_after_the_other() -> None:
        for number, embedding in enumerate(embeddings[:few]):
            one_by_one(pipeline, embedding, number, steps, architecture.seconds)

    ways: dict[str, tuple[int, Callable[[], object]]] = {
        "": (clips, lambda: unheard.generate(requests, architecture.seconds)),
        "heard_": (clips, lambda: hearing.generate(requests, architecture.seconds)),
        "pipeline_": (few, one_after_the_other),
    }
    for _, action in ways.values():
        action()
    reset_peak_memory()
    ways["heard_"][1]()
    peak = peak_memory()
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(turns):
        for way, (number, action) in ways.items():
            seconds[way].append(_seconds(action) / number)
    paces = {f"{way}clips_per_second": 1 / statistics.median(values) for way, values in seconds.items()}
    batch = min(clips, unheard.batch_size or max(unheard._fitting.values()))
    return {"ratio": paces["clips_per_second"] / paces["pipeline_clips_per_second"], **paces, "batch": batch, **peak}


def one_by_one(pipeline: Any, embedding: Tensor, seed: int, steps: int, seconds: float) -> None:
    """One clip, by diffusers' pipeline."""
    pipeline(
        prompt_embeds=embedding[None],
        negative_prompt_embeds=embedding[None].flip(1),  # another one; which does not matter to speed
        num_inference_steps=steps,
        guidance_scale=GUIDANCE,
        eta=1.0,
        generator=torch.Generator().manual_seed(seed),
        audio_length_in_s=seconds,
    )


def write_audioldm(folder: Path, sizes: Architecture) -> tuple[Path, Path, Any]:
    """Save a random AudioLDM as diffusers does, and its CLAP; give both folders and the pipeline of the networks."""
    import diffusers
    import transformers
    from safetensors.torch import save_file

    diffusers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    attention, levels = [False] + [True] * (len(sizes.channels) - 1), len(sizes.autoencoder)
    with torch.device(device()):  # where random numbers are fast
        unet = diffusers.UNet2DConditionModel(
            in_channels=8,
            out_channels=8,
            down_block_types=["CrossAttnDownBlock2D" if attends else "DownBlock2D" for attends in attention],
            up_block_types=["CrossAttnUpBlock2D" if attends else "UpBlock2D" for attends in attention[::-1]],
            block_out_channels=sizes.channels,
            cross_attention_dim=sizes.channels,
            attention_head_dim=[width // 32 for width in sizes.channels],
            layers_per_block=sizes.layers,
            class_embed_type="simple_projection",
            projection_class_embeddings_input_dim=sizes.width,
            class_embeddings_concat=True,
        )
        vae = diffusers.AutoencoderKL(
            in_channels=1,
            out_channels=1,
            down_block_types=["DownEncoderBlock2D"] * levels,
            up_block_types=["UpDecoderBlock2D"] * levels,
            block_out_channels=sizes.autoencoder,
            layers_per_block=sizes.layers,
            latent_channels=8,
        )
        vocoder = transformers.SpeechT5HifiGan(
            transformers.SpeechT5HifiGanConfig(
                model_in_dim=sizes.bands,
                upsample_initial_channel=sizes.vocoder,
                upsample_rates=[5, 4, 2, 2, 2],
                upsample_kernel_sizes=[16, 16, 8, 4, 4],
                normalize_before=False,
            )
        )
    for name, parameter in vocoder.named_parameters():
        nn.init.normal_(parameter, std=0.1 if name.endswith("bias") else parameter[0].numel() ** -0.5)
    clap, network = write_clap(folder, sizes.clap)
    place = folder / "audioldm"
    scheduler = diffusers.DDIMScheduler(**SCHEDULE)
    for name, part in {"unet": unet, "vae": vae, "vocoder": vocoder, "scheduler": scheduler}.items():
        part.save_pretrained(place / name)
    halves = ("text_model.", "text_projection.")
    text = {name: weight for name, weight in network.state_dict().items() if name.startswith(halves)}
    (place / "text_encoder").mkdir()
    save_file(text, place / "text_encoder" / "model.safetensors")
    (place / "model_index.json").write_text(json.dumps({"_class_name": "AudioLDMPipeline"}))
    reader = transformers.ClapTextModelWithProjection(  # the pipeline wants one, and reads nothing with it here
        transformers.ClapTextConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
    )
    parts = {"vae": vae, "unet": unet, "vocoder": vocoder, "text_encoder": reader, "tokenizer": None}
    pipeline = diffusers.AudioLDMPipeline(**parts, scheduler=scheduler)
    pipeline.set_progress_bar_config(disable=True)
    return place, clap, pipeline


def _seconds(action: Callable[[], object]) -> float:
    wait()
    start = time.perf_counter()
    action()
    wait()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
