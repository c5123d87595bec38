"""CMSSShardWriter: what `lightning predict` leaves on disk."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer

from lightning_ss2a.callbacks import CMSSShardWriter
from lightning_ss2a.data import Manifest, ShardReader
from lightning_ss2a.data.format.staging import STAGING
from lightning_ss2a.data.tools.validate import validate_dataset
from lightning_ss2a.errors import InputError
from lightning_ss2a.models import ManifoldOptions
from tests.data.shards import AUDIO_WIDTH, VISUAL_WIDTH, write_pairs
from tests.limits import largest_file
from tests.manifold_examples import make_data, make_module, make_trainer, write_learnable_pairs

ROWS = {"train": 23, "validation": 11, "test": 8}


def predict(folder: Path, dataset: str | list[str], callbacks: list[Callback], module=None, **options) -> None:
    data = make_data(dataset, predict_split=options.pop("predict_split", None), evaluation_batch_size=5)
    trainer = make_trainer(folder, callbacks=callbacks, **options)
    trainer.predict(module or make_module(), datamodule=data, return_predictions=False)


def read(folder: Path | str, split: str) -> dict:
    return ShardReader(folder).read_split(split)


def test_embeddings_are_the_projections_of_the_mean_of_the_views(tmp_path: Path):
    source = write_learnable_pairs(tmp_path / "pairs", ROWS)
    module = make_module().eval()
    predict(tmp_path, source, [CMSSShardWriter()], module)
    for split, count in ROWS.items():
        ours, theirs = read(tmp_path / "cmss", split), read(source, split)
        assert len(ours["key"]) == count
        for name in ("key", "class_index", "pair_origin", "group"):
            assert np.array_equal(ours[name], theirs[name])
        with torch.no_grad():
            visual = module.manifold.project_visual(torch.from_numpy(theirs["visual"].mean(axis=1))).mean
            audio = module.manifold.project_audio(torch.from_numpy(theirs["audio"])).mean
        assert np.allclose(ours["visual"], visual.numpy(), rtol=2e-3, atol=1e-4)  # stored as float16
        assert np.allclose(ours["audio"], audio.numpy(), rtol=2e-3, atol=1e-4)
    manifest, original = Manifest.load(tmp_path / "cmss"), Manifest.load(source)
    assert list(manifest.splits) == list(ROWS)
    assert manifest.classes == original.classes
    assert (manifest.provenance, manifest.licence) == (original.provenance, original.licence)
    assert manifest.label_head is None  # one over audio embeddings says nothing of CMSS
    assert validate_dataset(tmp_path / "cmss") == []


def test_the_encoder_tells_manifolds_apart(tmp_path: Path):
    source = write_learnable_pairs(tmp_path / "pairs", ROWS)
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        predict(tmp_path, source, [CMSSShardWriter(str(tmp_path / name))], make_module(seed))
    one, same, other = (Manifest.load(tmp_path / name).fields["audio"].encoder for name in ("one", "same", "other"))
    assert one == same != other
    assert one.startswith("cmss:untrained:")


def folds_source(folder: Path) -> str:
    folds = {"fold0": 12, "fold1": 9, "fold2": 4}
    return write_pairs(folder, folds, folds=list(folds))


def module_for_folds(seed: int = 0):
    from lightning_ss2a.training import ManifoldModule

    torch.manual_seed(seed)
    return ManifoldModule(VISUAL_WIDTH, AUDIO_WIDTH, ManifoldOptions(5, (8,), (8,)))


def test_folds_stay_folds_where_all_of_them_are_there(tmp_path: Path):
    source = folds_source(tmp_path / "pairs")
    predict(tmp_path / "all", source, [CMSSShardWriter()], module_for_folds())
    assert Manifest.load(tmp_path / "all" / "cmss").folds == ("fold0", "fold1", "fold2")
    predict(tmp_path / "one", source, [CMSSShardWriter()], module_for_folds(), predict_split="fold1")
    manifest = Manifest.load(tmp_path / "one" / "cmss")
    assert (manifest.folds, list(manifest.splits)) == (None, ["fold1"])
    assert [key.decode() for key in read(tmp_path / "one" / "cmss", "fold1")["key"]] == [
        f"row{i}" for i in range(12, 21)
    ]
    predict(tmp_path / "part", source, [CMSSShardWriter()], module_for_folds(), limit_predict_batches=3)
    manifest = Manifest.load(tmp_path / "part" / "cmss")
    assert (manifest.folds, manifest.rows("fold0"), manifest.rows("fold1")) == (None, 12, 3)


def test_splits_of_several_data_sets_follow_each_other(tmp_path: Path):
    sources = [
        write_pairs(tmp_path / "a", {"train": 7, "test": 3}),
        write_pairs(tmp_path / "b", {"train": 6}, first=100),
    ]
    predict(tmp_path, sources, [CMSSShardWriter()], module_for_folds())
    expected = [f"row{i}" for i in (*range(7), *range(100, 106))]
    assert [key.decode() for key in read(tmp_path / "cmss", "train")["key"]] == expected
    assert Manifest.load(tmp_path / "cmss").rows("test") == 3


class Stop(Callback):
    def on_predict_batch_start(self, trainer: Trainer, pl_module, batch, batch_idx: int) -> None:
        if batch_idx == 3:
            raise RuntimeError("power cut")


class Count(Callback):
    batches = 0

    def on_predict_batch_start(self, *_) -> None:
        self.batches += 1


def test_a_data_set_that_is_there_is_refused_before_any_work(tmp_path: Path):
    source = write_learnable_pairs(tmp_path / "pairs", ROWS)
    before = {file.name: file.read_bytes() for file in Path(source).iterdir()}
    count = Count()
    with pytest.raises(InputError, match="holds a data set; remove it, or name another output"):
        predict(tmp_path, source, [count, CMSSShardWriter(source)])
    assert count.batches == 0
    assert before == {file.name: file.read_bytes() for file in Path(source).iterdir()}


def test_an_interrupted_run_leaves_nothing_and_the_next_starts_afresh(tmp_path: Path, monkeypatch):
    import lightning_ss2a.callbacks.predictions as predictions

    writer = predictions.ShardWriter
    monkeypatch.setattr(predictions, "ShardWriter", lambda *a, **k: writer(*a, **k, block_rows=2, shard_rows=4))
    source = write_learnable_pairs(tmp_path / "pairs", ROWS)
    with pytest.raises(RuntimeError, match="power cut"):
        predict(tmp_path, source, [Stop(), CMSSShardWriter()])
    assert not list((tmp_path / "cmss").iterdir())
    (tmp_path / "cmss" / STAGING).mkdir()
    (tmp_path / "cmss" / STAGING / "train-000007.tar").write_bytes(b"of a run that was killed")
    predict(tmp_path, source, [CMSSShardWriter()])
    assert {split: Manifest.load(tmp_path / "cmss").rows(split) for split in ROWS} == ROWS
    assert validate_dataset(tmp_path / "cmss") == []
    assert STAGING not in {file.name for file in (tmp_path / "cmss").iterdir()}


def test_shards_that_cannot_grow_are_named_and_nothing_is_left_of_them(tmp_path: Path):
    source = write_learnable_pairs(tmp_path / "pairs", ROWS)
    with largest_file(2000), pytest.raises(OSError, match=r"File too large: '.*/cmss/\.writing/train-000000\.tar'"):
        predict(tmp_path, source, [CMSSShardWriter(f"file://{tmp_path}/cmss")])
    assert list((tmp_path / "cmss").iterdir()) == []


@pytest.mark.slow
def test_two_processes_write_what_one_writes(tmp_path: Path):
    source = write_learnable_pairs(tmp_path / "pairs", ROWS)  # 9 batches of 5 rows: the second rank gets one less
    predict(tmp_path / "one", source, [CMSSShardWriter()])
    predict(tmp_path / "two", source, [CMSSShardWriter()], devices=2, strategy="ddp_spawn")
    files = sorted(file.name for file in (tmp_path / "one" / "cmss").iterdir())
    assert len(files) == 4
    for one, other in pairwise(tmp_path / name / "cmss" for name in ("one", "two")):
        assert files == sorted(file.name for file in other.iterdir())
        for file in files:
            assert (one / file).read_bytes() == (other / file).read_bytes()
