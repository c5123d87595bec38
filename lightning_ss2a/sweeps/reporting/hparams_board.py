"""The whole study in TensorBoard: a session per trial in the HParams tab, and the study's figures.

Everything is written anew from the trials' records into ``<study>/board``, so ``tensorboard --logdir <study>`` shows it
beside the runs' own curves. (TensorBoard knows one experiment a log directory: of a folder above several studies its
HParams tab would show the parameters of one.)
"""

import io
import os
import statistics
import struct
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_ss2a.sweeps.reporting.text import setting_text, short_names
from lightning_ss2a.sweeps.running.records import Objective, TrialRecord
from lightning_ss2a.sweeps.space import Parameter
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
    """Writes ``board/`` (the experiment: domains, names of metrics, figures) and ``board/0003/`` for each trial begun.

    A trial's session has its parameters, the mean of each objective and, as ``<metric>/spread``, the standard deviation
    over repeats. Complete trials are successes, failed ones failures, pruned ones unknown, and those under way running.
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
    experiment = [_experiment(objectives, begun, parameters, told), *map(_picture, figures)]
    _write_events(board, experiment, sum(record.state == "complete" for record in records))


def _single_type(parameter: Parameter) -> Tell:
    """TensorBoard wants all values of a parameter to be of one type: texts, where they are of several."""
    kinds = {
        bool if isinstance(value, bool) else float if isinstance(value, (int, float)) else str
        for value in parameter.ends
    }
    return kinds.pop() if len(kinds) == 1 and kinds != {str} else setting_text


def _session(record: TrialRecord, objectives: Sequence[Objective], told: Mapping[str, Tell]) -> "list[Summary]":
    """Makes the summaries of one trial."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2, summary_v2

    point = {name: tell(record.point[name]) for name, tell in told.items() if name in record.point}
    summaries = [summary_v2.hparams_pb(point, trial_id=f"{record.number:04d}", start_time_secs=0)]
    for objective in objectives:
        values = list(record.finite_values(objective.metric).values())
        numbers = {objective.metric: statistics.fmean(values)} if values else {}
        numbers |= {f"{objective.metric}/spread": spread(values)} if len(values) > 1 else {}
        summaries += [Summary(value=[Summary.Value(tag=tag, simple_value=x)]) for tag, x in numbers.items()]
    if record.state != "running":
        states = {"complete": api_pb2.STATUS_SUCCESS, "failed": api_pb2.STATUS_FAILURE}
        status = states.get(record.state, api_pb2.STATUS_UNKNOWN)
        end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=record.seconds or 0)
        # summary_v2 has no function for the end of a session, and the one in summary.py needs TensorFlow.
        data = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(session_end_info=end))
        value = Summary.Value(tag=metadata.SESSION_END_INFO_TAG, metadata=data, tensor=metadata.NULL_TENSOR)
        summaries.append(Summary(value=[value]))
    return summaries


def _experiment(
    objectives: Sequence[Objective],
    records: Sequence[TrialRecord],
    parameters: Mapping[str, Parameter],
    told: Mapping[str, Tell],
) -> "Summary":
    from tensorboard.plugins.hparams.summary_v2 import Discrete, HParam, Metric, RealInterval, hparams_config_pb

    names = short_names(parameters)
    hparams = []
    for name, parameter in parameters.items():
        values = [told[name](value) for value in parameter.ends]
        domain = RealInterval(*values) if parameter.options is None else Discrete(values)
        hparams.append(HParam(name, domain, names[name]))
    metrics = []
    for objective in objectives:
        text = f"mean over repeats; {objective.better}"
        metrics.append(Metric(objective.metric, display_name=objective.metric, description=text))
        if any(len(record.finite_values(objective.metric)) > 1 for record in records):
            tag = f"{objective.metric}/spread"
            metrics.append(Metric(tag, display_name=tag, description="standard deviation over repeats"))
    return hparams_config_pb(hparams, metrics, time_created_secs=0)


def _picture(path: Path) -> "Summary":
    from tensorboard.compat.proto.summary_pb2 import Summary

    content = path.read_bytes()
    width, height = struct.unpack(">II", content[16:24])  # of the PNG's first chunk
    image = Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=content)
    return Summary(value=[Summary.Value(tag=f"study/{path.stem}", image=image)])


def _write_events(folder: Path, summaries: "Sequence[Summary]", step: int) -> None:
    """Lets a folder hold one file with these summaries.

    Its name is new, and later in the order: TensorBoard, once it has read a file, looks only for what was appended to
    it, but goes on to the next.
    """
    folder.mkdir(parents=True, exist_ok=True)
    old = list(folder.glob(f"{EVENTS}*"))
    temporary = folder / "board.writing"  # without "tfevents", so that TensorBoard does not read half a file
    temporary.write_bytes(_records(summaries, step))
    os.replace(temporary, folder / f"{EVENTS}{time.time_ns()}.sweep")
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
