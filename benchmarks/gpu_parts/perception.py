"""Encoders of pictures and sounds, true architectures at random weights, against bare passes of the same networks.

``encode`` goes from decoded media in memory to embeddings in memory, with preparation in the one process that calls it;
``encode_prepared`` is given what other processes have prepared. The bare loop passes one batch that is on the
device already through the library's own network again and again.
"""

import json
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from paper_sizes.steps import device, wait
from torch import Tensor, nn

from gpu_parts.inputs import Inputs, peak_memory, reset_peak_memory
from gpu_parts.process import Report
from lightning_ss2a.perception.encoders.clap import CLAPAudioEncoder
from lightning_ss2a.perception.encoders.clap_sounds import SAMPLE_RATE, SECONDS
from lightning_ss2a.perception.encoders.clap_towers import FOLDER_FILES
from lightning_ss2a.perception.encoders.clip import ARCHITECTURE, CONFIG_FILE, WEIGHTS_FILE, CLIPImageEncoder
from lightning_ss2a.perception.encoders.running import Precision

GOAL = 0.8
PACKAGES = {"clip": ("open_clip", "PIL", "safetensors"), "clap": ("transformers", "safetensors")}
PRECISIONS: dict[str, Precision] = {"float32": "float32", "bf16": "bfloat16"}

TINY = "ViT-tiny-of-benchmarks-quickgelu"
TINY_CLIP = {
    "embed_dim": 24,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 256, "width": 32, "heads": 2, "layers": 1},
}
TINY_CLAP = {
    "text_config": {"vocab_size": 256, "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1},
    "audio_config": {
        "patch_embeds_hidden_size": 16,
        "hidden_size": 64,
        "depths": [1, 1, 1],
        "num_attention_heads": [1, 2, 4],
    },
    "projection_dim": 24,
}


@torch.no_grad()
def run(inputs: Inputs, report: Report) -> None:
    """Measure what the packages there allow, pictures first."""
    torch.manual_seed(0)
    for name, measure in {"clip": measure_clip, "clap": measure_clap}.items():
        missing = [package for package in PACKAGES[name] if find_spec(package) is None]
        if missing:
            report(**{f"{name}_left_out": f"not installed: {', '.join(missing)}"})
        else:
            measure(inputs, report)
    report(goal=GOAL)


def measure_clip(inputs: Inputs, report: Report) -> None:
    """Count pictures a second: frames as encoders get them, and prepared ones as worker processes hand them over."""
    sizes, start = inputs.sizes, time.perf_counter()
    architecture = TINY if inputs.smoke else ARCHITECTURE
    folder, network = write_clip(Path(inputs.folder), architecture)
    options = {"path": str(folder), "architecture": architecture, "device": str(device())}
    encoders = {
        name: CLIPImageEncoder(**options, batch_size=sizes.encoded_batch, precision=precision)
        for name, precision in PRECISIONS.items()
    }
    generator = np.random.default_rng(0)
    frames = [generator.integers(0, 256, (*sizes.frame, 3), dtype=np.uint8) for _ in range(sizes.frames)]
    first = encoders["float32"]
    pixels = torch.stack([first.prepare(frame) for frame in frames])  # loads the transform, too
    prepare = _seconds(lambda: [first.prepare(frame) for frame in frames])
    report(clip_prepared_images_per_second_and_process=len(frames) / prepare)
    for name, encoder in encoders.items():
        report(**{f"clip_{name}_{key}": value for key, value in _peak(lambda e=encoder: e.encode(frames)).items()})
    report(clip_start_seconds=time.perf_counter() - start)

    batch = pixels[: sizes.encoded_batch].to(device())
    network.to(device())
    for name, encoder in encoders.items():
        ways = {
            "bare": _bare(name, lambda: network.encode_image(batch), len(frames) / len(batch)),
            "encode": lambda e=encoder: e.encode(frames),
            "encode_prepared": lambda e=encoder: e.encode_prepared(pixels),
        }
        compare(f"clip_{name}", "images_per_second", len(frames), ways, sizes.turns, report)


def measure_clap(inputs: Inputs, report: Report) -> None:
    """Count seconds of sound a second, sounds of 10 s."""
    sizes, start = inputs.sizes, time.perf_counter()
    folder, network = write_clap(Path(inputs.folder), TINY_CLAP if inputs.smoke else {})
    encoders = {
        name: CLAPAudioEncoder(str(folder), device=str(device()), batch_size=sizes.encoded_batch, precision=precision)
        for name, precision in PRECISIONS.items()
    }
    generator = np.random.default_rng(0)
    sounds = [generator.uniform(-0.5, 0.5, SECONDS * SAMPLE_RATE).astype(np.float32) for _ in range(sizes.sounds)]
    first = encoders["float32"]
    prepare = _seconds(lambda: [first.prepare(sound) for sound in sounds])
    report(clap_prepared_seconds_per_second_and_process=len(sounds) * SECONDS / prepare)
    for name, encoder in encoders.items():
        report(**{f"clap_{name}_{key}": value for key, value in _peak(lambda e=encoder: e.encode(sounds)).items()})
    report(clap_start_seconds=time.perf_counter() - start)

    prepared = [first.prepare(sound) for sound in sounds]
    features = torch.stack(prepared[: sizes.encoded_batch]).to(device())
    network.to(device())
    for name, encoder in encoders.items():
        ways = {
            "bare": _bare(name, lambda: network.get_audio_features(features), len(sounds) / len(features)),
            "encode": lambda e=encoder: e.encode(sounds),
            "encode_prepared": lambda e=encoder: e.encode_prepared(prepared),
        }
        compare(f"clap_{name}", "seconds_per_second", len(sounds) * SECONDS, ways, sizes.turns, report)


def compare(
    name: str, unit: str, amount: float, ways: dict[str, Callable[[], object]], turns: int, report: Report
) -> None:
    """Time ways to do the same, in turns, and report how fast each is and what share of the bare loop's pace it has.

    Args:
        name: of the figures.
        unit: what is counted.
        amount: how much of it a call does.
        ways: by name; one is ``bare``.
        turns: calls of each, after one that does not count.
        report: takes the figures.
    """
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(turns + 1):
        for way, action in ways.items():
            taken = _seconds(action)
            if turn:
                seconds[way].append(taken)
    paces = {way: amount / statistics.median(values) for way, values in seconds.items()}
    report(**{f"{name}_{way}_{unit}": pace for way, pace in paces.items()})
    report(**{f"{name}_{way}_ratio": pace / paces["bare"] for way, pace in paces.items() if way != "bare"})


def write_clip(folder: Path, architecture: str) -> tuple[Path, Any]:
    """Save a random CLIP as the hub has it, and give its folder and the network."""
    import open_clip
    from safetensors.torch import save_file

    place = folder / "clip"
    place.mkdir()
    if architecture == TINY:
        path = folder / f"{TINY}.json"
        path.write_text(json.dumps(TINY_CLIP))
        open_clip.add_model_config(path)
    config = open_clip.get_model_config(architecture)
    network = _random(lambda: open_clip.CLIP(**config))
    save_file(network.state_dict(), place / WEIGHTS_FILE)
    (place / CONFIG_FILE).write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    return place, network


def write_clap(folder: Path, sizes: dict[str, Any]) -> tuple[Path, Any]:
    """Save a random CLAP as transformers does, by default HTSAT-tiny and RoBERTa; give its folder and the network."""
    import transformers
    from safetensors.torch import save_file

    network = _random(lambda: transformers.ClapModel(transformers.ClapConfig(**sizes)))
    for parameter in network.parameters():
        if parameter.ndim > 1:  # so large that different sounds have different embeddings: the encoder checks that
            nn.init.normal_(parameter, std=0.1)
    decibels = network.audio_model.audio_encoder.batch_norm
    decibels.running_mean.fill_(-40.0)
    decibels.running_var.fill_(400.0)
    place = folder / "clap"
    network.config.save_pretrained(place)
    save_file(network.state_dict(), place / FOLDER_FILES[1])
    return place, network


def _random(make: Callable[[], nn.Module]) -> Any:
    """A network whose weights were drawn where that is fast, on the CPU."""
    with torch.device(device()):
        network = make()
    return network.cpu().eval().requires_grad_(False)


def _bare(precision: str, forward: Callable[[], Tensor], times: float) -> Callable[[], None]:
    """Passes of a batch on the device, as many as the media fill."""

    def loop() -> None:
        mixed = torch.autocast(device().type, torch.bfloat16) if precision == "bf16" else nullcontext()
        with torch.inference_mode(), mixed:
            for _ in range(round(times)):
                forward()

    return loop


def _peak(encode: Callable[[], object]) -> dict[str, Any]:
    reset_peak_memory()
    encode()
    return peak_memory()


def _seconds(action: Callable[[], object]) -> float:
    wait()
    start = time.perf_counter()
    action()
    wait()
    return time.perf_counter() - start
