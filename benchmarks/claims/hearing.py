"""Sources that are heard in place of seen: trained with, and added to held-out scenes (section 8.2)."""

import csv
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn.functional import normalize

from .chain import BASE, DEMO, NO_FOLD, Place, Stage, checkpoint, varied
from .runs import ROOT, Run
from .video_rows import sources_of

ADDED = 4
"""Sources that are added to each held-out scene, one at a time."""

MODES = {
    "seen": "seen",
    "seen, v = 0": "seen, but v = 0",
    "heard, v = 0": "heard, v = 0 (the paper)",
    "heard, translator": "heard, v from the translator",
    "heard, ridge": "heard, v from the ridge regression",
    "heard, true v": "heard, v of its picture",
}
TRANSLATOR = {
    "simulated": Stage(
        "audio_to_visual.yaml",
        "pairs",
        (NO_FOLD, "--data.rows_per_group=all", "--data.batch_size=256", "--trainer.max_epochs=20"),
    ),
    "demo": Stage("audio_to_visual.yaml", "pairs"),
}


def hear(translated: bool) -> Callable[[Any, str, Run], None]:
    """Make a Remixer hear each source with probability 1/2, in place of seeing it, while it is trained.

    What is heard is the source's own audio embedding; its v is 0, or the trained translator's.
    """

    def prepare(cli: Any, data: str, run: Run) -> None:
        from lightning_ss2a.models.source_slots import SourceSlots, audio_slots
        from lightning_ss2a.training import RemixerModule

        audio, model = torch.from_numpy(sources_of(data, "train").audio), cli.model
        translate = load_translator(Place("simulated", run.seed)).translator.eval() if translated else None

        @torch.no_grad()
        def slots(batch: dict[str, Any]) -> SourceSlots:
            seen, valid = RemixerModule.slots(model, batch), batch["valid"]
            if not model.training:
                return seen
            heard = audio_slots(audio[batch["index"]][:, : valid.shape[1]], valid, model.manifold, translate)
            first = seen.valid.shape[1] - valid.shape[1]  # the global embedding is always seen
            instead = torch.rand(valid.shape).unsqueeze(-1) < 0.5
            mean, log_variance, visual = (
                torch.cat([x[:, :first], torch.where(instead, y, x[:, first:])], dim=1)
                for x, y in (
                    (seen.cmss.mean, heard.cmss.mean),
                    (seen.cmss.log_variance, heard.cmss.log_variance),
                    (seen.visual, heard.visual),
                )
            )
            return SourceSlots(type(seen.cmss)(mean, log_variance), visual, seen.valid, seen.weight)

        model.slots = slots

    return prepare


REMIXERS = {
    "simulated": {
        "remixer": BASE["simulated"]["remixer"],
        "parts": varied(BASE["simulated"]["remixer"], "--model.token_dropout_mode=parts"),
        "heard": varied(BASE["simulated"]["remixer"], prepare=hear(translated=False)),
        "heard translated": varied(BASE["simulated"]["remixer"], prepare=hear(translated=True)),
        "e alone": varied(BASE["simulated"]["remixer"], "--model.conditions=manifold"),
    },
    "demo": {
        "remixer": BASE["demo"]["remixer"],
        "e alone": varied(BASE["demo"]["remixer"], "--model.conditions=manifold"),
    },
}
STAGES = {world: BASE[world] | REMIXERS[world] | {"translator": TRANSLATOR[world]} for world in BASE}


def load_translator(place: Place) -> Any:
    """The place's trained ``AudioToVisualModule``."""
    from lightning_ss2a.training import AudioToVisualModule

    file, _ = checkpoint("translator", STAGES[place.world], place)
    return AudioToVisualModule.load_from_checkpoint(file, map_location="cpu", weights_only=True).eval()


def load_remixer(name: str, place: Place) -> Any:
    """A trained ``RemixerModule`` of the place."""
    from lightning_ss2a.training import RemixerModule

    file, _ = checkpoint(name, STAGES[place.world], place)
    return RemixerModule.load_from_checkpoint(file, map_location="cpu", weights_only=True).eval()


# ---------------------------------------------------------------- held-out scenes, and what is added to them


def held_out(place: Place, scenes: str, pairs: str) -> tuple[dict[str, Any], dict[str, Any], Tensor]:
    """Scenes, pairs, and the numbers of the pairs that are added to each scene, [scenes, ADDED].

    None is of a class of the scene (simulated) or of a group of it (demo).
    """
    from lightning_ss2a.data.loading.dataset import ShardDataset

    split = "validation" if place.fold is None else f"fold{place.fold}"
    scene_rows, pair_rows = (ShardDataset(data, split).columns() for data in (scenes, pairs))
    annotated = (
        pair_rows["pair_origin"] == 0
        if place.world == "demo"
        else torch.ones(len(pair_rows["pair_origin"]), dtype=bool)
    )
    if place.world == "demo":
        forbidden = _in_demo_scenes(scene_rows["key"], pair_rows)
    else:
        forbidden = (scene_rows["classes"][:, :, None] == pair_rows["class_index"]).any(1)
    chance = torch.rand(forbidden.shape, generator=torch.Generator().manual_seed(place.seed))
    chance = chance.masked_fill(forbidden | ~annotated, -1)
    return scene_rows, pair_rows, chance.topk(ADDED, dim=1).indices


def _in_demo_scenes(keys: Sequence[str], pairs: dict[str, Any]) -> Tensor:
    group_of = dict(zip(pairs["key"], pairs["group"].tolist(), strict=True))
    groups: dict[str, set[int]] = {key: set() for key in keys}
    with open(ROOT / DEMO["scenes"] / "compositions.csv", newline="") as opened:
        for row in csv.DictReader(opened):
            if row["key"] in groups:
                groups[row["key"]].add(group_of[row["pair"]])
    return torch.tensor([[group in groups[key] for group in pairs["group"].tolist()] for key in keys])


@torch.no_grad()
def sensitivities(model: Any, scenes: dict[str, Any], pairs: dict[str, Any], added: Tensor, judge: Any) -> dict:
    """How far the mix moves toward a source's own audio when it is added, by mode, over all and by number of sources.

    Args:
        model: a ``RemixerModule``.
        scenes: held-out scenes.
        pairs: held-out pairs.
        added: numbers of the pairs added to each scene, [scenes, ADDED].
        judge: an ``AudioToVisualModule``, whose translator and ridge give v.
    """
    from lightning_ss2a.models.source_slots import SourceSlots, audio_slots, join_slots, visual_slots

    before = model.slots(scenes)
    mixed = model.remixer(*before.tokens()).mean
    counts = scenes["valid"].sum(1)
    found: dict[str, list[Tensor]] = {}
    for column in added.T:
        visual, audio = pairs["visual"][column].unsqueeze(1), pairs["audio"][column].unsqueeze(1)
        there = torch.ones(len(column), 1, dtype=torch.bool)
        seen = visual_slots(visual, there, model.manifold.project_visual)
        heard = {
            "heard, v = 0": audio_slots(audio, there, model.manifold),
            "heard, translator": audio_slots(audio, there, model.manifold, judge.translator),
            "heard, ridge": audio_slots(audio, there, model.manifold, judge.statistics.translate_audio),
        }
        e = heard["heard, v = 0"].cmss
        more = {
            "seen": seen,
            "seen, v = 0": SourceSlots(seen.cmss, torch.zeros_like(visual), there, seen.weight),
            **heard,
            "heard, true v": SourceSlots(e, visual, there, seen.weight),
        }
        own = audio.squeeze(1)
        for mode, slots in more.items():
            after = model.remixer(*join_slots([before, slots]).tokens()).mean
            toward = torch.cosine_similarity(after, own) - torch.cosine_similarity(mixed, own)
            found.setdefault(f"{mode}/toward", []).append(toward)
            found.setdefault(f"{mode}/moved", []).append(1 - torch.cosine_similarity(after, mixed))
        for mode, cmss in (("seen", seen.cmss), ("heard", e)):
            rebuilt = model.manifold.reconstruct_audio(cmss.mean).mean.squeeze(1)
            found.setdefault(f"rebuilt/{mode}", []).append(torch.cosine_similarity(rebuilt, own))
    numbers = {}
    for name, parts in found.items():
        values = torch.stack(parts).mean(0)  # [scenes]
        numbers[name] = float(values.mean())
        if name.endswith("toward"):
            for count in counts.unique().tolist():
                numbers[f"{name}/{count}"] = float(values[counts == count].mean())
    return numbers


# ---------------------------------------------------------------- the CLIP score's translator

JUDGES = {"ridge": "ridge, fitted on scenes", "pairs ridge": "ridge, fitted on pairs", "translator": "translator"}


@torch.no_grad()
def clip_scores(model: Any, scenes: dict[str, Any], judge: Any) -> dict[str, float]:
    """CLIP score of several predictions for held-out scenes, with each translator, and how alike they rank them."""
    from lightning_ss2a.metrics.functional.clip_score import mean_source_cosine
    from lightning_ss2a.training.remixer import manifold_predictions
    from lightning_ss2a.training.validation.baselines import untrained_predictions
    from lightning_ss2a.training.validation.targets import targets_of

    targets, slots = targets_of(scenes), model.slots(scenes)
    predictions = {
        "true audio": scenes["audio"],
        "remixer": model.remixer(*slots.tokens()).mean,
        "draw": model.draw(scenes, slots),
        **manifold_predictions(slots, model.manifold.project_visual(scenes["global_visual"]), model.manifold),
        **untrained_predictions(targets, model.statistics),
    }
    judges = {
        "ridge": model.statistics.translate_audio,
        "pairs ridge": judge.statistics.translate_audio,
        "translator": judge.translator,
    }
    numbers, scores = {}, {}
    for name, translate in judges.items():
        for method, predicted in predictions.items():
            translated = translate(normalize(predicted.float(), dim=-1))
            numbers[f"{method}/{name}"] = 100 * float(
                mean_source_cosine(translated, targets.visual, targets.visible).mean()
            )
        scores[name] = np.array([numbers[f"{method}/{name}"] for method in predictions])
    for name in ("pairs ridge", "translator"):
        numbers[f"rank/{name}"] = float(spearmanr(scores["ridge"], scores[name]).statistic)
    return numbers
