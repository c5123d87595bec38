"""The fair ridge regression: against scikit-learn's, its penalty chosen on groups left out."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold
from torch.nn.functional import normalize

from lightning_ss2a.data import ShardDataModule
from lightning_ss2a.data.format.label_head import LabelHead
from lightning_ss2a.data.loading.training_parts import SplitRows, training_parts
from lightning_ss2a.metrics.functional.ssms import sound_source_matching_score
from lightning_ss2a.models.ridge import LinearMap, RidgeRegression
from lightning_ss2a.training.validation.baselines import training_statistics
from lightning_ss2a.training.validation.fair_ridge import PENALTIES, Judge, every_view, fit_fair_ridge, spread
from tests.manifold_examples import VISUAL_WIDTH, make_data, write_learnable_pairs

TOP_N = 2


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ShardDataModule:
    return make_data(write_learnable_pairs(tmp_path_factory.mktemp("pairs"), {"train": 90, "validation": 9}))


def head_of(width: int) -> LabelHead:
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(7, width, generator=generator), torch.randn(7, generator=generator)
    return LabelHead(weight, bias, tuple("abcdefg"))


def test_it_is_scikit_learns_ridge_with_the_penalty_of_group_k_fold(data: ShardDataModule):
    """All pairs of views as rows, groups left out, each penalty and metric by scikit-learn."""
    table = data._rows("train")
    visual, audio = (torch.as_tensor(table.rows[name]).double() for name in ("visual", "audio"))
    views_seen, views_heard = (np.arange(x.shape[1]) if x.ndim == 3 else [None] for x in (visual, audio))
    pairs = [(v, a) for v in views_seen for a in views_heard]
    x = np.concatenate([normalize(visual if v is None else visual[:, v], dim=-1) for v, _ in pairs])
    y = np.concatenate([normalize(audio if a is None else audio[:, a], dim=-1) for _, a in pairs])
    parts = data.training_parts().part
    group = np.tile(parts, len(pairs))
    mean_visual, mean_audio = (field.mean(1) if field.ndim == 3 else field for field in (visual, audio))
    features, heard = normalize(mean_visual, dim=-1), mean_audio
    head, norm = head_of(heard.shape[1]), heard.norm(dim=1).mean().float()
    cosine, ssms = np.zeros(len(PENALTIES)), np.zeros(len(PENALTIES))
    for fitted, held in GroupKFold(parts.max() + 1).split(x, y, group):
        rows = np.unique(held % len(parts))
        variance = ((x[fitted] - x[fitted].mean(0)) ** 2).sum() / x.shape[1]
        for i, penalty in enumerate(PENALTIES):
            predicted = torch.from_numpy(
                Ridge(alpha=penalty * variance).fit(x[fitted], y[fitted]).predict(features[rows])
            )
            cosine[i] += float(torch.cosine_similarity(predicted, heard[rows]).sum())
            scores = head.scores(normalize(predicted, dim=-1).float() * norm), head.scores(heard[rows].float())
            ssms[i] += len(rows) * float(sound_source_matching_score(*scores, TOP_N))
    found = fit_fair_ridge(data, Judge(head, TOP_N, norm))
    assert found.by_cosine.penalty == pytest.approx(PENALTIES[int(cosine.argmax())])
    assert ssms[PENALTIES.index(found.by_ssms.penalty)] == pytest.approx(ssms.max(), rel=1e-6)
    variance = ((x - x.mean(0)) ** 2).sum() / x.shape[1]
    expected = Ridge(alpha=found.by_cosine.penalty * variance).fit(x, y)
    np.testing.assert_allclose(found.by_cosine.weight, expected.coef_, atol=1e-8)
    np.testing.assert_allclose(found.by_cosine.bias, expected.intercept_, atol=1e-8)


def test_rows_count_as_often_as_they_are_drawn_and_one_of_a_group_is_measured():
    group = np.array([7, 7, 3, 3, 3, 9, 7, 5])  # the last two in another data set
    splits = [SplitRows(0, 0, True, 2), SplitRows(0, 1, True, 2), SplitRows(0, 1, False, 2), SplitRows(1, 0, True, 2)]
    parts = training_parts(group, splits, [1.0, 0.5], by_group=True, most=5)
    assert parts.part.tolist() == [0, 0, 1, 1, 1, 1, 0, 0]
    assert parts.weight.tolist() == pytest.approx([1 / 2, 1 / 2, 1 / 3, 1 / 3, 1 / 3, 1, 1 / 2, 1 / 2])
    assert parts.is_measured.tolist() == [True, False, True, False, False, False, True, True]
    every = training_parts(group, splits, [1.0, 0.5], by_group=False, most=5)
    assert every.weight.tolist() == [1.0] * 6 + [0.5] * 2
    assert every.is_measured.tolist() == [True] * 4 + [False] * 2 + [True] * 2


def test_without_folds_groups_are_dealt_to_parts():
    group = np.array([4, 4, 1, 8, 1, 6, 2, 9])
    parts = training_parts(group, [SplitRows(0, 0, True, 8)], [1.0], by_group=False, most=3)
    assert parts.part.tolist() == [0, 0, 1, 2, 1, 0, 1, 2]
    assert parts.number == 3


def test_rotating_combining_and_weighing_change_nothing_but_the_coordinates():
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(30, 6, generator=generator).double(), torch.randn(30, 4, generator=generator).double()
    weight = torch.randint(1, 4, (30,), generator=generator)
    repeated, weighted, first = (RidgeRegression(6, 4, 0.3) for _ in range(3))
    repeated.update(x.repeat_interleave(weight, 0), y.repeat_interleave(weight, 0))
    first.update(x[:10], y[:10], weight[:10].double())
    weighted.update(x[10:], y[10:], weight[10:].double())
    both = weighted.combined(first)
    torch.testing.assert_close(both.fit().weight, repeated.fit().weight)
    torch.testing.assert_close(both.combined(first, sign=-1).fit().weight, weighted.fit().weight)
    axes, origin = torch.linalg.qr(torch.randn(6, 6, generator=generator).double())[0], x[0]
    torch.testing.assert_close(both.rotated(axes, origin).fit()((x - origin) @ axes), both.fit()(x))
    for predicted, penalty in zip(both.path().predict(x, [0.1, 5.0]), (0.1, 5.0), strict=True):
        torch.testing.assert_close(predicted, both.path().at(penalty)(x))


def test_every_view_of_what_is_seen_meets_the_mean_direction_heard():
    batch = {
        "visual": torch.randn(3, 4, 5),
        "audio": torch.randn(3, 2, 6),
        "index": torch.arange(3),
    }
    views = list(every_view(batch, {"visual": 4, "audio": 2}))
    assert [share for _, share in views] == [0.25] * 4
    for number, ((features, audio), _) in enumerate(views):
        torch.testing.assert_close(features, normalize(batch["visual"][:, number].double(), dim=-1))
        torch.testing.assert_close(audio, normalize(batch["audio"].double(), dim=-1).mean(1))


def test_measured_rows_are_spread():
    chosen = np.arange(100) % 2 == 0
    assert np.flatnonzero(spread(chosen, 3)).tolist() == [0, 48, 98]  # numbers 0, 24 (of 24.5, to even) and 49
    assert np.array_equal(spread(chosen, 60), chosen)


def test_one_group_has_no_part_to_leave_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data = make_data(write_learnable_pairs(tmp_path, {"train": 20, "validation": 9}))
    every = data.training_parts()
    monkeypatch.setattr(data, "training_parts", lambda: type(every)(0 * every.part, every.weight, every.is_measured))
    found = fit_fair_ridge(data, Judge(None, TOP_N, torch.tensor(1.0)))
    assert torch.equal(found.by_cosine.weight, found.by_ssms.weight)


def test_the_translator_stays_what_it_was(data: ShardDataModule):
    fair, plain = training_statistics(data, 10), training_statistics(data, None)
    for name in ("audio_to_visual_weight", "audio_to_visual_bias", "mean_audio", "audio_norm", "audio_samples"):
        assert torch.equal(getattr(fair, name), getattr(plain, name))
    assert plain.features_to_audio_by_ssms_weight is None
    assert not torch.equal(fair.features_to_audio_weight, plain.features_to_audio_weight)


def test_the_regression_that_it_replaces_is_not_fitted(data: ShardDataModule, monkeypatch: pytest.MonkeyPatch):
    fitted, fit = [], RidgeRegression.fit

    def counted(ridge: RidgeRegression) -> LinearMap:
        fitted.append(len(ridge.mean_target))
        return fit(ridge)

    monkeypatch.setattr(RidgeRegression, "fit", counted)
    training_statistics(data, 10)
    assert fitted == [VISUAL_WIDTH]  # the translator
