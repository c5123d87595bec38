"""Scores more predictions of the audio of scenes: bounds from the truth, and means of samples."""

from typing import Any

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


class TruthBound(PredictionProbe[StageModule]):
    """Scores the best guesses for simulated scenes, from their truth, as two baselines.

    ``classes_known``: the classes are known, and the instance as far as the picture tells it; all sources count alike.
    ``gains_known``: the gains are known too, which no picture tells. An audio embedding is taken at its mean given the
    class and the picture; instances z have the closed-form posterior of a Gaussian. The noise of each sound and of the
    mixture stays out: nobody can know it.
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
        guesses = {"classes_known": False, "gains_known": True}
        return {
            baseline_metric("", n): self.guess(rows, sources, g).to(targets.audio.device) for n, g in guesses.items()
        }

    def guess(self, rows: np.ndarray, sources: np.ndarray, with_gains: bool) -> Tensor:
        """Guesses audio embeddings of scenes, [scenes, audio width].

        Args:
            rows: row numbers of the scenes in the split, [scenes].
            sources: their sources as seen, [scenes, slots, visual width].
            with_gains: whether the gains are known.
        """
        visual, audio, width = self.world.visual, self.world.audio, self.world.spec.instance_width
        slots = sources.shape[1]
        classes = self.truth["visual_classes"][rows, :slots]
        basis = visual.instance  # [instance width, visual width], rows of squared norm instance_share
        share = np.square(basis[0]).sum()
        evidence = (sources - visual.class_means[classes]) @ basis.T
        z = evidence / (share + width * visual.noise**2)
        weights = self.truth["gains"][rows, :slots] if with_gains else (classes >= 0).astype(np.float32)
        heard = audio.class_means[classes] + z @ audio.instance
        return torch.from_numpy((weights[..., None] * heard).sum(1)).float()


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
