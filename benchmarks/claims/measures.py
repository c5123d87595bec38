"""What is measured of fitted manifolds beyond the metrics that training logs."""

from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata, spearmanr
from torch import Tensor
from torch.nn.functional import normalize

from lightning_ss2a.metrics.functional.class_linkage import class_linkage as linkage_of_sums
from lightning_ss2a.metrics.functional.class_linkage import class_sums


def class_linkage(x: Tensor, y: Tensor, class_index: Tensor, num_classes: int) -> np.ndarray:
    """Average linkage of the rows of x and y, see :func:`lightning_ss2a.metrics.functional.class_linkage`."""
    sums = [class_sums(z, class_index, num_classes) for z in (x, y)]
    return linkage_of_sums(*sums, torch.bincount(class_index.long(), minlength=num_classes))


def modality_accuracy(visual: Tensor, audio: Tensor, parts: int = 5) -> float:
    """How often a linear classifier tells a visual from an audio embedding; 0.5: not at all.

    Logistic regression on unit vectors, its inputs standardised. Each of ``parts`` parts of the rows is tested with the
    classifier that the others trained; the two embeddings of a row stay together.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = len(visual)
    x = normalize(torch.cat([visual, audio]).double(), dim=1).numpy()
    y, group = np.repeat([0, 1], rows), np.tile(np.arange(rows), 2)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return float(cross_val_score(model, x, y, groups=group, cv=GroupKFold(parts)).mean())


@torch.no_grad()
def embed(model: Any, loader: Any, limit: int | None = None) -> dict[str, Tensor]:
    """Rows of a loader: ``visual``, ``audio`` as they are, ``class_index``, ``index``, and CMSS means ``*_cmss``."""
    parts: list[dict[str, Tensor]] = []
    for batch in loader:
        cmss = model.predict_step(batch, 0)
        known = {name: batch[name] for name in ("visual", "audio", "class_index", "index")}
        parts.append(known | {"visual_cmss": cmss["visual"], "audio_cmss": cmss["audio"]})
        if limit is not None and sum(len(part["index"]) for part in parts) >= limit:
            break
    return {name: torch.cat([part[name] for part in parts])[:limit] for name in parts[0]}


@torch.no_grad()
def prediction_metrics(model: Any, rows: dict[str, Tensor]) -> dict[str, float]:
    """Recall@1 (mean of both ways), SSMS and reconstruction cosine of rows that ``embed`` gave."""
    from lightning_ss2a.training.validation.pairs import AlignmentMetrics
    from lightning_ss2a.training.validation.predicted_audio import PredictedAudioMetrics
    from lightning_ss2a.training.validation.targets import targets_of

    predicted = PredictedAudioMetrics(model.hparams.top_n, None, with_ssms=True)
    audio = model.manifold.reconstruct_audio(rows["visual_cmss"]).mean
    predicted.update(audio, targets_of(rows), model.statistics, model._label_head)
    alignment = AlignmentMetrics()
    alignment.update(rows["visual_cmss"], rows["audio_cmss"], rows["index"])
    values = {name: float(value) for name, value in (predicted.compute() | alignment.compute()).items()}
    recall = (values["recall@1/visual_to_audio"] + values["recall@1/audio_to_visual"]) / 2
    return {"recall@1": recall, "ssms": values["ssms"], "reconstruction_cosine": values["reconstruction_cosine"]}


def alignment_measures(cli: Any, dataset: str, run: Any) -> dict[str, float]:
    """Of held-out rows: how well modalities are told apart and, in the simulated world, the rank correlations.

    ``rank/TREE/SIDES``: Spearman's between the average linkage of two classes' embeddings and the cosine of the two
    classes' prototypes in the tree of sounds or of looks, over all pairs of classes that have held-out rows.
    """
    from lightning_ss2a.data.simulation.truth import read_world
    from lightning_ss2a.losses import ccmr_mask
    from lightning_ss2a.metrics.functional import modality_gap

    rows = embed(cli.model, cli.datamodule.val_dataloader())
    visual, audio = rows["visual_cmss"], rows["audio_cmss"]
    cosine = torch.cosine_similarity
    found = {"modality_accuracy": modality_accuracy(visual, audio)}
    found["matching_cosine"] = float(cosine(visual, audio).mean())
    found["other_cosine"] = float(cosine(visual, audio.roll(1, 0)).mean())
    raw = rows["visual"], rows["audio"]
    found["temperature"] = float(cli.model.manifold.temperature)
    if cli.model.hparams.ccmr_alpha:
        mask = ccmr_mask(*raw, alpha=cli.model.hparams.ccmr_alpha)
        found["mask/other_pairs"] = float(mask[~torch.eye(len(mask), dtype=torch.bool)].mean())
    if raw[0].shape == raw[1].shape:
        found["raw/modality_gap"] = float(modality_gap(*raw))
        found["raw/modality_accuracy"] = modality_accuracy(*raw)
    if run.world != "simulated":
        return found
    world = read_world(dataset)
    trees = {"sounds": world.audio.prototypes, "looks": world.visual.prototypes}
    sides = {"visual": (visual, visual), "audio": (audio, audio), "cross": (visual, audio)}
    sides |= {"raw_visual": (raw[0], raw[0]), "raw_audio": (raw[1], raw[1])}
    for side, pair in sides.items():
        linkage = class_linkage(*pair, rows["class_index"], world.num_classes)
        linkage = (linkage + linkage.T) / 2
        upper = np.triu(np.isfinite(linkage), 1)
        for tree, prototypes in trees.items():
            found[f"rank/{tree}/{side}"] = float(
                spearmanr(linkage[upper], (prototypes @ prototypes.T)[upper]).statistic
            )
    return found


def depth_measures(cli: Any, dataset: str, run: Any) -> dict[str, float]:
    """The same numbers of 1,000 training rows and of the held-out rows; parameters."""
    numbers = {"parameters": float(sum(p.numel() for p in cli.model.manifold.parameters()))}
    loaders = {"train": cli.datamodule.training_rows_loader(), "held_out": cli.datamodule.val_dataloader()}
    for split, loader in loaders.items():
        rows = embed(cli.model, loader, limit=1000)
        numbers |= {f"{split}/{name}": value for name, value in prediction_metrics(cli.model, rows).items()}
    return numbers


def area_under_curve(positive: np.ndarray, negative: np.ndarray) -> float:
    """How often a positive is above a negative, ties half: the area under the ROC curve."""
    ranked = rankdata(np.concatenate([positive, negative]))
    above = ranked[: len(positive)].sum() - len(positive) * (len(positive) + 1) / 2
    return float(above / (len(positive) * len(negative)))


def precision_and_recall(dropped: np.ndarray, mismatched: np.ndarray) -> dict[str, float]:
    """Of dropping mismatched pairs, and the part dropped; bool [pairs] each. What nothing defines is left out."""
    right, found = int((dropped & mismatched).sum()), {"dropped": float(dropped.mean())}
    if dropped.any():
        found["precision"] = right / int(dropped.sum())
    if mismatched.any():
        found["recall"] = right / int(mismatched.sum())
    return found


def filter_measures(callbacks: list[Any], data: Any, mismatched: np.ndarray) -> dict[str, float]:
    """Of the noisy training pairs: what the pair filter dropped against the truth; nothing without a pair filter."""
    from lightning_ss2a.callbacks import PairFilter

    states = [callback.state_dict() for callback in callbacks if isinstance(callback, PairFilter)]
    if not states or states[0]["kept"] is None:
        return {}
    noisy = data.training_columns(["pair_origin"])["pair_origin"].numpy() != 0
    numbers = precision_and_recall(~states[0]["kept"].numpy()[noisy], mismatched[noisy])
    threshold = states[0]["threshold"]
    return {f"filter/{n}": v for n, v in numbers.items()} | (
        {} if threshold is None else {"filter/threshold": threshold}
    )
