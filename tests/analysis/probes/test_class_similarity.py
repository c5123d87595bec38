"""ClassSimilarity against a computation over all rows at once, with scipy."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from lightning_ss2a.analysis.probes import ClassSimilarity
from lightning_ss2a.data.simulation.dataset import simulate_dataset
from lightning_ss2a.data.simulation.truth import read_world
from lightning_ss2a.data.simulation.world import ModalitySpec, WorldSpec
from lightning_ss2a.errors import InputError
from tests.manifold_examples import (
    AUDIO_WIDTH,
    VISUAL_WIDTH,
    make_data,
    make_module,
    make_trainer,
    write_learnable_pairs,
)

WORLD = WorldSpec(visual=ModalitySpec(VISUAL_WIDTH, 0.47), audio=ModalitySpec(AUDIO_WIDTH, 0.51), instance_width=2)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("world") / "pairs")
    simulate_dataset(folder, splits={"train": 200, "validation": 90}, num_classes=12, world=WORLD, progress=False)
    return folder


@pytest.mark.parametrize("batch_size", [90, 40, 1])
def test_correlations_are_those_of_all_rows_at_once(dataset: str, tmp_path: Path, batch_size: int):
    module = make_module(0)
    data = make_data(dataset, evaluation_batch_size=batch_size)
    trainer = make_trainer(tmp_path, max_epochs=1, callbacks=[ClassSimilarity()])
    trainer.fit(module, datamodule=data)
    module.eval()
    rows = [module.predict_step(batch, 0) for batch in data.val_dataloader()]
    sides = {name: torch.cat([row[name] for row in rows]).detach().double() for name in ("visual", "audio")}
    classes = torch.cat([row["class_index"] for row in rows])
    world = read_world(dataset)
    there = sorted(set(classes.tolist()))
    for tree, prototypes in {"sounds": world.audio.prototypes, "looks": world.visual.prototypes}.items():
        for side, (x, y) in {"visual": ("visual",) * 2, "audio": ("audio",) * 2, "cross": ("visual", "audio")}.items():
            cosine = torch.cosine_similarity(sides[x][:, None], sides[y][None], dim=2)
            cosine = (cosine + cosine.T) / 2
            pairs = [(a, b) for a in there for b in there if a < b]
            found = [float(cosine[classes == a][:, classes == b].mean()) for a, b in pairs]
            truth = [float(np.dot(prototypes[a], prototypes[b])) for a, b in pairs]
            expected = spearmanr(found, truth).statistic
            value = float(trainer.callback_metrics[f"val/class_rank/{tree}/{side}"])
            assert value == pytest.approx(expected, abs=1e-3)  # embeddings in float32, near ties


def test_data_without_a_truth_are_refused(tmp_path: Path):
    pairs = write_learnable_pairs(tmp_path / "pairs")
    with pytest.raises(InputError, match="only data sets that ss2a shards simulate made have a truth"):
        make_trainer(tmp_path, max_epochs=1, callbacks=[ClassSimilarity()]).fit(make_module(0), make_data(pairs))
