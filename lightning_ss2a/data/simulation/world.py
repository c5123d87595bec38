r"""Simulates a world of known truth: classes that look and sound, and embeddings of them. Never real data.

The generative model. Modality m is v (visual) or a (audio), d_m its width, c a class; shares are of the squared norm:

    class prototype     p_m(c) = normalise(sum_l g_m(node_m(c, l)) - centre),  g_m ~ N(0, I/d_m),  l = 1 .. ceil(log2 C)
    one source          x_m    = normalise(sqrt(cone_m) u_m + sqrt(class_m) p_m(c)
                                           + sqrt(instance_m) A_m z + sqrt(loudness_m) l b + sqrt(noise_m) e_m)
    with                z ~ N(0, I/k) shared by both modalities of a source, e_m ~ N(0, I/d_m),
                        noise_m = 1 - cone_m - class_m - instance_m - loudness_m, A_m [d_m, k] with orthonormal columns,
                        b a unit vector orthogonal to the cone

- Trees: ``node_m(c, l)`` is the ancestor at level l of class c in a binary tree over all classes. Each modality deals
  the classes to the leaves anew, so that two classes may look alike and sound unlike. The prototypes are orthogonal to
  the cone, and their mean, weighted by how often a class occurs, is zero (unless one class is more than half of all).
- Cone and gap: ``u_v`` and ``u_a`` are unit vectors. The mean cosine of two embeddings of a modality is then cone_m,
  and the angle between the two puts the modalities' means ``gap`` apart (the narrower filled up with zeros):
  <u_v, u_a> = (cone_v + cone_a - gap^2) / (2 sqrt(cone_v cone_a)).
- Loudness: l is the logarithm of a source's gain, before those of a row are made to sum to 1, at mean 0 and variance 1.
  ``loudness_v`` is 0 unless pictures are to tell it; ``loudness_a`` is 0: a sound by itself does not tell how loud it
  is in a mixture.
- How often a class occurs falls geometrically from the most to the least frequent; which is which is drawn.
- Mismatch: a mismatched row shows the audio of another class (drawn by frequency) and of another instance z.

Rows of each kind are drawn from this in :mod:`lightning_ss2a.data.simulation.rows`.

Numbers copied (Liang et al. 2022, "Mind the Gap", arXiv:2203.02053): mean cosine of 5,000 MSCOCO embeddings of one
modality 0.56 (ResNet), 0.47 (Vision Transformer), 0.51 (Text Transformer), section 2.1; distance of the means of CLIP's
image and text embeddings 0.82, figure 3. The visual cone takes 0.47. We found no such number published for CLAP's audio
side, so the audio cone takes 0.51, that of the encoder which CLIP trains against images, and the gap CLIP's. Classes:
221, from 946 rows down to 100, as the paper's VGGS3. The other shares are choices of ours.
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from lightning_ss2a.data.format.label_head import LabelHead
from lightning_ss2a.data.loading.batch_order import Purpose, generator
from lightning_ss2a.errors import InputError

LOGIT_SCALE = 100.0
"""Factor of the label head's scores: the cap of CLIP's logit scale."""

_RANGES = {
    "imbalance": (1, 1e6),
    "mixture_noise": (0, 1e3),
    "gain_concentration": (1e-3, 1e6),
    "size_power": (0, 20),  # the smallest size that is drawn, 2^-53, to a larger power may be 0: a row without weights
    "video_seconds": (1e-3, 1e6),
}
"""Least and most of numbers of the world; beyond, rows would not be finite, or not what the module says."""


@dataclass(frozen=True)
class ModalitySpec:
    """What the embeddings of one modality are made of.

    Args:
        width: numbers in an embedding.
        cone: share of the squared norm that all embeddings have in common; their mean cosine.
        class_share: share of the squared norm that tells the class.
        instance_share: share of the squared norm that tells the instance and is found in the other modality too.
    """

    width: int
    cone: float
    class_share: float = 0.25
    instance_share: float = 0.14

    @property
    def noise(self) -> float:
        """Share of the squared norm that is noise: the rest."""
        return max(0.0, 1.0 - self.cone - self.class_share - self.instance_share)

    def problems(self) -> list[tuple[str, str]]:
        """Finds the values that cannot be, as (argument, message)."""
        found = [("width", f"is {self.width}, needs at least 2")] if self.width < 2 else []
        for name in ("cone", "class_share", "instance_share"):
            if not 0 <= getattr(self, name) <= 1:
                found.append((name, f"is {getattr(self, name)}, needs 0 to 1"))
        if self.cone + self.class_share + self.instance_share > 1 + 1e-9:
            found.append(("cone", "and class_share and instance_share are more than 1 together; lower one of them"))
        return found


@dataclass(frozen=True)
class WorldSpec:
    """The simulated world; see the module for the model and for where the numbers come from.

    Args:
        visual: the visual embeddings.
        audio: the audio embeddings.
        gap: Euclidean distance between the mean visual and the mean audio embedding.
        instance_width: dimensions of the latent that both modalities of an instance share.
        imbalance: rows of the most frequent class for each row of the least frequent one.
        mixture_noise: length of the noise that is added to a mixture of unit embeddings, in their unit.
        scene_sources: most sources in a scene.
        video_sources: most sources in a video.
        gain_concentration: of the Dirichlet distribution of gains; small: one source drowns the others.
        size_power: sizes to this power weigh the global visual embedding, 0 to 20; large: the largest alone counts.
        video_seconds: length of a video in seconds.
        shortest_activation: shortest time that a source of a video is active, as a part of the video.
        loudness_share: share of a visual embedding's squared norm that tells how loud its source is in a mixture.
    """

    visual: ModalitySpec = field(default_factory=lambda: ModalitySpec(768, 0.47))
    audio: ModalitySpec = field(default_factory=lambda: ModalitySpec(512, 0.51))
    gap: float = 0.82
    instance_width: int = 32
    imbalance: float = 9.46
    mixture_noise: float = 0.2
    scene_sources: int = 10
    video_sources: int = 3
    gain_concentration: float = 1.0
    size_power: float = 3.0
    video_seconds: float = 10.0
    shortest_activation: float = 0.2
    loudness_share: float = 0.0

    @property
    def cone_cosine(self) -> float:
        """Cosine between the two cones' directions (in the coordinates that both have) that gives the gap."""
        both = 2 * math.sqrt(self.visual.cone * self.audio.cone)
        return (self.visual.cone + self.audio.cone - self.gap**2) / both if both else 0.0

    def check(self) -> None:
        """Checks that the world can be.

        Raises:
            InputError: names the argument.
        """
        for modality in ("visual", "audio"):
            for name, message in getattr(self, modality).problems():
                raise InputError(f"world.{modality}.{name} {message}")
        for name in ("scene_sources", "video_sources", "instance_width"):
            if getattr(self, name) < 1:
                raise InputError(f"world.{name} is {getattr(self, name)}, needs at least 1")
        for name, (least, most) in _RANGES.items():
            if not least <= getattr(self, name) <= most:
                raise InputError(f"world.{name} is {getattr(self, name)}, needs {least:g} to {most:g}")
        if not 0 <= self.loudness_share <= self.visual.noise + 1e-9:
            raise InputError(
                f"world.loudness_share is {self.loudness_share}, needs 0 to {self.visual.noise:.3g}, "
                "which is what the shares of world.visual leave"
            )
        if not 0 < self.shortest_activation <= 1:
            raise InputError(f"world.shortest_activation is {self.shortest_activation}, needs 0 to 1, and not 0")
        narrow = min(self.visual.width, self.audio.width)
        if self.instance_width > narrow:
            raise InputError(f"world.instance_width is {self.instance_width}, more than the narrower width, {narrow}")
        if not (0 <= self.gap < math.inf and abs(self.cone_cosine) <= 1):
            nearest, farthest = (abs(math.sqrt(self.visual.cone) + s * math.sqrt(self.audio.cone)) for s in (-1, 1))
            raise InputError(f"world.gap is {self.gap}; with these cones it can be {nearest:.3g} to {farthest:.3g}")


@dataclass(frozen=True)
class _Modality:
    """What is fixed of a modality.

    Attributes:
        cone: sqrt(cone) u, float32 [width].
        prototypes: unit-norm class prototypes, float32 [classes, width].
        class_means: cone and class part together, float32 [classes, width].
        instance: sqrt(instance) A transposed, float32 [instance_width, width].
        noise: standard deviation of the noise in each coordinate.
        loudness: sqrt(loudness) b, float32 [width]; zeros where it tells no loudness.
    """

    cone: np.ndarray
    prototypes: np.ndarray
    class_means: np.ndarray
    instance: np.ndarray
    noise: np.float32
    loudness: np.ndarray

    def embed(
        self, classes: np.ndarray, latent: np.ndarray, random: np.random.Generator, loudness: np.ndarray | None = None
    ) -> np.ndarray:
        """Embeds sources.

        Args:
            classes: class of each, [rows].
            latent: z of each, float32 [rows, instance_width].
            random: for the noise.
            loudness: l of each, [rows]; None: nothing tells it.

        Returns:
            Unit vectors, float32 [rows, width].
        """
        x = random.standard_normal((len(classes), self.cone.size), dtype=np.float32)
        x *= self.noise
        x += self.class_means[classes]
        x += product_in_tiles(latent, self.instance)
        if loudness is not None:
            x += loudness[:, None].astype(np.float32) * self.loudness
        return normalise(x)


class World:
    """All that the rows of a simulated data set have in common; a function of its arguments alone.

    Args:
        spec: the world's numbers.
        num_classes: number of classes.
        seed: seed of cones, trees and frequencies.

    Attributes:
        spec: as given.
        num_classes: as given.
        frequency: how often each class occurs, float64 [classes], sums to 1.
        visual: the visual modality.
        audio: the audio modality.

    Raises:
        InputError: names the argument that cannot be.
    """

    def __init__(self, spec: WorldSpec, num_classes: int, seed: int) -> None:
        spec.check()
        if num_classes < 2:
            raise InputError(f"num_classes is {num_classes}, needs at least 2: a mismatched row shows another class")
        if seed < 0:
            raise InputError(f"seed is {seed}, needs at least 0")
        self.spec, self.num_classes = spec, num_classes
        random = generator(seed, Purpose.SIMULATED_WORLD)
        steps = np.linspace(0, 1, num_classes)
        frequency = random.permutation(spec.imbalance**-steps)
        self.frequency = frequency / frequency.sum()
        directions = _cone_directions(random, spec)
        self.visual = _modality(random, spec.visual, spec.instance_width, directions[0], self.frequency)
        self.audio = _modality(random, spec.audio, spec.instance_width, directions[1], self.frequency)
        if spec.loudness_share:  # drawn last: the rest of the world is what it is without
            self.visual = _telling_loudness(random, self.visual, spec, directions[0])

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        digits = len(str(self.num_classes - 1))
        return tuple(f"class{number:0{digits}d}" for number in range(self.num_classes))

    def latent(self, rows: int, random: np.random.Generator) -> np.ndarray:
        """Draws what two modalities of an instance share, z, float32 [rows, instance_width]."""
        width = self.spec.instance_width
        return random.standard_normal((rows, width), dtype=np.float32) / np.float32(math.sqrt(width))

    def loudness(self, gains: np.ndarray) -> np.ndarray | None:
        """Computes l of sources from their gains before normalisation; None where pictures do not tell it."""
        if not self.spec.loudness_share:
            return None
        mean, deviation = self._log_gain
        return (np.log(gains) - mean) / deviation

    def gains(self, loudness: np.ndarray) -> np.ndarray:
        """Computes gains before normalisation from l, the other way round."""
        mean, deviation = self._log_gain
        return np.exp(mean + deviation * loudness)

    @property
    def _log_gain(self) -> tuple[float, float]:
        """Mean and standard deviation of the logarithm of a gain before normalisation, which is a gamma variate."""
        shape = torch.tensor(self.spec.gain_concentration, dtype=torch.float64)
        return torch.digamma(shape).item(), math.sqrt(torch.polygamma(1, shape).item())

    def label_head(self) -> LabelHead:
        """Labels classes by the log-likelihood of their audio under equal spherical noise, up to scale and constant.

        ``LOGIT_SCALE`` (x - cone) p(c): the embedding's cosine with the class prototype, after the cone is taken off.
        The labels that score next are the neighbours in the tree of sounds, as with the text prototypes of CLAP.
        """
        weight = LOGIT_SCALE * self.audio.prototypes.astype(np.float64)
        bias = -np.einsum("cw,w->c", weight, self.audio.cone.astype(np.float64))
        return LabelHead(torch.from_numpy(weight).float(), torch.from_numpy(bias).float(), self.classes)


def normalise(x: np.ndarray) -> np.ndarray:
    """Normalises vectors along the last axis, in place; zeros stay zeros."""
    norm = np.sqrt(np.einsum("...i,...i->...", x, x))
    x /= np.maximum(norm, np.finfo(x.dtype).tiny)[..., None]
    return x


def product_in_tiles(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Computes ``x @ y`` to the same bit with any number of threads: in tiles so small that BLAS keeps each in one.

    OpenBLAS, which numpy brings, splits products of more than 2^18 multiplications, and the split decides the last bit.
    """
    rows = max(2, 2**17 // y.size)
    tiles = np.zeros((-(-len(x) // rows), rows, x.shape[1]), x.dtype)
    tiles.reshape(-1, x.shape[1])[: len(x)] = x
    return np.matmul(tiles, y).reshape(-1, y.shape[1])[: len(x)]


def tree_prototypes(random: np.random.Generator, num_classes: int, width: int) -> np.ndarray:
    """Sums the Gaussian steps from the root of a binary tree to each class, float64 [classes, width]."""
    leaf = random.permutation(num_classes)
    prototypes = np.zeros((num_classes, width))
    for level in range(1, math.ceil(math.log2(num_classes)) + 1):
        node = leaf * 2**level // num_classes
        prototypes += random.standard_normal((2**level, width))[node]
    return prototypes


def _modality(
    random: np.random.Generator, spec: ModalitySpec, instance_width: int, direction: np.ndarray, frequency: np.ndarray
) -> _Modality:
    prototypes = _centred(tree_prototypes(random, len(frequency), spec.width), direction, frequency)
    basis = _orthonormal(random.standard_normal((instance_width, spec.width)))
    cone = math.sqrt(spec.cone) * direction
    means = cone + math.sqrt(spec.class_share) * prototypes
    return _Modality(
        cone=cone.astype(np.float32),
        prototypes=prototypes.astype(np.float32),
        class_means=means.astype(np.float32),
        instance=(math.sqrt(spec.instance_share) * basis).astype(np.float32),
        noise=np.float32(math.sqrt(spec.noise / spec.width)),
        loudness=np.zeros(spec.width, np.float32),
    )


def _telling_loudness(
    random: np.random.Generator, visual: _Modality, spec: WorldSpec, direction: np.ndarray
) -> _Modality:
    """Gives a part of the noise of visual embeddings to their sources' loudness, orthogonal to the cone."""
    across = random.standard_normal(spec.visual.width)
    across = normalise(across - np.sum(across * direction) * direction)
    noise = max(0.0, spec.visual.noise - spec.loudness_share)
    return replace(
        visual,
        loudness=(math.sqrt(spec.loudness_share) * across).astype(np.float32),
        noise=np.float32(math.sqrt(noise / spec.visual.width)),
    )


def _centred(prototypes: np.ndarray, direction: np.ndarray, frequency: np.ndarray) -> np.ndarray:
    """Makes unit prototypes of mean zero, orthogonal to the cone; a step undoes a little of the other: a few rounds."""
    # einsum here and below: the last bit of a threaded product (@) depends on the number of threads.
    for _ in range(30 if len(prototypes) > 2 else 1):
        prototypes = prototypes - np.einsum("c,cw->w", frequency, prototypes)
        prototypes -= np.outer(np.einsum("cw,w->c", prototypes, direction), direction)
        prototypes = normalise(prototypes)
    return prototypes


def _orthonormal(rows: np.ndarray) -> np.ndarray:
    """Makes rows orthonormal by Gram-Schmidt, in place."""
    for i, row in enumerate(rows):
        row -= np.einsum("rw,r->w", rows[:i], np.einsum("rw,w->r", rows[:i], row))
        normalise(row)
    return rows


def _cone_directions(random: np.random.Generator, spec: WorldSpec) -> tuple[np.ndarray, np.ndarray]:
    """Draws the directions of both cones, unit vectors whose dot product (zeros filled up) is ``spec.cone_cosine``."""
    widths = spec.visual.width, spec.audio.width
    narrow = normalise(random.standard_normal(min(widths)))
    along = np.concatenate([narrow, np.zeros(max(widths) - min(widths))])
    across = random.standard_normal(max(widths))
    across = normalise(across - np.sum(across * along) * along)
    wide = spec.cone_cosine * along + math.sqrt(1 - spec.cone_cosine**2) * across
    return (wide, narrow) if widths[0] >= widths[1] else (narrow, wide)
