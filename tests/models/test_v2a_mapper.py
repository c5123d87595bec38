import copy
import itertools
import math
import pickle
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from lightning_ss2a.losses import cosine_distance_loss
from lightning_ss2a.models import DiffusionMapper, DiffusionMapperOptions, RegressionMapper, RegressionMapperOptions

VISUAL_WIDTH, AUDIO_WIDTH, TRAIN_STEPS = 6, 8, 20
SMALL = {"num_layers": 2, "num_heads": 2, "head_width": 8, "train_steps": TRAIN_STEPS, "sample_steps": 3}


def build(visual_width: int = VISUAL_WIDTH, audio_width: int = AUDIO_WIDTH, **options) -> DiffusionMapper:
    torch.manual_seed(0)
    mapper = DiffusionMapper(visual_width, audio_width, DiffusionMapperOptions(**{**SMALL, **options})).eval()
    # Positions and query start at zero; trained ones are not.
    torch.nn.init.normal_(mapper.transformer.positional_embedding)
    torch.nn.init.normal_(mapper.transformer.prd_embedding)
    return mapper


def build_regression(visual_width: int = 4, audio_width: int = 4, **options) -> RegressionMapper:
    return RegressionMapper(visual_width, audio_width, RegressionMapperOptions(**options))


def rows(count: int = 5):
    """Visuals, audio, noise of a loss and noise that a chain starts from."""
    generator = torch.Generator().manual_seed(1)
    shapes = ((count, VISUAL_WIDTH), (count, AUDIO_WIDTH), (count, AUDIO_WIDTH), (count, AUDIO_WIDTH))
    return [torch.randn(shape, generator=generator) for shape in shapes]


def signal_share(timestep: int) -> float:
    """ᾱ of the cosine schedule (Nichol & Dhariwal 2021, Eq. 17, β at most 0.999), from 1 before step 0."""

    def share(time: float) -> float:
        return math.cos((time / TRAIN_STEPS + 0.008) / 1.008 * math.pi / 2) ** 2

    return math.prod(max(share(t + 1) / share(t), 0.001) for t in range(timestep + 1))


def predict(mapper: DiffusionMapper, noised, timestep: int, visual, told: bool = True):
    condition = normalize(visual, dim=1) * VISUAL_WIDTH**0.5 * told
    return mapper.transformer(noised, torch.full((len(noised),), timestep), condition).predicted_image_embedding


def test_loss_equals_the_formula():
    mapper = build()
    visual, audio, noise, _ = rows()
    timesteps = torch.tensor([0, 4, 9, 18, 19])
    clean = normalize(audio, dim=1) * AUDIO_WIDTH**0.5
    errors = []
    for row, timestep in enumerate(timesteps.tolist()):
        share = signal_share(timestep)
        noised = share**0.5 * clean[row : row + 1] + (1 - share) ** 0.5 * noise[row : row + 1]
        errors.append((predict(mapper, noised, timestep, visual[row : row + 1]) - clean[row]).square().mean())
    torch.testing.assert_close(mapper.denoising_loss(visual, audio, noise, timesteps), torch.stack(errors).mean())


def test_loss_draws_noise_then_timesteps_from_the_global_generator():
    mapper = build()
    visual, audio, _, _ = rows()
    torch.manual_seed(3)
    noise, timesteps = torch.randn(5, AUDIO_WIDTH), torch.randint(TRAIN_STEPS, (5,))
    torch.manual_seed(3)
    assert torch.equal(mapper.denoising_loss(visual, audio), mapper.denoising_loss(visual, audio, noise, timesteps))


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_sampling_equals_the_formula(scale):
    """DPM-Solver++ (2M), as Lu et al. print it."""
    mapper = build(guidance_scale=scale)
    visual, _, _, sample = rows()
    previous, previous_stride = None, None
    for timestep, following in [(19, 5), (5, 0), (0, None)]:
        clean = predict(mapper, sample, timestep, visual)
        untold = predict(mapper, sample, timestep, visual, told=False)
        clean = untold + scale * (clean - untold)
        clean = clean * (AUDIO_WIDTH**0.5 / clean.norm(dim=1, keepdim=True)).clamp(max=1)
        if following is None:
            break
        before, after = signal_share(timestep), signal_share(following)
        stride = math.log(after / (1 - after)) / 2 - math.log(before / (1 - before)) / 2
        ahead = clean
        if previous is not None:
            ratio = previous_stride / stride
            ahead = (1 + 1 / (2 * ratio)) * clean - 1 / (2 * ratio) * previous
        sample = ((1 - after) / (1 - before)) ** 0.5 * sample - after**0.5 * math.expm1(-stride) * ahead
        previous, previous_stride = clean, stride
    torch.testing.assert_close(mapper.sample(visual, rows()[3]), normalize(clean, dim=1))


@pytest.mark.parametrize("steps", [2, 3, 7, TRAIN_STEPS])
def test_sampling_equals_the_solver_of_diffusers(steps: int):
    from diffusers import DPMSolverMultistepScheduler

    mapper, asked = build(sample_steps=steps), []
    visual, _, _, noise = rows()
    mapper.transformer.register_forward_pre_hook(lambda _, inputs: asked.append(int(inputs[1][0])))
    found = mapper.sample(visual, noise)
    scheduler = DPMSolverMultistepScheduler(
        TRAIN_STEPS, beta_schedule="squaredcos_cap_v2", prediction_type="sample", final_sigmas_type="zero"
    )
    scheduler.set_timesteps(timesteps=list(asked))
    sample = noise
    for timestep in scheduler.timesteps:
        clean = predict(mapper, sample, int(timestep), visual)
        assert (clean.norm(dim=1) < AUDIO_WIDTH**0.5).all()  # where ours is kept in the ball theirs is not
        sample = scheduler.step(clean, timestep, sample).prev_sample
    torch.testing.assert_close(found, normalize(sample, dim=1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("steps", [2, 3, 5, 12, TRAIN_STEPS])
def test_steps_run_from_noise_to_clean_without_a_repeat(steps: int):
    mapper, asked = build(sample_steps=steps), []
    mapper.transformer.register_forward_pre_hook(lambda _, inputs: asked.append(int(inputs[1][0])))
    mapper.sample(rows()[0])
    assert (asked[0], asked[-1], len(asked)) == (TRAIN_STEPS - 1, 0, steps)
    assert all(earlier > later for earlier, later in itertools.pairwise(asked))


class GaussianDenoiser(torch.nn.Module):
    """Predicts what is clean where the data are N(mean, std^2), which is known in closed form."""

    dtype = torch.float32

    def __init__(self, mean: torch.Tensor, std: float, alphas: torch.Tensor) -> None:
        super().__init__()
        self.mean, self.std, self.alphas = mean, std, alphas

    def forward(self, noised, timesteps, condition, return_dict):
        alpha = self.alphas[timesteps][:, None]
        gain = alpha.sqrt() * self.std**2 / (alpha * self.std**2 + 1 - alpha)
        return (self.mean + gain * (noised - alpha.sqrt() * self.mean),)


@pytest.mark.parametrize(("steps", "tolerance"), [(16, 0.03), (64, 0.01)])
@pytest.mark.parametrize("std", [0.3, 0.5, 0.9])
def test_samples_of_a_gaussian_spread_as_it_does(std: float, steps: int, tolerance: float):
    """The exact denoiser, so that all error is the sampler's; ancestral sampling had 0.83 of the spread in 16 steps."""
    width, count = 256, 500
    mapper = DiffusionMapper(VISUAL_WIDTH, width, DiffusionMapperOptions(num_layers=1, num_heads=1, sample_steps=steps))
    torch.manual_seed(0)
    mean = normalize(torch.randn(width), dim=0) * (width * (1 - std**2)) ** 0.5
    mapper.transformer = GaussianDenoiser(mean, std, mapper.scheduler.alphas_cumprod)
    sampled = mapper.sample(torch.randn(count, VISUAL_WIDTH))
    true = normalize(mean + std * torch.randn(count, width), dim=1)
    # The mean itself has no part in the spread of directions.
    spreads = [(rows - rows.mean(0)).square().sum().sqrt() for rows in (sampled, true)]
    assert spreads[0] / spreads[1] == pytest.approx(1, abs=tolerance)
    assert (sampled.mean(0) @ mean) / (true.mean(0) @ mean) == pytest.approx(1, abs=tolerance)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_a_row_depends_on_its_own_visual_and_noise_alone(scale):
    mapper = build(guidance_scale=scale, sample_steps=8)
    visual, _, _, noise = rows(6)
    together = mapper.sample(visual, noise)
    alone = torch.cat([mapper.sample(v[None], n[None]) for v, n in zip(visual, noise, strict=True)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(together, mapper.sample(9 * visual, noise), rtol=0, atol=1e-5)


def test_guidance_of_zero_ignores_the_visual_and_one_step_is_enough():
    mapper = build(guidance_scale=0.0, sample_steps=1)
    visual, _, _, noise = rows()
    sample = mapper.sample(visual, noise)
    torch.testing.assert_close(sample, mapper.sample(-visual, noise))
    mapper.options = replace(mapper.options, guidance_scale=1.0)
    assert not torch.allclose(sample, mapper.sample(visual, noise), atol=1e-3)
    torch.testing.assert_close(sample.norm(dim=1), torch.ones(5))


def test_visuals_are_left_out_in_training_only():
    mapper, seen = build(condition_dropout=0.3), []
    mapper.transformer.embedding_proj.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    visual, audio, _, _ = rows(3000)
    mapper.denoising_loss(visual, audio)
    mapper.train().denoising_loss(visual, audio)
    torch.testing.assert_close(seen[0].square().mean(1), torch.ones(3000))
    left_out = (seen[1] == 0).all(1)
    assert left_out.double().mean().item() == pytest.approx(0.3, abs=0.03)
    assert torch.equal(seen[1][~left_out], seen[0][~left_out])


def test_sampling_is_without_dropout_and_gradients_and_leaves_the_mode():
    mapper = build(dropout=0.5)
    visual, audio, _, noise = rows()
    expected = mapper.sample(visual, noise)
    mapper.train()
    assert torch.equal(mapper.sample(visual, noise), expected)
    assert not expected.requires_grad
    assert all(module.training for module in mapper.modules())
    assert mapper.denoising_loss(visual, audio) != mapper.denoising_loss(visual, audio)


def test_gradients_reach_every_parameter():
    mapper = DiffusionMapper(VISUAL_WIDTH, AUDIO_WIDTH, DiffusionMapperOptions(**SMALL))
    visual, audio, _, _ = rows(32)
    mapper.denoising_loss(visual, audio).backward()
    for name, parameter in mapper.named_parameters():
        assert parameter.grad is not None, name
        # A bias of the keys moves all of a query's scores alike, so its gradient is zero.
        assert parameter.grad.norm() > 0 or name.endswith("to_k.bias"), name


def test_state_dict_copy_and_pickle():
    mapper = build()
    visual, _, _, noise = rows()
    expected = mapper.sample(visual, noise)
    assert mapper.state_dict().keys() == dict(mapper.named_parameters()).keys()
    loaded = DiffusionMapper(VISUAL_WIDTH, AUDIO_WIDTH, DiffusionMapperOptions(**SMALL))
    loaded.load_state_dict(mapper.state_dict())
    for twin in (loaded, copy.deepcopy(mapper), pickle.loads(pickle.dumps(mapper))):
        assert torch.equal(twin.sample(visual, noise), expected)


def test_default_size():
    with torch.device("meta"):
        mapper = DiffusionMapper(768, 512)
    width, layers = 9 * 64, 12
    block = 4 * (width**2 + width) + 2 * 4 * width**2 + 5 * width + 2 * 2 * width
    time = 2 * (width**2 + width)
    tokens = (768 * width + width) + (512 * width + width) + 5 * width
    output = 2 * width + width * 512 + 512
    assert sum(p.numel() for p in mapper.parameters()) == layers * block + time + tokens + output


@pytest.mark.parametrize("seed", range(3))
def test_learns_two_sounds_of_one_sight(seed: int):
    """Regression could only learn their mean."""
    torch.manual_seed(seed)
    options = DiffusionMapperOptions(num_layers=1, num_heads=2, head_width=16, sample_steps=16)
    mapper = DiffusionMapper(6, 8, options)
    sights, sounds = torch.randn(4, 6), normalize(torch.randn(4, 2, 8), dim=2)
    optimizer = torch.optim.AdamW(mapper.parameters(), lr=3e-3)
    for _ in range(250):
        classes, variants = torch.randint(4, (128,)), torch.randint(2, (128,))
        optimizer.zero_grad()
        mapper.denoising_loss(sights[classes], sounds[classes, variants]).backward()
        optimizer.step()
    classes = torch.arange(4).repeat_interleave(100)
    cosine, variants = torch.einsum("na,nka->nk", mapper.sample(sights[classes]), sounds[classes]).max(1)
    assert (cosine > 0.9).double().mean() > 0.9
    share = variants.view(4, 100).double().mean(1)
    assert ((share > 0.05) & (share < 0.95)).all()


def test_bfloat16_and_other_inputs():
    mapper = build()
    visual, audio, noise, chain = rows(64)
    timesteps = torch.arange(64) % TRAIN_STEPS
    expected, sample = mapper.denoising_loss(visual, audio, noise, timesteps), mapper.sample(visual, chain)
    with torch.autocast("cpu", torch.bfloat16):
        loss, drawn = mapper.denoising_loss(visual, audio, noise, timesteps), mapper.sample(visual, chain)
    assert loss.dtype == drawn.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=0.02, atol=0)
    assert cosine_distance_loss(drawn, sample) < 0.01
    torch.testing.assert_close(
        mapper.denoising_loss(visual.half(), audio.half(), noise, timesteps), expected, rtol=1e-3, atol=0
    )
    assert mapper.denoising_loss(visual, audio.double(), noise, timesteps).dtype == torch.float64
    narrow = copy.deepcopy(mapper).bfloat16()
    torch.testing.assert_close(narrow.denoising_loss(visual, audio, noise, timesteps), expected, rtol=0.05, atol=0)
    assert cosine_distance_loss(narrow.sample(visual, chain), sample) < 0.02


@pytest.mark.slow
def test_compiled_transformer_is_the_same():
    mapper = build()
    visual, audio, noise, chain = rows()
    timesteps = torch.arange(5)
    expected = mapper.denoising_loss(visual, audio, noise, timesteps), mapper.sample(visual, chain)
    names = list(mapper.state_dict())
    mapper.transformer.compile(fullgraph=True)
    torch.testing.assert_close(
        (mapper.denoising_loss(visual, audio, noise, timesteps), mapper.sample(visual, chain)), expected
    )
    assert list(mapper.state_dict()) == names


def test_importing_the_models_does_not_import_diffusers():
    code = "import sys, lightning_ss2a.models; sys.exit('diffusers' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"visual_width": 0}, "visual_width must be at least 1, got 0"),
        ({"audio_width": 0}, "audio_width must be at least 1, got 0"),
        ({"num_layers": 0}, "num_layers must be at least 1, found 0"),
        ({"num_heads": 0}, "num_heads must be at least 1, found 0"),
        ({"head_width": 0}, "head_width must be at least 1, found 0"),
        ({"train_steps": 1}, "train_steps must be at least 2, found 1"),
        ({"sample_steps": 0}, "sample_steps must be between 1 and train_steps=20, found 0"),
        ({"sample_steps": 21}, "sample_steps must be between 1 and train_steps=20, found 21"),
        ({"condition_dropout": 1.0}, r"condition_dropout must be in \[0, 1\), found 1.0"),
        ({"dropout": -1.0}, r"dropout must be in \[0, 1\), found -1.0"),
        ({"guidance_scale": -1.0}, "guidance_scale must be at least 0, found -1.0"),
        ({"guidance_scale": 2.0, "condition_dropout": 0.0}, "guidance_scale=2.0 needs visuals left out in training"),
    ],
)
def test_bad_arguments_are_named(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_bad_inputs_are_named():
    mapper = build()
    visual, audio, noise, _ = rows()
    with pytest.raises(ValueError, match=r"visual must have shape \[5, 6\], got \[5, 8\]"):
        mapper.denoising_loss(audio, audio)
    with pytest.raises(ValueError, match=r"audio must have shape \[5, 8\], got \[4, 8\]"):
        mapper.denoising_loss(visual, audio[:4])
    with pytest.raises(ValueError, match=r"noise must have shape \[5, 8\], got \[1, 8\]"):
        mapper.denoising_loss(visual, audio, noise[:1])
    with pytest.raises(ValueError, match=r"timesteps must have shape \[5\], got \[1\]"):
        mapper.denoising_loss(visual, audio, noise, torch.tensor([0]))
    with pytest.raises(ValueError, match=r"noise must have shape \[5, 8\], got \[5, 3, 8\]"):
        mapper.sample(visual, noise[:, None].expand(5, 3, 8))


def test_regression_equals_the_formula():
    mapper = RegressionMapper(6, 8, RegressionMapperOptions((7, 7))).eval()
    visual = torch.randn(2, 3, 6)
    expected = mapper.output(mapper.trunk(normalize(visual, dim=-1) * 6**0.5))
    torch.testing.assert_close(mapper(visual), expected)
    torch.testing.assert_close(mapper(9 * visual), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert mapper(visual).isfinite().all()


@pytest.mark.parametrize("seed", range(3))
def test_regression_learns_a_map_with_every_parameter(seed: int):
    torch.manual_seed(seed)
    mapper = RegressionMapper(16, 12, RegressionMapperOptions((64, 64), dropout=0.0))
    visual = normalize(torch.randn(512, 16))
    audio = normalize(visual @ torch.randn(16, 12))
    optimizer = torch.optim.AdamW(mapper.parameters(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(mapper(visual[:256]), audio[:256]).backward()
        assert all(parameter.grad.norm() > 0 for parameter in mapper.parameters())
        optimizer.step()
    assert cosine_distance_loss(mapper.eval()(visual[256:]), audio[256:]) < 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"visual_width": 0}, "visual_width must be at least 1, got 0"),
        ({"audio_width": 0}, "audio_width must be at least 1, got 0"),
        ({"hidden_widths": (4, 0)}, "hidden_widths must be at least 1, found 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), found 1.0"),
    ],
)
def test_bad_arguments_of_regression_are_named(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        build_regression(**options)
    with pytest.raises(ValueError, match="visual has width 5, expected 4"):
        RegressionMapper(4, 4)(torch.ones(2, 5))
