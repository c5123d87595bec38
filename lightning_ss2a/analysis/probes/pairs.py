"""Bounds of what a manifold could predict of simulated pairs: the truth's own best guess, and a plain network."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize

from lightning_ss2a.analysis.probes.base import RowsProbe
from lightning_ss2a.callbacks.trainer_state import data_of
from lightning_ss2a.data.simulation.truth import read_world
from lightning_ss2a.data.simulation.world import World
from lightning_ss2a.errors import InputError
from lightning_ss2a.metric_names import baseline_metric
from lightning_ss2a.training import ManifoldModule
from lightning_ss2a.training.checks import check_kind
from lightning_ss2a.training.validation.pairs import PairMetrics, in_audio_space
from lightning_ss2a.training.validation.targets import targets_of


class PairBounds(RowsProbe[ManifoldModule]):
    """Scores what predicts the audio of simulated pairs from the visual embedding without a manifold, as two baselines.

    ``posterior_mean``: the mean audio given what is seen, from the world's truth; but for the lengths that embeddings
    lost when they were normalised, no prediction of matching pairs has a higher expected cosine. ``mlp``: a plain
    network trained on the same rows by the cosine alone.

    Args:
        hidden_width: of the network's two hidden layers.
        steps: that it trains.
        batch_size: rows of a step.
        learning_rate: of AdamW, which falls to 0 along a cosine.
    """

    stages = (ManifoldModule,)

    def __init__(
        self, hidden_width: int = 512, steps: int = 1500, batch_size: int = 256, learning_rate: float = 5e-3
    ) -> None:
        super().__init__()
        self.hidden_width, self.steps = hidden_width, steps
        self.batch_size, self.learning_rate = batch_size, learning_rate

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Reads the world.

        Raises:
            InputError: the module is of another stage, the data set is none of simulated pairs, or sight has no noise
                or tells loudness.
        """
        super().setup(trainer, pl_module, stage)
        check_kind(data_of(trainer), ["pairs"], type(self).__name__)
        self.world = read_world(data_of(trainer).datasets[0])
        if not self.world.visual.noise:
            raise InputError("PairBounds: needs a world whose visual embeddings have noise; lower their other shares")
        if self.world.spec.loudness_share:
            raise InputError("PairBounds: the best guess is not known where pictures tell loudness (loudness_share)")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Trains the network."""
        parts = [targets_of(batch) for batch in data_of(trainer).training_rows_loader()]
        seen = torch.cat([part.features for part in parts]).float().cpu()
        audio = torch.cat([part.audio for part in parts]).float().cpu()
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(data_of(trainer).seed)
            self.mlp = self._train(seen, audio)

    def _train(self, seen: Tensor, audio: Tensor) -> nn.Module:
        """Trains the network on rows of [R, visual width] and [R, audio width]."""
        width = self.hidden_width
        layers = [nn.Linear(seen.shape[1], width), nn.GELU(), nn.Linear(width, width), nn.GELU()]
        network = nn.Sequential(*layers, nn.Linear(width, audio.shape[1]))
        optimizer = torch.optim.AdamW(network.parameters(), self.learning_rate, weight_decay=0.1)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        for _ in range(self.steps):
            rows = torch.randint(len(seen), (self.batch_size,))
            optimizer.zero_grad()
            (1 - cosine_similarity(network(seen[rows]), audio[rows])).mean().backward()
            optimizer.step()
            schedule.step()
        return network.eval()

    def collect(self, batch: dict[str, Any], outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Picks what pairs are measured by."""
        return {name: batch[name] for name in ("visual", "audio", "index")}

    def measure(self, trainer: Trainer, module: ManifoldModule, rows: dict[str, Tensor]) -> dict[str, float]:
        """Scores both as the module is scored; in retrieval, predicted audio seeks the true one."""
        assert module.measuring is not None
        targets = targets_of(rows)
        numbers: dict[str, float] = {}
        guess = torch.from_numpy(posterior_mean(self.world, targets.features.float().cpu().numpy()))
        with torch.no_grad():
            predicted = {"posterior_mean": guess, "mlp": self.mlp(targets.features.float().cpu())}
        for name, audio in predicted.items():
            direction = normalize(audio, dim=-1).to(module.device)
            metrics = PairMetrics(module.measuring.top_n, None, module.label_head is not None).to(module.device)
            prediction = in_audio_space(direction, targets, module.statistics)
            metrics.update(prediction, targets, module.statistics, module.label_head)
            numbers |= {baseline_metric(metric, name): float(value) for metric, value in metrics.compute().items()}
        return numbers


def posterior_mean(world: World, seen: np.ndarray) -> np.ndarray:
    """Computes the mean audio embedding given the visual one, over classes and instances.

    With x the visual embedding and B [k, width] the scaled basis of what an instance z shows, class c and z have the
    posterior of the world's Gaussian model: p(c | x) ~ frequency(c) N(x; mean_v(c), B' B / k + noise_v² I), and z given
    both has the mean B (x - mean_v(c)) / (share_v + k noise_v²). The lengths that embeddings lost when they were
    normalised, which scatter around 1, are taken to be 1; to allow for them would raise the cosine by about 1e-4.

    Args:
        world: the world.
        seen: visual embeddings, float [rows, visual width].

    Returns:
        Mean audio embeddings, float32 [rows, audio width], of any norm.
    """
    visual, audio, width = world.visual, world.audio, world.spec.instance_width
    x, means, basis = (part.astype(np.float64) for part in (seen, visual.class_means, visual.instance))
    noise, share = float(visual.noise) ** 2, np.square(basis[0]).sum()  # rows of the basis are orthogonal
    distance = np.square(x).sum(1)[:, None] - 2 * x @ means.T + np.square(means).sum(1)
    evidence = (x @ basis.T)[:, None] - means @ basis.T  # [rows, classes, k]
    # The exponent of N by the inverse of B' B / k + noise I, which shrinks what lies along B.
    along = np.square(evidence).sum(-1) / (share + width * noise)
    log_likelihood = (along - distance) / (2 * noise) + np.log(world.frequency)
    posterior = np.exp(log_likelihood - log_likelihood.max(1, keepdims=True))
    posterior /= posterior.sum(1, keepdims=True)
    z = np.einsum("rc,rck->rk", posterior, evidence) / (share + width * noise)
    return (posterior @ audio.class_means + z @ audio.instance).astype(np.float32)
