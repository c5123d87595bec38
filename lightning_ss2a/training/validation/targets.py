"""The truth in an evaluation batch that metrics need, whatever the kind of its data set.

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
        class_index: class of each row, [B]; None: the data have none (scenes and videos have several).
    """

    audio: Tensor
    features: Tensor
    index: Tensor
    visual: Tensor | None
    visible: Tensor
    class_index: Tensor | None = None

    def __len__(self) -> int:
        return len(self.audio)

    def __getitem__(self, rows: Tensor) -> "Targets":
        """Selects rows by a mask or by numbers."""
        return Targets(
            audio=self.audio[rows],
            features=self.features[rows],
            index=self.index[rows],
            visual=None if self.visual is None else self.visual[rows],
            visible=self.visible[rows],
            class_index=None if self.class_index is None else self.class_index[rows],
        )

    @property
    def mean_visual(self) -> Tensor | None:
        """Mean unit embedding of what is seen, [B, V]: what a translator of audio should give."""
        return None if self.visual is None else mean_direction(self.visual, self.visible)


def targets_of(batch: Batch) -> Targets:
    """Collects the targets in a batch of pairs, scenes or videos; in float64 where the batch is."""
    audio, index = batch["audio"], batch["index"]
    one = torch.ones(len(audio), 1, dtype=torch.bool, device=audio.device)
    if "sources" in batch:
        visual, visible = batch["sources"], batch["valid"]
        features = torch.cat([normalize(batch["global_visual"], dim=-1), mean_direction(visual, visible)], dim=-1)
        return Targets(audio, features, index, visual, visible)
    if "frames" in batch:
        seen = batch["visual"].unsqueeze(1) if "visual" in batch else None
        return Targets(audio, mean_over_frames(batch["frames"]), index, seen, one)
    visual = batch["visual"]
    return Targets(audio, normalize(visual, dim=-1), index, visual.unsqueeze(1), one, batch.get("class_index"))
