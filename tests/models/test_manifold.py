import copy
import math
import pickle

import pytest
import torch

from lightning_ss2a.models import Manifold, ManifoldOptions

SMALL = ManifoldOptions(width=7, projector_widths=(8, 8), reconstructor_widths=(9, 9))


@pytest.fixture
def manifold() -> Manifold:
    return Manifold(6, 5, SMALL)


def test_shapes(manifold: Manifold):
    visual, audio = manifold.project_visual(torch.randn(3, 6)), manifold.project_audio(torch.randn(3, 5))
    assert visual.mean.shape == audio.mean.shape == (3, 7)
    assert manifold.reconstruct_audio(visual.sample()).mean.shape == (3, 5)


def test_paper_sizes():
    with torch.device("meta"):
        manifold = Manifold(768, 512)
    assert sum(p.numel() for p in manifold.parameters()) == 75_942_145
    assert manifold.visual_projector.mean_head.weight.shape == (768, 3072)
    assert manifold.audio_reconstructor.mean_head.weight.shape == (512, 2048)


@pytest.mark.parametrize(
    ("log_temperature", "gradient", "expected", "moves"),
    [
        (math.log(1 / 0.07), 1.0, 1 / 0.07, True),
        (5.0, 1.0, 100.0, True),  # above the bound, and the loss wants it lower
        (5.0, -1.0, 100.0, False),
        (-1.0, -1.0, 1.0, True),
        (-1.0, 1.0, 1.0, False),
    ],
)
def test_temperature_is_clamped_but_not_frozen(manifold, log_temperature, gradient, expected, moves):
    with torch.no_grad():
        manifold.log_temperature.fill_(log_temperature)
    temperature = manifold.temperature
    assert temperature.item() == pytest.approx(expected, rel=1e-6)
    (gradient * temperature).backward()
    assert (manifold.log_temperature.grad != 0) == moves


def test_temperature_starts_as_published(manifold: Manifold):
    assert manifold.temperature.item() == pytest.approx(1 / 0.07, rel=1e-6)


def test_copies_and_state_dict(manifold: Manifold):
    visual = torch.randn(2, 6)
    expected = manifold.eval().project_visual(visual).mean
    other = Manifold(6, 5, SMALL).eval()
    other.load_state_dict(manifold.state_dict())
    for twin in (copy.deepcopy(manifold), pickle.loads(pickle.dumps(manifold)), other):
        assert torch.equal(twin.project_visual(visual).mean, expected)


def test_compiles_to_the_same_values(manifold: Manifold):
    visual = torch.randn(2, 6)
    manifold.eval()
    compiled = torch.compile(lambda x: manifold.project_visual(x).mean * manifold.temperature, backend="aot_eager")
    torch.testing.assert_close(compiled(visual), manifold.project_visual(visual).mean * manifold.temperature)
