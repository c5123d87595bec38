"""AudioToVisualModule: its two losses, its numbers, and its checkpoint as the translator of other modules."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lightning_ss2a.data import ShardDataset
from lightning_ss2a.errors import InputError
from lightning_ss2a.models import AudioToVisualOptions
from lightning_ss2a.training import AudioToVisualModule
from lightning_ss2a.training.pretrained import load_audio_to_visual
from lightning_ss2a.training.validation.baselines import fit_training_statistics
from tests.manifold_examples import (
    AUDIO_WIDTH,
    VISUAL_WIDTH,
    Recorder,
    SaveAfterValidation,
    largest_difference,
    make_data,
    make_trainer,
    write_learnable_pairs,
)
from tests.scene_examples import (
    make_mapper,
    make_remixer,
    make_translator,
    save_manifold,
    write_learnable_scenes,
)

SEEDS = pytest.mark.parametrize("seed", [0, 1, 2])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_learnable_pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_learnable_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def trained(dataset: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Checkpoint of a translator after two epochs."""
    folder = tmp_path_factory.mktemp("trained")
    fit(make_translator(learning_rate=1e-2), dataset, folder, [SaveAfterValidation(folder)])
    return str(folder / "012.ckpt")


def make_batch(seed: int = 0, rows: int = 6) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "visual": torch.randn(rows, VISUAL_WIDTH, generator=generator) + 0.5,
        "audio": torch.randn(rows, AUDIO_WIDTH, generator=generator) + 0.5,
        "index": torch.arange(rows),
    }


def fit(module: Any, dataset: str, folder: Path, callbacks: list | None = None, **options: Any) -> Recorder:
    recorder = Recorder()
    trainer = make_trainer(folder, callbacks=[recorder, *(callbacks or [])], **options)
    trainer.fit(module, datamodule=make_data(dataset))
    return recorder


def unit(rows: Any) -> np.ndarray:
    rows = np.asarray(rows, np.float64)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


# -------------------------------------------------------------------- losses


@SEEDS
@pytest.mark.parametrize("alpha", [0.0, 0.35])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.3, 2.0), (0.0, 1.0), (1.0, 0.0)])
def test_losses_by_hand(seed: int, alpha: float, weights: tuple[float, float]):
    """The contrast is between what is left of unit vectors when the mean training picture is taken off."""
    options = {"contrastive_weight": weights[0], "cosine_weight": weights[1], "ccmr_alpha": alpha, "dropout": 0.0}
    module, batch = make_translator(seed, **options), make_batch(seed)
    module.statistics = fit_training_statistics([make_batch(seed + 10, 40)])
    translated = unit(module.translator(batch["audio"]).detach())
    visual, audio = unit(batch["visual"]), unit(batch["audio"])
    mean = module.statistics.mean_visual.double().numpy()
    alike = np.clip((visual @ visual.T) * (audio @ audio.T), 0, 1)
    mask = np.exp(-alpha * alike**alpha)
    np.fill_diagonal(mask, 1.0)  # matching pairs are not weakened
    similarity = unit(visual - mean) @ unit(translated - mean).T * mask / 0.07
    rows = similarity - np.log(np.exp(similarity).sum(1, keepdims=True))
    columns = similarity - np.log(np.exp(similarity).sum(0, keepdims=True))
    expected = {
        "contrastive": -(np.diag(rows).mean() + np.diag(columns).mean()) / 2,
        "cosine": np.abs(1 - (translated * visual).sum(1)).mean(),
    }
    expected = {name: x for name, x, weight in zip(expected, expected.values(), weights, strict=True) if weight}
    terms = module.losses(batch)
    total = sum(weight * expected.get(name, 0) for name, weight in zip(("contrastive", "cosine"), weights, strict=True))
    assert terms.keys() == {"loss", *expected}
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value, rel=1e-5), name
    assert terms["loss"].item() == pytest.approx(total, rel=1e-5)
    terms["loss"].backward()
    without = [n for n, p in module.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    assert module.translator.log_temperature.requires_grad == (weights[0] > 0)


# -------------------------------------------------------------------- numbers, and learning


def test_numbers_are_those_of_direct_calls(dataset: str, tmp_path: Path):
    module = make_translator(learning_rate=1e-2)
    values = fit(module, dataset, tmp_path).validation[-1]
    rows = ShardDataset(dataset, "validation").columns()
    statistics = {name: x.double().numpy() for name, x in module.statistics.state_dict().items()}
    visual, audio = unit(rows["visual"]), unit(rows["audio"])
    with torch.no_grad():
        own = unit(module.eval().translator(rows["audio"]))
    ridge = audio @ statistics["audio_to_visual_weight"].T + statistics["audio_to_visual_bias"]
    mean = statistics["mean_visual"]
    assert values["val/translation_cosine"] == pytest.approx((own * visual).sum(1).mean(), abs=1e-5)
    assert values["val/translation_cosine_baseline/ridge"] == pytest.approx(
        (unit(ridge) * visual).sum(1).mean(), abs=1e-5
    )
    assert values["val/translation_cosine_baseline/mean_visual"] == pytest.approx(
        (visual @ unit(mean)).mean(), abs=1e-5
    )
    for name, predicted in (("", own), ("_baseline/ridge", ridge)):
        similarity = unit(visual - mean) @ unit(predicted - mean).T
        for direction, matrix in (("visual_to_audio", similarity), ("audio_to_visual", similarity.T)):
            ranks = (matrix > np.diag(matrix)[:, None]).sum(1)
            for k in (1, 5, 10):
                found = values[f"val/recall@{k}/{direction}{name}"]
                assert found == pytest.approx((ranks < k).mean(), abs=1e-6), (k, direction, name)
                assert values[f"val/recall@{k}/{direction}_baseline/chance"] == pytest.approx(k / 23)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("options", [{}, {"contrastive_weight": 0.0}, {"cosine_weight": 0.0}, {"ccmr_alpha": 0.35}])
def test_it_learns(dataset: str, tmp_path: Path, seed: int, options: dict):
    module = make_translator(seed, learning_rate=1e-2, **options)
    recorder = fit(module, dataset, tmp_path, max_epochs=15, check_val_every_n_epoch=15)
    values = recorder.validation[-1]
    assert values["val/recall@5/audio_to_visual"] > 0.5 > 2 * values["val/recall@5/audio_to_visual_baseline/chance"]
    if options.get("cosine_weight") != 0:
        assert values["val/translation_cosine"] > values["val/translation_cosine_baseline/mean_visual"] + 0.2
    losses = [terms["train/loss"] for terms in recorder.training.values()]
    assert sum(losses[-6:]) < 0.7 * sum(losses[:6])


def test_translations_are_as_long_as_training_pictures_also_from_a_checkpoint(dataset: str, tmp_path: Path):
    module = make_translator()
    fit(module, dataset, tmp_path, [SaveAfterValidation(tmp_path)], max_epochs=1)
    visual = ShardDataset(dataset, "train").columns()["visual"].double().numpy()
    expected = np.linalg.norm(visual, axis=1).mean()
    again = AudioToVisualModule.load_from_checkpoint(tmp_path / "006.ckpt", weights_only=True)
    frozen = load_audio_to_visual(str(tmp_path / "006.ckpt"), "translator_checkpoint")
    for translator in (module.translator, again.translator, frozen):
        assert float(translator.visual_norm) == pytest.approx(expected, rel=1e-6)
        lengths = translator(make_batch()["audio"]).detach().norm(dim=1)
        torch.testing.assert_close(lengths, torch.full((6,), expected).float())
    assert largest_difference(frozen.state_dict(), module.translator.state_dict()) == 0
    assert not any(p.requires_grad for p in frozen.parameters())
    frozen.train()  # no dropout, in any mode
    torch.testing.assert_close(frozen(make_batch()["audio"]), module.eval().translator(make_batch()["audio"]))


# -------------------------------------------------------------------- the translator of other modules


def validate(module: Any, dataset: str, folder: Path) -> dict[str, float]:
    recorder = Recorder()
    trainer = make_trainer(folder, callbacks=[recorder])
    trainer.validate(module, datamodule=make_data(dataset), verbose=False)
    return recorder.validation[0]


@pytest.mark.parametrize("kind", ["pairs", "scenes"])
def test_it_translates_for_the_clip_score_of_other_modules(dataset, scenes, trained, tmp_path: Path, kind: str):
    data = {"pairs": dataset, "scenes": scenes}[kind]
    module = make_mapper(flavour="regression", translator_checkpoint=trained)
    values = validate(module, data, tmp_path)
    rows = ShardDataset(data, "validation").columns()
    translator = AudioToVisualModule.load_from_checkpoint(trained, weights_only=True).eval().translator
    with torch.no_grad():
        predicted = module.eval().predict_audio(rows)
    scores = {
        "val/clip_score": predicted,
        "val/clip_score_baseline/ridge": module.statistics.predict_audio(features(rows)),
    }
    for name, audio in scores.items():
        with torch.no_grad():
            translated = unit(translator(torch.from_numpy(unit(audio)).float()))
        means = []
        for row, seen in enumerate(translated):
            visual = rows["sources"][row][rows["valid"][row]] if kind == "scenes" else rows["visual"][row : row + 1]
            means.append((unit(visual) @ seen).mean())
        assert values[name] == pytest.approx(100 * np.mean(means), abs=1e-3), name
    plain = validate(make_mapper(flavour="regression"), data, tmp_path)
    assert abs(plain["val/clip_score"] - values["val/clip_score"]) > 0.5
    assert plain["val/ssms"] == values["val/ssms"]


def features(rows: dict[str, Any]) -> Tensor:
    if "visual" in rows:
        return torch.from_numpy(unit(rows["visual"])).float()
    means = [unit(s[v]).mean(0) for s, v in zip(rows["sources"], rows["valid"], strict=True)]
    return torch.from_numpy(np.concatenate([unit(rows["global_visual"]), np.stack(means)], axis=1)).float()


def test_a_checkpoint_holds_no_translator_and_finds_it_again(scenes: str, trained: str, tmp_path: Path):
    module = make_mapper(flavour="regression", translator_checkpoint=trained)
    recorder = fit(module, scenes, tmp_path, [SaveAfterValidation(tmp_path)])
    state = torch.load(tmp_path / "012.ckpt", weights_only=True)
    assert not any("translator" in name for name in [*state["state_dict"], *state["training_statistics"]])
    again = type(module).load_from_checkpoint(tmp_path / "012.ckpt", weights_only=True)
    assert validate(again, scenes, tmp_path) == pytest.approx(recorder.validation[-1], rel=1e-5)
    # Resumed, with the translator as before.
    trainer = make_trainer(tmp_path, callbacks=[resumed := Recorder()], max_epochs=3)
    trainer.fit(module, datamodule=make_data(scenes), ckpt_path=tmp_path / "012.ckpt", weights_only=True)
    assert len(resumed.validation) == 1
    assert (
        resumed.validation[0]["val/clip_score_baseline/ridge"]
        == recorder.validation[0]["val/clip_score_baseline/ridge"]
    )


def test_wrong_translators_are_named(scenes: str, trained: str, tmp_path: Path):
    manifold = save_manifold(tmp_path / "manifold.ckpt")
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    save_file({"weight": torch.zeros(3, 3), "bias": torch.zeros(3)}, tmp_path / "map.safetensors")
    other = AudioToVisualModule(VISUAL_WIDTH + 1, AUDIO_WIDTH, AudioToVisualOptions((4,)))
    save(other, tmp_path / "wide.ckpt")
    save(make_mapper(flavour="regression"), tmp_path / "mapper.ckpt")
    for name, message in [
        ("none.ckpt", "none.ckpt: no such file"),
        ("text.ckpt", "text.ckpt: not a checkpoint of Lightning"),
        ("manifold.ckpt", r"manifold.ckpt: is no checkpoint of a translator \(AudioToVisualModule\)"),
        ("mapper.ckpt", r"mapper.ckpt: is no checkpoint of a translator \(AudioToVisualModule\)"),
        ("wide.ckpt", "wide.ckpt: its visual_width is 11, here it must be 10"),
        ("map.safetensors", r"map.safetensors: field 'weight' must have shape \(10, 8\), found \(3, 3\)"),
    ]:
        for module in (
            make_mapper(flavour="regression", translator_checkpoint=str(tmp_path / name)),
            make_remixer(manifold, translator_checkpoint=str(tmp_path / name)),
        ):
            with pytest.raises(InputError, match=message):
                validate(module, scenes, tmp_path)


def save(module: Any, path: Path) -> None:
    trainer = make_trainer(path.parent)
    trainer.strategy.connect(module)
    trainer.strategy._lightning_module = module
    trainer.save_checkpoint(path)


def test_wrong_data_are_named(dataset: str, scenes: str, tmp_path: Path):
    with pytest.raises(InputError, match="a data set of kind scenes; AudioToVisualModule needs pairs"):
        fit(make_translator(), scenes, tmp_path)
    for widths, message in (
        ((11, AUDIO_WIDTH), r"model.visual_width is 11, but the data's embeddings have width 10"),
        ((VISUAL_WIDTH, 9), r"model.audio_width is 9, but the data's embeddings have width 8"),
    ):
        with pytest.raises(InputError, match=message):
            fit(AudioToVisualModule(*widths, AudioToVisualOptions((8,))), dataset, tmp_path)
