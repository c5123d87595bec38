"""Data sets and tars on web servers: good ones, poor ones, and those that fail now and then."""

import gzip
import http.server
import json
import re
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from lightning_ss2a.data import Manifest, ShardError, ShardReader
from lightning_ss2a.data.format import web
from lightning_ss2a.data.format.foreign_tar import read_samples
from lightning_ss2a.data.format.storage import RangeReader
from lightning_ss2a.data.tools.inspect import inspect_dataset
from lightning_ss2a.data.tools.validate import validate_dataset
from tests.data.format.test_foreign_tar import two_samples, write_tar
from tests.data.shard_examples import make_dataset, read_everything, same_data

SHARD = "train-000000.tar"
Fault = Callable[["Handler"], bool]


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves the files of a folder; a fault may answer in its place, which it tells by True."""

    folder: Path
    knows_ranges: bool
    fault: Fault
    asked: Counter[tuple[str, str]]

    def do_GET(self) -> None:
        name, part = self.path.lstrip("/"), re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        self.asked[name, "range" if part else "whole"] += 1
        if type(self).fault(self):
            return
        if not (self.folder / name).is_file():
            self.send_error(404)
            return
        data = (self.folder / name).read_bytes()
        if part and self.knows_ranges:
            start, stop = int(part[1]), int(part[2]) + 1
            if start >= len(data):
                self.send_error(416)
                return
            self.answer(data[start:stop], 206)
            return
        self.answer(data)

    def answer(self, data: bytes, status: int = 200, sent: int | None = None) -> None:
        """Sends so many bytes of the data only, if told."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[:sent])

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serve(folder: Path, ranges: bool = True, fault: Fault = lambda handler: False) -> Iterator[tuple[str, Counter]]:
    """A server's URL, and how often each file was asked for, whole or in part."""
    asked: Counter[tuple[str, str]] = Counter()
    members = {"folder": folder, "knows_ranges": ranges, "fault": staticmethod(fault), "asked": asked}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Of", (Handler,), members)) as server:
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # who asked went away
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def now_and_then(fault: Fault, times: int = 2) -> Fault:
    """The first requests for each range fail."""
    seen: Counter[str] = Counter()

    def failing(handler: Handler) -> bool:
        request = f"{handler.path} {handler.headers.get('Range')}"
        seen[request] += 1
        return seen[request] <= times and fault(handler)

    return failing


def status(number: int) -> Fault:
    def fault(handler: Handler) -> bool:
        handler.send_error(number)
        return True

    return fault


def drop(handler: Handler) -> bool:
    handler.answer(bytes(100_000), sent=1000)
    handler.connection.close()
    return True


def go_away(handler: Handler) -> bool:
    handler.connection.close()
    return True


def stall(handler: Handler) -> bool:
    handler.answer(bytes(100_000), sent=1000)
    time.sleep(3)
    return True


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(web, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(web, "LONGEST_SILENCE", 0.5)


@pytest.mark.parametrize("layout", ["blocks", "samples"])
def test_a_good_server_is_asked_for_each_block_once(tmp_path, layout):
    make_dataset(tmp_path, layout=layout)
    with serve(tmp_path) as (url, asked):
        assert same_data(read_everything(url), read_everything(tmp_path))
    shards = Manifest.load(tmp_path).shards("train")
    expected = {(s.file, "range"): len(s.blocks) for s in shards} if layout == "blocks" else {}
    assert {request: count for request, count in asked.items() if request in expected} == expected


def test_a_server_without_ranges_sends_each_shard_once(tmp_path, caplog):
    make_dataset(tmp_path, block_rows=1)
    with serve(tmp_path, ranges=False) as (url, asked):
        assert same_data(read_everything(url), read_everything(tmp_path))
        inspect_dataset(url)
        reader = ShardReader(url)
        for start in range(4):
            reader.read("train", 0, start, start + 1)
        assert asked[SHARD, "whole"] <= 2
        assert asked[SHARD, "range"] <= 8
        assert validate_dataset(url) == []
    assert caplog.text.count("knows no byte ranges") == 1


def test_threads_share_a_copy(tmp_path):
    make_dataset(tmp_path)
    with serve(tmp_path, ranges=False) as (url, asked):
        reader = ShardReader(url)
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda _: reader.read("train", 0, 0, 1), range(8)))
        assert asked[SHARD, "whole"] == 1


def test_a_copy_does_not_outlive_the_file_that_it_was_made_of(tmp_path):
    with serve(tmp_path, ranges=False) as (url, _):
        for content in (b"one", b"other"):
            (tmp_path / "x").write_bytes(content)
            buffer = bytearray(10)
            with RangeReader(f"{url}/x") as file:
                assert file.read_into(memoryview(buffer), 1) == len(content) - 1
            assert buffer.startswith(content[1:])


def test_no_room_for_copies(tmp_path, monkeypatch):
    make_dataset(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with serve(tmp_path, ranges=False) as (url, _), pytest.raises(ShardError, match=r"cannot be copied to .*nowhere"):
        read_everything(url)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_page_in_the_place_of_a_shard(tmp_path, ranges):
    """As of a server that wants a login, or has no such file, and says that all is well."""
    make_dataset(tmp_path)
    (tmp_path / SHARD).write_bytes(b"<html>Please log in.</html>" * 9)
    with serve(tmp_path, ranges) as (url, asked):
        with pytest.raises(ShardError, match=rf"{SHARD}: block 0: ends before its \d+ bytes"):
            read_everything(url)
        assert any("has 243 bytes, the manifest says" in str(problem) for problem in validate_dataset(url))
    assert sum(count for (name, _), count in asked.items() if name == SHARD) < 12


@pytest.mark.parametrize(
    "fault",
    [status(503), status(429), status(500), drop, go_away, stall],
    ids=["503", "429", "500", "dropped", "gone", "stalled"],
)
@pytest.mark.parametrize("ranges", [True, False])
def test_what_passes_is_tried_again(tmp_path, fault, ranges):
    make_dataset(tmp_path, splits={"train": 4})
    with serve(tmp_path, ranges, now_and_then(fault, times=1)) as (url, _):
        assert same_data(read_everything(url), read_everything(tmp_path))


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    ("fault", "message", "tries"),
    [
        (status(503), r"the server answers with status 503 \(Service Unavailable\), 4 times; try again later", 4),
        (status(500), r"the server answers with status 500 \(Internal Server Error\), 4 times", 4),
        (status(403), r"the server answers with status 403 \(Forbidden\)$", 1),
        (status(404), r"no such file: the server answers with status 404 \(Not Found\)$", 1),
        (drop, r"the connection fails \(.+\), 4 times", 4),
        (go_away, r"the connection fails \(.+\), 4 times", 4),
        (stall, r"the server is silent for 0\.5 seconds, 4 times", 4),
    ],
    ids=["503", "500", "403", "404", "dropped", "gone", "stalled"],
)
def test_what_does_not_pass_is_said(tmp_path, fault, message, tries):
    make_dataset(tmp_path)
    for name in ("manifest.json", SHARD):
        with serve(tmp_path, fault=lambda handler, name=name: handler.path == f"/{name}" and fault(handler)) as (
            url,
            asked,
        ):
            with pytest.raises(ShardError, match=rf"{url}/{name}: {message}") as caught:
                read_everything(url)
            assert "\n" not in str(caught.value)
            # aiohttp itself asks again where a connection was gone, and a range may be asked for before the whole.
            assert tries <= sum(count for (asked_for, _), count in asked.items() if asked_for == name) <= 2 * tries
    (tmp_path / "x.tar").write_bytes(write_tar(two_samples()))
    with serve(tmp_path, fault=fault) as (url, _), pytest.raises(ShardError, match=rf"{url}/x.tar: {message}"):
        list(read_samples(f"{url}/x.tar"))


def redirect(handler: Handler) -> bool:
    handler.send_response(302)
    handler.send_header("Location", handler.path)
    handler.end_headers()
    return True


def speak_no_http(handler: Handler) -> bool:
    handler.wfile.write(b"220 mail\r\n\r\n")
    handler.close_connection = True
    return True


def test_answers_that_are_none(tmp_path):
    for fault, message in ((redirect, "redirects without end"), (speak_no_http, r"status 400 \(Bad status line")):
        with serve(tmp_path, fault=fault) as (url, _), pytest.raises(ShardError, match=message) as caught:
            ShardReader(url)
        assert "\n" not in str(caught.value)


def test_no_server(tmp_path):
    with serve(tmp_path) as (url, _):
        pass
    with pytest.raises(ShardError, match=r"manifest\.json: the connection fails \(Cannot connect .*\), 4 times"):
        ShardReader(url)


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_tars_of_other_tools(tmp_path, ranges, pack):
    """More than is read at once, over a connection that drops now and then."""
    members = [(f"{i}.x", json.dumps(list(range(i, 200_000))).encode()) for i in range(4)]
    (tmp_path / "x.tar").write_bytes(pack(write_tar(members)))
    with serve(tmp_path, ranges, now_and_then(drop, times=1)) as (url, _):
        found = list(read_samples(f"{url}/x.tar"))
    assert [(f"{sample['__key__']}.x", sample["x"]) for sample in found] == members
