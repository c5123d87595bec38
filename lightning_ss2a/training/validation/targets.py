"""What the numbers of a stage need of an evaluation batch, whatever the kind of its data set.

Shapes: B rows, S things seen in a row (sources of a scene; one for other kinds), V visual width, A audio width, F width
of what a ridge regression reads.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lightning_ss2a.data.loading.tensors import Batch
from lightning_ss2a.models import mean_over_frames
from lightning_ss2a.models.layers.embeddings import mean_direction


@dataclass(frozen=True)
class Targets:
    """The truth that predictions of an audio embedding are measured against.

    Attributes:
        audio: true audio embeddings, [B, A].
        features: what a closed-form regression of the audio may read, [B, F]: of pairs the unit visual embedding; of
            scenes the unit global embedding and the mean of the sources' unit embeddings, side by side; of videos the
            mean of the unit frames.
        index: number of each row in its split, [B].
        visual: embeddings of what is seen, [B, S, V]; None: the data have none (videos of generated audio).
        visible: which of them there are, bool [B, S].
    """

    audio: Tensor
    features: Tensor
    index: Tensor
    visual: Tensor | None
    visible: Tensor

    def __len__(self) -> int:
        return len(self.audio)

    def __getitem__(self, rows: Tensor) -> "Targets":
        """Those of some rows, chosen by a mask or by numbers."""
        visual = None if self.visual is None else self.visual[rows]
        return Targets(self.audio[rows], self.features[rows], self.index[rows], visual, self.visible[rows])

    @property
    def mean_visual(self) -> Tensor | None:
        """Mean unit embedding of what is seen, [B, V]: what a translator of audio should give."""
        return None if self.visual is None else mean_direction(self.visual, self.visible)


def targets_of(batch: Batch) -> Targets:
    """The targets in a batch of pairs, scenes or videos; in float64 where the batch is."""
    audio, index = batch["audio"], batch["index"]
    one = torch.ones(len(audio), 1, dtype=torch.bool, device=audio.device)
    if "sources" in batch:
        visual, visible = batch["sources"], batch["valid"]
        features = torch.cat([normalize(batch["global_visual"], dim=-1), mean_direction(visual, visible)], dim=-1)
        return Targets(audio, features, index, visual, visible)
    visual = batch["visual"].unsqueeze(1) if "visual" in batch else None
    if "frames" in batch:
        return Targets(audio, mean_over_frames(batch["frames"]), index, visual, one)
    return Targets(audio, normalize(batch["visual"], dim=-1), index, visual, one)
