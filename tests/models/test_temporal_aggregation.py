import copy
import math

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from lightning_ss2a.models import (
    LinearAggregator,
    TemporalAggregator,
    TemporalAggregatorOptions,
    frame_positions,
    mean_over_frames,
    positional_encoding,
)

SMALL = {"width": 8, "num_heads": 2, "head_widths": (9, 7)}
VARIANTS = {
    "paper": {},
    "published": {"variant": "published", "width": 6, "expansion": 2, "head_widths": (6,), "input_scaling": False},
}
SEEDS = [0, 1, 2]


def build(seed: int = 0, audio_width: int = 6, num_frames: int = 64, **options) -> TemporalAggregator:
    """Aggregator in evaluation mode whose layers that start at zero do not, so that all of it counts."""
    torch.manual_seed(seed)
    options = TemporalAggregatorOptions(**{**SMALL, **options})
    aggregator = TemporalAggregator(audio_width, options, num_frames).eval()
    torch.nn.init.normal_(aggregator.log_variance_head[-1].weight)
    for block in aggregator.blocks:
        torch.nn.init.normal_(block.feed_forward[-1].weight)
    return aggregator


def videos(seed: int = 0, count: int = 3, length: int = 5, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randn(count, length, 6, generator=generator, dtype=dtype)
    steps = 0.05 + torch.rand(count, length, generator=generator, dtype=dtype)
    return frames, steps.cumsum(1)


def both(gaussian) -> torch.Tensor:
    return torch.cat([gaussian.mean, gaussian.log_variance], dim=1)


def encoding_by_loop(positions: np.ndarray, width: int, resolution: float) -> np.ndarray:
    encoding = np.zeros((*positions.shape, width))
    for video, row in enumerate(positions):
        for frame, t in enumerate(row):
            for coordinate in range(width):
                i = coordinate // 2
                wave = math.cos if coordinate % 2 else math.sin
                encoding[video, frame, coordinate] = wave(t / resolution ** (2 * i / width))
    return encoding


@pytest.mark.parametrize(("width", "resolution"), [(512, 1024.0), (7, 1024.0), (1, 1024.0), (6, 2048.0)])
def test_encoding_equals_the_papers_formula(width: int, resolution: float):
    positions = torch.cat([torch.arange(1.0, 65.0), torch.tensor([1.5, 63.25])])[None].double()
    expected = torch.from_numpy(encoding_by_loop(positions.numpy(), width, resolution))
    torch.testing.assert_close(positional_encoding(positions, width, resolution), expected)
    torch.testing.assert_close(
        positional_encoding(positions.float(), width, resolution), expected.float(), rtol=0, atol=1e-5
    )


def test_encoding_tells_positions_apart_and_is_computed_in_float32():
    positions = torch.arange(1, 65)[None]
    encoding = positional_encoding(positions, 512)
    assert encoding.shape == (1, 64, 512)
    assert encoding.dtype == torch.float32
    assert torch.cdist(encoding, encoding)[0].fill_diagonal_(9).min() > 1
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(positional_encoding(positions, 512), encoding)
    assert torch.equal(positional_encoding(positions.bfloat16(), 512), encoding)


def test_encoding_names_bad_arguments():
    with pytest.raises(ValueError, match="width must be at least 1, got 0"):
        positional_encoding(torch.ones(1, 2), 0)
    with pytest.raises(ValueError, match="resolution must be positive, got 0"):
        positional_encoding(torch.ones(1, 2), 4, 0.0)


@pytest.mark.parametrize(
    ("timestamps", "positions"),
    [
        ([0, 1, 2, 3], [1, 2, 3, 4]),
        ([10, 10.5, 11, 11.5], [1, 2, 3, 4]),
        ([2, 4, 5, 8], [1, 2, 2.5, 4]),  # spacing 2
        ([8, 2, 4, 5], [4, 1, 2, 2.5]),
        ([0, 0, 0, 9], [1, 1, 1, 4]),
        ([3, 3, 3, 3], [1, 2, 3, 4]),
        ([-6, -4, -2, 0], [1, 2, 3, 4]),
        ([0, 1e-38, 2e-38, 3e-38], [1, 2, 3, 4]),
        ([7], [1]),
        ([], []),
    ],
)
def test_positions_by_hand(timestamps: list, positions: list):
    row = torch.tensor([timestamps], dtype=torch.float32)
    torch.testing.assert_close(frame_positions(row), torch.tensor([positions], dtype=torch.float32))
    rows = torch.cat([row, torch.arange(len(timestamps))[None]])
    torch.testing.assert_close(frame_positions(rows)[:1], frame_positions(row))


def test_positions_of_64_even_frames_are_the_papers():
    positions = frame_positions(torch.arange(64)[None] * 10 / 64)
    torch.testing.assert_close(positions, torch.arange(1.0, 65.0)[None])
    assert frame_positions(torch.ones(1, 3, dtype=torch.float64)).dtype == torch.float64
    assert frame_positions(torch.tensor([[4, 2, 0]])).dtype == torch.float32


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_timestamp_that_is_not_finite_shows_in_its_own_video(value: float):
    aggregator, (frames, timestamps) = build(), videos()
    expected = aggregator(frames, timestamps).mean
    timestamps[1, 2] = value
    assert frame_positions(timestamps)[1].isnan().any()
    mean = aggregator(frames, timestamps).mean
    assert mean[1].isnan().all()
    torch.testing.assert_close(mean[[0, 2]], expected[[0, 2]])


def test_positions_name_a_wrong_shape():
    with pytest.raises(ValueError, match=r"timestamps must have shape \[videos, frames\], got \(3,\)"):
        frame_positions(torch.ones(3))


@pytest.mark.parametrize(("variant", "offset", "resolution"), [("paper", 0, 1024.0), ("published", 1, 2048.0)])
@pytest.mark.parametrize("input_scaling", [True, False])
def test_tokens_are_scaled_frames_with_their_positions(variant, offset, resolution, input_scaling):
    aggregator = build(**VARIANTS[variant] | {"input_scaling": input_scaling}).double()
    frames, timestamps = videos(dtype=torch.double)
    scaled = normalize(frames, dim=-1) * 6**0.5 if input_scaling else frames
    # Published: positions from 0 over [summary, summary, frame, frame, ...].
    positions = frame_positions(timestamps) + offset
    encoding = torch.from_numpy(encoding_by_loop(positions.numpy(), 6, resolution))
    torch.testing.assert_close(aggregator.encode(frames, timestamps), aggregator.input(scaled + encoding))


@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_the_blocks_and_heads_applied_one_by_one(variant):
    aggregator = build(**VARIANTS[variant], num_layers=2)
    frames, timestamps = videos()
    summary = aggregator.summary.expand(3, -1, -1)
    assert summary.shape[1] == (1 if variant == "paper" else 2)
    tokens = torch.cat([summary, aggregator.encode(frames, timestamps)], dim=1)
    for block in aggregator.blocks:
        tokens = block(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool))
    gaussian = aggregator(frames, timestamps)
    torch.testing.assert_close(gaussian.mean, aggregator.mean_head(tokens[:, 0]))
    log_variance_token = tokens[:, summary.shape[1] - 1]
    torch.testing.assert_close(gaussian.log_variance, aggregator.log_variance_head(log_variance_token))


def test_paper_sizes():
    with torch.device("meta"):
        aggregator = TemporalAggregator(512)
    block = 4 * (768 * 768 + 768) + 2 * (768 * 768 + 768)
    head = (768 * 768 + 768) + (768 * 640 + 640) + (640 * 512 + 512)
    assert sum(p.numel() for p in aggregator.parameters()) == 512 * 768 + 768 + 768 + block + 2 * head


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_order_in_time_matters_and_that_in_memory_does_not(variant, seed):
    aggregator = build(seed, **VARIANTS[variant])
    frames, timestamps = videos(seed)
    order = torch.tensor([3, 0, 4, 1, 2])
    expected = both(aggregator(frames, timestamps))
    together = both(aggregator(frames[:, order], timestamps[:, order]))
    torch.testing.assert_close(together, expected, rtol=1e-5, atol=1e-5)
    shuffled = both(aggregator(frames[:, order], timestamps))
    assert (shuffled - expected).abs().amax(1).min() > 1e-3
    reversed_in_time = both(aggregator(frames, -timestamps))
    assert (reversed_in_time - expected).abs().amax(1).min() > 1e-3


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_batch_changes_nothing(variant, seed):
    aggregator = build(seed, **VARIANTS[variant])
    frames, timestamps = videos(seed)
    together = both(aggregator(frames, timestamps))
    alone = torch.cat([both(aggregator(frames[i : i + 1], timestamps[i : i + 1])) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    moved = both(aggregator(frames, 3 * timestamps + 7))  # only relative time counts
    torch.testing.assert_close(moved, together, rtol=1e-4, atol=1e-4)
    frames[1, 2, 3] = torch.nan
    spoiled = both(aggregator(frames, timestamps))
    assert spoiled[1].isnan().all()
    torch.testing.assert_close(spoiled[[0, 2]], together[[0, 2]])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_reach_every_parameter_and_the_frames(variant, seed):
    aggregator = build(seed, **VARIANTS[variant], num_layers=2).double()
    frames, timestamps = videos(seed, dtype=torch.double)
    frames.requires_grad_()
    both(aggregator(frames, timestamps)).square().sum().backward()
    for name, leaf in [("frames", frames), *aggregator.named_parameters()]:
        assert leaf.grad.isfinite().all(), name
        assert leaf.grad.norm() > 0, name


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_frame_one_frame_and_all_frames(variant):
    aggregator = build(**VARIANTS[variant])
    empty = both(aggregator(torch.zeros(2, 0, 6), torch.zeros(2, 0)))
    torch.testing.assert_close(empty[0], empty[1])
    summary_alone = aggregator.mix(torch.zeros(1, 0, aggregator.options.width), torch.ones(1, 0, dtype=torch.bool))
    torch.testing.assert_close(empty[:1], both(summary_alone))
    frame = torch.randn(1, 1, 6)
    torch.testing.assert_close(
        both(aggregator(frame, torch.tensor([[0.0]]))), both(aggregator(frame, torch.tensor([[5.0]])))
    )
    assert both(aggregator(torch.randn(1, 64, 6), torch.arange(64.0)[None])).isfinite().all()
    with pytest.raises(ValueError, match=r"65 frames, at most 64 \(num_frames\): choose which to keep"):
        aggregator(torch.randn(1, 65, 6), torch.arange(65.0)[None])


def test_unit_mean_and_first_variance():
    torch.manual_seed(0)
    aggregator = TemporalAggregator(6, TemporalAggregatorOptions(**SMALL, unit_mean=True, initial_log_variance=-3.0))
    gaussian = aggregator(*videos())
    torch.testing.assert_close(gaussian.mean.norm(dim=1), torch.ones(3))
    assert torch.equal(gaussian.log_variance, torch.full((3, 6), -3.0))


def test_copies_state_dict_and_compilation():
    aggregator, inputs = build(), videos()
    expected = aggregator(*inputs).mean
    other = build(1)
    other.load_state_dict(aggregator.state_dict())
    compiled = torch.compile(aggregator, backend="aot_eager", fullgraph=True)
    for twin in (copy.deepcopy(aggregator), other, compiled):
        torch.testing.assert_close(twin(*inputs).mean, expected)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_bfloat16_is_close(variant, seed):
    aggregator, (frames, timestamps) = build(seed, **VARIANTS[variant]), videos(seed)
    expected = aggregator(frames, timestamps).mean
    with torch.autocast("cpu", torch.bfloat16):
        mean = aggregator(frames, timestamps).mean
    torch.testing.assert_close(mean.float(), expected, rtol=0.1, atol=0.1)
    mean = copy.deepcopy(aggregator).bfloat16()(frames.bfloat16(), timestamps).mean
    assert mean.dtype == torch.bfloat16
    torch.testing.assert_close(mean.float(), expected, rtol=0.1, atol=0.1)


def test_learns_to_take_the_frame_that_comes_first():
    """No mean over frames can: the target is one frame, and which one only time says."""
    torch.manual_seed(0)
    options = TemporalAggregatorOptions(width=32, num_heads=4, head_widths=(32,), dropout=0.0)
    aggregator = TemporalAggregator(16, options)
    optimizer = torch.optim.AdamW(aggregator.parameters(), lr=3e-3)
    for _ in range(200):
        frames, timestamps = torch.randn(64, 4, 16), torch.rand(64, 4).argsort(1).float()
        target = frames[timestamps == 0]
        similarity = torch.cosine_similarity(aggregator(frames, timestamps).sample(), target)
        optimizer.zero_grad()
        (1 - similarity).mean().backward()
        optimizer.step()
    mean = torch.cosine_similarity(mean_over_frames(frames), target).mean()
    assert similarity.mean() > mean + 0.2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"audio_width": 0}, "audio_width must be at least 1, got 0"),
        ({"num_layers": 0}, r"^model\.aggregator\.num_layers must be at least 1, found 0$"),
        ({"num_frames": 0}, "num_frames must be at least 1, got 0"),
        ({"head_widths": (4, 0)}, "head_widths must be at least 1, found 0"),
        ({"num_heads": 3}, "num_heads must divide width 8, found 3"),
        ({"expansion": 0}, "expansion must be at least 1, found 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), found 1.0"),
        ({"variant": "x"}, "variant must be one of paper, published, found 'x'"),
        ({"variant": "published"}, "width must be the audio embeddings' 6 with variant=published, .* found 8"),
    ],
)
def test_bad_arguments_are_named(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        build(**options)


@pytest.mark.parametrize("module", [build(), LinearAggregator(5)], ids=["temporal", "linear"])
def test_bad_inputs_are_named(module):
    frames, timestamps = videos()
    with pytest.raises(ValueError, match=r"timestamps must have shape \(3, 5\), got \(3, 4\)"):
        module(frames, timestamps[:, :4])
    with pytest.raises(ValueError, match=r"frames must have shape \[videos, frames, \w+\], got \(3, 5\)"):
        module(frames[..., 0], timestamps)


def test_frames_of_another_width_are_named():
    frames, timestamps = videos()
    with pytest.raises(ValueError, match=r"frames must have shape \[videos, frames, 6\], got \(3, 5, 4\)"):
        build()(frames[..., :4], timestamps)


def test_mean_over_frames_by_hand():
    frames = torch.tensor([[[3.0, 4.0], [0.0, 2.0]], [[0.0, 0.0], [1.0, 0.0]]])
    torch.testing.assert_close(mean_over_frames(frames), torch.tensor([[0.3, 0.9], [0.5, 0.0]]))
    torch.testing.assert_close(mean_over_frames(frames[:, :1]), torch.tensor([[0.6, 0.8], [0.0, 0.0]]))
    for wrong in (frames[:, :0], frames[0]):
        with pytest.raises(ValueError, match=r"frames must have shape \[videos, frames, width\] with a frame, got \("):
            mean_over_frames(wrong)


@pytest.mark.parametrize("seed", SEEDS)
def test_linear_aggregator_starts_as_the_mean_and_weighs_by_time(seed):
    aggregator, (frames, timestamps) = LinearAggregator(5), videos(seed)
    torch.testing.assert_close(aggregator(frames, timestamps), mean_over_frames(frames))
    with torch.no_grad():
        aggregator.weight.copy_(torch.tensor([2.0, 0.0, -1.0, 0.0, 0.5]))
    unit = normalize(frames, dim=-1)
    expected = 2 * unit[:, 0] - unit[:, 2] + 0.5 * unit[:, 4]
    torch.testing.assert_close(aggregator(frames, timestamps), expected)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(aggregator(frames[:, order], timestamps[:, order]), expected)
    torch.testing.assert_close(aggregator(frames, torch.zeros(3, 5)), expected)  # equal: in the order given
    aggregator(frames, timestamps).square().sum().backward()
    assert (aggregator.weight.grad != 0).all()
    frames[1, 0, 0] = torch.nan
    assert aggregator(frames, timestamps).isnan().any(1).tolist() == [False, True, False]


@pytest.mark.parametrize("length", [0, 4, 65])
def test_linear_aggregator_names_another_number_of_frames(length: int):
    with pytest.raises(ValueError, match=rf"a video must have 64 frames \(num_frames\), got {length}"):
        LinearAggregator()(torch.randn(2, length, 6), torch.zeros(2, length))


def test_linear_aggregator_without_frames_is_refused():
    with pytest.raises(ValueError, match="num_frames must be at least 1, got 0"):
        LinearAggregator(0)
