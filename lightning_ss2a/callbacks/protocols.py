"""What callbacks ask of the module that is trained, and how they refuse one that has none of it.

Protocols of properties are met by any module that has them. Submodules cannot be looked for in an instance from Python
3.12 on: a module says in its bases that it meets a protocol that names some.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from lightning.pytorch import Callback, LightningModule
from torch import Tensor

from lightning_ss2a.errors import InputError
from lightning_ss2a.models import CycleMixOptions, Manifold, Remixer


@runtime_checkable
class HoldsBatches(Protocol):
    """A module that may hold batches back until the optimiser step that they belong to."""

    @property
    def has_pending_batches(self) -> bool:
        """Whether batches wait for their step, which a checkpoint taken now would lose or has to carry."""
        ...


@runtime_checkable
class EmbedsPairs(Protocol):
    """A module that is measured and predicts with a manifold, and scores its validation pairs by class."""

    @property
    def evaluated_manifold(self) -> Manifold:
        """What validation, test and prediction see."""
        ...

    @property
    def ssms_by_group(self) -> Mapping[str, Tensor]:
        """SSMS of each class in the last validation, [classes], NaN where it has no pair; by name of prediction."""
        ...


@dataclass(frozen=True)
class Prediction:
    """How embeddings are predicted.

    Attributes:
        sampling: one of the ways that the module has, such as ``mean``.
        seed: of draws.
    """

    sampling: str
    seed: int = 0


@runtime_checkable
class PredictsEmbeddings(Protocol):
    """A module whose ``predict_step`` gives one embedding a row, ``predicted``, with the row's ``index``.

    Attributes:
        PREDICTS: whose embeddings they are.
        prediction: how; None: by the first of the ways that it has.
    """

    PREDICTS: ClassVar[Literal["audio", "visual"]]
    prediction: Prediction | None

    @property
    def samplings(self) -> Sequence[str]:
        """Ways to predict, the usual one first."""
        ...


@runtime_checkable
class TrainsManifold(Protocol):
    """A module that trains a manifold and can follow a teacher.

    Attributes:
        manifold: the student.
        teacher: a frozen copy that follows it; None: there is none.
        consistency_weight: weight of the teacher's word in the loss.
        validate_teacher: whether validation, test and prediction see the teacher.
    """

    manifold: Manifold
    teacher: Manifold | None
    consistency_weight: float
    validate_teacher: bool

    @property
    def architecture(self) -> Mapping[str, Any]:
        """Options that the weights depend on, nested plain values by name."""
        ...

    def start_teacher(self) -> None:
        """Takes a frozen copy of the manifold as the teacher."""
        ...

    def restart_student(self) -> None:
        """Draws the manifold's weights anew, the same in every process, and lets optimisers forget the old ones."""
        ...

    @property
    def is_logged(self) -> bool:
        """Whether loggers write at this batch."""
        ...


@runtime_checkable
class MixesScenes(Protocol):
    """A module that is measured on scenes, which it mixes with a Remixer.

    Attributes:
        remixer: gives the attention that is shown.
        use_global: whether slot 0 is the scene's global embedding.
        cycle_mix: options of the Cycle Mix whose scores are shown.
    """

    remixer: Remixer
    use_global: bool
    cycle_mix: CycleMixOptions

    @property
    def ssms_by_group(self) -> Mapping[str, Tensor]:
        """SSMS by number of sources in the last validation, [groups], NaN without rows; by name of prediction."""
        ...


def embeds_pairs(pl_module: LightningModule, callback: Callback) -> EmbedsPairs:
    """Returns the module as one that embeds pairs.

    Raises:
        InputError: it does not; names the callback.
    """
    if not isinstance(pl_module, EmbedsPairs):
        raise InputError(f"{_name(callback)}: {_name(pl_module)} embeds no pairs; use it with ManifoldModule")
    return pl_module


def predicts_embeddings(pl_module: LightningModule, callback: Callback) -> PredictsEmbeddings:
    """Returns the module as one that predicts embeddings.

    Raises:
        InputError: it does not; names the callback.
    """
    if not isinstance(pl_module, PredictsEmbeddings):
        raise InputError(
            f"{_name(callback)}: {_name(pl_module)} predicts no embeddings of audio or sight; a manifold's own are "
            "written by CMSSShardWriter"
        )
    return pl_module


def mixes_scenes(pl_module: LightningModule, callback: Callback) -> MixesScenes:
    """Returns the module as one that mixes scenes.

    Raises:
        InputError: it does not; names the callback.
    """
    if not isinstance(pl_module, MixesScenes):
        raise InputError(f"{_name(callback)}: {_name(pl_module)} mixes no scenes; use it with RemixerModule")
    return pl_module


def trains_manifold(pl_module: LightningModule, callback: Callback) -> TrainsManifold:
    """Returns the module as one that can have a teacher.

    Raises:
        InputError: it cannot; names the callback.
    """
    if not isinstance(pl_module, TrainsManifold):
        raise InputError(f"{_name(callback)}: {_name(pl_module)} has no teacher; use it with ManifoldModule")
    return pl_module


def _name(thing: object) -> str:
    return type(thing).__name__
