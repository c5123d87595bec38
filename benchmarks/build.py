"""How many clips a second does `ss2a shards build` perceive, against a plain loop over files?

Scenes of the lite stack (NanoDet, EfficientNet-lite0, YAMNet) out of clips of 10 s, 640 x 360, H.264 and AAC, which are
made here: pictures of noise that moves, with a sound. The loop does for one clip after the other what everybody writes
first: read the central frame, detect, encode the frame and its crops together, read the sound, encode it, save. It
computes with as many threads as PyTorch likes. The build runs one process of one thread for each core, each with a
worker that decodes (on GPUs, one for each). Both have loaded their models before, and are timed, in turns, from the end
of their first clips to that of their last, so that no clip is decoded before the clock runs but those by which workers
are ahead at any time. The best that decoding beside encoding on C cores can give against a loop on one of them is C;
what is more comes from reading each file once.

    python benchmarks/build.py [--clips 48] [--processes 2]
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import numpy as np

from lightning_ss2a.builders.engine.build import build_media
from lightning_ss2a.builders.engine.module import PerceptionModule, Stack
from lightning_ss2a.builders.engine.options import BuildTrainer
from lightning_ss2a.builders.listing import FolderItems, Listing, list_items
from lightning_ss2a.perception import EfficientNetLite, NanoDet, YAMNet
from lightning_ss2a.perception.detectors.crops import pad_to_square, pick_detections, source_crops
from lightning_ss2a.perception.media.video import PyAVReader

GOAL = 2.0
BATCH = 2
"""Items at once: a few clips are many parts."""
TURNS = 2
SECONDS, FPS, SIZE = 10, 25, (360, 640)
RATE = 44_100


def write_clip(path: Path, seed: int) -> None:
    """A clip of noise that moves over a slower one, with a melody of sines."""
    import av

    generator = np.random.default_rng(seed)
    texture = generator.integers(0, 256, (SIZE[0] // 8, SIZE[1] // 8 + SECONDS * FPS // 2, 3), dtype=np.uint8)
    tones = np.repeat(generator.uniform(200, 4000, SECONDS * 4), RATE // 4)
    sound = (0.5 * np.sin(2 * np.pi * np.cumsum(tones) / RATE)).astype(np.float32)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS, width=SIZE[1], height=SIZE[0], pix_fmt="yuv420p")
        video.options = {"preset": "ultrafast"}
        audio = container.add_stream("aac", rate=RATE, layout="mono")
        for number in range(SECONDS * FPS):
            visible = texture[:, number // 2 : number // 2 + SIZE[1] // 8].repeat(8, axis=0).repeat(8, axis=1)
            frame = av.VideoFrame.from_ndarray(visible, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(video.encode(frame))
        frame = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        container.mux(audio.encode(frame))
        for stream in (video, audio):
            container.mux(stream.encode(None))


def lite_stack() -> Stack:
    return Stack(EfficientNetLite(), YAMNet(), NanoDet())


def warm_stack() -> Stack:
    """A stack that has seen and heard something: models load when they are used."""
    stack, picture = lite_stack(), np.zeros((*SIZE, 3), np.uint8)
    stack.detector.detect([picture])
    stack.image_encoder.encode([pad_to_square(picture)])
    stack.audio_encoder.encode([np.zeros(stack.audio_encoder.sample_rate, np.float32)])
    return stack


def listed(folder: Path) -> Listing:
    return list_items(str(folder), FolderItems())


def loop(folder: Path, output: Path) -> None:
    """One file after the other; prints clips and seconds."""
    stack, reader = warm_stack(), PyAVReader()
    files = [folder / str(item.video) for item in listed(folder).items]
    begin = 0.0
    for number, file in enumerate(files):
        if number == 1:
            begin = time.perf_counter()
        picture = reader.read(file).frames[0]
        found = pick_detections(stack.detector.detect([picture])[0])
        seen = stack.image_encoder.encode([pad_to_square(picture), *source_crops(picture, found)])
        sound = reader.read(file, sample_rate=stack.audio_encoder.sample_rate).waveform
        heard = stack.audio_encoder.encode([sound])
        np.savez(output / f"{file.stem}.npz", audio=heard.numpy(), seen=seen.numpy())
    print(json.dumps({"clips": len(files) - 1, "seconds": time.perf_counter() - begin}))


class Clock(PerceptionModule):
    """Notes when the first part was done and when the last one was."""

    began = ended = seconds = 0.0
    parts = 0

    def predict_step(self, batch, batch_idx):
        part = super().predict_step(batch, batch_idx)
        Clock.ended, Clock.parts = time.time(), Clock.parts + 1
        Clock.began = Clock.began or Clock.ended
        if Clock.parts == 1:
            self.model_seconds = 0.0
        Clock.seconds = self.model_seconds
        return part


def build(folder: Path, output: Path, processes: int) -> None:
    """The build's process; prints parts after its first, when that was done, when the last was, time in models."""
    import lightning_ss2a.builders.engine.build as engine

    engine.PerceptionModule = Clock
    trainer = BuildTrainer(devices=processes, num_workers=1)
    options = {"kind": "scenes", "trainer": trainer, "batch_size": BATCH, "progress": False}
    build_media(listed(folder), folder, str(output), warm_stack(), PyAVReader(), **options)
    print(json.dumps({"parts": Clock.parts - 1, "began": Clock.began, "ended": Clock.ended, "models": Clock.seconds}))


def run(mode: str, folder: Path, output: Path, processes: int) -> dict[str, float]:
    """Runs one of both ways in processes of its own: clips a second, and the part of the time spent in models."""
    command = [sys.executable, __file__, "--mode", mode, "--folder", str(folder), "--output", str(output)]
    command += ["--processes", str(processes)]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    several = {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "NODE_RANK": "0"} if processes > 1 else {}
    started = []
    for rank in range(processes if mode == "build" else 1):
        environment = {**os.environ, **several, **({"LOCAL_RANK": str(rank)} if several and mode == "build" else {})}
        started.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    told = [json.loads(process.communicate()[0].splitlines()[-1]) for process in started]
    if any(process.returncode for process in started):
        raise SystemExit(f"{mode} failed")
    if mode == "loop":
        return {"rate": told[0]["clips"] / told[0]["seconds"]}
    seconds = max(each["ended"] for each in told) - min(each["began"] for each in told)
    models = sum(each["models"] for each in told) / sum(each["ended"] - each["began"] for each in told)
    return {"rate": BATCH * sum(each["parts"] for each in told) / seconds, "models": models}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=48)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--mode", choices=["loop", "build"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.mode == "loop":
        options.output.mkdir()
        return loop(options.folder, options.output)
    if options.mode == "build":
        return build(options.folder, options.output, options.processes)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "clips"
        folder.mkdir()
        for number in range(options.clips):
            write_clip(folder / f"{number:04d}.mp4", number)
        turns = [
            {
                mode: run(mode, folder, Path(temporary) / f"{mode}{turn}", options.processes)
                for mode in ("loop", "build")
            }
            for turn in range(TURNS)
        ]
    best = {mode: max((turn[mode] for turn in turns), key=lambda result: result["rate"]) for mode in ("loop", "build")}
    ratio = best["build"]["rate"] / best["loop"]["rate"]
    print(f"{options.clips} clips of {SECONDS} s, {SIZE[1]} x {SIZE[0]}, scenes of the lite stack")
    print(f"a plain loop: {best['loop']['rate']:.2f} clips/s")
    print(
        f"{options.processes} processes with a worker each: {best['build']['rate']:.2f} clips/s, "
        f"{best['build']['models']:.0%} of the time in models"
    )
    result = {"benchmark": "build", "ratio": round(ratio, 2), "goal": GOAL, "holds": ratio >= GOAL}
    rates = {"clips_per_second": round(best["build"]["rate"], 2), "time_in_models": round(best["build"]["models"], 2)}
    print(json.dumps(result | rates))


if __name__ == "__main__":
    main()
