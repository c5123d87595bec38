"""Modalities that can, and cannot, be told apart."""

from pathlib import Path

import pytest
import torch

from lightning_ss2a.analysis.probes import CcmrMaskStatistics, GeneralizationGap, LinearDiscriminability, PairCosines
from lightning_ss2a.analysis.probes.ccmr_mask import shared_cosine_loss
from lightning_ss2a.analysis.probes.modality import linear_discriminability
from lightning_ss2a.losses import ccmr_mask, contrastive_loss
from lightning_ss2a.losses.contrastive import ContrastiveOptions
from tests.manifold_examples import make_data, make_module, make_trainer, write_learnable_pairs


def test_one_distribution_is_chance_and_two_are_told_apart():
    x, y = torch.randn(2, 200, 8, generator=torch.Generator().manual_seed(0))
    assert abs(linear_discriminability(x, y) - 0.5) < 0.1
    assert linear_discriminability(x + 2, y - 2) == 1


@pytest.mark.parametrize("cosine", [1.0, -1.0])
def test_loss_of_one_cosine_is_the_contrastive_loss_of_such_embeddings(cosine: float):
    one = torch.ones(6, 1, dtype=torch.float64)  # vectors of one direction, or of two opposite ones
    loss = contrastive_loss(one, cosine * one, torch.tensor(3.0))
    assert shared_cosine_loss(cosine, 1.0, 1.0, 3.0, 6) == pytest.approx(float(loss))
    # Raw inputs that are all alike: the mask is exp(-alpha) for all pairs, or for all but the matching ones.
    masked = contrastive_loss(
        one,
        cosine * one,
        torch.tensor(3.0),
        visual=one,
        audio=one,
        options=ContrastiveOptions(ccmr_alpha=0.5, ccmr_mask_diagonal=False),
    )
    assert shared_cosine_loss(cosine, 1.0, 0.6065306597, 3.0, 6) == pytest.approx(float(masked))


def test_probes_log_what_rows_computed_at_once_have(tmp_path: Path):
    data, module = make_data(write_learnable_pairs(tmp_path / "pairs")), make_module(0)
    probes = [LinearDiscriminability(), PairCosines(), CcmrMaskStatistics(), GeneralizationGap(rows=23)]
    trainer = make_trainer(tmp_path, max_epochs=1, callbacks=probes)
    trainer.fit(module, datamodule=data)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    module.eval()
    with torch.no_grad():
        batches = list(data.val_dataloader())
        rows = [module.predict_step(batch, 0) for batch in batches]
    visual, audio = (torch.cat([row[name] for row in rows]) for name in ("visual", "audio"))
    raw = [torch.cat([batch[name] for batch in batches]) for name in ("visual", "audio")]
    cosine = torch.cosine_similarity(visual[:, None], audio[None], dim=2)
    assert logged["val/pair_cosine/matching"] == pytest.approx(float(cosine.diagonal().mean()), abs=1e-5)
    others = [float(cosine[row, row - 1]) for row in range(23)]
    assert logged["val/pair_cosine/other"] == pytest.approx(sum(others) / 23, abs=1e-5)
    assert logged["val/linear_discriminability"] == pytest.approx(linear_discriminability(visual, audio))
    assert "val/linear_discriminability_baseline/raw" not in logged  # encoders of two widths
    mask = ccmr_mask(*raw, ccmr_alpha=0.35)
    assert logged["val/ccmr_mask/matching"] == pytest.approx(float(mask.diagonal().mean()), abs=1e-6)
    other = (mask.sum() - mask.diagonal().sum()) / (23 * 22)
    assert logged["val/ccmr_mask/other"] == pytest.approx(float(other), abs=1e-6)
    assert logged["val/shared_cosine_loss/orthogonal"] == pytest.approx(torch.tensor(8.0).log().item(), abs=1e-6)
    assert logged["val/held_out/ssms"] == pytest.approx(logged["val/ssms"], abs=1e-5)
    directions = [logged[f"val/recall@1/{way}"] for way in ("visual_to_audio", "audio_to_visual")]
    assert logged["val/held_out/recall@1"] == pytest.approx(sum(directions) / 2, abs=1e-6)
    assert 0 <= logged["val/trained/recall@1"] <= 1
    parameters = sum(p.numel() for p in module.manifold.parameters())
    assert logged["val/million_parameters"] * 1e6 == pytest.approx(parameters, rel=1e-5)
