"""The whole study in TensorBoard: a session per trial in the HParams tab, and the study's figures.

Everything is written anew from the trials' records into ``<study>/board``, so ``tensorboard --logdir <study>`` shows it
beside the runs' own curves, and ``--logdir`` of a folder above several studies shows the trials of all; why there is no
summary of the experiment: :mod:`lightning_ss2a.callbacks.hyperparameters`.
"""

import io
import os
import statistics
import struct
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_ss2a.callbacks.hyperparameters import session_end, session_start
from lightning_ss2a.files import write_whole
from lightning_ss2a.sweeps.records import Objective, TrialRecord
from lightning_ss2a.sweeps.space import Parameter
from lightning_ss2a.sweeps.text import setting_text
from lightning_ss2a.tables import spread

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary

EVENTS = "events.out.tfevents."
"""How TensorBoard knows a file of events."""

Tell = Callable[[Any], bool | float | str]
"""Turns values of a parameter into ones of a single type."""


def write_board(
    folder: Path,
    records: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    parameters: Mapping[str, Parameter],
    figures: Iterable[Path] = (),
) -> None:
    """Writes ``board/`` (the figures) and ``board/0003/`` for each trial begun.

    A trial's session has its parameters, the mean of each objective and, as ``<metric>/spread``, the standard deviation
    over repeats. Complete trials are successes, failed ones failures, pruned ones and those under way unknown.
    May be called at any time, also while TensorBoard is looking: files appear whole.

    Args:
        folder: of the study.
        records: all trials.
        objectives: one or several.
        parameters: swept parameters by name, in the order of the columns.
        figures: PNG files for the Images tab.
    """
    board = folder / "board"
    begun = [record for record in records if record.state != "waiting"]
    told = {name: _single_type(parameter) for name, parameter in parameters.items()}
    for record in begun:
        _write_events(board / f"{record.number:04d}", _session(record, objectives, told), 0)
    _write_events(board, [*map(_picture, figures)], sum(record.state == "complete" for record in records))


def _single_type(parameter: Parameter) -> Tell:
    """TensorBoard wants all values of a parameter to be of one type: texts, where they are of several; none is None."""
    kinds = {
        bool if isinstance(value, bool) else float if isinstance(value, (int, float)) else str
        for value in parameter.ends
        if value is not None
    }
    return kinds.pop() if len(kinds) == 1 and kinds != {str} else setting_text


def _session(record: TrialRecord, objectives: Sequence[Objective], told: Mapping[str, Tell]) -> "list[Summary]":
    """Makes the summaries of one trial."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    point = {name: record.point[name] for name in told if record.point.get(name) is not None}
    summaries = [session_start({name: told[name](value) for name, value in point.items()}, seconds=0)]
    for objective in objectives:
        values = list(record.finite_values(objective.metric).values())
        numbers = {objective.metric: statistics.fmean(values)} if values else {}
        numbers |= {f"{objective.metric}/spread": spread(values)} if len(values) > 1 else {}
        summaries += [Summary(value=[Summary.Value(tag=tag, simple_value=x)]) for tag, x in numbers.items()]
    if record.state != "running":
        states = {"complete": "STATUS_SUCCESS", "failed": "STATUS_FAILURE"}
        summaries.append(session_end(states.get(record.state, "STATUS_UNKNOWN"), record.seconds or 0))
    return summaries


def _picture(path: Path) -> "Summary":
    from tensorboard.compat.proto.summary_pb2 import Summary

    content = path.read_bytes()
    width, height = struct.unpack(">II", content[16:24])  # of the PNG's first chunk
    image = Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=content)
    return Summary(value=[Summary.Value(tag=f"study/{path.stem}", image=image)])


def _write_events(folder: Path, summaries: "Sequence[Summary]", step: int) -> None:
    """Lets a folder hold one file with these summaries.

    Its name is new, and later in the order, also where the clock was set back: TensorBoard, once it has read a file,
    looks only for what was appended to it, but goes on to the next.
    """
    folder.mkdir(parents=True, exist_ok=True)
    old = list(folder.glob(f"{EVENTS}*"))
    numbers = [file.name.removeprefix(EVENTS).partition(".")[0] for file in old]
    later = max([time.time_ns(), *(int(number) + 1 for number in numbers if number.isdecimal())])
    # Without "tfevents", so that TensorBoard does not read half a file.
    temporary = write_whole(folder / "board.writing", _records(summaries, step))
    os.replace(temporary, folder / f"{EVENTS}{later}.sweep")
    for other in old:
        other.unlink(missing_ok=True)


def _records(summaries: "Sequence[Summary]", step: int) -> bytes:
    """Makes the bytes of an event file."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    stream, now = io.BytesIO(), time.time()
    writer = RecordWriter(stream)
    writer.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
    for summary in summaries:
        writer.write(Event(wall_time=now, step=step, summary=summary).SerializeToString())
    return stream.getvalue()
