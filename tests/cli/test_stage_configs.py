"""The configs of the stages after the manifold: parsed by the command, at the sizes that they claim."""

from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import seed_everything
from lightning.pytorch import Trainer

from lightning_ss2a.cli.lightning import build_cli
from lightning_ss2a.data import FRAMES_PER_VIDEO, FieldSpec, LabelHead, Ragged, ShardWriter
from lightning_ss2a.errors import InputError
from lightning_ss2a.models import ManifoldOptions
from lightning_ss2a.training import ManifoldModule

ROOT = Path(__file__).parents[2]
CLIP, CLAP = 768, 512
STAGES = ("remixer", "temporal_aggregation", "audio_to_visual", "v2a_mapper")
KINDS = {"audio_to_visual": "pairs", "temporal_aggregation": "videos"}
ROWS = 24


def fields_of(kind: str) -> dict[str, FieldSpec]:
    visual, audio = FieldSpec(CLIP, "clip"), FieldSpec(CLAP, "clap")
    return {
        "pairs": {"visual": visual, "audio": audio},
        "scenes": {"sources": FieldSpec(CLIP, "clip", ragged=True), "global_visual": visual, "audio": audio},
        "videos": {"frames": FieldSpec(CLAP, "ss2a", role="audio"), "audio": audio},
    }[kind]


def write_random(folder: Path, kind: str) -> str:
    """A data set at the widths of CLIP ViT-L/14 and CLAP."""
    random = np.random.default_rng(0)
    head = LabelHead(torch.randn(20, CLAP), torch.zeros(20), tuple(f"label{i}" for i in range(20)))
    shapes = {"sources": (2 * ROWS,), "frames": (ROWS, FRAMES_PER_VIDEO)}
    with ShardWriter(folder, kind, fields_of(kind), ["dog"], label_head=head) as writer:
        for split in ("train", "validation"):
            columns = {
                name: random.normal(size=(*shapes.get(name, (ROWS,)), spec.width)).astype(np.float32)
                for name, spec in fields_of(kind).items()
            }
            offsets = np.arange(0, 2 * ROWS + 1, 2)
            if kind == "scenes":
                columns |= {
                    "sources": Ragged(columns["sources"], offsets),
                    "classes": Ragged(np.zeros(2 * ROWS, np.int32), offsets),
                }
            if kind == "videos":
                columns["timestamps"] = np.tile(np.arange(FRAMES_PER_VIDEO, dtype=np.float32), (ROWS, 1))
            writer.write(split, {"key": [f"{split}{i}" for i in range(ROWS)], **columns})
    return str(folder)


@pytest.fixture(scope="module")
def manifold(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint of a small manifold between CLIP and CLAP."""
    path = tmp_path_factory.mktemp("manifold") / "manifold.ckpt"
    seed_everything(0)
    trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", devices=1)
    trainer.strategy.connect(
        ManifoldModule(CLIP, CLAP, ManifoldOptions(projector_widths=(8,), reconstructor_widths=(8,)))
    )
    trainer.save_checkpoint(path)
    return str(path)


def options_of(stage: str, manifold: str, data: str) -> list[str]:
    options = [f"--data.datasets={data}", "--trainer.accelerator=cpu", "--trainer.devices=1"]
    return [*options, f"--model.manifold_checkpoint={manifold}"] if stage == "remixer" else options


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("stage", STAGES)
def test_paper_config_has_the_papers_sizes(folder: Path, manifold: str, stage: str):
    data = write_random(folder / "data", KINDS.get(stage, "scenes"))
    config = ROOT / "configs" / "paper" / f"{stage}.yaml"
    cli = build_cli(["-c", str(config), *options_of(stage, manifold, data)], run=False)
    network = cli.model.network
    sizes = {name: tuple(p.shape) for name, p in network.named_parameters()}
    assert cli.trainer.precision == "bf16-mixed"
    epochs = {"remixer": 64, "temporal_aggregation": 128}
    assert cli.trainer.max_epochs == epochs.get(stage, cli.trainer.max_epochs)
    if stage in epochs:
        heads = [shape[0] for name, shape in sizes.items() if name.startswith("mean_head") and len(shape) == 2]
        assert heads == [768, 640, 512]
        assert len(network.blocks) == 1
        assert sizes["input.weight"] == (768, CLAP if stage == "temporal_aggregation" else 768 + CLIP)
    if stage == "remixer":
        assert (network.options.max_slots, network.options.token_dropout) == (64, 0.2)
        assert (cli.model.kl_weight, cli.model.optimization.learning_rate) == (5e-5, 1e-4)


@pytest.mark.parametrize("stage", STAGES)
def test_paper_config_trains_when_it_is_made_small(folder: Path, manifold: str, stage: str):
    data = write_random(folder / "data", KINDS.get(stage, "scenes"))
    attention = ("width=16", "num_heads=2", "head_widths=[8]")
    diffusion = ("num_layers=1", "num_heads=1", "head_width=8", "sample_steps=2")
    small = {
        "remixer": [f"--model.remixer.{option}" for option in attention],
        "temporal_aggregation": [f"--model.aggregator.{option}" for option in attention],
        "audio_to_visual": ["--model.translator.hidden_widths=[8,8]"],
        "v2a_mapper": [f"--model.diffusion.{option}" for option in diffusion],
    }[stage]
    short = ["--data.batch_size=12", "--trainer.max_epochs=1", "--trainer.check_val_every_n_epoch=1"]
    config = ROOT / "configs" / "paper" / f"{stage}.yaml"
    plain = ["--model.step=eager", "--trainer.enable_progress_bar=false"]
    cli = build_cli(["fit", "-c", str(config), *options_of(stage, manifold, data), *small, *short, *plain])
    assert cli.trainer.global_step == 2
    monitored = cli.trainer.checkpoint_callback.monitor
    assert monitored in cli.trainer.callback_metrics
    assert any(type(c).__name__ == "HyperparameterBoard" for c in cli.trainer.callbacks)
    name = KINDS.get(stage, "scenes")
    assert f"train/{name}_per_second" in cli.trainer.callback_metrics


@pytest.mark.parametrize("stage", ["v2a_mapper", "audio_to_visual"])
def test_data_without_visual_embeddings_are_named(folder: Path, stage: str):
    data = write_random(folder / "data", "videos")
    with pytest.raises(InputError, match=f"^{data}: no field of visual embeddings, which \\w+Module needs$"):
        build_cli(["-c", str(ROOT / "configs" / f"{stage}.yaml"), f"--data.datasets={data}"], run=False)
