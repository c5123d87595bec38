"""``generate_frames`` against direct calls, frame by frame; what is kept, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from lightning_ss2a.data import FRAMES_PER_VIDEO, FieldSpec, Manifest, ShardDataset, ShardReader, ShardWriter
from lightning_ss2a.data.tools.validate import validate_dataset
from lightning_ss2a.errors import InputError
from lightning_ss2a.generation.frames import generate_frames
from lightning_ss2a.models import CycleMixOptions, cycle_mix
from lightning_ss2a.training import RemixerModule
from tests.manifold_examples import AUDIO_WIDTH, VISUAL_WIDTH, make_data, make_trainer
from tests.scene_examples import (
    SmallWorld,
    make_aggregation,
    make_remixer,
    save_manifold,
    visual_field,
    write_learnable_scenes,
    write_learnable_videos,
)

ROWS = {"train": 5, "validation": 3}
HALF = 2.0**-11  # float16 keeps eleven bits


def write_checkpoint(folder: Path, **options: Any) -> str:
    """A Remixer after an epoch; its manifold's file is gone."""
    folder.mkdir(exist_ok=True)
    manifold = save_manifold(folder / "manifold.ckpt")
    module = make_remixer(manifold, learning_rate=1e-2, **options)
    trainer = make_trainer(folder, max_epochs=1, limit_val_batches=0)
    trainer.fit(module, datamodule=make_data(write_learnable_scenes(folder / "scenes")))
    trainer.save_checkpoint(folder / "remixer.ckpt")
    Path(manifold).unlink()
    return str(folder / "remixer.ckpt")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_checkpoint(tmp_path_factory.mktemp("remixer"))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_learnable_videos(tmp_path_factory.mktemp("videos"), ROWS, role="visual")


def generate(source: str, output: Path, checkpoint: str, **options: Any) -> dict[str, dict[str, Any]]:
    """The columns of each split."""
    manifest = generate_frames(source, str(output), checkpoint, device="cpu", progress=False, **options)
    assert validate_dataset(str(output)) == []
    return {split: ShardDataset(str(output), split).columns() for split in manifest.splits}


@torch.no_grad()
def frame_by_frame(checkpoint: str, row: dict[str, Any], video: int, sampling: str, seed: int) -> torch.Tensor:
    """Each frame on its own, by the networks alone."""
    module = RemixerModule.load_from_checkpoint(checkpoint, weights_only=True).eval()
    count = 1 + module.use_global
    weights = torch.ones(1, count)
    weights[0, : count - 1] = 0
    options = CycleMixOptions(iterations=1, samples=1) if sampling == "draw" else module.cycle_mix
    generated = []
    for number, frame in enumerate(row["frames"][video]):
        visual = frame.expand(1, count, -1)
        e = module.manifold.project_visual(visual).mean
        tokens = e, visual, torch.ones(1, count, dtype=torch.bool)
        if sampling == "mean":
            generated.append(normalize(module.remixer(*tokens).mean[0], dim=0))
            continue
        key = f"{row['key'][video]}#{number}"
        arguments = {"options": options, "seed": seed, "slot_weights": weights}
        found = cycle_mix(module.remixer, module.manifold, *tokens, [key], **arguments)
        generated.append(found.embedding[0])
    return torch.stack(generated)


@pytest.mark.parametrize(("sampling", "seed"), [("mean", 0), ("draw", 0), ("draw", 3), ("cycle_mix", 1)])
def test_frames_are_those_of_direct_calls(videos: str, checkpoint: str, tmp_path: Path, sampling: str, seed: int):
    found = generate(videos, tmp_path / "out", checkpoint, sampling=sampling, seed=seed)
    for split in ROWS:
        source = ShardDataset(videos, split).columns()
        for video in (0, ROWS[split] - 1):
            expected = frame_by_frame(checkpoint, source, video, sampling, seed)
            torch.testing.assert_close(found[split]["frames"][video], expected, rtol=HALF, atol=1e-5)
            torch.testing.assert_close(found[split]["frames"][video].norm(dim=1), torch.ones(64), rtol=1e-3, atol=0)


def test_a_remixer_without_the_global_embedding_serves(videos: str, tmp_path: Path):
    checkpoint = write_checkpoint(tmp_path / "remixer", use_global=False, max_slots=1)
    found = generate(videos, tmp_path / "out", checkpoint, sampling="cycle_mix")
    source = ShardDataset(videos, "train").columns()
    expected = frame_by_frame(checkpoint, source, 1, "cycle_mix", 0)
    torch.testing.assert_close(found["train"]["frames"][1], expected, rtol=HALF, atol=1e-5)


@pytest.mark.parametrize("sampling", ["mean", "cycle_mix"])
def test_the_size_of_batches_does_not_matter(videos: str, checkpoint: str, tmp_path: Path, sampling: str):
    one, two, all_ = (
        generate(videos, tmp_path / str(size), checkpoint, sampling=sampling, videos_at_once=size)
        for size in (1, 2, 99)
    )
    for split in ROWS:
        for other in (one, two):
            torch.testing.assert_close(other[split]["frames"], all_[split]["frames"], rtol=HALF, atol=1e-5)


def test_draws_belong_to_a_seed_and_a_frame(videos: str, checkpoint: str, tmp_path: Path):
    def draw(name: str, seed: int) -> torch.Tensor:
        return generate(videos, tmp_path / name, checkpoint, sampling="draw", seed=seed)["train"]["frames"]

    torch.manual_seed(1)
    first = draw("first", 0)
    torch.manual_seed(2)
    assert torch.equal(draw("again", 0), first)
    assert float((draw("other", 1) - first).norm(dim=2).min()) > 1e-3
    mean = generate(videos, tmp_path / "mean", checkpoint)["train"]["frames"]
    noise = (first - mean).flatten(0, 1)
    assert float(torch.pdist(noise).min()) > 1e-3  # no two frames share their noise


def test_everything_else_is_kept(videos: str, checkpoint: str, tmp_path: Path):
    found = generate(videos, tmp_path / "out", checkpoint)
    before, after = Manifest.load(videos), Manifest.load(tmp_path / "out")
    for name in ("kind", "classes", "splits", "provenance", "licence", "folds"):
        first, second = getattr(before, name), getattr(after, name)
        assert (list(first), list(second)) == (list(ROWS), list(ROWS)) if name == "splits" else first == second, name
    assert after.fields["audio"] == before.fields["audio"]
    assert (after.fields["frames"].role, after.fields["frames"].width) == ("audio", AUDIO_WIDTH)
    assert after.fields["frames"].encoder.startswith("ss2a-mean:remixer.ckpt:")
    assert after.fields["visual"].width == VISUAL_WIDTH
    heads = [manifest.load_label_head(folder) for manifest, folder in ((before, videos), (after, tmp_path / "out"))]
    assert torch.equal(heads[0].weight, heads[1].weight)
    assert heads[0].labels == heads[1].labels
    for split in ROWS:
        source = ShardDataset(videos, split).columns()
        for name in ("audio", "class_index", "pair_origin", "group", "timestamps"):
            assert torch.equal(found[split][name], source[name]), name
        assert found[split]["key"] == source["key"]
        frames = source["frames"].double().numpy()
        visual = (frames / np.linalg.norm(frames, axis=2, keepdims=True)).mean(1)
        np.testing.assert_allclose(found[split]["visual"], visual, rtol=2 * HALF, atol=1e-4)


def test_the_encoder_tells_the_weights_and_the_sampling(videos: str, checkpoint: str, tmp_path: Path):
    """So that data of different Remixers are not trained together."""
    other = write_checkpoint(tmp_path / "other", seed=4)
    encoders = []
    for number, (path, sampling) in enumerate([(checkpoint, "mean"), (checkpoint, "draw"), (other, "mean")]):
        generate(videos, tmp_path / str(number), path, sampling=sampling)
        encoders.append(Manifest.load(tmp_path / str(number)).fields["frames"].encoder)
    assert len(set(encoders)) == 3
    assert encoders[0].split(":")[2] == encoders[1].split(":")[2] != encoders[2].split(":")[2]


def write_folds(folder: Path) -> str:
    """Videos in folds, with names and without a label head, whose sounds were heard in two parts."""
    world = SmallWorld()
    fields = {
        "frames": FieldSpec(VISUAL_WIDTH, "eye", "float32", role="visual"),
        "audio": FieldSpec(AUDIO_WIDTH, "ear", "float32", views=2),
    }
    with ShardWriter(folder, "videos", fields, ["cat"], folds=["a", "b"]) as writer:
        for number, split in enumerate(("a", "b")):
            causes = world.causes(2)
            audio = np.stack([world.hear(causes), world.hear(causes)], axis=1)
            writer.write(
                split,
                {
                    "frames": world.see(np.repeat(causes[:, None], FRAMES_PER_VIDEO, axis=1)),
                    "audio": audio,
                    "class_index": np.zeros(2, np.int32),
                    "pair_origin": np.zeros(2, np.uint8),
                    "group": np.arange(2) + 2 * number,
                    "timestamps": np.tile(np.arange(FRAMES_PER_VIDEO, dtype=np.float32), (2, 1)),
                    "key": np.array([f"{split}é{n}".encode() for n in range(2)]),
                    "name": np.array([name.encode() for name in ("a cat", "Kätzchen")]),
                },
            )
    return str(folder)


def test_folds_names_and_views_of_the_audio(checkpoint: str, tmp_path: Path):
    source = write_folds(tmp_path / "source")
    found = generate(source, tmp_path / "out", checkpoint)
    manifest = Manifest.load(tmp_path / "out")
    assert tuple(manifest.folds) == ("a", "b")
    assert manifest.label_head is None
    assert manifest.fields["audio"].views is None
    for split in ("a", "b"):
        names = ShardReader(tmp_path / "out").read_split(split, ["name"])["name"]
        assert [name.decode() for name in names] == ["a cat", "Kätzchen"]
        assert found[split]["key"] == [f"{split}é{n}" for n in range(2)]
        torch.testing.assert_close(found[split]["audio"], ShardDataset(source, split).columns()["audio"])


def test_temporal_aggregation_trains_on_it(videos: str, checkpoint: str, tmp_path: Path):
    source = write_learnable_videos(tmp_path / "source", {"train": 20, "validation": 6}, role="visual")
    generate(source, tmp_path / "out", checkpoint)
    trainer = make_trainer(tmp_path, max_epochs=1)
    trainer.fit(make_aggregation(), datamodule=make_data(str(tmp_path / "out")))
    assert trainer.global_step == 2
    assert 0 < trainer.callback_metrics["val/clip_score"] < 100


# -------------------------------------------------------------------- what is refused


def test_bad_input_is_named_and_nothing_is_written(videos: str, checkpoint: str, tmp_path: Path):
    heard = write_learnable_videos(tmp_path / "heard", ROWS, role="audio")
    scenes = write_learnable_scenes(tmp_path / "scenes")
    manifold = save_manifold(tmp_path / "manifold.ckpt")
    wide = tmp_path / "wide"
    with ShardWriter(
        wide,
        "videos",
        {"frames": visual_field(), "audio": FieldSpec(AUDIO_WIDTH + 1, "ear", "float32")},
        ["cat"],
    ) as writer:
        columns = ShardDataset(videos, "train").columns()
        rows = {name: columns[name].numpy() for name in ("frames", "pair_origin", "group", "timestamps")}
        rows["class_index"] = np.zeros(ROWS["train"], np.int32)
        rows["audio"] = np.ones((ROWS["train"], AUDIO_WIDTH + 1), np.float32)
        writer.write("train", rows | {"key": np.array(columns["key"], np.bytes_)})
    for arguments, options, message in [
        ((heard, checkpoint), {}, "its frames are audio embeddings already"),
        ((scenes, checkpoint), {}, "a data set of kind scenes; frames are generated for videos"),
        ((str(wide), checkpoint), {}, "field 'audio' has width 9, the checkpoint's is 8"),
        ((videos, manifold), {}, "manifold.ckpt: is no checkpoint of a RemixerModule"),
        ((videos, str(tmp_path / "none.ckpt")), {}, "none.ckpt: no such file"),
        ((str(tmp_path / "none"), checkpoint), {}, "manifest.json: missing"),
        ((videos, checkpoint), {"videos_at_once": 0}, "videos_at_once must be at least 1, found 0"),
        ((videos, checkpoint), {"device": "abacus"}, "device 'abacus': "),
        ((videos, checkpoint), {"sampling": "best"}, "sampling"),
    ]:
        source, path = arguments
        with pytest.raises(InputError, match=message):
            generate_frames(source, str(tmp_path / "out"), path, progress=False, **{"device": "cpu"} | options)
        assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_data_set_in_the_output_folder_is_replaced_when_asked_only(videos: str, checkpoint: str, tmp_path: Path):
    output = tmp_path / "out"
    generate(videos, output, checkpoint, sampling="draw")
    (output / "notes.txt").write_text("mine")
    before = (output / "manifest.json").read_bytes()
    with pytest.raises(InputError, match="holds a finished data set; choose another folder, or overwrite it"):
        generate(videos, output, checkpoint)
    assert (output / "manifest.json").read_bytes() == before
    generate(videos, output, checkpoint, overwrite=True)
    assert Manifest.load(output).fields["frames"].encoder.startswith("ss2a-mean:")
    assert (output / "notes.txt").read_text() == "mine"


def test_the_source_is_never_overwritten(checkpoint: str, tmp_path: Path, monkeypatch):
    source = write_learnable_videos(tmp_path / "videos", ROWS, role="visual")
    before = (Path(source) / "manifest.json").read_bytes()
    monkeypatch.chdir(tmp_path)
    urls = [(f"file://{source}", source), (source, f"file://{source}"), (f"file:{source}", f"local://{source}")]
    for given, output in [*((source, output) for output in (source, "videos", "./videos/../videos")), *urls]:
        with pytest.raises(InputError, match="the output is the source"):
            generate_frames(given, output, checkpoint, overwrite=True, device="cpu", progress=False)
    assert (Path(source) / "manifest.json").read_bytes() == before
    assert validate_dataset(source) == []
