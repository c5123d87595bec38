import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import api_pb2, metadata

from lightning_ss2a.sweeps.records import TrialRecord
from lightning_ss2a.sweeps.reporting.figures import write_figures
from lightning_ss2a.sweeps.reporting.hparams_board import write_board
from lightning_ss2a.sweeps.space import Parameter
from tests.hparams_tab import NUMBER, HParamsTab
from tests.limits import largest_file
from tests.sweeps.studies import BOTTLENECK, DROPOUT, LOSS, LR, NORM, SSMS, WIDTH, realistic


def events_of(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    return events.Reload()


def hparams_of(events: EventAccumulator, tag: str) -> bytes:
    return events.SummaryMetadata(tag).plugin_data.content


def all_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_each_trial_is_a_session_with_its_mean_and_spread(tmp_path: Path):
    records, space = realistic()
    write_board(tmp_path, records, [SSMS, LOSS], space)
    for record in records:
        events = events_of(tmp_path / "board" / f"{record.number:04d}")
        start = metadata.parse_session_start_info_plugin_data(hparams_of(events, metadata.SESSION_START_INFO_TAG))
        assert start.hparams[LR].number_value == record.point[LR]
        assert start.hparams[NORM].string_value == (record.point[NORM] or "")  # None is left out
        assert (BOTTLENECK in start.hparams) == (BOTTLENECK in record.point)
        if record.state == "complete":
            assert events.Scalars("val/ssms")[0].value == pytest.approx(record.mean("val/ssms"))
            assert events.Scalars("val/ssms/spread")[0].value < 0.2
        else:
            assert events.Tags()["scalars"] == []
        if record.state != "running":
            end = metadata.parse_session_end_info_plugin_data(hparams_of(events, metadata.SESSION_END_INFO_TAG))
            expected = {"complete": api_pb2.STATUS_SUCCESS, "failed": api_pb2.STATUS_FAILURE}
            assert end.status == expected.get(record.state, api_pb2.STATUS_UNKNOWN)


def test_the_pictures_are_there_and_no_experiment_that_would_hide_other_runs(tmp_path: Path):
    records, space = realistic()
    pictures = write_figures(tmp_path, records, [SSMS], space)
    write_board(tmp_path, records, [SSMS], space, pictures)
    events = events_of(tmp_path / "board")
    assert events.Tags()["images"] == ["study/history", "study/slice"]
    assert events.Images("study/slice")[0].encoded_image_string == pictures[1].read_bytes()
    assert metadata.EXPERIMENT_TAG not in events.Tags()["tensors"]


def test_the_tab_unites_the_trials_of_several_studies(tmp_path: Path):
    records, space = realistic()
    write_board(tmp_path / "one", records, [SSMS], space)
    write_board(tmp_path / "other", [TrialRecord(0, "complete", {LR: 0.5, "x": 1.0})], [SSMS], {LR: space[LR], "x": X})
    tab = HParamsTab(tmp_path)
    trials = [f"one/board/{record.number:04d}" for record in records]
    assert list(tab.sessions()) == [*trials, "other/board/0000"]
    assert set(tab.types) == {*space, "x"}
    assert tab.metrics == {"val/ssms", "val/ssms/spread"}
    best = {"metric": {"tag": "val/ssms"}, "order": api_pb2.ORDER_DESC}
    values = {f"one/board/{record.number:04d}": record.mean("val/ssms") for record in records}
    expected = max((name for name in values if values[name] is not None), key=values.get)
    assert next(iter(tab.sessions(best))) == expected
    tab.check_every_column()


def test_a_trial_that_went_on_is_replaced_by_a_later_file(tmp_path: Path):
    space = {"x": Parameter(low=0, high=3)}
    running = [TrialRecord(0, "running", {"x": 1}), TrialRecord(1, "running", {"x": 2}), TrialRecord(2, "waiting", {})]
    write_board(tmp_path, running, [SSMS], space)
    (first,) = (tmp_path / "board" / "0000").iterdir()
    write_board(tmp_path, [TrialRecord(0, "complete", {"x": 1}, {"seed_0": {"val/ssms": 2.5}})], [SSMS], space)
    (second,) = (tmp_path / "board" / "0000").iterdir()
    assert second.name > first.name
    assert sorted(path.name for path in (tmp_path / "board").glob("*/")) == ["0000", "0001"]
    assert events_of(second.parent).Scalars("val/ssms")[0].value == 2.5


def test_a_later_file_comes_later_where_the_clock_was_set_back(tmp_path: Path):
    space, records = {"x": Parameter(low=0, high=3)}, [TrialRecord(0, "running", {"x": 1})]
    write_board(tmp_path, records, [SSMS], space)
    (first,) = (tmp_path / "board" / "0000").iterdir()
    tomorrow = first.with_name(f"events.out.tfevents.{time.time_ns() + 86400 * 10**9}.sweep")
    first.rename(tomorrow)
    write_board(tmp_path, records, [SSMS], space)
    (second,) = (tmp_path / "board" / "0000").iterdir()
    assert second.name > tomorrow.name


def test_a_full_disk_leaves_the_files_that_were_there_and_no_others(tmp_path: Path):
    records, space = realistic(count=4)
    write_board(tmp_path, records, [SSMS], space)
    before = all_files(tmp_path)
    with largest_file(100), pytest.raises(OSError, match="File too large"):
        write_board(tmp_path, records, [LOSS], space)
    assert all_files(tmp_path) == before


X = Parameter(choices=[None, 1.0])


def test_numbers_beside_null_are_numbers(tmp_path: Path):
    records = [TrialRecord(n, "complete", {"x": x}) for n, x in enumerate((None, 1.0))]
    write_board(tmp_path, records, [SSMS], {"x": X})
    tab = HParamsTab(tmp_path)
    assert tab.types == {"x": NUMBER}
    assert list(tab.sessions({"hparam": "x", "exclude_missing_values": True})) == ["board/0001"]
    tab.check_every_column()


def test_killed_in_between_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    records, space = realistic(count=4)
    write_board(tmp_path, records, [SSMS], space)
    before = all_files(tmp_path)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_board(tmp_path, records, [LOSS], space)
    monkeypatch.undo()
    left = {name: data for name, data in all_files(tmp_path).items() if "tfevents" in Path(name).name}
    assert {name: data for name, data in left.items() if not Path(name).name.startswith(".")} == before
    write_board(tmp_path, records, [LOSS], space)
    assert events_of(tmp_path / "board" / "0000").Tags()["scalars"] == ["val/loss", "val/loss/spread"]


def test_choices_of_several_types_are_texts(tmp_path: Path):
    space = {"a": Parameter(choices=[1, None, "x"]), "b": Parameter(choices=[True, False])}
    write_board(tmp_path, [TrialRecord(0, "running", {"a": 1, "b": False})], [SSMS], space)
    events = events_of(tmp_path / "board" / "0000")
    start = metadata.parse_session_start_info_plugin_data(hparams_of(events, metadata.SESSION_START_INFO_TAG))
    assert start.hparams["a"].string_value == "1"
    assert start.hparams["b"].HasField("bool_value")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def asked(port: int, path: str, body: dict | None = None) -> dict:
    """What TensorBoard answers, once it has read all files: at first it knows nothing, or is not there."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://localhost:{port}/data/{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def patiently(question, is_enough, seconds: float = 60):
    deadline = time.monotonic() + seconds
    while True:
        try:
            answer = question()
        except OSError:
            answer = None
        if (answer is not None and is_enough(answer)) or time.monotonic() > deadline:
            return answer
        time.sleep(0.3)


def groups_of(port: int, statuses: list[str]) -> dict[str, dict]:
    body = {
        "experimentName": "",
        "allowedStatuses": statuses,
        "colParams": [],
        "startIndex": 0,
        "sliceSize": 100,
    }
    answer = asked(port, "plugin/hparams/session_groups", body)
    return {group["name"]: group for group in answer.get("sessionGroups", [])}


@pytest.fixture
def tensorboard(tmp_path: Path):
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "tensorboard.main",
        f"--logdir={tmp_path}",
        f"--port={port}",
        "--reload_interval=1",
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        yield port
        process.terminate()


@pytest.mark.slow
def test_tensorboard_itself_shows_every_trial(tmp_path: Path, tensorboard: int):
    records, space = realistic()
    pictures = write_figures(tmp_path, records, [SSMS], space)
    write_board(tmp_path, records, [SSMS], space, pictures)
    every = ["STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_UNKNOWN", "STATUS_RUNNING"]
    groups = patiently(lambda: groups_of(tensorboard, every), lambda groups: len(groups) == len(records))
    assert sorted(groups) == [f"board/{record.number:04d}" for record in records]
    for record in records:
        group = groups[f"board/{record.number:04d}"]
        assert group["hparams"][LR] == record.point[LR]
        assert set(group["hparams"]) == {name for name, value in record.point.items() if value is not None}
        metrics = {value["name"]["tag"]: value["value"] for value in group.get("metricValues", [])}
        expected = record.mean("val/ssms")
        assert metrics.get("val/ssms") == (None if expected is None else pytest.approx(expected))
    assert len(groups_of(tensorboard, ["STATUS_FAILURE"])) == 1

    experiment = asked(tensorboard, "plugin/hparams/experiment", {"experimentName": ""})
    assert {info["name"] for info in experiment["hparamInfos"]} == {LR, DROPOUT, WIDTH, NORM, BOTTLENECK}
    images = patiently(lambda: asked(tensorboard, "plugin/images/tags"), lambda images: "board" in images, 10)
    assert set(images["board"]) == {"study/history", "study/slice"}

    # While it is looking: the trial that was running ends.
    last = records[-1]
    done = [*records[:-1], TrialRecord(last.number, "complete", last.point, {"seed_0": {"val/ssms": 9.0}})]
    write_board(tmp_path, done, [SSMS], space, pictures)
    name = f"board/{last.number:04d}"
    groups = patiently(
        lambda: groups_of(tensorboard, ["STATUS_SUCCESS"]), lambda groups: groups.get(name, {}).get("metricValues")
    )
    assert {value["name"]["tag"]: value["value"] for value in groups[name]["metricValues"]} == {"val/ssms": 9.0}
