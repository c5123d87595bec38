"""PredictionShardWriter: what `lightning predict` leaves of the stages that predict embeddings."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from torch.nn.functional import normalize

from lightning_ss2a.callbacks import PredictionShardWriter, predictions
from lightning_ss2a.callbacks.protocols import Prediction
from lightning_ss2a.checkpoints import weights_digest
from lightning_ss2a.data import Manifest, ShardDataset, ShardReader
from lightning_ss2a.data.tools.validate import validate_dataset
from lightning_ss2a.errors import InputError
from lightning_ss2a.models.layers.keyed_noise import keyed_draw
from lightning_ss2a.training import RemixerModule
from lightning_ss2a.training.base import StageModule
from tests.data.shard_examples import same_column
from tests.manifold_examples import AUDIO_WIDTH, VISUAL_WIDTH, make_data, make_module, make_trainer
from tests.scene_examples import make_mapper, make_remixer, write_learnable_scenes
from tests.stage_examples import STAGES, make_stage, write_materials

ROWS = {"train": 13, "validation": 7}
HALF = 2.0**-11  # float16 keeps eleven bits


@pytest.fixture(scope="module")
def materials(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_materials(tmp_path_factory.mktemp("materials"), ROWS)


def predict(folder: Path, dataset: str | list[str], module: StageModule, *callbacks: Callback, **options: Any) -> Path:
    """The folder of the predictions, in batches of 5 rows."""
    how = {name: options.pop(name) for name in ("output", "sampling", "seed") if name in options}
    data = make_data(dataset, predict_split=options.pop("predict_split", None), evaluation_batch_size=5)
    trainer = make_trainer(folder, callbacks=[*callbacks, PredictionShardWriter(**how)], **options)
    trainer.predict(module, datamodule=data, return_predictions=False)
    return folder / "predictions"


def read(folder: Path | str, split: str) -> dict[str, Any]:
    return ShardReader(folder).read_split(split)


@torch.no_grad()
def expected(module: StageModule, dataset: str, split: str, sampling: str, seed: int = 0) -> torch.Tensor:
    """All rows of a split at once."""
    (batch,) = ShardDataset(dataset, split, 1000)
    return module.eval().predict_embeddings(batch, Prediction(sampling, seed))


CASES = [
    *(("remixer", "scenes", sampling) for sampling in ("mean", "draw", "cycle_mix")),
    *(("aggregation", "videos", sampling) for sampling in ("mean", "draw")),
    ("linear", "videos", "mean"),
    ("regression", "scenes", "mean"),
    ("diffusion", "scenes", "draw"),
    ("diffusion", "pairs", "draw"),
    ("translator", "pairs", "mean"),
]


@pytest.mark.parametrize(("stage", "data", "sampling"), CASES, ids=map("-".join, CASES))
def test_the_source_is_there_to_the_bit_with_the_predictions_beside_it(
    stage: str, data: str, sampling: str, materials: dict[str, str], tmp_path: Path
):
    module, source = make_stage(stage, materials), materials[data]
    folder = predict(tmp_path, source, module, sampling=sampling)
    manifest, before = Manifest.load(folder), Manifest.load(source)
    modality, width = ("visual", VISUAL_WIDTH) if stage == "translator" else ("audio", AUDIO_WIDTH)
    field = f"predicted_{modality}"
    for split, count in ROWS.items():
        ours, theirs = read(folder, split), read(source, split)
        predicted = ours.pop(field)
        assert ours.keys() == theirs.keys()
        assert all(same_column(ours[name], theirs[name]) for name in theirs)
        assert predicted.shape == (count, width)
        np.testing.assert_allclose(predicted, expected(module, source, split, sampling), rtol=HALF, atol=1e-5)
        if modality == "audio":
            np.testing.assert_allclose(np.linalg.norm(predicted.astype(float), axis=1), 1, atol=1e-3)
    assert manifest.fields.pop(field).encoder == (
        f"ss2a-{sampling}:untrained:{weights_digest(module)} in {before.fields[modality].encoder}"
    )
    assert manifest.fields == before.fields
    assert (manifest.kind, manifest.classes, list(manifest.splits)) == (before.kind, before.classes, list(ROWS))
    assert (manifest.provenance, manifest.licence) == (before.provenance, before.licence)
    assert manifest.made_by == {field: f"{type(module).__name__} of untrained, {sampling}, seed 0"}
    head, original = manifest.load_label_head(folder), before.load_label_head(source)
    assert torch.equal(head.weight, original.weight)
    assert validate_dataset(folder) == []


def test_a_draw_is_that_of_the_row_and_the_seed(materials: dict[str, str], tmp_path: Path):
    module = make_stage("aggregation", materials)
    drawn = {
        seed: predict(tmp_path / f"{seed}", materials["videos"], module, sampling="draw", seed=seed) for seed in (0, 7)
    }
    (batch,) = ShardDataset(materials["videos"], "train", 1000)
    with torch.no_grad():
        gaussian = module.eval().aggregator(batch["frames"], batch["timestamps"])
    for seed, folder in drawn.items():
        by_hand = keyed_draw(gaussian, seed, batch["key"])
        np.testing.assert_allclose(read(folder, "train")["predicted_audio"], by_hand, rtol=HALF, atol=1e-5)
    assert not np.array_equal(*(read(folder, "train")["predicted_audio"] for folder in drawn.values()))


def test_without_a_word_the_stage_predicts_as_is_usual_for_it(materials: dict[str, str], tmp_path: Path):
    for stage, sampling in (("remixer", "mean"), ("diffusion", "draw")):
        folder = predict(tmp_path / stage, materials["scenes"], make_stage(stage, materials))
        assert Manifest.load(folder).fields["predicted_audio"].encoder.startswith(f"ss2a-{sampling}:")


def test_the_mean_is_the_direction_of_the_gaussians_mean(materials: dict[str, str], tmp_path: Path):
    module = make_stage("remixer", materials)
    folder = predict(tmp_path, materials["scenes"], module, sampling="mean")
    (batch,) = ShardDataset(materials["scenes"], "train", 1000)
    with torch.no_grad():
        mixed = module.eval().remixer(*module.slots(batch).tokens())
    by_hand = normalize(mixed.mean, dim=-1)
    np.testing.assert_allclose(read(folder, "train")["predicted_audio"], by_hand, rtol=HALF, atol=1e-5)


def test_views_several_data_sets_and_many_rows(
    materials: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(predictions, "ROWS_AT_ONCE", 6)  # two batches; not where a split or a block ends
    sources = [
        write_learnable_scenes(tmp_path / "a", {"train": 17, "test": 4}, global_views=2),
        write_learnable_scenes(tmp_path / "b", {"train": 9}, global_views=2, seed=1),
    ]
    module = make_remixer(materials["manifold"])
    folder = predict(tmp_path, sources, module)
    assert {split: Manifest.load(folder).rows(split) for split in ("train", "test")} == {"train": 26, "test": 4}
    parts = [read(source, "train") for source in sources]
    found = read(folder, "train")
    assert found["global_visual"].shape == (26, 2, VISUAL_WIDTH)
    np.testing.assert_array_equal(found["global_visual"], np.concatenate([part["global_visual"] for part in parts]))
    of_both = torch.cat([expected(module, source, "train", "mean") for source in sources])
    np.testing.assert_allclose(found["predicted_audio"], of_both, rtol=HALF, atol=1e-5)
    part = predict(tmp_path / "part", sources, module, predict_split="train", limit_predict_batches=3)
    assert Manifest.load(part).splits.keys() == {"train"}
    np.testing.assert_array_equal(read(part, "train")["predicted_audio"], found["predicted_audio"][:15])


def test_predictions_of_predictions_take_the_place_of_the_first(materials: dict[str, str], tmp_path: Path):
    first = predict(tmp_path / "first", materials["scenes"], make_stage("remixer", materials))
    module = make_stage("regression", materials, seed=3)
    second = predict(tmp_path / "second", str(first), module)
    manifest = Manifest.load(second)
    assert weights_digest(module) in manifest.fields["predicted_audio"].encoder
    assert manifest.made_by == {"predicted_audio": "V2AMapperModule of untrained, mean, seed 0"}
    by_hand = expected(module, str(first), "train", "mean")
    np.testing.assert_allclose(read(second, "train")["predicted_audio"], by_hand, rtol=HALF, atol=1e-5)


def test_a_checkpoint_is_named_and_its_weights_are_told_as_elsewhere(materials: dict[str, str], tmp_path: Path):
    module = make_stage("remixer", materials)
    trainer = make_trainer(tmp_path, max_epochs=1)
    trainer.fit(module, datamodule=make_data(materials["scenes"]))
    trainer.save_checkpoint(tmp_path / "best.ckpt")
    trainer = make_trainer(tmp_path, callbacks=[PredictionShardWriter()])
    options = {"ckpt_path": tmp_path / "best.ckpt", "weights_only": True, "return_predictions": False}
    trainer.predict(make_stage("remixer", materials, seed=1), datamodule=make_data(materials["scenes"]), **options)
    loaded = RemixerModule.load_from_checkpoint(tmp_path / "best.ckpt", weights_only=True)
    encoder = Manifest.load(tmp_path / "predictions").fields["predicted_audio"].encoder
    assert encoder == f"ss2a-mean:best.ckpt:{weights_digest(loaded)} in ear"


class Stop(Callback):
    def on_predict_batch_start(self, trainer, pl_module, batch, batch_idx: int) -> None:
        if batch_idx == 3:
            raise RuntimeError("power cut")


def test_a_run_that_stops_leaves_what_was_there(
    materials: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(predictions, "ROWS_AT_ONCE", 5)
    module = make_stage("remixer", materials)
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions" / "notes.txt").write_text("mine")
    with pytest.raises(RuntimeError, match="power cut"):
        predict(tmp_path, materials["scenes"], module, Stop())
    assert [file.name for file in (tmp_path / "predictions").iterdir()] == ["notes.txt"]
    folder = predict(tmp_path, materials["scenes"], module)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert before["notes.txt"] == b"mine"
    with pytest.raises(
        InputError, match="holds a data set; remove it, or name another output of PredictionShardWriter"
    ):
        predict(tmp_path, materials["scenes"], module)
    with pytest.raises(InputError, match="holds a data set"):
        predict(tmp_path / "other", materials["scenes"], module, output=materials["scenes"])
    assert before == {file.name: file.read_bytes() for file in folder.iterdir()}


def test_what_a_stage_does_not_have_is_refused(materials: dict[str, str], tmp_path: Path):
    for stage, data, sampling, message in (
        ("regression", "scenes", "draw", "sampling is draw, and this V2AMapperModule predicts by mean"),
        ("linear", "videos", "draw", "sampling is draw, and this TemporalAggregationModule predicts by mean"),
        ("diffusion", "scenes", "mean", "sampling is mean, and this V2AMapperModule predicts by draw"),
        ("aggregation", "videos", "cycle_mix", "sampling is cycle_mix, .* predicts by mean or draw"),
    ):
        with pytest.raises(InputError, match=message):
            predict(tmp_path, materials[data], make_stage(stage, materials), sampling=sampling)
    with pytest.raises(InputError, match=r"ManifoldModule predicts no embeddings .* written by CMSSShardWriter"):
        predict(tmp_path, materials["pairs"], make_module())
    with pytest.raises(InputError, match=r"PredictionShardWriter\.sampling"):
        PredictionShardWriter(sampling="mode")
    with pytest.raises(InputError, match="a data set of kind pairs; RemixerModule needs scenes"):
        predict(tmp_path, materials["pairs"], make_stage("remixer", materials))
    assert not (tmp_path / "predictions").exists()


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["remixer", "diffusion"])
def test_two_processes_write_what_one_writes(stage: str, materials: dict[str, str], tmp_path: Path):
    source = materials[STAGES[stage].data]  # 4 batches of 5 rows a split's end cuts; 2 for each
    how = {"sampling": "draw", "seed": 3}
    one = predict(tmp_path / "one", source, make_stage(stage, materials), **how)
    two = predict(tmp_path / "two", source, make_stage(stage, materials), **how, devices=2, strategy="ddp_spawn")
    part = {"limit_predict_batches": 1}  # of each process
    half = predict(
        tmp_path / "half", source, make_stage(stage, materials), **how, **part, devices=2, strategy="ddp_spawn"
    )
    assert Manifest.load(half).rows("train") == 10
    files = sorted(file.name for file in one.iterdir())
    assert files == sorted(file.name for file in two.iterdir())
    for file in files:
        assert (one / file).read_bytes() == (two / file).read_bytes()


def test_a_mapper_of_pairs_sees_their_own_visual(materials: dict[str, str], tmp_path: Path):
    module = make_mapper(flavour="regression")
    folder = predict(tmp_path, materials["pairs"], module)
    (batch,) = ShardDataset(materials["pairs"], "validation", 1000)
    with torch.no_grad():
        by_hand = normalize(module.eval().mapper(batch["visual"]), dim=-1)
    np.testing.assert_allclose(read(folder, "validation")["predicted_audio"], by_hand, rtol=HALF, atol=1e-5)
