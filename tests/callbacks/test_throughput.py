"""Throughput: right numbers, validation left out, NaN named, and no look at the loss between logging steps."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback

import lightning_ss2a.callbacks.throughput
from lightning_ss2a.callbacks import Throughput
from lightning_ss2a.errors import InputError
from tests.manifold_examples import make_data, make_module, make_trainer, write_learnable_pairs


class Untouchable:
    """A loss on a GPU: to look at it is to wait for it."""

    def get(self, name: str) -> None:
        raise AssertionError(f"{name} was read outside a logging step")


def trainer_of(callback_metrics, world_size: int = 1, every: int = 4, batches: int = 10) -> SimpleNamespace:
    return SimpleNamespace(
        world_size=world_size,
        num_training_batches=batches,
        log_every_n_steps=every,
        current_epoch=3,
        callback_metrics=callback_metrics,
        datamodule=SimpleNamespace(manifest=SimpleNamespace(kind="pairs")),
    )


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(lightning_ss2a.callbacks.throughput.time, "perf_counter", lambda: clock.now)
    return clock


def test_rate_of_all_ranks_without_the_seconds_of_validation(clock):
    logged, module = [], SimpleNamespace(log=lambda name, value, **_: logged.append((name, value)))
    callback, trainer = Throughput(), trainer_of({"train/loss": torch.tensor(1.0)}, world_size=2)
    callback.on_train_epoch_start(trainer, module)
    for batch_idx in range(10):
        clock.now += 0.5
        callback.on_train_batch_end(trainer, module, None, {"index": torch.zeros(16)}, batch_idx)
        if batch_idx == 5:
            callback.on_validation_start(trainer, module)
            clock.now += 1000
            callback.on_validation_end(trainer, module)
    # 4, 4 and the last 2 batches of 2 x 16 pairs in half a second each
    assert logged == [("train/pairs_per_second", pytest.approx(64.0))] * 3


def test_the_loss_is_read_at_logging_steps_only(clock):
    module = SimpleNamespace(log=lambda *_, **__: None)
    callback, trainer = Throughput(), trainer_of(Untouchable())
    for batch_idx in (0, 1, 2, 4, 5, 6, 8):
        clock.now += 1
        callback.on_train_batch_end(trainer, module, None, {"index": torch.zeros(16)}, batch_idx)
    with pytest.raises(AssertionError, match="train/loss was read"):
        callback.on_train_batch_end(trainer, module, None, {"index": torch.zeros(16)}, 3)


def test_no_logging_steps_at_all(clock):
    logged, module = [], SimpleNamespace(log=lambda name, value, **_: logged.append(value))
    callback, trainer = Throughput(), trainer_of({}, every=0, batches=3)
    callback.on_train_start(trainer, module)
    for batch_idx in range(3):
        clock.now += 0.5
        callback.on_train_batch_end(trainer, module, None, {"index": torch.zeros(16)}, batch_idx)
    assert logged == [pytest.approx(32.0)]  # at the end of the epoch


def test_a_run_resumed_in_the_middle_of_an_epoch_starts_its_clock(tmp_path: Path):
    """Lightning calls no on_train_epoch_start there, and the clock of the machine runs since it was started."""
    data, checkpoint = write_learnable_pairs(tmp_path / "pairs"), tmp_path / "middle.ckpt"

    class Middle(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
            if batch_idx == 2:
                trainer.save_checkpoint(checkpoint)

    class Rates(Callback):
        def __init__(self) -> None:
            self.rates: list[float] = []

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
            self.rates.append(float(trainer.callback_metrics["train/pairs_per_second"]))

    rates = Rates()
    make_trainer(tmp_path, callbacks=[Middle()], max_epochs=1).fit(make_module(), datamodule=make_data(data))
    trainer = make_trainer(tmp_path, callbacks=[Throughput(), rates], max_epochs=1, log_every_n_steps=1)
    trainer.fit(make_module(), datamodule=make_data(data), ckpt_path=checkpoint)
    assert len(rates.rates) == 3
    assert min(rates.rates) > 1


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("automatic", [True, False])
def test_a_loss_that_is_no_number_is_named_with_what_to_do(clock, bad, automatic: bool):
    clipping = "trainer.gradient_clip_val" if automatic else "model.optimization.gradient_clip_norm"
    trainer = trainer_of({"train/loss": torch.tensor(bad)})
    message = rf"train/loss is {bad} in epoch 3, batch 3: lower model.optimization.learning_rate, set {clipping}"
    module = SimpleNamespace(automatic_optimization=automatic)
    with pytest.raises(InputError, match=message):
        Throughput().on_train_batch_end(trainer, module, None, {"index": torch.zeros(16)}, 3)


def test_a_training_that_explodes_stops(tmp_path: Path):
    data = make_data(write_learnable_pairs(tmp_path / "pairs"))
    trainer = make_trainer(tmp_path, callbacks=[Throughput()], max_epochs=50)
    with pytest.raises(InputError, match="train/loss is"):
        trainer.fit(make_module(learning_rate=1e20), datamodule=data)
    assert trainer.current_epoch < 5
