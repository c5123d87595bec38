"""What the claims about mixing share: runs on scenes of both worlds, scores by number of sources, best guesses."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from .filter import callbacks
from .runs import Run

FOLDS = 5
GROUPS = ("single", "several", "all")
"""Scenes of one source, of two or more, all."""

MANIFOLD = (
    "sweeps/claims_world.yaml",
    "sweeps/claims_data.yaml",
    ("--data.train_split=large", "--model.ccmr_mask_diagonal=false", "--trainer.max_epochs=50"),
)
REMIXER = {"simulated": "sweeps/claims_remixer.yaml", "demo": "sweeps/claims_remixer_demo.yaml"}
MAPPER = {"simulated": "sweeps/claims_v2a_mapper.yaml", "demo": "sweeps/claims_v2a_mapper_demo.yaml"}
DATA = "sweeps/claims_scenes_data.yaml"

GUESSES = {"gains": True, "classes": False}
"""Names of best guesses, and whether the gains are known too; else all sources count alike."""

Predictions = dict[str, Tensor]
Predict = Callable[[Any, Any], Predictions]
"""Audio embeddings [scenes, audio width] by name, of an evaluation batch and its targets."""


def not_measured(cli: Any, dataset: str, run: Run) -> dict[str, float]:
    """Nothing: of manifolds that other runs build on."""
    return {}


def manifold_run(world: str, seed: int, fold: int | None = None) -> Run:
    """The manifold of a world and seed; on the demo as claims_manifold_demo.yaml says, without the fold held out."""
    if world == "demo":
        teacher = {"teacher_epochs": 30, "consistency_weight": 1.0, "consistency_rampup_epochs": 10}
        parts_of_training = callbacks(teacher, {})  # as that file has them
        return Run("manifold", seed, "sweeps/claims_manifold_demo.yaml", not_measured, (parts_of_training,), fold=fold)
    config, data, overrides = MANIFOLD
    return Run("manifold", seed, config, not_measured, overrides, data)


Overrides = Sequence[str] | Mapping[str, Sequence[str]]
"""More arguments of ``lightning fit``, or those by world; a world that is not named is left out."""


def scene_runs(
    arm: str,
    configs: Mapping[str, str],
    measure: Callable[..., dict[str, float]],
    overrides: Overrides,
    seeds: int,
    demo_seeds: int = 1,
    builds_on_manifold: bool = True,
) -> list[Run]:
    """An arm in both worlds: simulated worlds by seed, and so many seeds of each fold of the demo."""
    by_world = overrides if isinstance(overrides, Mapping) else dict.fromkeys(configs, overrides)
    places: list[tuple[str, int, int | None]] = [("simulated", seed, None) for seed in range(seeds)]
    places += [("demo", seed, fold) for seed in range(min(seeds, demo_seeds)) for fold in range(FOLDS)]
    return [
        Run(
            arm,
            seed,
            configs[world],
            measure,
            tuple(by_world[world]),
            DATA if world == "simulated" else None,
            fold=fold,
            manifold=manifold_run(world, seed, fold) if builds_on_manifold else None,
        )
        for world, seed, fold in places
        if world in by_world
    ]


class SceneScores:
    """SSMS and cosine of each scene for several predictions, averaged by number of sources.

    Args:
        model: a fitted module of a stage: its label head, training statistics and ``top_n``.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.values: dict[tuple[str, str], list[Tensor]] = defaultdict(list)
        self.sources: list[Tensor] = []

    def add(self, targets: Any, predictions: Predictions) -> None:
        """Score predictions for a batch; each is a direction, and gets the mean norm of the training audio."""
        from lightning_ss2a.metrics.functional import sound_source_matching_score

        head, norm = self.model._label_head, self.model.statistics.audio_norm
        truth = head.scores(targets.audio)
        self.sources.append(targets.visible.sum(1))
        for name, predicted in predictions.items():
            direction = normalize(predicted.float(), dim=-1)
            scores = head.scores(direction * norm)
            ssms = sound_source_matching_score(scores, truth, self.model.hparams.top_n, reduction="none")
            self.values[name, "ssms"].append(ssms)
            self.values[name, "cosine"].append(torch.cosine_similarity(direction, targets.audio.float()))

    def numbers(self) -> dict[str, float]:
        """``NAME/METRIC/GROUP``, and ``NAME/ssms/N`` of scenes of N sources."""
        sources, found = torch.cat(self.sources), {}
        groups = {"single": sources == 1, "several": sources > 1, "all": sources > 0}
        counts = {str(count): sources == count for count in sources.unique().tolist()}
        for (name, metric), parts in self.values.items():
            values = torch.cat(parts)
            for group, chosen in (groups | counts if metric == "ssms" else groups).items():
                found[f"{name}/{metric}/{group}"] = float(values[chosen].mean())
        return found


@torch.no_grad()
def score_scenes(cli: Any, predict: Predict) -> dict[str, float]:
    """Scores of held-out scenes."""
    from lightning_ss2a.training.validation.targets import targets_of

    scores = SceneScores(cli.model)
    for batch in cli.datamodule.val_dataloader():
        targets = targets_of(batch)
        scores.add(targets, predict(batch, targets))
    return scores.numbers()


def remixer_predictions(model: Any, batch: Any) -> Predictions:
    """The Remixer's mean, and two draws."""
    slots = model.slots(batch)
    draws = [model.draw(batch, slots, seed) for seed in (0, 1)]
    return {"mean": model.remixer(*slots.tokens()).mean, "draw": draws[0], "draw2": draws[1]}


def remixer_measures(cli: Any, dataset: str, run: Run) -> dict[str, float]:
    """The Remixer's mean and one draw; ``draw_cosine`` is among what training logs."""
    return score_scenes(cli, lambda batch, targets: remixer_predictions(cli.model, batch))


def baseline_measures(cli: Any, dataset: str, run: Run) -> dict[str, float]:
    """The same, beside all that predicts without a Remixer and, where the truth is known, the best guess."""
    from lightning_ss2a.training.remixer import manifold_predictions
    from lightning_ss2a.training.validation.baselines import untrained_predictions

    model = cli.model
    known = BestGuess(dataset) if run.world == "simulated" else None
    ridge = None if known else held_out_ridge(cli.datamodule)

    def predict(batch: Any, targets: Any) -> Predictions:
        slots, cmss = model.slots(batch), model.manifold.project_visual(batch["global_visual"].float())
        found = remixer_predictions(model, batch) | untrained_predictions(targets, model.statistics)
        found |= manifold_predictions(slots, cmss, model.manifold)
        if known is None:
            return found | {"ridge_held_out": ridge(targets.features)}
        rows, sources = batch["index"].numpy(), batch["sources"].float().numpy()
        return found | {f"best_{name}": known(rows, sources, use) for name, use in GUESSES.items()}

    return score_scenes(cli, predict)


MAPPER_SAMPLES = 16


def mapper_measures(cli: Any, dataset: str, run: Run) -> dict[str, float]:
    """V2A-Mapper: its prediction, and of the diffusion mapper also the mean of some samples."""
    model = cli.model
    diffusion = model.hparams.flavour == "diffusion"

    def predict(batch: Any, targets: Any) -> Predictions:
        if not diffusion:
            return {"mean": model.predict_audio(batch)}
        samples = [normalize(model.predict_audio(batch, seed), dim=-1) for seed in range(MAPPER_SAMPLES)]
        return {"draw": samples[0], "mean": torch.stack(samples).mean(0)}

    return score_scenes(cli, predict)


class BestGuess:
    """Mixtures of the simulated world from its truth: the classes, and what the picture tells of the instance.

    An audio embedding is taken at its mean given the class and the picture; instances z have the closed-form posterior
    of a Gaussian. What no one can know stays out: the noise of each sound and of the mixture.

    Args:
        dataset: folder of the simulated scenes.
    """

    def __init__(self, dataset: str) -> None:
        from lightning_ss2a.data.simulation.truth import read_truth, read_world

        self.world, self.truth = read_world(dataset), read_truth(dataset, "validation")

    def __call__(self, rows: np.ndarray, sources: np.ndarray, gains: bool) -> Tensor:
        """Audio of scenes ``rows`` from their sources as seen, [scenes, slots, visual width]."""
        visual, audio, width = self.world.visual, self.world.audio, self.world.spec.instance_width
        slots = sources.shape[1]
        classes = self.truth["visual_classes"][rows, :slots]
        basis = visual.instance  # [instance width, visual width], rows of squared norm instance_share
        share = np.square(basis[0]).sum()
        evidence = (sources - visual.class_means[classes]) @ basis.T
        z = evidence / (share + width * visual.noise**2)
        weights = self.truth["gains"][rows, :slots] if gains else (classes >= 0).astype(np.float32)
        heard = audio.class_means[classes] + z @ audio.instance
        return torch.from_numpy((weights[..., None] * heard).sum(1)).float()


def held_out_ridge(data: Any, penalties: Sequence[float] = tuple(np.logspace(-2, 4, 25))) -> Callable[[Tensor], Tensor]:
    """Ridge regression whose penalty is the best for training folds left out one by one (mean cosine).

    Generalised cross-validation leaves out single scenes, whose sources are in other scenes too.
    """
    from lightning_ss2a.training.validation.targets import targets_of

    features, audio, folds = [], [], []
    for batch in data.training_rows_loader():
        targets = targets_of(batch)
        features.append(targets.features.double())
        audio.append(normalize(targets.audio.double(), dim=-1))
        folds += [key.split("-")[1] for key in batch["key"]]
    x, y, names = torch.cat(features), torch.cat(audio), np.array(folds)
    cosines = torch.zeros(len(penalties), dtype=torch.float64)
    for name in sorted(set(folds)):
        fitted, held = torch.from_numpy(names != name), torch.from_numpy(names == name)
        for at, predict in enumerate(_ridges(x[fitted], y[fitted], penalties)):
            cosines[at] += torch.cosine_similarity(predict(x[held]), y[held]).mean()
    best = penalties[int(cosines.argmax())]
    return next(iter(_ridges(x, y, [best])))


def _ridges(x: Tensor, y: Tensor, penalties: Sequence[float]) -> Any:
    """Ridge regressions in their dual form, quick for fewer rows than features; penalties relative to the variance."""
    mean_x, mean_y = x.mean(0), y.mean(0)
    x, y = x - mean_x, y - mean_y
    values, vectors = torch.linalg.eigh(x @ x.T)
    scale, rotated = x.square().sum() / x.shape[1], vectors.T @ y
    for penalty in penalties:
        weight = x.T @ (vectors @ (rotated / (values.clamp_min(0) + penalty * scale).unsqueeze(1)))

        def predict(features: Tensor, weight: Tensor = weight) -> Tensor:
            return (features.double() - mean_x) @ weight + mean_y

        yield predict
