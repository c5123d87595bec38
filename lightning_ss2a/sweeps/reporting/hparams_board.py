"""The whole study in TensorBoard: a session per trial in the HParams tab, and the study's pictures.

Everything is written anew from the trials' records into ``<study>/board``, so ``tensorboard --logdir <study>`` shows it
beside the runs' own curves. (TensorBoard knows one experiment a log directory: of a folder above several studies its
HParams tab would show the parameters of one.)
"""

import hashlib
import io
import math
import re
import shutil
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_ss2a.sweeps.reporting.drawing import Scale
from lightning_ss2a.sweeps.reporting.ranking import finite_values
from lightning_ss2a.sweeps.reporting.text import replace_file, setting_text, short_names
from lightning_ss2a.sweeps.running.records import Objective, TrialRecord, spread
from lightning_ss2a.sweeps.space import Parameter

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams.api_pb2 import HParamInfo

EVENTS = "events.out.tfevents."
"""How TensorBoard knows a file of events."""


def write_board(
    folder: Path,
    records: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    parameters: Mapping[str, Parameter],
    pictures: Iterable[Path] = (),
) -> list[Path]:
    """Write ``board/`` (the experiment: domains, names of metrics, pictures) and ``board/0003/`` for each trial begun.

    A trial's session has its parameters, the mean of each objective and, as ``<metric>/spread``, the standard deviation
    over repeats. Complete trials are successes, failed ones failures, pruned ones unknown, and those under way running.
    May be called at any time, also while TensorBoard is looking: files appear whole, what has not changed stays
    untouched, and folders of trials that are gone are removed.

    Args:
        folder: of the study.
        records: all trials.
        objectives: one or several.
        parameters: swept parameters by name, in the order of the columns.
        pictures: PNG files for the Images tab.

    Returns:
        The files that were written now.
    """
    board = folder / "board"
    begun = [record for record in records if record.state != "waiting"]
    complete = sum(record.state == "complete" for record in records)
    domains = {name: _Domain(name, parameter, begun) for name, parameter in parameters.items()}
    written = [
        _write_events(board / f"{record.number:04d}", _session(record, objectives, domains), 0) for record in begun
    ]
    names = {f"{record.number:04d}" for record in begun}
    for path in board.glob("*/"):
        if re.fullmatch(r"\d{4,}", path.name) and path.name not in names:
            shutil.rmtree(path)
    experiment = [_experiment(objectives, begun, list(domains.values())), *map(_picture, pictures)]
    written.append(_write_events(board, experiment, complete))
    return [path for path in written if path is not None]


class _Domain:
    """What TensorBoard is told of a parameter, and how a value is told: all of one type."""

    def __init__(self, name: str, parameter: Parameter, records: Sequence[TrialRecord]) -> None:
        values = [record.point[name] for record in records if name in record.point]
        self.name = name
        self.scale = Scale(parameter, values)
        self.differs = len(set(map(repr, values))) > 1
        kinds = {_kind(value) for value in self.scale.options or [0.0]}
        self.kind = kinds.pop() if len(kinds) == 1 else str

    def told(self, value: Any) -> bool | float | str:
        """A value in the type of all."""
        return setting_text(value) if self.kind is str else self.kind(value)

    def info(self, display_name: str) -> "HParamInfo":
        """The protobuf."""
        from tensorboard.plugins.hparams import api_pb2

        types = {bool: api_pb2.DATA_TYPE_BOOL, float: api_pb2.DATA_TYPE_FLOAT64, str: api_pb2.DATA_TYPE_STRING}
        info = api_pb2.HParamInfo(
            name=self.name, display_name=display_name, type=types[self.kind], differs=self.differs
        )
        if self.scale.options is None:
            info.domain_interval.min_value, info.domain_interval.max_value = self.scale.low, self.scale.high
        else:
            info.domain_discrete.extend(self.told(option) for option in self.scale.options)
        return info


def _kind(value: Any) -> type:
    if isinstance(value, bool):
        return bool
    return float if isinstance(value, (int, float)) else str


def _session(record: TrialRecord, objectives: Sequence[Objective], domains: Mapping[str, _Domain]) -> "list[Summary]":
    """Summaries of one trial. Times are left out: they would make the same trial look new at each writing."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2, summary_v2

    point = {name: domain.told(record.point[name]) for name, domain in domains.items() if name in record.point}
    summaries = [summary_v2.hparams_pb(point, trial_id=f"{record.number:04d}", start_time_secs=0)]
    for objective in objectives:
        values = list(finite_values(record, objective.metric).values())
        numbers = {objective.metric: sum(values) / len(values) if values else math.nan}
        numbers[f"{objective.metric}/spread"] = spread(values)
        summaries += [
            Summary(value=[Summary.Value(tag=tag, simple_value=number)])
            for tag, number in numbers.items()
            if math.isfinite(number)
        ]
    if record.state != "running":
        status = {"complete": api_pb2.STATUS_SUCCESS, "failed": api_pb2.STATUS_FAILURE}
        end = plugin_data_pb2.SessionEndInfo(
            status=status.get(record.state, api_pb2.STATUS_UNKNOWN), end_time_secs=record.seconds or 0
        )
        # summary_v2 has no function for the end of a session, and the one in summary.py needs TensorFlow.
        data = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(session_end_info=end))
        value = Summary.Value(tag=metadata.SESSION_END_INFO_TAG, metadata=data, tensor=metadata.NULL_TENSOR)
        summaries.append(Summary(value=[value]))
    return summaries


def _experiment(objectives: Sequence[Objective], records: Sequence[TrialRecord], domains: list[_Domain]) -> "Summary":
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    names = short_names(domain.name for domain in domains)
    metrics = []
    for objective in objectives:
        better = "more is better" if objective.maximize else "less is better"
        metrics.append((objective.metric, f"mean over repeats; {better}"))
        if any(len(finite_values(record, objective.metric)) > 1 for record in records):
            metrics.append((f"{objective.metric}/spread", "standard deviation over repeats"))
    experiment = api_pb2.Experiment(
        hparam_infos=[domain.info(names[domain.name]) for domain in domains],
        metric_infos=[
            api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag), display_name=tag, description=text)
            for tag, text in metrics
        ],
    )
    data = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(experiment=experiment))
    return Summary(value=[Summary.Value(tag=metadata.EXPERIMENT_TAG, metadata=data, tensor=metadata.NULL_TENSOR)])


def _picture(path: Path) -> "Summary":
    from tensorboard.compat.proto.summary_pb2 import Summary

    content = path.read_bytes()
    width, height = struct.unpack(">II", content[16:24])  # of the PNG's first chunk
    image = Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=content)
    return Summary(value=[Summary.Value(tag=f"study/{path.stem}", image=image)])


def _write_events(folder: Path, summaries: "Sequence[Summary]", step: int) -> Path | None:
    """Let a folder hold one file with these summaries; None where it does already.

    A changed file gets a new name, later in the order: TensorBoard, once it has read a file, looks only for what was
    appended to it, but goes on to the next.
    """
    digest = hashlib.sha256(b"".join(s.SerializeToString(deterministic=True) for s in summaries)).hexdigest()[:16]
    old = sorted(folder.glob(f"{EVENTS}*"))
    if len(old) == 1 and old[0].name.endswith(f".{digest}"):
        return None
    last = max((int(match[1]) for path in old if (match := re.match(rf"{EVENTS}(\d+)\.", path.name))), default=0)
    path = folder / f"{EVENTS}{last + 1:010d}.sweep.{digest}"
    # Written under a name without "tfevents", which TensorBoard does not read: it never sees half a file.
    replace_file(folder / "board.writing", _records(summaries, step)).rename(path)
    for other in old:
        other.unlink(missing_ok=True)
    return path


def _records(summaries: "Sequence[Summary]", step: int) -> bytes:
    """The bytes of an event file."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    stream = io.BytesIO()
    writer = RecordWriter(stream)
    now = time.time()
    for event in [
        Event(wall_time=now, file_version="brain.Event:2"),
        *(Event(wall_time=now, step=step, summary=summary) for summary in summaries),
    ]:
        writer.write(event.SerializeToString())
    return stream.getvalue()
