"""GracefulInterrupt: signals sent for real; what is left resumes as if nothing had happened."""

import functools
import os
import shlex
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger

from lightning_ss2a.callbacks import GracefulInterrupt
from lightning_ss2a.callbacks.interrupt import resume_command
from tests.manifold_examples import (
    Recorder,
    largest_difference,
    make_data,
    make_module,
    make_trainer,
    parameters_of,
    write_learnable_pairs,
)


class Send(Callback):
    """Sends signals to this process when a number of batches has been trained, or in a validation."""

    def __init__(self, number: int, at_batch: int | None = None, in_validation: bool = False, times: int = 1) -> None:
        self.number, self.at_batch, self.in_validation, self.times = number, at_batch, in_validation, times
        self.batches = 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.batches += 1
        if self.batches == self.at_batch:
            self.send()

    def on_validation_batch_start(self, *_) -> None:
        if self.in_validation:
            self.in_validation = False
            self.send()

    def send(self) -> None:
        for _ in range(self.times):
            os.kill(os.getpid(), self.number)


def handlers() -> dict[int, Any]:
    return {number: signal.getsignal(number) for number in signal.valid_signals()}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_learnable_pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, dataset: str) -> Callable[[int], dict[str, torch.Tensor]]:
    """Parameters of a run that nothing interrupted, by the batches of a step."""
    return functools.cache(lambda n: fit(tmp_path_factory.mktemp("whole"), dataset, [], accumulate_batches=n))


def interrupt(folder: Path, dataset: str, send: Send, others: list[Callback] | None = None, **options) -> Path:
    """Train until the signal; returns where the checkpoint must be."""
    before = handlers()
    with pytest.raises(SystemExit):  # Lightning's answer to KeyboardInterrupt
        fit(folder, dataset, [send, GracefulInterrupt(), *(others or [])], **options)
    assert handlers() == before
    return folder / "checkpoints" / "interrupted.ckpt"


def fit(folder: Path, dataset: str, callbacks: list[Callback], ckpt_path: Path | None = None, **options):
    module = make_module(accumulate_batches=options.pop("accumulate_batches", 1))
    trainer = make_trainer(folder, callbacks=callbacks, max_epochs=3, **options)
    trainer.fit(module, datamodule=make_data(dataset), ckpt_path=ckpt_path)
    return parameters_of(module)


OTHER_SIGNALS = [(signal.SIGTERM, 1, 1), (signal.SIGINT, 6, 1), (signal.SIGTERM, 9, 1)]
OTHER_SIGNALS += [(signal.SIGINT, 8, 2), (signal.SIGTERM, 9, 2), (signal.SIGINT, 11, 4)]


@pytest.mark.parametrize(
    ("number", "batch", "accumulate"),
    [
        (signal.SIGINT, 1, 1),
        (signal.SIGTERM, 6, 1),
        (signal.SIGINT, 9, 1),
        (signal.SIGTERM, 8, 2),
        (signal.SIGINT, 9, 2),
        (signal.SIGTERM, 11, 4),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in OTHER_SIGNALS),
    ],
)
def test_resuming_gives_what_an_uninterrupted_run_gives(tmp_path: Path, dataset, whole, number, batch, accumulate):
    options = {"accumulate_batches": accumulate}
    checkpoint = interrupt(tmp_path, dataset, Send(number, at_batch=batch), **options)
    state = torch.load(checkpoint, weights_only=True)
    # Six batches an epoch; a step takes ``accumulate`` of them, and what is left at its end.
    done = next(n for n in range(batch, 99) if (n % 6) % accumulate == 0 or n % 6 == 0)
    assert state["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["ready"] == done
    resumed = fit(tmp_path / "resumed", dataset, [], checkpoint, **options)
    assert largest_difference(resumed, whole(accumulate)) == 0.0


def test_during_validation_the_next_step_is_the_last(tmp_path: Path, dataset, whole):
    checkpoint = interrupt(tmp_path, dataset, Send(signal.SIGINT, in_validation=True))
    assert torch.load(checkpoint, weights_only=True)["global_step"] == 7
    assert largest_difference(fit(tmp_path / "resumed", dataset, [], checkpoint), whole(1)) == 0.0


@pytest.mark.parametrize("every", [1, 2])
def test_after_the_last_step_of_an_epoch_its_validation_is_done(tmp_path: Path, dataset, every: int):
    """Otherwise nobody would ever do it: a resumed run begins with the next epoch."""
    whole, first, second = Recorder(), Recorder(), Recorder()
    expected = fit(tmp_path / "whole", dataset, [whole], check_val_every_n_epoch=every)
    send = Send(signal.SIGINT, at_batch=6)
    checkpoint = interrupt(tmp_path, dataset, send, [first], check_val_every_n_epoch=every)
    resumed = fit(tmp_path / "resumed", dataset, [second], checkpoint, check_val_every_n_epoch=every)
    assert largest_difference(resumed, expected) == 0.0
    assert len(first.validation) == 2 - every
    assert first.validation + second.validation == whole.validation


def test_in_the_last_validation_the_run_just_ends(tmp_path: Path, dataset):
    send = Send(signal.SIGTERM, in_validation=True)
    fit(tmp_path, dataset, [send, GracefulInterrupt()], check_val_every_n_epoch=3)
    assert not (tmp_path / "checkpoints").exists()


def test_a_second_signal_stops_at_once(tmp_path: Path, dataset):
    checkpoint = interrupt(tmp_path, dataset, Send(signal.SIGINT, at_batch=2, times=2))
    assert not checkpoint.exists()


def test_a_fit_that_ends_by_itself_leaves_the_signals_as_they_were(tmp_path: Path, dataset):
    """Or SIGTERM would be swallowed from then on, by this process and by those forked from it."""
    before = handlers()
    fit(tmp_path, dataset, [GracefulInterrupt()])
    assert handlers() == before


def test_a_fit_that_fails_leaves_the_signals_as_they_were(tmp_path: Path, dataset):
    class Fail(Callback):
        def on_train_batch_end(self, *_) -> None:
            raise RuntimeError("as a fault of ours")

    before = handlers()
    with pytest.raises(RuntimeError, match="as a fault"):
        fit(tmp_path, dataset, [GracefulInterrupt(), Fail()])
    assert handlers() == before


def test_sigterm_may_come_twice(tmp_path: Path, dataset, whole):
    """Schedulers send it to the whole job and to each process."""
    checkpoint = interrupt(tmp_path, dataset, Send(signal.SIGTERM, at_batch=2, times=2))
    assert largest_difference(fit(tmp_path / "resumed", dataset, [], checkpoint), whole(1)) == 0.0


def test_a_handler_that_others_set_meanwhile_stays(tmp_path: Path):
    def theirs(number, frame) -> None: ...

    callback, before = GracefulInterrupt(), signal.getsignal(signal.SIGTERM)
    trainer, module = make_trainer(tmp_path), make_module()
    callback.on_train_start(trainer, module)
    try:
        signal.signal(signal.SIGTERM, theirs)
        callback.teardown(trainer, module, "fit")
        assert signal.getsignal(signal.SIGTERM) is theirs
        assert signal.getsignal(signal.SIGINT) is not callback._ask
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_trainer_in_a_thread_trains(tmp_path: Path, dataset, whole):
    results = []
    thread = threading.Thread(target=lambda: results.append(fit(tmp_path, dataset, [GracefulInterrupt()])))
    thread.start()
    thread.join()
    assert largest_difference(results[0], whole(1)) == 0.0


def test_the_run_folder_gets_the_checkpoint_and_the_command_can_be_pasted(tmp_path: Path, dataset, caplog):
    logger = CSVLogger(tmp_path / "my runs", name="run", version=3)
    folder = tmp_path / "my runs" / "run" / "version_3"
    with caplog.at_level("INFO"):
        interrupt(tmp_path, dataset, Send(signal.SIGINT, at_batch=2), logger=logger)
    checkpoint = folder / "checkpoints" / "interrupted.ckpt"
    assert checkpoint.exists()
    line = next(message for message in caplog.messages if "Interrupted" in message)
    assert shlex.split(line)[-2:] == ["--ckpt_path", str(checkpoint)]
    assert "the same command with" in line  # no command line has saved its configuration here
    (folder / "config.yaml").touch()
    words = shlex.split(resume_command(folder, checkpoint))
    assert words == ["lightning", "fit", "-c", str(folder / "config.yaml"), "--ckpt_path", str(checkpoint)]


def test_a_checkpoint_that_cannot_be_written_is_not_promised(tmp_path: Path, dataset, caplog):
    (tmp_path / "checkpoints").touch()  # in the place of the folder
    with caplog.at_level("INFO"), pytest.raises(OSError, match=r"'.*/checkpoints'$"):
        fit(tmp_path, dataset, [Send(signal.SIGTERM, at_batch=2), GracefulInterrupt()])
    assert "interrupted.ckpt" not in caplog.text


class TwoRanks:
    """A strategy in which the other rank was asked to stop; counts how often the ranks had to wait for each other."""

    decisions = 0

    def reduce_boolean_decision(self, decision: bool, all: bool) -> bool:
        assert not all
        self.decisions += 1
        return True


def test_ranks_agree_at_logging_steps_only_and_stop_together_when_a_step_is_complete(tmp_path: Path):
    strategy, saved = TwoRanks(), []
    trainer = SimpleNamespace(
        world_size=2,
        num_training_batches=10,
        log_every_n_steps=3,
        strategy=strategy,
        log_dir=str(tmp_path),
        default_root_dir=".",
        save_checkpoint=saved.append,
    )
    callback, module = GracefulInterrupt(), SimpleNamespace(has_pending_batches=False)
    for batch_idx in (0, 1):
        callback.on_train_batch_end(trainer, module, None, None, batch_idx)
    assert strategy.decisions == 0
    module.has_pending_batches = True  # a batch waits for the other half of its step
    callback.on_train_batch_end(trainer, module, None, None, 2)
    assert (strategy.decisions, saved) == (1, [])
    module.has_pending_batches = False
    with pytest.raises(KeyboardInterrupt):
        callback.on_train_batch_end(trainer, module, None, None, 3)
    assert (strategy.decisions, saved) == (1, [tmp_path / "checkpoints" / "interrupted.ckpt"])


def test_without_logging_steps_ranks_agree_at_the_end_of_an_epoch():
    strategy = TwoRanks()
    trainer = SimpleNamespace(world_size=2, num_training_batches=3, log_every_n_steps=0, strategy=strategy)
    callback = GracefulInterrupt()
    for batch_idx in range(3):
        assert strategy.decisions == 0
        callback.on_train_batch_end(trainer, SimpleNamespace(), None, None, batch_idx)
    assert strategy.decisions == 1
