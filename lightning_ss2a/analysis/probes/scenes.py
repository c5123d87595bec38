"""Scores more predictions of the audio of scenes: bounds from the truth, and means of samples."""

from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.nn.functional import normalize

from lightning_ss2a.analysis.probes.base import PredictionProbe
from lightning_ss2a.callbacks.trainer_state import data_of
from lightning_ss2a.data.simulation.truth import read_truth, read_world
from lightning_ss2a.metric_names import baseline_metric
from lightning_ss2a.training import RemixerModule, V2AMapperModule
from lightning_ss2a.training.base import StageModule
from lightning_ss2a.training.checks import check_kind
from lightning_ss2a.training.validation.targets import Targets

Gains = Literal["equal", "seen", "known"]
"""How sources are weighed: all alike, as loud as they look, or as loud as they are."""


class TruthBound(PredictionProbe[StageModule]):
    """Scores the best guesses for simulated scenes, from their truth, as baselines.

    ``classes_known``: the classes are known, and the instance as far as the picture tells it; all sources count alike.
    ``gains_seen``: they count as loud as they look; only where pictures tell it (``world.loudness_share``).
    ``gains_known``: the gains are known. An audio embedding is taken at its mean given the class and the picture;
    instances z have the closed-form posterior of a Gaussian. The noise of each sound and of the mixture stays out:
    nobody can know it.
    """

    stages = (RemixerModule, V2AMapperModule)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Reads the truth.

        Raises:
            InputError: the module is of another stage, or the data set is none of simulated scenes.
        """
        super().setup(trainer, pl_module, stage)
        data = data_of(trainer)
        check_kind(data, ["scenes"], type(self).__name__)
        self.world = read_world(data.datasets[0])
        self.truth = read_truth(data.datasets[0], data.splits("validation")[0][0])

    def predict(self, module: StageModule, batch: dict[str, Any], targets: Targets) -> dict[str, Tensor]:
        """Predicts; see the class."""
        rows, sources = batch["index"].cpu().numpy(), batch["sources"].float().cpu().numpy()
        guesses: dict[str, Gains] = {"classes_known": "equal", "gains_known": "known"}
        if self.world.spec.loudness_share:
            guesses["gains_seen"] = "seen"
        return {
            baseline_metric("", n): self.guess(rows, sources, g).to(targets.audio.device) for n, g in guesses.items()
        }

    def guess(self, rows: np.ndarray, sources: np.ndarray, gains: Gains) -> Tensor:
        """Guesses audio embeddings of scenes, [scenes, audio width].

        Args:
            rows: row numbers of the scenes in the split, [scenes].
            sources: their sources as seen, [scenes, slots, visual width].
            gains: how sources are weighed.
        """
        slots = sources.shape[1]
        classes = self.truth["visual_classes"][rows, :slots]
        z, loudness = self._seen(sources - self.world.visual.class_means[classes])
        if gains == "known":
            weights = self.truth["gains"][rows, :slots]
        else:
            weights = self.world.gains(loudness) if gains == "seen" else np.ones_like(loudness)
        heard = self.world.audio.class_means[classes] + z @ self.world.audio.instance
        return torch.from_numpy((np.where(classes >= 0, weights, 0)[..., None] * heard).sum(1)).float()

    def _seen(self, rest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Estimates instances z [..., k] and loudness l [...] from what classes leave of embeddings, [..., W].

        z has its posterior, with l unknown: nothing along the direction of loudness is taken for an instance.
        """
        visual, basis = self.world.visual, self.world.visual.instance  # [instance width, visual width]
        length = np.linalg.norm(visual.loudness)
        along = visual.loudness / length if length else visual.loudness
        across = basis - np.outer(basis @ along, along)
        noise = self.world.spec.instance_width * visual.noise**2 * np.eye(len(basis), dtype=basis.dtype)
        z = rest @ across.T @ np.linalg.inv(across @ across.T + noise)
        return z, (rest - z @ basis) @ along / max(length, np.finfo(basis.dtype).tiny)


class MeanOfSamples(PredictionProbe[V2AMapperModule]):
    """Scores the mean direction of several samples of a generative V2A-Mapper, as ``/mean_of_samples``.

    Args:
        samples: of each row.
    """

    stages = (V2AMapperModule,)

    def __init__(self, samples: int = 16) -> None:
        super().__init__()
        self.samples = samples

    def predict(self, module: V2AMapperModule, batch: dict[str, Any], targets: Targets) -> dict[str, Tensor]:
        """Predicts; a mapper that draws nothing has no samples."""
        if module.flavour != "diffusion":
            return {}
        drawn = [normalize(module.predict_audio(batch, seed), dim=-1) for seed in range(self.samples)]
        return {"/mean_of_samples": torch.stack(drawn).mean(0)}
