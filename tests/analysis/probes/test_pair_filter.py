"""FilterQuality against the truth of a simulated data set."""

from pathlib import Path

import numpy as np
import pytest

from lightning_ss2a.analysis.probes import FilterQuality
from lightning_ss2a.analysis.probes.pair_filter import precision_and_recall, similarity_numbers
from lightning_ss2a.callbacks import EMATeacher, PairFilter
from lightning_ss2a.data.simulation.dataset import simulate_dataset
from lightning_ss2a.data.simulation.truth import read_truth
from lightning_ss2a.data.simulation.world import ModalitySpec, WorldSpec
from tests.manifold_examples import AUDIO_WIDTH, VISUAL_WIDTH, make_data, make_module, make_trainer

WORLD = WorldSpec(visual=ModalitySpec(VISUAL_WIDTH, 0.47), audio=ModalitySpec(AUDIO_WIDTH, 0.51), instance_width=2)


def test_precision_recall_and_area():
    dropped, mismatched = np.array([1, 1, 0, 0], bool), np.array([1, 0, 1, 0], bool)
    assert precision_and_recall(dropped, mismatched) == {"dropped": 0.5, "precision": 0.5, "recall": 0.5}
    assert precision_and_recall(~dropped & dropped, mismatched & ~mismatched) == {"dropped": 0.0}
    similarity = np.array([3.0, 2.0, 1.0, 2.0])
    found = similarity_numbers(similarity, np.array([0, 0, 1, 1], bool))
    assert found == {"cosine/matched": 2.5, "cosine/mismatched": 1.5, "auc": 0.875}
    assert similarity_numbers(similarity, np.zeros(4, bool)) == {"cosine/matched": 2.0}


def test_what_the_filter_dropped_is_compared_with_the_truth(tmp_path: Path):
    folder = str(tmp_path / "pairs")
    simulate_dataset(folder, splits={"train": 400, "validation": 60}, num_classes=12, world=WORLD, progress=False)
    pair_filter = PairFilter(min_pairs=1)
    callbacks = [EMATeacher(teacher_epochs=2), pair_filter, FilterQuality(floor_threshold=0.5)]
    trainer = make_trainer(tmp_path, max_epochs=3, callbacks=callbacks)
    data = make_data(folder)
    trainer.fit(make_module(0), datamodule=data)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    kept = pair_filter.kept.numpy()
    noisy = data.training_columns(["pair_origin"])["pair_origin"].numpy() != 0
    wrong = read_truth(folder, "train")["mismatched"]
    assert logged["val/filter/dropped"] == pytest.approx((~kept)[noisy].mean())
    if (~kept).any():
        assert logged["val/filter/recall"] == pytest.approx((~kept & wrong).sum() / wrong.sum())
        assert logged["val/filter/precision"] == pytest.approx((~kept & wrong).sum() / (~kept).sum())
    assert 0 < logged["val/filter/auc"] < 1
    assert logged["val/filter/with_floor_threshold/dropped"] <= 0.75
