"""Scores, intervals and differences, against formulas by hand."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from scipy.spatial.distance import pdist
from scipy.stats import norm, t
from sklearn.metrics.pairwise import rbf_kernel

from lightning_ss2a.errors import InputError
from lightning_ss2a.evaluation.folders import Item
from lightning_ss2a.evaluation.measures import (
    CLAP,
    CLIP,
    FAD,
    IS,
    KAD,
    KL,
    SSMS,
    WMAO,
    DeSync,
    Drawn,
    Evidence,
    FADInfinity,
    ItemMeasure,
    Rows,
)
from lightning_ss2a.evaluation.scoring import Bootstrap, Scorer, draw_counts, interval, tails
from lightning_ss2a.metrics import FrechetAudioDistance, FrechetExtrapolation
from lightning_ss2a.metrics.functional import (
    clap_score,
    frechet_audio_distance,
    inception_score,
    kernel_audio_distance,
    label_agreement,
    paired_kl,
    shuffled_splits,
    weighted_mean_absolute_offset,
)

N, WIDTH, LABELS = 12, 3, 6


class Given(ItemMeasure):
    """The first number of each embedding, where it is there."""

    higher_is_better = True
    bounds = (-math.inf, math.inf)
    encoder = "e"

    def values(self, evidence: Evidence) -> torch.Tensor:
        rows = evidence.generated["e"]
        return rows.embeddings[:, 0].double().masked_fill(~rows.there, torch.nan)


def rows(seed: int, missing: tuple[int, ...] = ()) -> Rows:
    generator = torch.Generator().manual_seed(seed)
    there = torch.tensor([number not in missing for number in range(N)])
    embeddings = torch.randn(N, WIDTH, generator=generator)
    embeddings[~there] = torch.nan  # nobody may look
    logits = torch.randn(N, LABELS, generator=generator)
    logits[~there] = torch.nan
    return Rows(there, embeddings, logits)


def evidence(seed: int, missing: tuple[int, ...] = (), **others) -> Evidence:
    return Evidence({"e": rows(seed, missing)}, {"e": rows(100)}, **others)


def scorer(methods: dict[str, Evidence], items: list[Item] | None = None, **options) -> Scorer:
    bootstrap = Bootstrap(**{"resamples": 400, "set_resamples": 20, **options})
    return Scorer(items or [Item(str(number)) for number in range(N)], methods, bootstrap)


def test_scores_are_those_of_the_metrics_on_the_items_that_are_there():
    missing = (2, 7)
    a = evidence(1, missing)
    kept = [number for number in range(N) if number not in missing]
    generated, reference = a.generated["e"], a.reference["e"]
    assert generated.logits is not None
    assert reference.logits is not None
    wanted = {
        FAD("e", scale=100): 100 * frechet_audio_distance(generated.embeddings[kept], reference.embeddings),
        KAD("e"): kernel_audio_distance(generated.embeddings[kept], reference.embeddings),
        IS("e"): inception_score(generated.logits[kept])[0],
        SSMS("e", 3): 10 * label_agreement(generated.logits[kept], reference.logits[kept], 3).f1.mean(),
        KL("e"): paired_kl(generated.logits[kept], reference.logits[kept]),
    }
    for measure, value in wanted.items():
        (score,), differences = scorer({"a": a}).score("m", measure)
        assert score.value == pytest.approx(float(value), rel=1e-6)
        assert (score.items, differences) == (10, [])
        assert score.low <= score.value <= score.high


def test_an_item_that_its_reference_lacks_is_in_no_pair():
    a = Evidence({"e": rows(1)}, {"e": rows(2, (0, 1, 2))})
    (score,), _ = scorer({"a": a}).score("SSMS", SSMS("e", 3))
    assert score.items == N - 3
    assert math.isfinite(score.value)


def test_pictures_texts_and_offsets():
    visible = torch.tensor([[True, True], [True, False]] * (N // 2))
    pictures = torch.randn(N, 2, WIDTH)
    images = Rows(torch.tensor([False] + [True] * (N - 1)), pictures, visible=visible)
    texts = Rows(torch.ones(N, dtype=torch.bool), torch.randn(N, WIDTH))
    logits = [None, *(torch.randn(1 + number % 3, 3) for number in range(N - 1))]
    a = evidence(1, images=images, text=texts, offsets=logits, offset_seconds=(-1.0, 0.0, 0.5))
    sounds = a.generated["e"].embeddings
    cosines = torch.cosine_similarity(sounds[:, None], pictures, dim=-1)
    wanted = torch.where(visible[:, 1], cosines.mean(1), cosines[:, 0])[1:].mean() * 100
    assert CLIP("e").values(a)[1:].mean() == pytest.approx(float(wanted), rel=1e-5)
    assert CLIP("e").values(a)[0].isnan()
    assert CLAP("e").values(a).mean() == pytest.approx(float(clap_score(texts.embeddings, sounds)), rel=1e-5)
    each = logits[3]
    assert each is not None
    likeliest = torch.tensor([1.0, 0.0, 0.5])[each.argmax(1)].mean()
    assert DeSync().values(a)[3] == pytest.approx(float(likeliest))
    wmao = weighted_mean_absolute_offset(each.mean(0, keepdim=True), 2, (-1.0, 0.0, 0.5))
    assert WMAO(top_k=2).values(a)[3] == pytest.approx(float(wmao))
    assert DeSync().values(a)[0].isnan()


def test_encoders_of_two_spaces_have_no_clip_score():
    images = Rows(torch.ones(N, dtype=torch.bool), torch.randn(N, 1, 5), visible=torch.ones(N, 1, dtype=torch.bool))
    with pytest.raises(InputError, match="CLIP: e has 3 numbers and the image encoder 5"):
        CLIP("e").values(evidence(1, images=images))


@pytest.mark.parametrize("bandwidth", [0, -1, math.nan])
def test_a_bandwidth_that_is_none_is_refused_at_once(bandwidth):
    with pytest.raises(InputError, match="bandwidth of KAD must be above 0"):
        KAD("e", bandwidth)


def test_the_interval_of_a_mean_is_that_of_its_standard_error():
    random = torch.Generator().manual_seed(0)
    values = torch.randn(400, 1, generator=random)
    a = Evidence({"e": Rows(torch.ones(400, dtype=torch.bool), values)})
    measured = Scorer([Item(str(number)) for number in range(400)], {"a": a}, Bootstrap(resamples=4000))
    (score,), _ = measured.score("m", Given())
    error = 1.96 * float(values.std()) / 20
    assert score.low == pytest.approx(score.value - error, abs=0.1 * error)
    assert score.high == pytest.approx(score.value + error, abs=0.1 * error)
    again = Scorer(measured.items, {"a": a}, Bootstrap(resamples=4000)).score("m", Given())[0]
    assert again == [score]


@pytest.mark.parametrize("units", [8, 16])
def test_the_interval_of_a_mean_of_few_items_holds_the_truth_as_often_as_it_says(units: int):
    values = torch.from_numpy(np.random.default_rng(units).normal(size=(600, units, 1))).float()
    items, there = [Item(str(number)) for number in range(units)], torch.ones(units, dtype=torch.bool)
    drawn = draw_counts([""] * units, 400, 0) / units
    held = held_by_percentiles = 0
    for sample in values:
        a = Evidence({"e": Rows(there, sample)})
        (score,), _ = Scorer(items, {"a": a}, Bootstrap(resamples=400)).score("m", Given())
        held += score.low <= 0 <= score.high
        low, high = interval(score.value, drawn @ sample[:, 0].double().numpy(), (-math.inf, math.inf))
        held_by_percentiles += low <= 0 <= high
    assert held / 600 == pytest.approx(0.95, abs=0.03)
    assert held_by_percentiles / 600 < {8: 0.9, 16: 0.93}[units]


@pytest.mark.parametrize("units", [2, 8, 500])
def test_percentiles_are_as_far_out_as_students_t(units: int):
    low, high = tails(units)
    assert low == pytest.approx(norm.cdf(-t.ppf(0.975, units - 1) * (units / (units - 1)) ** 0.5), rel=1e-9)
    assert high == 1 - low
    assert tails(None) == (0.025, 0.975)


def test_items_of_one_group_have_no_interval():
    items = [Item(str(number), group="x") for number in range(N - 1)] + [Item("alone")]
    methods = {"a": evidence(1, (N - 1,)), "b": evidence(2, (N - 1,))}
    for measure in (Given(), SSMS("e", 3), FAD("e"), IS("e")):
        scores, (difference,) = scorer(methods, items).score("m", measure)
        assert all(math.isfinite(score.value) for score in scores)
        assert all(math.isnan(end) for each in (*scores, difference) for end in (each.low, each.high))


def test_items_of_a_group_are_drawn_together():
    counts = draw_counts(["x", "", "x", "y", ""], 50, 0)
    assert (counts[:, 0] == counts[:, 2]).all()
    assert set((counts @ [1, 2, 1, 2, 2] // 2).tolist()) == {4}  # four groups, drawn four times
    values = torch.arange(N, dtype=torch.float32)[:, None].expand(N, WIDTH)
    a = Evidence({"e": Rows(torch.ones(N, dtype=torch.bool), values)})
    thirds = [Item(str(number), group=str(number // 4)) for number in range(N)]
    (grouped,), _ = scorer({"a": a}, thirds).score("m", Given())
    (alone,), _ = scorer({"a": a}).score("m", Given())
    assert grouped.value == alone.value
    assert grouped.high - grouped.low > 1.5 * (alone.high - alone.low)


def test_a_difference_is_paired_and_of_the_items_that_both_have():
    base = rows(1)
    better = Rows(base.there, base.embeddings + 1, base.logits)
    methods = {"a": Evidence({"e": better}), "b": Evidence({"e": rows(1, (0, 5))})}
    _, (difference,) = scorer(methods).score("m", Given())
    assert (difference.method, difference.other, difference.items) == ("a", "b", N - 2)
    assert difference.value == pytest.approx(1)
    assert difference.low == pytest.approx(1)  # nothing but the constant differs, whatever is drawn
    assert difference.high == pytest.approx(1)


def test_a_set_against_itself_differs_from_nothing_on_any_draw():
    same = Evidence({"e": rows(1)}, {"e": rows(1)})
    (score,), _ = scorer({"a": same}).score("FAD", FAD("e"))
    assert score.value == pytest.approx(0, abs=1e-6)
    assert score.high == pytest.approx(0, abs=1e-6)


def test_the_interval_of_a_set_measure_surrounds_its_value_although_repeated_items_raise_it():
    (score,), _ = scorer({"a": evidence(1)}, set_resamples=200).score("FAD", FAD("e"))
    assert score.low < score.value < score.high


def test_warnings_of_metrics_become_notes_said_once():
    wide = Evidence({"e": rows(1)}, {"e": rows(2)})
    wide = Evidence(
        {"e": Rows(wide.generated["e"].there[:2], torch.randn(2, 3))}, {"e": Rows(torch.ones(2) > 0, torch.randn(2, 3))}
    )
    measured = Scorer([Item("x"), Item("y")], {"a": wide}, Bootstrap(set_resamples=5))
    measured.score("V-FAD", FAD("e"))
    assert len(measured.notes) == 2
    assert all("V-FAD: FAD of 2" in note for note in measured.notes)


def frames(seed: int, missing: tuple[int, ...] = ()) -> Rows:
    """Items of one to four frames of their own kind: frames of an item are alike."""
    random = np.random.default_rng(seed)
    lengths = [0 if number in missing else 1 + number % 4 for number in range(N)]
    owners = torch.arange(N).repeat_interleave(torch.tensor(lengths))
    items, noise = random.normal(size=(N, WIDTH)), random.normal(size=(len(owners), WIDTH))
    embeddings = torch.from_numpy(items[owners] + 0.3 * noise + 5).float()
    return Rows(torch.tensor([length > 0 for length in lengths]), embeddings, owners=owners)


def by_scipy(generated: np.ndarray, reference: np.ndarray) -> float:
    """What frechet-audio-distance computes of two sets of rows."""
    first, second = np.cov(generated, rowvar=False), np.cov(reference, rowvar=False)
    step = generated.mean(0) - reference.mean(0)
    root = scipy.linalg.sqrtm(first @ second).real
    return float(step @ step + np.trace(first) + np.trace(second) - 2 * np.trace(root))


def test_every_frame_is_a_row_and_whole_items_are_drawn():
    generated, reference = frames(1, (3,)), frames(2)
    a = Evidence({"e frames": generated}, {"e frames": reference})
    measure = FAD("e", scale=2, frames=True)
    (score,), _ = scorer({"a": a}).score("V-FAD", measure)
    everything = [side.embeddings.double().numpy() for side in (generated, reference)]
    assert score.value == pytest.approx(2 * by_scipy(*everything), rel=1e-5)
    assert score.items == N - 1
    assert score.low < score.value < score.high

    counts = torch.from_numpy(draw_counts([""] * N, 30, 0))
    sides = [Drawn(side.embeddings, counts * side.there, side.owners) for side in (generated, reference)]
    found = measure.values(*sides)
    for number, drawn in enumerate(counts.tolist()):
        chosen = [
            np.concatenate(
                [side.embeddings[side.owners == i].double().numpy() for i in range(N) for _ in range(drawn[i])]
            )
            for side in (generated, reference)
        ]
        assert found[number] == pytest.approx(2 * by_scipy(*chosen), rel=1e-6)
    assert measure.values(sides[0], sides[0]) == pytest.approx(0, abs=1e-9)


def test_draws_of_a_kernel_distance_keep_the_bandwidth_of_the_whole_reference():
    """The median of a draw, in which rows repeat, is another scale: its values would not be of one distance."""
    generated, reference = rows(1, (3,)), rows(2, (0, 5))
    counts = torch.from_numpy(draw_counts([""] * N, 60, 0))
    sides = [Drawn(side.embeddings, counts * side.there) for side in (generated, reference)]
    found = KAD("e").values(*sides)
    whole = reference.embeddings[reference.there].double().numpy()
    bandwidth = np.quantile(pdist(whole), 0.5, method="lower")
    for number in range(len(counts)):
        x, y = (
            side.embeddings.double().numpy()[np.repeat(np.arange(N), counts[number] * side.there)]
            for side in (generated, reference)
        )
        first, second, between = (rbf_kernel(*both, gamma=0.5 / bandwidth**2) for both in ((x, x), (y, y), (x, y)))
        within = [(kernel.sum() - len(kernel)) / len(kernel) / (len(kernel) - 1) for kernel in (first, second)]
        assert found[number] == pytest.approx(100 * (sum(within) - 2 * between.mean()), rel=1e-9)
    (score,), _ = scorer({"a": Evidence({"e": generated}, {"e": reference})}).score("KAD", KAD("e"))
    wanted = kernel_audio_distance(generated.embeddings[generated.there], reference.embeddings[reference.there])
    assert score.value == pytest.approx(float(wanted), rel=1e-6)
    assert score.low < score.value < score.high


def test_a_kernel_distance_of_equal_references_or_of_no_sound_is_nan_on_every_draw():
    equal = Rows(torch.ones(N) > 0, torch.ones(N, WIDTH))
    for generated, reference in ((rows(1), equal), (rows(1, tuple(range(N))), rows(2))):
        measured = scorer({"a": Evidence({"e": generated}, {"e": reference})})
        (score,), _ = measured.score("KAD", KAD("e"))
        assert all(math.isnan(value) for value in (score.value, score.low, score.high))
    counts = torch.eye(N, dtype=torch.int64)
    assert np.isnan(KAD("e", 1.0).values(*[Drawn(rows(1).embeddings, counts)] * 2)).all()  # draws of one row


@pytest.mark.parametrize("splits", [1, 3])
def test_draws_of_an_inception_score_are_scores_of_repeated_sounds(splits: int):
    sounds, counts = rows(1, (4,)), torch.from_numpy(draw_counts([""] * N, 30, 0))
    assert sounds.logits is not None
    drawn = Drawn(sounds.logits, counts * sounds.there)
    measure = IS("e", splits)
    found = measure.values(drawn, drawn)
    for number, own in enumerate(drawn.counts):
        repeated = sounds.logits.repeat_interleave(own, dim=0)
        wanted = inception_score(repeated, shuffled_splits(len(repeated), splits), splits)[0]
        assert found[number] == pytest.approx(float(wanted), rel=1e-6)
    nothing = Drawn(sounds.logits, torch.zeros(2, N, dtype=torch.int64))
    assert np.isnan(measure.values(nothing, nothing)).all()


def test_an_interval_of_frames_is_that_of_items_wider_than_if_frames_were_drawn():
    generated, reference = frames(1), frames(2)
    a = Evidence({"e frames": generated}, {"e frames": reference})
    (score,), _ = scorer({"a": a}, set_resamples=200).score("V-FAD", FAD("e", frames=True))
    single = [Rows(torch.ones(len(s.embeddings)) > 0, s.embeddings) for s in (generated, reference)]
    items = [Item(str(number)) for number in range(len(single[0].there))]
    (alone,), _ = scorer({"a": Evidence({"e": single[0]}, {"e": single[1]})}, items, set_resamples=200).score(
        "V-FAD", FAD("e")
    )
    assert alone.value == pytest.approx(score.value, rel=1e-6)
    assert score.high - score.low > 1.2 * (alone.high - alone.low)


def test_fad_is_extrapolated_and_few_sounds_are_warned_of():
    a, plan = evidence(1), FrechetExtrapolation(points=4, least_rows=5, seed=3)
    measured = scorer({"a": a}, set_resamples=10)
    (score,), _ = measured.score("FAD∞", FADInfinity("e", extrapolation=plan))
    metric = FrechetAudioDistance(extrapolation=plan)
    metric.update(a.generated["e"].embeddings, a.reference["e"].embeddings)
    assert score.value == pytest.approx(float(metric.compute()["fad_infinity"]), rel=1e-6)
    assert score.low < score.value < score.high
    assert measured.notes == {}
    (score,), _ = measured.score("FAD∞", FADInfinity("e"))
    assert math.isnan(score.value)
    assert [*measured.notes] == [
        f"FAD∞: FAD∞ needs twice extrapolation.least_rows = 500 generated rows, found {N}: it is NaN"
    ]


def test_fad_infinity_of_fewer_rows_than_numbers_is_warned_of():
    wide = Evidence(
        {"e": Rows(torch.ones(N) > 0, torch.randn(N, 20))}, {"e": Rows(torch.ones(N) > 0, torch.randn(N, 20))}
    )
    measured = scorer({"a": wide}, set_resamples=2)
    measured.score("FAD∞", FADInfinity("e", extrapolation=FrechetExtrapolation(points=3, least_rows=4)))
    assert [note.partition(" rows")[0] for note in measured.notes] == [
        "FAD∞: FAD of 12 generated", "FAD∞: FAD of 12 reference", "FAD∞: FAD∞ from subsets of 4",
    ]  # fmt: skip


@pytest.mark.parametrize("kept", [0, 1])
def test_no_item_or_one_has_no_interval(kept):
    few = evidence(1, tuple(range(kept, N)))
    for measure in (Given(), SSMS("e", 3), FAD("e"), IS("e")):
        (score,), _ = scorer({"a": few}).score("m", measure)
        assert score.items == kept
        assert math.isnan(score.low)
        if kept == 0 or isinstance(measure, FAD):
            assert math.isnan(score.value)
        else:
            assert math.isfinite(score.value)


def test_parts_are_means_over_the_items_of_a_class():
    items = [Item(str(number), values={"class": "dog" if number < 4 else "cat"}) for number in range(N)]
    a = evidence(1, missing=(1,))
    parts = scorer({"a": a}, items).parts("m", Given())
    dog = next(part for part in parts if part.part == "dog")
    assert dog.items == 3
    assert dog.value == pytest.approx(float(a.generated["e"].embeddings[[0, 2, 3], 0].mean()))
    assert scorer({"a": a}, items).parts("FAD", FAD("e")) == []


def test_each_item_is_measured_once_however_many_classes_there_are():
    class Counting(Given):
        asked = 0

        def values(self, evidence):
            self.asked += 1
            return super().values(evidence)

    items = [Item(str(number), values={"class": str(number), "sources": "1"}) for number in range(N)]
    measure, measured = Counting(), scorer({"a": evidence(1), "b": evidence(2)}, items)
    measured.score("m", measure), measured.parts("m", measure), measured.values({"m": measure})
    assert measure.asked == 2


def test_an_interval_stays_within_bounds():
    assert interval(0.1, np.array([0.0, 0.1, 0.2, 0.9]), (0, 0.5)) == (0, 0.5)
    assert all(math.isnan(end) for end in interval(math.nan, np.arange(9.0), (0, 1)))
