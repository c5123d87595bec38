"""Fits with a mean teacher, as the tests of its callbacks make them."""

from pathlib import Path
from typing import Any

from lightning_ss2a.callbacks import EMATeacher
from lightning_ss2a.training import ManifoldModule
from tests.manifold_examples import Recorder, make_data, make_module, make_trainer


def fit(folder: Path, dataset: str, teacher: EMATeacher, module: ManifoldModule | dict | None = None, **options: Any):
    recorder = Recorder(keep_batches=True)
    module = make_module(**(module or {})) if not isinstance(module, ManifoldModule) else module
    callbacks = [recorder, teacher, *options.pop("callbacks", [])]
    data = make_data(dataset, **options.pop("data", {}))
    checkpoint = options.pop("ckpt_path", None)
    trainer = make_trainer(folder, callbacks=callbacks, **{"max_epochs": 4, **options})
    trainer.fit(module, datamodule=data, ckpt_path=checkpoint)
    recorder.trainer = trainer
    return module, recorder


def batches_of(recorder: Recorder) -> int:
    return len(recorder.batches)
