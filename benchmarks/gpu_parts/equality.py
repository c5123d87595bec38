"""What must be equal on the card: a repeated, a resumed and a resident run to the last bit, SSMS on CPU and GPU."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from paper_sizes.steps import device

from gpu_parts.inputs import Inputs
from gpu_parts.process import Report
from lightning_ss2a.data.loading.residency import Residency
from lightning_ss2a.training.step import Step

Weights = dict[str, torch.Tensor]


def run(inputs: Inputs, report: Report) -> None:
    """Train the same steps several ways; validate one checkpoint on both devices."""
    half = inputs.sizes.equal_steps // 2
    checkpoint = f"{inputs.folder}/step={half}.ckpt"
    saving = ModelCheckpoint(inputs.folder, "{step}", every_n_train_steps=half, save_top_k=-1)
    reference = trained(inputs, report, [saving])
    report(repeat_equal=equal(reference, trained(inputs, report)))
    report(resume_equal=equal(reference, trained(inputs, report, resume=checkpoint)))
    report(residency_equal=equal(reference, trained(inputs, report, residency="device")))
    scores = {place: _ssms(inputs, report, checkpoint, place) for place in ("cpu", device().type)}
    report(ssms_equal=len(set(scores.values())) == 1, **{f"ssms_{place}": score for place, score in scores.items()})


def trained(
    inputs: Inputs,
    report: Report,
    callbacks: Sequence[Callback] = (),
    residency: Residency = "memory",
    resume: str | None = None,
    step: Step = "eager",
) -> Weights:
    """Weights on the CPU after the same number of steps in bf16, from the start or from a checkpoint."""
    module, limits = inputs.manifold(step=step), {"max_steps": inputs.sizes.equal_steps, "max_epochs": -1}
    trainer = _trainer(device().type, callbacks, precision="bf16-mixed", limit_val_batches=0, **limits)
    trainer.fit(module, datamodule=inputs.pairs(report, residency=residency), ckpt_path=resume, weights_only=True)
    return {name: value.cpu().clone() for name, value in module.state_dict().items()}


def _ssms(inputs: Inputs, report: Report, checkpoint: str, place: str) -> float:
    module, data = inputs.manifold(), inputs.pairs(report, residency="memory")
    trainer = _trainer(place, precision="32-true")
    (values,) = trainer.validate(module, datamodule=data, ckpt_path=checkpoint, weights_only=True, verbose=False)
    return values["val/ssms"]


def _trainer(accelerator: str, callbacks: Sequence[Callback] = (), **options: Any) -> Trainer:
    seed_everything(0, verbose=False)
    return Trainer(
        accelerator=accelerator,
        devices=1,
        callbacks=list(callbacks),
        enable_checkpointing=bool(callbacks),
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        **options,
    )


def equal(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())
