"""Where a study is kept; places that are no storage are in tests/cli/test_sweep.py."""

import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from lightning_ss2a.sweeps.running.storage import _without_password, open_storage, storage_errors


def test_sqlite_by_default_and_only_there_is_a_folder_made(tmp_path: Path):
    open_storage(None, tmp_path / "a" / "b")
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["study.db"]
    for url in (str(tmp_path / "x.journal"), f"journal://{tmp_path}/y.journal", f"sqlite:///{tmp_path}/z.db"):
        study = optuna.create_study(storage=open_storage(url, tmp_path / "c"))
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    assert not (tmp_path / "c").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"a", "x.journal", "y.journal", "z.db"}


def test_a_transaction_has_sqlite_for_itself_from_its_beginning(tmp_path: Path):
    storage = open_storage(None, tmp_path)
    code = f"import sqlite3; sqlite3.connect('{tmp_path}/study.db', 0.1).execute('BEGIN IMMEDIATE')"
    with storage._backend.engine.begin():
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "database is locked" in done.stderr


def test_half_a_line_at_the_end_of_a_journal(tmp_path: Path):
    url = str(tmp_path / "study.journal")
    optuna.create_study(storage=open_storage(url, tmp_path), study_name="s").enqueue_trial({"x": 1})
    with open(url, "ab") as file:
        file.write(b'{"op_code": 6, "worker_id": "a power cut w')
    for length in (1, 2):
        study = optuna.load_study(storage=open_storage(url, tmp_path), study_name="s")
        assert len(study.trials) == length
        study.enqueue_trial({"x": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["study.journal"]


def test_a_storage_that_is_lost_is_told_from_other_errors(tmp_path: Path):
    storage = open_storage(None, tmp_path)
    optuna.create_study(storage=storage, study_name="s")
    storage.remove_session()
    (tmp_path / "study.db").write_bytes(b"no database" * 500)
    with pytest.raises(storage_errors()):
        storage.get_study_id_from_name("s")


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
