"""RemixerModule: Eq. 9, what its tokens are, and a manifold that is read once and never changes."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor
from torch.nn.functional import normalize

from lightning_ss2a.data import ShardDataset
from lightning_ss2a.errors import InputError
from lightning_ss2a.models.layers.embeddings import unit_variance
from lightning_ss2a.models.source_slots import mean_of_sources
from lightning_ss2a.training import RemixerModule
from tests.manifold_examples import (
    AUDIO_WIDTH,
    VISUAL_WIDTH,
    Recorder,
    make_data,
    make_trainer,
    parameters_of,
    write_learnable_pairs,
)
from tests.scene_examples import make_remixer, save_manifold, write_learnable_scenes
from tests.stage_examples import STAGES

DETERMINISTIC = STAGES["remixer"].deterministic
STILL = {"iterations": 1, "samples": 1, "noise_scale": 0.0}
SEEDS = pytest.mark.parametrize("seed", [0, 1, 2])


@pytest.fixture(scope="module")
def manifold(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_manifold(tmp_path_factory.mktemp("manifold") / "manifold.ckpt")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_learnable_scenes(tmp_path_factory.mktemp("scenes"))


def make_batch(seed: int = 0, counts: tuple[int, ...] = (3, 1, 2, 3)) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    rows, longest = len(counts), max(counts)
    valid = torch.arange(longest) < torch.tensor(counts)[:, None]
    sources = torch.randn(rows, longest, VISUAL_WIDTH, generator=generator) + 0.4
    return {
        "sources": sources.masked_fill(~valid.unsqueeze(-1), 0),
        "valid": valid,
        "global_visual": torch.randn(rows, VISUAL_WIDTH, generator=generator) + 0.4,
        "audio": torch.randn(rows, AUDIO_WIDTH, generator=generator) + 0.4,
        "index": torch.arange(rows),
        "key": [f"scene{n}" for n in range(rows)],
    }


def lively(module: RemixerModule) -> RemixerModule:
    """Heads whose outputs differ between scenes."""
    with torch.no_grad():
        module.remixer.mean_head[-1].weight.mul_(5)
        module.remixer.log_variance_head[-1].weight.normal_()
    return module


def fit(module: RemixerModule, dataset: str, folder: Path, callbacks: list | None = None, **options: Any) -> Recorder:
    recorder = Recorder()
    trainer = make_trainer(folder, callbacks=[recorder, *(callbacks or [])], **options)
    trainer.fit(module, datamodule=make_data(dataset))
    return recorder


# -------------------------------------------------------------------- Eq. 9


def terms_by_hand(module: RemixerModule, batch: dict[str, Any], kl_weight: float) -> dict[str, Tensor]:
    """Scene by scene, each without padding: the global embedding and the sources, their e and v."""
    cosines, divergences = [], []
    for row, valid in enumerate(batch["valid"]):
        visual = torch.cat([batch["global_visual"][row : row + 1], batch["sources"][row][valid]])
        e = module.manifold.project_visual(visual).mean
        mixed = module.remixer(e[None], visual[None], torch.ones(1, len(visual), dtype=torch.bool))
        mean, true = mixed.mean[0].double(), batch["audio"][row].double()
        cosines.append((1 - mean @ true / mean.norm() / true.norm()).abs())
        found = torch.distributions.Normal(mean, (mixed.log_variance[0].double() / 2).exp())
        standard = torch.distributions.Normal(torch.zeros_like(mean), 1.0)
        divergences.append(torch.distributions.kl_divergence(found, standard).sum())
    cosine, kl = torch.stack(cosines).mean(), torch.stack(divergences).mean()
    return {"cosine": cosine, "kl": kl, "loss": cosine + kl_weight * kl}


@SEEDS
@pytest.mark.parametrize("options", [{}, {"variant": "published"}, {"num_layers": 2, "unit_mean": True}])
def test_losses_are_equation_9(manifold: str, seed: int, options: dict):
    module = lively(make_remixer(manifold, seed, kl_weight=0.03, **DETERMINISTIC, **options))
    batch = make_batch(seed)
    found, expected = module.losses(batch), terms_by_hand(module, batch, 0.03)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value.item(), rel=5e-6), name
    parameters = [p for p in module.parameters() if p.requires_grad]
    gradients = [torch.autograd.grad(terms["loss"], parameters) for terms in (found, expected)]
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)


@SEEDS
@pytest.mark.parametrize("draws", [1, 4])
def test_sources_and_mixture_are_drawn(manifold: str, seed: int, draws: int):
    """e is one draw of the manifold's Gaussian, the embedding the mean of as many as asked for."""
    options = {"dropout": 0.0, "token_dropout": 0.0, "draws": draws, "kl_weight": 0.0}
    module = lively(make_remixer(manifold, seed, **options))
    batch = make_batch(seed)
    torch.manual_seed(seed)
    found = module.losses(batch)["loss"]
    slots = module.slots(batch)
    torch.manual_seed(seed)
    e = slots.cmss.mean + torch.randn_like(slots.cmss.mean) * (slots.cmss.log_variance / 2).exp()
    mixed = module.remixer(e, slots.visual, slots.valid)
    drawn = mixed.mean + torch.randn_like(mixed.mean) * (mixed.log_variance / 2).exp() / draws**0.5
    expected = 1 - (normalize(drawn, dim=1) * normalize(batch["audio"], dim=1)).sum(1).mean()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


@SEEDS
@pytest.mark.parametrize("options", [{}, {"mask_padding": False}, {"use_global": False}, {"variant": "published"}])
@pytest.mark.parametrize("residual", ["mean", "weighted_mean"])
def test_a_residual_starts_at_the_baseline_of_the_mean_of_sources(
    manifold: str, seed: int, options: dict, residual: str
):
    """Whatever is masked, padded or beside the sources, in evaluation as in a training step."""
    module, batch = make_remixer(manifold, seed, residual=residual, **STILL, **options), make_batch(seed)
    expected = []
    for sources, valid in zip(batch["sources"], batch["valid"], strict=True):
        e = module.manifold.project_visual(sources[valid]).mean
        expected.append(normalize(normalize(module.manifold.reconstruct_audio(e).mean, dim=1).mean(0), dim=0))
    expected = torch.stack(expected)
    module.eval()
    slots = module.slots(batch)
    torch.testing.assert_close(normalize(module.mix(slots).mean, dim=1), expected)
    start = unit_variance(mean_of_sources(slots, module.manifold))
    torch.testing.assert_close(module.mix(slots).mean, start)
    assert residual != "mean" or torch.equal(module.mix(slots).mean, start)
    torch.testing.assert_close(module.mix_in_cycles(batch, slots).embedding, expected)
    inputs = module.train().prepare(batch)
    assert not inputs["source_audio"].requires_grad
    found = module.remixer(inputs["e"], inputs["v"], inputs["valid"], inputs["source_audio"]).mean
    torch.testing.assert_close(normalize(found, dim=1), expected)


@SEEDS
def test_losses_of_a_residual_are_equation_9_of_the_sum(manifold: str, seed: int):
    module = lively(make_remixer(manifold, seed, kl_weight=0.03, residual="mean", **DETERMINISTIC))
    torch.nn.init.normal_(module.remixer.mean_head[-1].weight)
    batch = make_batch(seed)
    found = module.losses(batch)
    inputs = module.prepare(batch)
    plain = make_remixer(manifold, seed, **DETERMINISTIC).remixer
    plain.load_state_dict(module.remixer.state_dict())
    gaussian = plain(inputs["e"], inputs["v"], inputs["valid"])
    mean = gaussian.mean + normalize(inputs["source_audio"].sum(1), dim=1) * AUDIO_WIDTH**0.5
    cosine = (1 - torch.cosine_similarity(mean, batch["audio"])).mean()
    variance = gaussian.log_variance.exp()
    kl = (mean.square() + variance - 1 - variance.log()).sum(1).mean() / 2
    assert found["cosine"].item() == pytest.approx(cosine.item(), rel=1e-5)
    assert found["kl"].item() == pytest.approx(kl.item(), rel=1e-5)
    assert found["loss"].item() == pytest.approx((cosine + 0.03 * kl).item(), rel=1e-5)


# -------------------------------------------------------------------- tokens


def test_the_global_embedding_comes_first_and_is_no_source(manifold: str):
    module, batch = make_remixer(manifold), make_batch()
    slots = module.slots(batch)
    assert slots.weight.tolist() == [[0, 1, 1, 1]] * 4
    assert slots.valid.tolist() == [[True, *row] for row in batch["valid"].tolist()]
    assert torch.equal(slots.visual[:, 0], batch["global_visual"])
    assert torch.equal(slots.visual[:, 1:], batch["sources"])
    expected = module.manifold.project_visual(torch.cat([batch["global_visual"][:, None], batch["sources"]], 1))
    torch.testing.assert_close(slots.cmss.mean, expected.mean)
    without = make_remixer(manifold, use_global=False).slots(batch)
    assert torch.equal(without.visual, batch["sources"])
    assert without.weight.tolist() == [[1, 1, 1]] * 4


def predict(module: RemixerModule, batch: dict[str, Any]) -> Tensor:
    """Mean of the mixture and what Cycle Mix finds, side by side."""
    slots = module.eval().slots(batch)
    with torch.no_grad():
        return torch.cat([module.remixer(*slots.tokens()).mean, module.mix_in_cycles(batch, slots).embedding], dim=1)


def take(batch: dict[str, Any], rows: list[int]) -> dict[str, Any]:
    return {n: [x[r] for r in rows] if isinstance(x, list) else x[torch.tensor(rows)] for n, x in batch.items()}


@SEEDS
@pytest.mark.parametrize("options", [{}, {"use_global": False}, {"variant": "published"}, {"mask_padding": False}])
def test_order_of_sources_padding_and_the_rest_of_the_batch_do_not_matter(manifold: str, seed: int, options: dict):
    module, batch = lively(make_remixer(manifold, seed, **options)), make_batch(seed)
    expected = predict(module, batch)
    assert float(torch.cdist(normalize(expected, dim=1), normalize(expected, dim=1))[0, 1:].min()) > 1e-2
    order = torch.tensor([2, 0, 1])
    permuted = batch | {"sources": batch["sources"][:, order], "valid": batch["valid"][:, order]}
    garbage = torch.full((4, 2, VISUAL_WIDTH), 1e3)
    padded = batch | {
        "sources": torch.cat([batch["sources"].masked_fill(~batch["valid"][..., None], -7.0), garbage], dim=1),
        "valid": torch.cat([batch["valid"], torch.zeros(4, 2, dtype=torch.bool)], dim=1),
    }
    alone = torch.cat([predict(module, take(batch, [row])) for row in range(4)])
    for found in (predict(module, permuted), predict(module, padded), alone):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(predict(module, take(batch, [3, 1, 1])), expected[[3, 1, 1]], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("options", "kept"), [({"max_slots": 3}, 2), ({"max_slots": 2, "use_global": False}, 2)])
def test_of_more_sources_than_slots_the_first_are_kept_with_a_warning(manifold: str, options: dict, kept: int):
    module, batch = make_remixer(manifold, **options), make_batch()
    with pytest.warns(UserWarning, match=f"model.remixer.max_slots leaves room for {kept} sources"):
        slots = module.slots(batch)
    assert slots.valid[:, -kept:].tolist() == batch["valid"][:, :kept].tolist()
    assert torch.equal(slots.visual[:, -kept:], batch["sources"][:, :kept])
    assert slots.valid.shape[1] == options["max_slots"]


@pytest.mark.parametrize(("conditions", "matters"), [("manifold+visual", "both"), ("manifold", "e"), ("visual", "v")])
def test_conditions_are_the_parts_of_the_tokens_that_matter(manifold: str, conditions: str, matters: str):
    module = lively(make_remixer(manifold, conditions=conditions)).eval()
    e, v, valid = module.slots(make_batch()).tokens()
    mixed = module.remixer(e, v, valid).mean
    assert torch.equal(module.remixer(e.flip(0), v, valid).mean, mixed) == (matters == "v")
    assert torch.equal(module.remixer(e, v.flip(0), valid).mean, mixed) == (matters == "e")


def test_what_is_no_number_shows(manifold: str):
    """In the audio or a source it makes the loss no number; in an empty slot it is nothing."""
    module = make_remixer(manifold, **DETERMINISTIC)
    clean = make_batch()
    expected = module.losses(clean)["loss"]
    for field, place in (("audio", (1, 2)), ("sources", (0, 1, 3)), ("global_visual", (2, 0))):
        batch = make_batch()
        batch[field][place] = torch.nan
        assert module.losses(batch)["loss"].isnan()
    batch = make_batch()
    batch["sources"][1, 2] = torch.nan  # the scene has one source
    assert torch.equal(module.losses(batch)["loss"], expected)
    batch["sources"][1, 0] = torch.inf
    with pytest.raises(ValueError, match="of scene 'scene1' hold a NaN or infinity in slot 1"):
        module.eval().mix_in_cycles(batch, module.slots(batch))


# -------------------------------------------------------------------- the manifold: frozen, read once


def test_the_manifold_is_frozen(manifold: str, dataset: str, tmp_path: Path):
    module = make_remixer(manifold)
    before = parameters_of(module)
    trained: list[Any] = []

    class Watch(Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
            trained.append([id(p) for group in optimizer.param_groups for p in group["params"]])
            assert all(p.grad is None for p in pl_module.manifold.parameters())
            assert all(p.grad is not None for p in pl_module.remixer.parameters())

    fit(module, dataset, tmp_path, [Watch()])
    after = parameters_of(module)
    changed = {name.partition(".")[0] for name in after if not torch.equal(before[name], after[name])}
    assert changed == {"remixer"}
    assert len(trained) == 12
    assert {i for ids in trained for i in ids} == {id(p) for p in module.remixer.parameters()}
    assert not any(p.requires_grad for p in module.manifold.parameters())


class CountRows(Callback):
    """Counts what the manifold projects while fitting, and keeps e of each scene in each epoch."""

    def __init__(self, module: RemixerModule) -> None:
        self.projected: list[Tensor] = []
        self.e: list[dict[int, Tensor]] = []
        project, remix = module.manifold.project_visual, module.remixer.forward

        def counted(visual: Tensor):
            self.projected.append(visual.reshape(-1, visual.shape[-1]).clone())
            return project(visual)

        def kept(e: Tensor, *others: Tensor | None):
            if module.training:
                self.e[-1] |= {int(i): row[:2].clone() for i, row in zip(self.index, e, strict=True)}
            return remix(e, *others)

        module.manifold.project_visual, module.remixer.forward = counted, kept

    @property
    def rows(self) -> int:
        return sum(len(part) for part in self.projected)

    def on_train_epoch_start(self, *_: Any) -> None:
        self.e.append({})

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.index = batch["index"]


def different_embeddings(dataset: str, fields: tuple[str, ...]) -> int:
    rows = set()
    for split in ("train", "validation"):
        columns = ShardDataset(dataset, split).columns()
        parts = {"sources": columns["sources"][columns["valid"]], "global_visual": columns["global_visual"]}
        rows |= {tuple(row) for field in fields for row in parts[field].tolist()}
    return len(rows)


@pytest.mark.parametrize("epochs", [1, 4])
def test_each_embedding_is_projected_once_however_many_epochs(manifold: str, dataset: str, tmp_path, epochs: int):
    module = make_remixer(manifold)
    count = CountRows(module)
    fit(module, dataset, tmp_path, [count], max_epochs=epochs)
    different = different_embeddings(dataset, ("sources", "global_visual"))
    assert 20 + 76 >= different > 76  # sources come again in other scenes
    assert count.rows == different + 23  # and once for the baseline "global"


@pytest.mark.parametrize("epochs", [1, 3])
def test_views_that_are_drawn_anew_are_projected_each_time(manifold: str, tmp_path: Path, epochs: int):
    scenes, module = write_learnable_scenes(tmp_path / "scenes", global_views=2), make_remixer(manifold)
    count = CountRows(module)
    fit(module, scenes, tmp_path, [count], max_epochs=epochs)
    assert count.rows == different_embeddings(scenes, ("sources",)) + epochs * (6 * 8 + 23) + 23


def test_e_is_drawn_anew_each_epoch(manifold: str, dataset: str, tmp_path: Path):
    module = make_remixer(manifold)
    count = CountRows(module)
    fit(module, dataset, tmp_path, [count], max_epochs=3)
    rows = ShardDataset(dataset, "train").columns()
    gaussian = module.slots(rows).cmss
    scores = []
    for epoch in count.e:
        assert len(epoch) == 48
        index = sorted(epoch)
        drawn, mean = torch.stack([epoch[i] for i in index]), gaussian.mean[index, :2]
        scores.append(((drawn - mean) / (gaussian.log_variance[index, :2] / 2).exp()).flatten())
    for score in scores:
        assert abs(float(score.mean())) < 0.15
        assert float(score.std()) == pytest.approx(1, abs=0.1)
    assert not any(torch.equal(scores[0], other) for other in scores[1:])
    twin = make_remixer(manifold, source_embedding="mean")
    means = CountRows(twin)
    fit(twin, dataset, tmp_path, [means], max_epochs=1)
    for i, e in means.e[0].items():
        torch.testing.assert_close(e, gaussian.mean[i, :2])


def test_projections_of_an_interrupted_fit_are_not_looked_up_for_other_data(manifold: str, dataset: str, tmp_path):
    class Stop(Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            raise RuntimeError("stop")

    module = make_remixer(manifold)
    with pytest.raises(RuntimeError, match="stop"):
        fit(module, dataset, tmp_path, [Stop()])
    other = write_learnable_scenes(tmp_path / "other", seed=5)
    recorder = Recorder()
    make_trainer(tmp_path, callbacks=[recorder]).validate(module, datamodule=make_data(other), verbose=False)
    assert len(recorder.validation) == 1
    assert all(math.isfinite(value) for value in recorder.validation[0].values())


# -------------------------------------------------------------------- learning, and data that do not fit


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"variant": "published"},
        {"conditions": "visual"},
        {"use_global": False, "num_layers": 2},
        {"residual": "mean"},
        {"residual": "weighted_mean"},
    ],
)
def test_it_learns(manifold: str, dataset: str, tmp_path: Path, seed: int, options: dict):
    module = make_remixer(manifold, seed, learning_rate=5e-3, **options)
    recorder = fit(module, dataset, tmp_path, max_epochs=20, check_val_every_n_epoch=10)
    values = recorder.validation[-1]
    assert values["val/reconstruction_cosine"] > values["val/reconstruction_cosine_baseline/mean_audio"] + 0.4
    losses = np.array([terms["train/loss_cosine"] for terms in recorder.training.values()])
    assert losses[-12:].mean() < 0.5 * losses[:6].mean()


@pytest.mark.parametrize("options", [{"repeated": False}, {"with_head": False}, {"global_views": 3}])
def test_other_scenes(manifold: str, tmp_path: Path, options: dict):
    scenes = write_learnable_scenes(tmp_path / "scenes", **options)
    recorder = fit(make_remixer(manifold, validate_cycle_mix=True), scenes, tmp_path, max_epochs=1)
    values = recorder.validation[0]
    assert all(math.isfinite(value) for value in values.values())
    assert ("val/ssms/cycle_mix" in values) == ("with_head" not in options)


def test_data_that_do_not_fit_the_model_are_named(manifold: str, dataset: str, tmp_path: Path):
    pairs = write_learnable_pairs(tmp_path / "pairs")
    with pytest.raises(InputError, match=r"a data set of kind pairs; RemixerModule needs scenes"):
        fit(make_remixer(manifold), pairs, tmp_path)
    with pytest.raises(InputError, match=r"model.measuring.top_n is 16, but the data's label head has only 15 labels"):
        fit(make_remixer(manifold, top_n=16), dataset, tmp_path)
