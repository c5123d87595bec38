"""Rows that were trained on beside rows that were not: whether a manifold underfits or overfits (paper, Table 9)."""

from collections.abc import Iterable
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_ss2a.analysis.probes.base import Probe
from lightning_ss2a.callbacks.trainer_state import data_of
from lightning_ss2a.training import ManifoldModule
from lightning_ss2a.training.validation.pairs import AlignmentMetrics
from lightning_ss2a.training.validation.predicted_audio import PredictedAudioMetrics
from lightning_ss2a.training.validation.targets import targets_of


class GeneralizationGap(Probe[ManifoldModule]):
    """Logs the same numbers of training and of held-out pairs, and the size of the manifold.

    ``val/trained/NAME`` and ``val/held_out/NAME`` with ``recall@1`` (mean of both directions), ``ssms`` and
    ``reconstruction_cosine``, each of the first ``rows`` rows, so that both choose from as many candidates;
    ``val/million_parameters``.

    Args:
        rows: rows of each.
    """

    stages = (ManifoldModule,)

    def __init__(self, rows: int = 1000) -> None:
        self.rows = rows

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measures and logs."""
        if trainer.sanity_checking:
            return
        data, module = data_of(trainer), self.module(pl_module)
        numbers = {"million_parameters": sum(p.numel() for p in module.manifold.parameters()) / 1e6}
        loaders = {"trained": data.training_rows_loader(), "held_out": data.val_dataloader()}
        for part, loader in loaders.items():
            scores = self._scores(module, loader)
            numbers |= {f"{part}/{name}": value for name, value in scores.items()}
        self.log_numbers(trainer, pl_module, numbers)

    @torch.no_grad()
    def _scores(self, module: ManifoldModule, batches: Iterable[dict[str, Any]]) -> dict[str, float]:
        rows = self._first_rows(module, batches)
        predicted = PredictedAudioMetrics(module.measuring.top_n, None, module.label_head is not None).to(module.device)
        audio = module.manifold.reconstruct_audio(rows["visual_cmss"]).mean
        predicted.update(audio, targets_of(rows), module.statistics, module.label_head)
        alignment = AlignmentMetrics().to(module.device)
        alignment.update(rows["visual_cmss"], rows["audio_cmss"], rows["index"])
        values = {name: float(value) for name, value in (predicted.compute() | alignment.compute()).items()}
        recall = (values["recall@1/visual_to_audio"] + values["recall@1/audio_to_visual"]) / 2
        return {"recall@1": recall} | {
            name: values[name] for name in ("ssms", "reconstruction_cosine") if name in values
        }

    def _first_rows(self, module: ManifoldModule, batches: Iterable[dict[str, Any]]) -> dict[str, Any]:
        parts: list[dict[str, Tensor]] = []
        for batch in batches:
            batch = {name: x.to(module.device) if isinstance(x, Tensor) else x for name, x in batch.items()}
            cmss = module.predict_step(batch, 0)
            parts.append({name: batch[name] for name in ("visual", "audio", "index")})
            parts[-1] |= {f"{name}_cmss": cmss[name] for name in ("visual", "audio")}
            if sum(len(part["index"]) for part in parts) >= self.rows:
                break
        return {name: torch.cat([part[name] for part in parts])[: self.rows] for name in parts[0]}
