"""Verbs that run one after the other in a process, as in a notebook, leave it as they found it."""

import gc
import signal
import weakref
from pathlib import Path
from typing import Any

import pytest

from lightning_ss2a.cli.lightning import build_cli
from tests.cli.test_lightning import command, folder, trained  # noqa: F401  (a fixture)

TEACHER = ("--trainer.callbacks.EMATeacher.teacher_epochs=0", "--trainer.callbacks.PairFilter.min_pairs=2")


def handlers() -> dict[int, Any]:
    return {number: signal.getsignal(number) for number in signal.valid_signals()}


def alive_after(arguments: list[str]) -> list[str]:
    """What a verb has left in memory."""
    cli = build_cli(arguments)
    parts = {name: weakref.ref(getattr(cli, name)) for name in ("trainer", "model", "datamodule")}
    del cli
    gc.collect()
    return [name for name, part in parts.items() if part() is not None]


@pytest.mark.parametrize("progress_bar", ["true", "false"])
def test_every_verb_gives_back_signals_and_memory(folder: Path, progress_bar: str):  # noqa: F811
    bar = f"--trainer.enable_progress_bar={progress_bar}"
    before = handlers()
    assert alive_after(command("fit", "--trainer.max_epochs=2", bar, *TEACHER)) == []
    assert handlers() == before
    for verb in ("validate", "test", "predict"):
        evaluated = ["--ckpt_path=runs/manifold/version_0/checkpoints/best.ckpt", "--data.test_split=validation"]
        assert alive_after(command(verb, bar, *evaluated)) == []
        assert handlers() == before
