import pytest
import torch
from torch.nn.functional import normalize

from lightning_ss2a.losses import contrastive_loss, cosine_distance_loss
from lightning_ss2a.models import AudioToVisual, AudioToVisualOptions


def build(audio_width: int = 6, visual_width: int = 5, **options) -> AudioToVisual:
    torch.manual_seed(0)
    options = AudioToVisualOptions(**{"hidden_widths": (8, 8), **options})
    return AudioToVisual(audio_width, visual_width, options).eval()


def test_equals_the_formula():
    model = build()
    model.visual_norm.fill_(7.0)
    audio = torch.randn(2, 3, 6)
    expected = 7 * normalize(model.output(model.trunk(normalize(audio, dim=-1) * 6**0.5)), dim=-1)
    torch.testing.assert_close(model(audio), expected)
    torch.testing.assert_close(model(audio).norm(dim=-1), torch.full((2, 3), 7.0))


def test_input_scaling_ignores_the_norm_and_can_be_switched_off():
    audio = torch.randn(4, 6)
    torch.testing.assert_close(build()(audio), build()(9 * audio))
    raw = build(input_scaling=False)
    torch.testing.assert_close(raw(normalize(audio) * 6**0.5), build()(audio))
    assert not torch.allclose(raw(audio), raw(9 * audio))


def test_visual_norm_travels_in_the_state_dict():
    first, second = build(), build(dropout=0.0)
    assert first.visual_norm == 1
    first.visual_norm.fill_(10.5)
    second.load_state_dict(first.state_dict())
    assert second.visual_norm == 10.5
    assert "visual_norm" not in dict(first.named_parameters())


@pytest.mark.parametrize(("log_temperature", "expected"), [(-1.0, 1.0), (2.0, 7.389056), (9.0, 100.0)])
def test_temperature_is_bounded_but_not_frozen(log_temperature: float, expected: float):
    model = build()
    assert model.temperature.item() == pytest.approx(1 / 0.07)
    model.log_temperature.data.fill_(log_temperature)
    assert model.temperature.item() == pytest.approx(expected)
    inward = -model.temperature if log_temperature < 0 else model.temperature
    inward.backward()
    assert model.log_temperature.grad.item() != 0


def test_gradients_reach_every_parameter():
    model = build(hidden_widths=(6, 6, 8, 8, 7)).train()
    prediction = model(torch.randn(16, 6))
    contrastive_loss(torch.randn(16, 5), prediction, model.temperature).backward()
    assert all(parameter.grad.norm() > 0 for parameter in model.parameters())


@pytest.mark.parametrize("seed", range(3))
def test_learns_a_map(seed: int):
    torch.manual_seed(seed)
    model = AudioToVisual(16, 12, AudioToVisualOptions((64, 64), dropout=0.0))
    audio = normalize(torch.randn(512, 16))
    visual = normalize(audio @ torch.randn(16, 12))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        prediction = model(audio[:256])
        loss = cosine_distance_loss(prediction, visual[:256])
        (loss + 0.1 * contrastive_loss(visual[:256], prediction, model.temperature)).backward()
        optimizer.step()
    assert cosine_distance_loss(model.eval()(audio[256:]), visual[256:]) < 0.1


def test_bfloat16():
    model, audio = build(), torch.randn(32, 6)
    expected = model(audio)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model(audio).float(), expected, rtol=0, atol=0.03)
    torch.testing.assert_close(model.bfloat16()(audio.bfloat16()).float(), expected, rtol=0, atol=0.03)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"audio_width": 0}, "audio_width must be at least 1, got 0"),
        ({"visual_width": 0}, "visual_width must be at least 1, got 0"),
        ({"hidden_widths": ()}, "hidden_widths must name at least one layer"),
        ({"dropout": -0.1}, r"dropout must be in \[0, 1\), found -0.1"),
    ],
)
def test_bad_arguments_are_named(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_wrong_width_is_named():
    with pytest.raises(ValueError, match="audio has width 5, expected 6"):
        build()(torch.ones(2, 5))
