"""``ss2a evaluate``: the metrics of folders of sounds."""

import os
import shlex
import sys

from rich.console import Console

from lightning_ss2a.data.tools.inspect import TABLE_WIDTH
from lightning_ss2a.evaluation.av_benchmark.export import write_av_benchmark
from lightning_ss2a.evaluation.evaluate import evaluate_folders
from lightning_ss2a.evaluation.folders import list_items, open_folders
from lightning_ss2a.evaluation.hearing import Listener
from lightning_ss2a.evaluation.measures import Measure
from lightning_ss2a.evaluation.options import HearingTrainer
from lightning_ss2a.evaluation.planning import Protocol, plan_hearing
from lightning_ss2a.evaluation.protocols import SyncEstimator, WaveformEncoder
from lightning_ss2a.evaluation.reporting import print_report, reproducibility, write_report
from lightning_ss2a.evaluation.scoring import Bootstrap
from lightning_ss2a.evaluation.sounds import describe_rule
from lightning_ss2a.files import to_path
from lightning_ss2a.options import OptionCheck, plain
from lightning_ss2a.perception.detectors.crops import CropShape
from lightning_ss2a.perception.embedding_cache import EmbeddingCache
from lightning_ss2a.perception.encoders.protocols import ImageEncoder, TextEncoder

CACHE = ".cache/heard"


def evaluate(
    generated: list[str],
    reference: str | None = None,
    images: str | None = None,
    videos: str | None = None,
    pairs: str | None = None,
    output: str = "evaluation",
    av_benchmark: str | None = None,
    measures: dict[str, Measure | None] | None = None,
    encoders: dict[str, WaveformEncoder] | None = None,
    image_encoder: ImageEncoder | None = None,
    text_encoder: TextEncoder | None = None,
    sync: SyncEstimator | None = None,
    seconds: float | None = 10.0,
    crop_shape: CropShape = "padded",
    bootstrap: Bootstrap = Bootstrap(),  # noqa: B008  # frozen
    batch_size: int = 16,
    workers: int | None = None,
    cache: str = CACHE,
    trainer: HearingTrainer | None = None,
    progress: bool = True,
    width: int | None = None,
) -> int:
    """Measure folders of generated sounds: scores with intervals, against references, pictures and videos.

    An item is a file of the reference, and each method's file of the same name without suffix; or a row of a csv file.
    What is missing or broken is told, and makes the exit status 1.

    Args:
        generated: a folder for each method, DIR or NAME=DIR: of sounds, of videos that have them, or of what the
            evaluator av-benchmark has cached of them.
        reference: folder of real sounds, or of videos that have them, or of av-benchmark's caches.
        images: folder of pictures.
        videos: folder of videos.
        pairs: csv file of the items: name, and optionally reference, image (several with ;), video, text, class, group
            (drawn together in intervals) and sources (how many there are).
        output: folder of the report: scores.json, .csv, .md, .tex, and csv files of bounds, differences, items, parts
            and problems.
        av_benchmark: folder to write what was heard and measured to as av-benchmark caches and names it, a folder for
            each method; default: none.
        measures: what is measured, by the names of the columns; see configs/evaluation/. null: not this one of a base.
        encoders: of waveforms, by the names that measures call them.
        image_encoder: of pictures, for the CLIP score.
        text_encoder: of texts, for the CLAP score.
        sync: tells sounds' offsets from their videos.
        seconds: how much of each sound is heard, from its start; null: all.
        crop_shape: how pictures become squares: in the middle of white, or stretched.
        bootstrap: how 95 % intervals are made.
        batch_size: sounds at once.
        workers: threads that read and decode, of each process; default: one a processor.
        cache: folder of what was heard before, by content, encoder and rule.
        trainer: devices that sounds are heard on, a process each, as of Lightning's trainer; default: this process, on
            the devices that the encoders name.
        progress: show progress bars.
        width: characters in a line; default: the terminal's.
    """
    workers = workers if workers is not None else os.cpu_count() or 1
    OptionCheck().at_least(1, batch_size=batch_size, workers=workers)
    chosen = {name: measure for name, measure in (measures or {}).items() if measure is not None}
    protocol = Protocol(chosen, encoders or {}, image_encoder, text_encoder, sync, seconds, crop_shape, bootstrap)
    folders = open_folders(generated, reference, images, videos)
    items, problems = list_items(folders, pairs)
    listener = Listener(EmbeddingCache(to_path(cache)), seconds, batch_size, workers, progress)
    if trainer is not None:
        from lightning_ss2a.evaluation.all_devices import fill_cache  # imports Lightning, for seconds

        if not fill_cache(plan_hearing(folders, items, protocol), protocol, listener, trainer):
            return 0
    evaluation = evaluate_folders(folders, items, protocol, listener, problems)
    settings = {"bootstrap": plain(bootstrap), "pictures": crop_shape}
    facts = reproducibility(evaluation, shlex.join(["ss2a", *sys.argv[1:]]), describe_rule(seconds), settings)
    written = write_report(to_path(output), evaluation, facts)
    exported = write_av_benchmark(to_path(av_benchmark), evaluation, sync) if av_benchmark else []
    print_report(evaluation, Console(width=width or max(TABLE_WIDTH, Console().width), markup=False, highlight=False))
    print(f"{written[2]} and {len(written) - 1} other files")
    if av_benchmark:
        reason = (
            "" if exported else "; it has none of the protocol's encoders: see configs/evaluation/av_benchmark.yaml"
        )
        print(f"{to_path(av_benchmark)}: {len(exported)} files of av-benchmark's{reason}")
    return 1 if evaluation.problems else 0
