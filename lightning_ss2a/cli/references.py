"""``ss2a references``: what a protocol compares with, out of a data set's media."""

import os
from shlex import quote
from typing import Literal

from lightning_ss2a.builders.listing import ItemReader, PairItems, list_items
from lightning_ss2a.builders.pairs import media_folder
from lightning_ss2a.errors import InputError
from lightning_ss2a.files import to_path
from lightning_ss2a.options import OptionCheck
from lightning_ss2a.perception.media.video import PyAVReader, VideoReader
from lightning_ss2a.perception.media.waveform import SAMPLE_RATES


def references(
    source: str,
    output: str,
    reader: ItemReader | None = None,
    splits: list[str] | None = None,
    sources: Literal["all", "single", "multi"] = "all",
    exclude: str | None = None,
    videos: bool = False,
    sample_rate: int | None = None,
    video_reader: VideoReader | None = None,
    media_root: str | None = None,
    provenance: str = "",
    licence: str = "",
    workers: int | None = None,
    progress: bool = True,
) -> None:
    """Cut what generate hears and evaluate compares with out of a data set's media, with their lists.

    Writes sounds/KEY.wav (the mean of the channels, the item's part), images/KEY.png (the picture, or the middle
    frame), crops/KEY.N.png (annotated sources), items.csv for generate, and pairs.csv, single.csv and multi.csv for
    evaluate. What cannot be used is in rejected.csv; a second call keeps what is there.

    Args:
        source: the list's file, or the data set's folder, as for shards build.
        output: folder of the files.
        reader: reads the list of a data set; see configs/datasets/. Default: a list of pairs of ours.
        splits: parts of the data set to keep, by its authors' names, such as [test]; default: all.
        sources: keep items of one annotated source, or of several.
        exclude: text file of keys or groups to leave out, one a line, or vggss.json, for the videos that it annotates.
        videos: link whole videos, too, and let items.csv ask for their sounds instead of their middle frames'.
        sample_rate: samples per second of the sounds; default: each its own, so that encoders resample once.
        video_reader: reads videos; default: PyAV, frames of at most 1,024 pixels.
        media_root: folder that relative paths start from; default: the list's, or the folder.
        provenance: where the media come from, for references.json.
        licence: of the media, likewise.
        workers: processes that read media; default: one a processor. 0: none, this process reads them, which is faster
            for some dozens, and ends with a file that ends it.
        progress: show a progress bar, on a terminal.
    """
    workers = workers if workers is not None else os.cpu_count() or 1
    OptionCheck().at_least(0, workers=workers)
    if sample_rate is not None and not SAMPLE_RATES[0] <= sample_rate <= SAMPLE_RATES[1]:
        raise InputError(f"sample_rate is {sample_rate}, needs {SAMPLE_RATES[0]} to {SAMPLE_RATES[1]}")
    listing = list_items(
        source, reader or PairItems(), media_root=media_root, exclude=exclude, splits=splits, sources=sources
    )
    root, place = media_folder(to_path(source), media_root), to_path(output)
    if to_path(source).is_dir() and place.resolve().is_relative_to(to_path(source).resolve()):
        raise InputError(f"{output}: is inside {source}, whose media it would be among; choose a folder outside")

    from lightning_ss2a.builders.engine.media_worker import LONGEST_SIDE  # imports torch, for seconds
    from lightning_ss2a.evaluation.reference_media import ReferenceRule
    from lightning_ss2a.evaluation.references import make_references

    rule = ReferenceRule(root, place, video_reader or PyAVReader(LONGEST_SIDE), sample_rate, videos)
    report = make_references(listing, rule, provenance=provenance, licence=licence, workers=workers, progress=progress)
    print(f"{output}: {report}")
    print(f"Sound them: ss2a generate --items {quote(f'{output}/items.csv')}")
