"""Where a study is kept; places that are no storage are in tests/cli/test_sweep.py."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from sqlalchemy import event

from lightning_ss2a.errors import InputError
from lightning_ss2a.sweeps.running.storage import _without_password, open_storage, storage_errors_explained
from tests.limits import largest_file


def test_sqlite_by_default_and_only_there_is_a_folder_made(tmp_path: Path):
    open_storage(None, tmp_path / "a" / "b")
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["study.db"]
    journals = (str(tmp_path / "x.journal"), f"journal://{tmp_path}/y.journal", f"file://{tmp_path}/u.journal")
    for url in (*journals, f"sqlite:///{tmp_path}/z.db"):
        study = optuna.create_study(storage=open_storage(url, tmp_path / "c"))
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    assert not (tmp_path / "c").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"a", "u.journal", "x.journal", "y.journal", "z.db"}


def test_a_folder_of_any_name(tmp_path: Path):
    folder = tmp_path / "what? {z} 100% %41#\udcff"
    study = optuna.create_study(storage=open_storage(None, folder), study_name="s")
    study.enqueue_trial({"x": 1})
    assert list(tmp_path.rglob("*")) == [folder, folder / "study.db"]
    assert len(optuna.load_study(storage=open_storage(None, folder), study_name="s").trials) == 1


def test_a_transaction_has_sqlite_for_itself_from_its_beginning(tmp_path: Path):
    storage = open_storage(None, tmp_path)
    code = f"import sqlite3; sqlite3.connect('{tmp_path}/study.db', 0.1).execute('BEGIN IMMEDIATE')"
    with storage._backend.engine.begin():
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "database is locked" in done.stderr


def test_half_a_line_at_the_end_of_a_journal(tmp_path: Path):
    url = str(tmp_path / "study.journal")
    study = optuna.create_study(storage=open_storage(url, tmp_path), study_name="s")
    study.enqueue_trial({"x": 1})
    for length in (1, 2):
        with open(url, "ab") as file:
            file.write(b'{"op_code": 6, "worker_id": "a power cut w')
        other = optuna.load_study(storage=open_storage(url, tmp_path), study_name="s")
        assert len(other.trials) == length
        other.enqueue_trial({"x": 2})
    with open(url, "ab") as file:
        file.write(b'{"op_code"')
    study.enqueue_trial({"x": 3})  # by one who had it open before
    assert [json.loads(line)["op_code"] for line in Path(url).read_text().splitlines()] == [0, 4, 4, 4, 4]
    assert len(study.trials) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["study.journal"]


def test_a_journal_whose_disk_is_full_stays_whole(tmp_path: Path):
    url = str(tmp_path / "study.journal")
    study = optuna.create_study(storage=open_storage(url, tmp_path), study_name="s")
    before = Path(url).read_bytes()
    with (
        largest_file(len(before) + 100),
        pytest.raises(InputError) as error,
        storage_errors_explained(url, tmp_path),
    ):
        study.enqueue_trial({"x": 1})
    assert str(error.value).startswith(f"storage {url}: cannot be written: [Errno 27] File too large; mend it")
    assert Path(url).read_bytes() == before
    study.enqueue_trial({"x": 1})
    assert len(study.trials) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["study.journal"]


def test_a_lock_that_a_killed_process_left_is_seen_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("below").mkdir()
    storage = open_storage("below/study.journal", tmp_path)
    storage._backend._lock.acquire()
    assert Path("below/study.journal.lock").stat().st_mtime  # or Optuna would wait for ever
    storage._backend._lock.release()


def overwrite(study: optuna.Study, file: Path) -> None:
    file.write_bytes(b"no database" * 500)


def cut(study: optuna.Study, file: Path) -> None:
    file.write_bytes(file.read_bytes()[: 3 * 4096])


def spoil_an_attribute(study: optuna.Study, file: Path) -> None:
    study.set_user_attr("x", 1)
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE study_user_attributes SET value_json = '{\"x'")


def spoil_a_whole_attribute(study: optuna.Study, file: Path) -> None:
    study.set_user_attr("x", 1)
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE study_user_attributes SET value_json = 'x'")


def remove_the_study(study: optuna.Study, file: Path) -> None:
    optuna.delete_study(study_name="s", storage=f"sqlite:///{file}")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (overwrite, "is damaged: file is not a database; put a copy of it back"),
        (cut, "is damaged: database disk image is malformed; put"),
        (spoil_an_attribute, "is damaged: Unterminated string starting at"),
        (spoil_a_whole_attribute, "is damaged: Expecting value: line 1 column 1"),
        (remove_the_study, "the study is no longer there"),
    ],
)
def test_a_database_that_is_damaged_under_way(tmp_path: Path, spoil: Callable[..., None], message: str):
    storage = open_storage(None, tmp_path)
    study = optuna.create_study(storage=storage, study_name="s")
    storage.remove_session()
    storage._backend.engine.dispose()
    spoil(study, tmp_path / "study.db")
    with pytest.raises(InputError) as error, storage_errors_explained(None, tmp_path):
        storage.get_study_user_attrs(storage.get_study_id_from_name("s"))
    assert str(error.value).startswith(f"storage {tmp_path / 'study.db'}: {message}")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"\x00\xff\n", "is damaged in line 2: "),
        (b'{"op_code": 6\n', "is damaged in line 2: "),
        (b'{"op_code": 4, "worker_id": "a"}\n', "is damaged: KeyError 'study_id'; "),
        (b"[]\n", "is damaged: "),
    ],
)
def test_a_damaged_journal(tmp_path: Path, line: bytes, message: str):
    url = str(tmp_path / "study.journal")
    optuna.create_study(storage=open_storage(url, tmp_path), study_name="s").enqueue_trial({"x": 1})
    first, *others = Path(url).read_bytes().splitlines(keepends=True)
    Path(url).write_bytes(b"".join([first, line, *others]))
    with pytest.raises(InputError) as error:
        open_storage(url, tmp_path)
    assert str(error.value).startswith(f"storage {url}: {message}")


def test_a_full_sqlite_disk(tmp_path: Path):
    study = optuna.create_study(storage=open_storage(None, tmp_path), study_name="s")
    with sqlite3.connect(tmp_path / "study.db") as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
    engine = study._storage._backend.engine
    event.listen(engine, "begin", lambda held: held.exec_driver_sql(f"PRAGMA max_page_count = {pages}"))
    with pytest.raises(InputError) as error, storage_errors_explained(None, tmp_path):
        study.set_user_attr("x", "y" * 100_000)
    assert "study.db: cannot be written: database or disk is full; mend it" in str(error.value)


def test_a_read_only_sqlite(tmp_path: Path):
    study = optuna.create_study(storage=open_storage(None, tmp_path), study_name="s")
    event.listen(study._storage._backend.engine, "begin", lambda held: held.exec_driver_sql("PRAGMA query_only = 1"))
    with pytest.raises(InputError) as error, storage_errors_explained(None, tmp_path):
        study.set_user_attr("x", "y")
    assert "study.db: cannot be written: attempt to write a readonly database; mend it" in str(error.value)


def test_a_study_that_is_renamed_while_it_runs(tmp_path: Path):
    study = optuna.create_study(storage=open_storage(None, tmp_path / "s"), study_name="s")
    (tmp_path / "s").rename(tmp_path / "t")
    with pytest.raises(InputError) as error, storage_errors_explained(None, tmp_path / "s"):
        study.set_user_attr("x", "y")
    assert "s/study.db: the study is no longer there; was it removed?" in str(error.value)


def test_other_errors_are_left_alone(tmp_path: Path):
    study = optuna.create_study(storage=open_storage(None, tmp_path))
    with pytest.raises(ZeroDivisionError), storage_errors_explained(None, tmp_path):
        study.optimize(lambda trial: 1 / 0, n_trials=1)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@host/db", "postgresql://me@host/db"),
        ("postgresql://me:s@cret@host/db", "postgresql://me@host/db"),
        ("postgresql://host/db", "postgresql://host/db"),
        ("mysql://me@host", "mysql://me@host"),
        ("file.db", "file.db"),
        (None, "None"),
    ],
)
def test_passwords_are_not_shown(url, shown):
    assert _without_password(url) == shown
