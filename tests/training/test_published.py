"""The authors' released files as checkpoints that load, are measured and are trained further."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from lightning_ss2a.config_files import read_config
from lightning_ss2a.errors import InputError
from lightning_ss2a.models import CycleMixOptions
from lightning_ss2a.models.published import (
    Settings,
    read_aggregator_weights,
    read_manifold_weights,
    read_remixer_weights,
)
from lightning_ss2a.options import plain
from lightning_ss2a.training import ManifoldModule, RemixerModule, TemporalAggregationModule
from lightning_ss2a.training.published import CYCLE_MIX, import_published
from tests.manifold_examples import AUDIO_WIDTH, VISUAL_WIDTH, Recorder, make_data, make_trainer, write_learnable_pairs
from tests.models import published_reference as reference
from tests.models.published_reference import Sizes, make_aggregator, make_weights, part
from tests.scene_examples import write_learnable_scenes, write_learnable_videos

SIZES = Sizes(clip=VISUAL_WIDTH, clap=AUDIO_WIDTH)
FILES = ("manifold.ckpt", "remixer.ckpt", "temporal_aggregation.ckpt")


CONFIGS = Path(__file__).parents[2] / "configs" / "published"
RELEASED = Sizes(
    clip=768,
    clap=512,
    manifold=768,
    projector=(768, 768, 1536, 1536, 3072, 3072),
    generator=(768, 768, 896, 896, 1024, 1024, 2048, 2048),
    width=768,
    heads=8,
    slots=64,
)


def write_released(folder: Path, sizes: Sizes = SIZES, seed: int = 0) -> dict[str, str]:
    """The three files of the release, with random weights."""
    names = {"weights": "ssv2a.pth", "config": "ssv2a.json", "aggregator": "agg.pth"}
    paths = {argument: str(folder / name) for argument, name in names.items()}
    torch.save(make_weights(sizes, seed), paths["weights"])
    torch.save(make_aggregator(sizes.clap, seed), paths["aggregator"])
    Path(paths["config"]).write_text(json.dumps(sizes.config()))
    return paths


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_released(tmp_path_factory.mktemp("released"))


@pytest.fixture(scope="module")
def imported(released: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imported") / "new"
    assert import_published(**released, output=folder) == [folder / name for name in FILES]
    return folder


@torch.no_grad()
def test_modules_of_the_checkpoints_compute_what_the_released_code_does(released: dict[str, str], imported: Path):
    weights, aggregator = (torch.load(released[name]) for name in ("weights", "aggregator"))
    visual, frames = normalize(torch.randn(5, VISUAL_WIDTH)), normalize(torch.randn(2, 64, AUDIO_WIDTH), dim=-1)
    e, v = torch.randn(2, 6, SIZES.manifold), torch.randn(2, 6, VISUAL_WIDTH)
    projected = reference.variational(part("clip_encoder", weights["manifold_state"]), visual)[0]
    close = {"rtol": 1e-5, "atol": 1e-5}
    manifold, remixer = (
        module.load_from_checkpoint(imported / name, map_location="cpu", weights_only=True).eval()
        for module, name in zip((ManifoldModule, RemixerModule), FILES, strict=False)
    )
    for holder in (manifold, remixer):
        torch.testing.assert_close(holder.manifold.project_visual(visual).mean, projected, **close)
    mixed = remixer.remixer(e, v, torch.ones(2, 6, dtype=torch.bool)).mean
    torch.testing.assert_close(mixed, reference.remix(weights["remixer_state"], e, v, SIZES.heads)[0], **close)
    fusing = TemporalAggregationModule.load_from_checkpoint(imported / FILES[2], weights_only=True).eval()
    fused = fusing.aggregator(frames, torch.arange(64.0).expand(2, 64)).mean
    torch.testing.assert_close(fused, reference.aggregate(aggregator, frames)[0], **close)


def test_options_are_those_of_the_configuration(imported: Path):
    manifold = ManifoldModule.load_from_checkpoint(imported / FILES[0], weights_only=True)
    remixer = RemixerModule.load_from_checkpoint(imported / FILES[1], weights_only=True)
    assert (manifold.kl_weight, manifold.contrastive.ccmr_alpha, manifold.manifold.options.dropout) == (5e-5, 0.3, 0.2)
    options = remixer.remixer.options
    assert (remixer.kl_weight, options.token_dropout, options.token_dropout_mode) == (3e-5, 0.1, "parts")
    assert (options.max_slots, options.mask_padding, options.input_scaling) == (6, False, False)
    assert (remixer.cycle_mix.iterations, remixer.cycle_mix.score, remixer.cycle_mix.feedback) == (65, "std", "replace")


def test_shipped_configurations_have_the_architecture_of_the_release():
    with torch.device("meta"):
        weights = make_weights(RELEASED)
    state = {f"{p}.{name}": x for p, tensors in weights.items() if p != "timestamp" for name, x in tensors.items()}
    settings = Settings(RELEASED.config(), "ssv2a.json")
    manifold = read_manifold_weights(state, settings, "ssv2a.pth")
    remixer = read_remixer_weights(state, settings, manifold, "ssv2a.pth")
    aggregator = read_aggregator_weights(make_aggregator(512), "agg.pth")
    for stage, option, found in (
        ("manifold", "manifold", manifold.options),
        ("remixer", "remixer", remixer.options),
        ("temporal_aggregation", "aggregator", aggregator.options),
    ):
        shipped = read_config(CONFIGS / f"{stage}.yaml")["model"]["init_args"]
        assert plain(type(found)(**shipped[option]).architecture()) == plain(found.architecture())
    cycle_mix = read_config(CONFIGS / "remixer.yaml")["model"]["init_args"]["cycle_mix"]
    assert CycleMixOptions(**cycle_mix) == CYCLE_MIX


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_checkpoints_are_measured_and_trained_further(imported: Path, tmp_path: Path, stage: int):
    module_class, write = (
        (ManifoldModule, write_learnable_pairs),
        (RemixerModule, write_learnable_scenes),
        (TemporalAggregationModule, write_learnable_videos),
    )[stage]
    path = str(imported / FILES[stage])
    data = make_data(write(tmp_path / "data"))
    module = module_class.load_from_checkpoint(path, weights_only=True)
    if stage == 1:
        module.validate_cycle_mix = True
    before = {name: x.clone() for name, x in module.state_dict().items()}
    recorder = Recorder()
    trainer = make_trainer(tmp_path, callbacks=[recorder], max_epochs=1)
    trainer.validate(module, datamodule=data, ckpt_path=path, verbose=False)
    assert np.isfinite(list(recorder.validation[0].values())).all()
    trainer.fit(module, datamodule=data, ckpt_path=path)
    assert trainer.global_step == 6, "from the first step on"
    # Of 8 features in 8 heads: a softmax over one feature is constant.
    constant = ("attention.query.bias", "attention.key.bias") if stage == 2 else ("-",)
    moved = {name for name, x in module.state_dict().items() if not torch.equal(x, before[name])}
    frozen = {name for name in before if stage == 1 and name.startswith("manifold.")}
    assert moved == before.keys() - frozen - {name for name in before if name.endswith(constant)}


def test_slots_without_a_source_hold_the_projection_of_nothing(imported: Path):
    module = RemixerModule.load_from_checkpoint(imported / FILES[1], weights_only=True).eval()
    valid = torch.tensor([[True, True], [True, False]])
    batch = {
        "sources": torch.randn(2, 2, VISUAL_WIDTH),
        "valid": valid,
        "global_visual": torch.randn(2, VISUAL_WIDTH),
        "key": ["a", "b"],
    }
    slots = module.slots(batch)
    e, v, there = module.filled(slots).tokens()
    nothing = module.manifold.project_visual(torch.zeros(VISUAL_WIDTH)).mean
    assert there.all()
    assert not v[1, 2:].any()
    torch.testing.assert_close(e[1, 2:], nothing.expand(4, -1))
    expected = module.remixer(e, v, there)
    torch.testing.assert_close(module.mix(slots).mean, expected.mean)
    assert module.mix_in_cycles(batch, slots).embedding.isfinite().all()
    assert slots.weight.sum() == 4, "what is not there is no source"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("ssv2a.pth", b"nothing", "^source .*ssv2a.pth: not the authors' ssv2a.pth, or a damaged one"),
        ("ssv2a.json", b"[1]", "^config .*ssv2a.json: needs a JSON object, found a list"),
        ("ssv2a.json", b"{", "^config .*ssv2a.json: not JSON"),
        ("agg.pth", b"nothing", "^aggregator .*agg.pth: not a file of torch.save"),
    ],
)
def test_other_files_are_named(tmp_path: Path, name: str, content: bytes, message: str):
    released = write_released(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        import_published(**released, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


class Unknown:
    """Nothing that a library could have called safe."""


def test_a_folder_that_cannot_be_made_is_named(released: dict[str, str], tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file: cannot be the folder of the checkpoints"):
        import_published(**released, output=tmp_path / "file")


def test_what_only_unpickling_would_read_is_refused(tmp_path: Path):
    released = write_released(tmp_path)
    torch.save(make_weights(SIZES) | {"optimiser": Unknown()}, released["weights"])
    with pytest.raises(InputError, match="holds more than tensors and plain values, which is never unpickled"):
        import_published(**released, output=tmp_path / "out")


@pytest.mark.parametrize("missing", ["generator_state", "remixer_state"])
def test_a_part_without_weights_is_named(tmp_path: Path, missing: str):
    released = write_released(tmp_path)
    torch.save(make_weights(SIZES) | {missing: None}, released["weights"])
    with pytest.raises(InputError, match=f"ssv2a.pth: has no weights by name in its {missing}$"):
        import_published(**released, output=tmp_path / "out")


@pytest.mark.parametrize("damaged", [lambda x: x * math.nan, lambda x: x.long()])
@pytest.mark.parametrize("name", ["weights", "aggregator"])
def test_numbers_that_are_none_are_named(tmp_path: Path, name: str, damaged: Callable[[Tensor], Tensor]):
    released = write_released(tmp_path)
    content = torch.load(released[name])
    own = content["remixer_state"] if name == "weights" else content
    tensor = next(reversed([*own]))
    own[tensor] = damaged(own[tensor])
    torch.save(content, released[name])
    with pytest.raises(InputError, match=rf"{tensor} with numbers that are not finite, or whole ones$"):
        import_published(**released, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()
