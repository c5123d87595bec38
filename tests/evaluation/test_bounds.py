"""What scores are compared with, against all pairs and halves by hand."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from lightning_ss2a.evaluation.bounds import CHANCE, DEALS, HALVES, REAL, measure_bounds
from lightning_ss2a.evaluation.folders import Item
from lightning_ss2a.evaluation.measures import CLAP, CLIP, FAD, IS, KAD, KL, SSMS, WMAO, Evidence, Rows
from lightning_ss2a.evaluation.scoring import Bootstrap
from lightning_ss2a.metrics.functional import inception_score

N, WIDTH, LABELS = DEALS + 1, 3, 6
"""As many items as there are deals, and one: every other item is dealt once."""
ITEMS = [Item(str(number)) for number in range(N)]
GENERATOR = np.random.default_rng(0)


def rows(missing: tuple[int, ...] = ()) -> Rows:
    there = torch.tensor([number not in missing for number in range(N)])
    embeddings, logits = (torch.from_numpy(GENERATOR.normal(size=(N, width))).float() for width in (WIDTH, LABELS))
    embeddings[~there] = logits[~there] = torch.nan  # nobody may look
    return Rows(there, embeddings, logits)


def bounds(evidence: dict[str, Evidence], measures, items=ITEMS, bootstrap=Bootstrap(set_resamples=20)):  # noqa: B008
    found = measure_bounds(items, evidence, measures, bootstrap)
    assert all(math.isfinite(bound.value) for bound in found)
    return {(bound.measure, bound.kind): bound.value for bound in found}


def test_chance_is_the_mean_over_all_pairs_of_two_items_that_are_there():
    true = rows((4,))
    evidence = {"a": Evidence({"e": rows((2,))}, {"e": true})}
    found = bounds(evidence, {"SSMS": SSMS("e", 2), "KL": KL("e")})
    logits = true.logits.double().numpy()
    kept = [number for number in range(N) if number != 4]
    top = [set(np.argsort(-row)[:2]) for row in logits]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    pairs = [(i, j) for i in kept for j in kept if i != j]
    wanted = 10 * np.mean([len(top[i] & top[j]) / 2 for i, j in pairs])
    divergence = np.mean([(probabilities[j] * np.log(probabilities[j] / probabilities[i])).sum() for i, j in pairs])
    assert found == {("SSMS", CHANCE): pytest.approx(wanted), ("KL", CHANCE): pytest.approx(divergence, rel=1e-5)}


def test_items_of_a_group_are_no_chance_for_each_other():
    true = rows()
    items = [Item(str(number), group="x" if number < 9 else str(number)) for number in range(N)]
    found = bounds({"a": Evidence({"e": rows()}, {"e": true})}, {"SSMS": SSMS("e", 2)}, items)
    top = [set(np.argsort(-row)[:2]) for row in true.logits.numpy()]
    pairs = [(i, j) for i in range(N) for j in range(N) if i != j and max(i, j) >= 9]
    assert found["SSMS", CHANCE] == pytest.approx(10 * np.mean([len(top[i] & top[j]) / 2 for i, j in pairs]))


def test_pictures_and_texts_of_other_items_with_and_without_true_sounds():
    visible = torch.tensor([[True, number % 2 == 0] for number in range(N)])
    pictures = Rows(torch.ones(N) > 0, torch.randn(N, 2, WIDTH), visible=visible)
    texts = Rows(torch.ones(N) > 0, torch.randn(N, WIDTH))
    sounds = {name: rows() for name in ("a", "b", "true")}
    measures = {"CS": CLIP("e"), "CLAP": CLAP("e")}

    def cosines(side: Rows) -> np.ndarray:
        return torch.cosine_similarity(side.embeddings[:, None], texts.embeddings[None], dim=-1).double().numpy()

    def chance(side: Rows) -> float:
        return cosines(side)[~np.eye(N, dtype=bool)].mean()

    with_true = {"a": Evidence({"e": sounds["a"]}, {"e": sounds["true"]}, pictures, texts)}
    found = bounds(with_true, measures)
    assert set(found) == {(name, kind) for name in measures for kind in (CHANCE, REAL)}
    assert found["CLAP", CHANCE] == pytest.approx(chance(sounds["true"]), abs=1e-6)
    assert found["CLAP", REAL] == pytest.approx(cosines(sounds["true"]).diagonal().mean(), abs=1e-6)
    by_picture = torch.cosine_similarity(sounds["true"].embeddings[:, None, None], pictures.embeddings[None], dim=-1)
    shown = ((by_picture * visible).sum(2) / visible.sum(1)).double().numpy()  # [sounds, pictures' items]
    assert found["CS", CHANCE] == pytest.approx(100 * shown[~np.eye(N, dtype=bool)].mean(), abs=1e-4)

    without = {name: Evidence({"e": sounds[name]}, {}, pictures, texts) for name in ("a", "b")}
    found = bounds(without, measures)
    assert set(found) == {(name, CHANCE) for name in measures}
    assert found["CLAP", CHANCE] == pytest.approx(np.mean([chance(sounds[name]) for name in ("a", "b")]), abs=1e-6)


def test_halves_are_of_groups_and_a_score_of_sounds_alone_is_that_of_the_true_ones():
    true = rows((0,))
    items = [Item(str(number), group="x" if number < 5 else "y") for number in range(N)]  # one way to halve them
    measures = {"FAD": FAD("e", scale=2), "IS": IS("e"), "KAD": KAD("e", 1.0)}
    found = bounds({"a": Evidence({"e": rows()}, {"e": true})}, measures, items)
    x, y = (true.embeddings.double().numpy()[part] for part in (slice(1, 5), slice(5, N)))
    first, second = (np.cov(side, rowvar=False) for side in (x, y))
    step, root = x.mean(0) - y.mean(0), scipy.linalg.sqrtm(first @ second).real
    distance = step @ step + np.trace(first) + np.trace(second) - 2 * np.trace(root)
    assert found["FAD", HALVES] == pytest.approx(2 * distance, rel=1e-5)
    assert found["IS", REAL] == pytest.approx(float(inception_score(true.logits[1:])[0]), rel=1e-6)
    assert ("KAD", HALVES) in found
    few = bounds({"a": Evidence({"e": rows()}, {"e": true})}, measures, items, Bootstrap(set_resamples=0))
    assert set(few) == {("IS", REAL)}


def test_what_has_no_bound_has_none():
    offsets = [torch.randn(1, 3) for _ in range(N)]
    evidence = {"a": Evidence({"e": rows()}, offsets=offsets, offset_seconds=(-1.0, 0.0, 1.0))}
    assert bounds(evidence, {"WMAO": WMAO(2), "IS": IS("e")}) == {}
    one = Rows(torch.ones(1) > 0, torch.randn(1, WIDTH), torch.randn(1, LABELS))
    alone = {"a": Evidence({"e": one}, {"e": one})}
    assert bounds(alone, {"SSMS": SSMS("e", 2), "FAD": FAD("e")}, ITEMS[:1]) == {}
    nothing = {"a": Evidence({"e": rows()}, {"e": rows(tuple(range(N)))})}
    assert bounds(nothing, {"SSMS": SSMS("e", 2), "FAD": FAD("e"), "IS": IS("e"), "KAD": KAD("e")}) == {}


def test_frames_are_halved_by_items():
    owners = torch.arange(N).repeat_interleave(2)
    frames = Rows(torch.ones(N) > 0, torch.randn(2 * N, WIDTH), owners=owners)
    measures = {"V-FAD": FAD("e", frames=True), "SSMS": SSMS("s", 2)}
    found = bounds({"a": Evidence({"e frames": frames, "s": rows()}, {"e frames": frames, "s": rows()})}, measures)
    assert found["V-FAD", HALVES] > 0
    assert ("SSMS", CHANCE) in found
