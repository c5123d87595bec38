"""Measures how much a source counts in the mix when it is heard, not seen (paper, supplement 8 and 8.2)."""

import csv
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.nn.functional import normalize

from lightning_ss2a.analysis.probes.base import Probe
from lightning_ss2a.callbacks.mean_teacher.teacher import ANNOTATED
from lightning_ss2a.callbacks.trainer_state import data_of
from lightning_ss2a.data.loading.dataset import ShardDataset
from lightning_ss2a.files import local_path
from lightning_ss2a.metric_names import baseline_metric
from lightning_ss2a.metrics.functional.clip_score import mean_source_cosine
from lightning_ss2a.models import Manifold
from lightning_ss2a.models.source_slots import SourceSlots, audio_slots, join_slots, visual_slots
from lightning_ss2a.training import AudioToVisualModule, RemixerModule
from lightning_ss2a.training.pretrained import load_audio_to_visual
from lightning_ss2a.training.remixer import manifold_predictions
from lightning_ss2a.training.validation.baselines import untrained_predictions
from lightning_ss2a.training.validation.targets import Targets, targets_of

Rows = dict[str, Any]

OTHERS_OF_SEEN = ("heard", "heard_translator", "heard_ridge")
"""Ways to add a source whose sensitivity is also logged as a part of that of ``seen``."""


class TranslatorProbe(Probe[RemixerModule]):
    """Measures a Remixer with an audio-to-visual translator.

    Args:
        translator_checkpoint: checkpoint of an ``AudioToVisualModule``.
    """

    stages = (RemixerModule,)

    def __init__(self, translator_checkpoint: str) -> None:
        self.translator_checkpoint = translator_checkpoint

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Loads the translator and its training statistics, to the CPU.

        Raises:
            InputError: the module is of another stage, or the checkpoint is none of an ``AudioToVisualModule``.
        """
        super().setup(trainer, pl_module, stage)
        path = self.translator_checkpoint
        load_audio_to_visual(path, f"{type(self).__name__}.translator_checkpoint")  # refuses other checkpoints
        self.judge = AudioToVisualModule.load_from_checkpoint(path, map_location="cpu", weights_only=True).eval()


class SourceSensitivity(TranslatorProbe):
    """Adds held-out sources to held-out scenes and logs how far a Remixer's mean moves.

    ``val/sensitivity/WAY``: cosine of the mix to the added source's own audio embedding, after less before;
    ``val/sensitivity/WAY/sources_N``, of scenes of N sources; ``val/moved/WAY``: 1 - cosine of the mix before and
    after; ``val/sensitivity_to_seen/WAY``: the sensitivity over that of ``seen``. Ways:

    - ``seen``: e = v's projection, with v.
    - ``seen_without_v``: the same e, v = 0.
    - ``heard``: e = the sound's projection, v = 0 (the paper).
    - ``heard_translator``, ``heard_ridge``: the same e, with the v of a translator, or of ridge regression.
    - ``heard_true_v``: the same e, with the v of its picture.

    Args:
        pairs: data set of the sources, whose held-out split has the name of that of the scenes.
        translator_checkpoint: checkpoint of an ``AudioToVisualModule``; its training statistics hold the regression.
        added: sources added to each scene, one at a time. None is of a class of the scene (simulated scenes) or of a
            group of it (composed ones).
    """

    def __init__(self, pairs: str, translator_checkpoint: str, added: int = 4) -> None:
        super().__init__(translator_checkpoint)
        self.pairs = pairs
        self.added = added

    @torch.no_grad()
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measures and logs."""
        if trainer.sanity_checking:
            return
        data = data_of(trainer)
        split = data.splits("validation")[0][0]
        scenes, pairs = (ShardDataset(folder, split).columns() for folder in (data.datasets[0], self.pairs))
        allowed = sources_to_add(scenes, pairs, Path(local_path(data.datasets[0]), "compositions.csv"))
        chance = torch.rand(allowed.shape, generator=torch.Generator().manual_seed(data.seed))
        added = chance.masked_fill(~allowed, -1).topk(self.added, dim=1).indices
        numbers = sensitivities(self.module(pl_module), scenes, pairs, added, self.judge)
        self.log_numbers(trainer, pl_module, numbers)


class TranslatorAgreement(TranslatorProbe):
    """Logs CLIP scores of held-out scenes by several audio-to-visual translators, and how alike they rank predictions.

    ``val/clip_score_by/TRANSLATOR`` of the Remixer's mean, ``/draw`` of one draw, and with the baselines of scenes and
    ``truth``, the true audio. Translators: ``scenes_ridge`` (the run's own, fitted on scenes), ``pairs_ridge`` and
    ``translator``. Spearman's rank correlation with the first, over all these, is ``val/clip_score_rank/TRANSLATOR``.

    Args:
        translator_checkpoint: checkpoint of an ``AudioToVisualModule``; its training statistics hold ``pairs_ridge``.
    """

    @torch.no_grad()
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measures and logs."""
        from scipy.stats import spearmanr  # slow to import

        if trainer.sanity_checking:
            return
        data, module, judge = data_of(trainer), self.module(pl_module), self.judge
        scenes = ShardDataset(data.datasets[0], data.splits("validation")[0][0]).columns()
        targets, slots = targets_of(scenes), module.slots(scenes)
        cmss = module.manifold.project_visual(scenes["global_visual"])
        baselines = {
            "truth": scenes["audio"],
            **manifold_predictions(slots, cmss, module.manifold),
            **untrained_predictions(targets, module.statistics),
        }
        predictions = {"": module.mix(slots).mean, "/draw": module.draw(scenes, slots)}
        predictions |= {baseline_metric("", name): predicted for name, predicted in baselines.items()}
        translators: dict[str, Callable[[Tensor], Tensor]] = {
            "scenes_ridge": module.statistics.translate_audio,
            "pairs_ridge": judge.statistics.translate_audio,
            "translator": judge.translator,
        }
        scores = {
            by: {name: clip_score(translate(normalize(x.float(), dim=-1)), targets) for name, x in predictions.items()}
            for by, translate in translators.items()
        }
        numbers = {f"clip_score_by/{by}{name}": x for by, found in scores.items() for name, x in found.items()}
        own, *others = (list(found.values()) for found in scores.values())
        for by, values in zip(list(scores)[1:], others, strict=True):
            numbers[f"clip_score_rank/{by}"] = float(spearmanr(own, values).statistic)
        self.log_numbers(trainer, pl_module, numbers)


def clip_score(translated: Tensor, targets: Targets) -> float:
    """Computes the mean CLIP score of translated predictions, [scenes, visual width], against what is seen."""
    assert targets.visual is not None  # scenes have visual embeddings
    return 100 * float(mean_source_cosine(translated, targets.visual, targets.visible).mean())


def sources_to_add(scenes: Rows, pairs: Rows, compositions: Path) -> Tensor:
    """Tells which pairs may be added to which scenes, bool [scenes, pairs].

    Composed scenes take annotated pairs of groups that are not in them; others take pairs of other classes.

    Args:
        scenes: rows with ``key`` or ``classes``.
        pairs: rows with ``key``, ``group`` and ``pair_origin``, or ``class_index``.
        compositions: csv file that names the pairs of composed scenes; other scenes have none.
    """
    if not compositions.is_file():
        return ~(scenes["classes"][:, :, None] == pairs["class_index"]).any(1)
    group_of = dict(zip(pairs["key"], pairs["group"].tolist(), strict=True))
    groups: dict[str, set[int]] = {key: set() for key in scenes["key"]}
    with open(compositions, newline="", encoding="utf-8") as opened:
        for row in csv.DictReader(opened):
            if row["key"] in groups:
                groups[row["key"]].add(group_of[row["pair"]])
    apart = [[group not in groups[key] for group in pairs["group"].tolist()] for key in scenes["key"]]
    return torch.tensor(apart) & (pairs["pair_origin"] == ANNOTATED)


@torch.no_grad()
def sensitivities(
    model: RemixerModule, scenes: Rows, pairs: Rows, added: Tensor, judge: AudioToVisualModule
) -> dict[str, float]:
    """Computes the numbers of :class:`SourceSensitivity`.

    Args:
        model: the Remixer.
        scenes: held-out scenes.
        pairs: held-out pairs.
        added: numbers of the pairs added to each scene, [scenes, added].
        judge: its translator and its ridge regression give v.
    """
    before = model.slots(scenes)
    mixed = model.mix(before).mean
    toward: dict[str, list[Tensor]] = defaultdict(list)
    moved: dict[str, list[Tensor]] = defaultdict(list)
    for column in added.T:
        visual, audio = pairs["visual"][column].unsqueeze(1), pairs["audio"][column].unsqueeze(1)
        own = audio.squeeze(1)
        for way, slots in _ways(model.manifold, visual, audio, judge).items():
            after = model.mix(join_slots([before, slots])).mean
            cosine = torch.cosine_similarity
            toward[way].append(cosine(after, own) - cosine(mixed, own))
            moved[way].append(1 - cosine(after, mixed))
    numbers, counts = {}, scenes["valid"].sum(1)
    for way, parts in toward.items():
        values = torch.stack(parts).mean(0)  # [scenes]
        numbers[f"sensitivity/{way}"] = float(values.mean())
        numbers[f"moved/{way}"] = float(torch.stack(moved[way]).mean(0).mean())
        for count in counts.unique().tolist():
            numbers[f"sensitivity/{way}/sources_{count}"] = float(values[counts == count].mean())
    for way in OTHERS_OF_SEEN:
        numbers[f"sensitivity_to_seen/{way}"] = numbers[f"sensitivity/{way}"] / numbers["sensitivity/seen"]
    return numbers


def _ways(manifold: Manifold, visual: Tensor, audio: Tensor, judge: AudioToVisualModule) -> dict[str, SourceSlots]:
    """Makes one slot [scenes, 1] for each way to add a source."""
    there = torch.ones(len(visual), 1, dtype=torch.bool)
    seen, heard = visual_slots(visual, there, manifold.project_visual), audio_slots(audio, there, manifold)
    return {
        "seen": seen,
        "seen_without_v": SourceSlots(seen.cmss, torch.zeros_like(visual), there, seen.weight),
        "heard": heard,
        "heard_translator": audio_slots(audio, there, manifold, judge.translator),
        "heard_ridge": audio_slots(audio, there, manifold, judge.statistics.translate_audio),
        "heard_true_v": SourceSlots(heard.cmss, visual, there, seen.weight),
    }
