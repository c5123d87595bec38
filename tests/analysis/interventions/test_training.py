"""What manifolds are trained on, and with."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback

from lightning_ss2a.analysis.interventions import ConstantCcmrMask, TrainingRows
from lightning_ss2a.analysis.interventions.ccmr_mask import ConstantMask
from lightning_ss2a.analysis.probes import CcmrMaskStatistics
from lightning_ss2a.data.simulation.dataset import simulate_dataset
from lightning_ss2a.data.simulation.truth import read_truth
from lightning_ss2a.data.simulation.world import ModalitySpec, WorldSpec
from lightning_ss2a.errors import InputError
from lightning_ss2a.losses import contrastive_loss
from lightning_ss2a.losses.contrastive import CcmrMask, ContrastiveOptions
from tests.manifold_examples import (
    AUDIO_WIDTH,
    VISUAL_WIDTH,
    Recorder,
    make_data,
    make_module,
    make_trainer,
    write_learnable_pairs,
)

WORLD = WorldSpec(visual=ModalitySpec(VISUAL_WIDTH, 0.47), audio=ModalitySpec(AUDIO_WIDTH, 0.51), instance_width=2)


@pytest.mark.parametrize("rows", ["annotated", "matched"])
def test_only_chosen_rows_are_trained_on(rows: str, tmp_path: Path):
    folder = str(tmp_path / "pairs")
    simulate_dataset(folder, splits={"train": 300, "validation": 20}, num_classes=12, world=WORLD, progress=False)
    data, recorder = make_data(folder), Recorder(keep_batches=True)
    trainer = make_trainer(tmp_path, max_epochs=2, callbacks=[TrainingRows(rows), recorder])
    trainer.fit(make_module(0), datamodule=data)
    origin = data.training_columns(["pair_origin"])["pair_origin"].numpy()
    wanted = origin == 0 if rows == "annotated" else ~read_truth(folder, "train")["mismatched"]
    seen = torch.cat([batch["index"] for batch in recorder.batches]).unique().numpy()
    assert set(seen) <= set(np.flatnonzero(wanted))
    assert len(seen) > 0.8 * wanted.sum()
    assert data.selected_training_rows is None  # afterwards all


def test_unknown_rows_are_refused():
    with pytest.raises(InputError, match=r"TrainingRows.rows must be one of annotated, matched, found 'all'"):
        TrainingRows("all")  # type: ignore[arg-type]  # what is refused


@pytest.mark.parametrize("chunk_size", [None, 6])
def test_a_constant_mask_has_the_mean_of_the_other(chunk_size: int | None):
    random = torch.Generator().manual_seed(0)
    x, y, visual, audio = torch.randn(4, 6, 5, generator=random)
    options = ContrastiveOptions(ccmr_alpha=0.8, ccmr_mask_diagonal=False, chunk_size=chunk_size)
    temperature = torch.tensor(4.0)
    loss = contrastive_loss(x, y, temperature, visual=visual, audio=audio, options=options, mask_type=ConstantMask)

    def cosine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.cosine_similarity(a[:, None], b[None], dim=2)

    product = (cosine(visual, visual) * cosine(audio, audio)).clamp(0, 1)
    mask = torch.exp(-0.8 * product**0.8)
    other = mask[~torch.eye(6, dtype=torch.bool)].mean()
    logits = 4 * cosine(x, y) * torch.where(torch.eye(6, dtype=torch.bool), 1.0, other)
    target = torch.arange(6)
    cross_entropy = torch.nn.functional.cross_entropy
    torch.testing.assert_close(loss, (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2)
    assert loss != contrastive_loss(x, y, temperature, visual=visual, audio=audio, options=options)


class Interrupted(Callback):
    def on_train_batch_end(self, *_: Any) -> None:
        raise RuntimeError("stopped")


def test_a_constant_mask_trains_and_ends(tmp_path: Path):
    data = make_data(write_learnable_pairs(tmp_path / "pairs"))
    plain, constant, module = Recorder(), Recorder(), make_module(0, ccmr_mask_diagonal=False)
    trainer = make_trainer(tmp_path, max_epochs=1, callbacks=[constant, ConstantCcmrMask()])
    trainer.fit(module, datamodule=data)
    make_trainer(tmp_path, max_epochs=1, callbacks=[plain]).fit(make_module(0, ccmr_mask_diagonal=False), data)
    name = "train/loss_contrastive"
    assert constant.training[0, 0][name] != plain.training[0, 0][name]
    assert module.loss_terms.mask_type is CcmrMask
    with pytest.raises(RuntimeError, match="stopped"):
        make_trainer(tmp_path, callbacks=[ConstantCcmrMask(), Interrupted()]).fit(module, datamodule=data)
    assert module.loss_terms.mask_type is CcmrMask


def test_what_the_mask_measures_is_the_constant_one(tmp_path: Path):
    """With the diagonal masked, CCMR's own matching pairs would be below 1."""
    data = make_data(write_learnable_pairs(tmp_path / "pairs"))
    trainer = make_trainer(tmp_path, max_epochs=1, callbacks=[CcmrMaskStatistics(), ConstantCcmrMask()])
    trainer.fit(make_module(0), datamodule=data)
    assert trainer.callback_metrics["val/ccmr_mask/matching"] == 1
