"""States which files av-benchmark has, what is in them, and what its scores are called."""

from typing import NamedTuple

from lightning_ss2a.evaluation.protocols import WaveformEncoder


class Part(NamedTuple):
    """Where a part of what an encoder hears lies.

    Attributes:
        file: name of the file.
        key: in the dict that an entry is; empty: an entry is the tensor itself.
    """

    file: str
    key: str = ""


class Features(NamedTuple):
    """What there is of an encoder.

    Attributes:
        parts: the embedding and, of an encoder that tells classes, their logits.
        frames: entries are of frames, [frames, width]; else [width].
        distance: name of the Fréchet distance.
        classes: what scores of its classes are called by; empty: it tells none.
    """

    parts: tuple[Part, ...]
    frames: bool = False
    distance: str = ""
    classes: str = ""


FEATURES = {
    "VGGish": Features((Part("vggish_features.pth"),), True, "FD-VGG"),
    "PANNs": Features(
        (Part("pann_features.pth", "2048"), Part("pann_features.pth", "logits")), False, "FD-PANN", "PANNS"
    ),
    "PaSST": Features((Part("passt_features_embed.pth"), Part("passt_logits.pth")), False, "FD-PASST", "PASST"),
}
"""By the ``part`` of our encoder."""

FILES = tuple(dict.fromkeys(part.file for features in FEATURES.values() for part in features.parts))
"""That are read and written."""

OTHER_FILES = (
    "imagebind_audio.pth", "imagebind_video.pth", "synchformer_audio.pth", "synchformer_video.pth",
    "clap_laion_audio.pth", "clap_laion_text.pth", "clap_ms_audio.pth", "clap_ms_text.pth",
)  # fmt: skip
"""That are its own, of models that there are none of here, or whose second half is needed to use them."""

SCORES = "output_metrics.json"
"""Scores by name."""
IS_SPLITS, IS_SEED = 10, 2020


def features_of(encoder: WaveformEncoder) -> Features | None:
    """Finds what av-benchmark keeps of an encoder; None: it does not have it."""
    return FEATURES.get(getattr(encoder, "part", ""))
