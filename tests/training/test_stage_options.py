"""What a stage says of its options: names that are none, options without effect, and the trainer's clipping."""

import warnings
from pathlib import Path

import pytest
import torch

from lightning_ss2a.errors import InputError
from lightning_ss2a.training import TemporalAggregationModule, V2AMapperModule
from tests.manifold_examples import (
    AUDIO_WIDTH,
    VISUAL_WIDTH,
    in_groups,
    largest_difference,
    make_data,
    make_trainer,
    parameters_of,
)
from tests.stage_examples import STAGES, fit_stage, make_deterministic, make_stage, write_materials

EACH = pytest.mark.parametrize("name", STAGES)


@pytest.fixture(scope="module")
def materials(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_materials(tmp_path_factory.mktemp("materials"))


@pytest.mark.parametrize("algorithm", ["norm", "value"])
@EACH
def test_the_trainer_clips_under_bf16_too(name: str, materials, tmp_path: Path, algorithm: str):
    """A limit far below the gradients makes the first step of AdamW what it is of gradients of that size."""
    limit, clipped = 1e-3, []

    def keep(module, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None):
        type(module).configure_gradient_clipping(module, optimizer, gradient_clip_val, gradient_clip_algorithm)
        clipped.append([p.grad.clone() for p in module.network.parameters() if p.grad is not None])

    module = make_deterministic(name, materials)
    object.__setattr__(module, "configure_gradient_clipping", keep.__get__(module))
    options = {"precision": "bf16-mixed", "gradient_clip_val": limit, "gradient_clip_algorithm": algorithm}
    fit_stage(name, materials, tmp_path, module, max_epochs=1, **options)
    for gradients in clipped:
        largest = max(float(g.abs().max()) for g in gradients)
        norm = float(torch.nn.utils.get_total_norm(gradients))
        assert (norm if algorithm == "norm" else largest) == pytest.approx(limit, rel=1e-3)


@EACH
def test_without_a_limit_nothing_is_clipped(name: str, materials, tmp_path: Path):
    modules = [make_deterministic(name, materials) for _ in range(2)]
    for module, options in zip(modules, ({}, {"gradient_clip_val": 1e9}), strict=True):
        fit_stage(name, materials, tmp_path, module, max_epochs=1, **options)
    assert largest_difference(*(parameters_of(module) for module in modules)) == 0


@pytest.mark.parametrize(
    ("name", "options", "choices"),
    [
        ("remixer", {"embedding": "maen"}, "sampling.embedding must be one of sample, mean, found 'maen'"),
        ("remixer", {"score": "max"}, "cycle_mix.score must be one of mean, min, std, found 'max'"),
        ("aggregation", {"flavour": "x"}, "flavour must be one of attention, linear, mean, middle, found 'x'"),
        ("diffusion", {"flavour": "regresion"}, "flavour must be one of diffusion, regression, found 'regresion'"),
        ("translator", {"schedule": "line"}, "optimization.schedule must be one of constant, cosine, found 'line'"),
        ("remixer", {"kl_weight": float("nan")}, "kl_weight must be at least 0, found nan"),
        ("translator", {"learning_rate": float("inf")}, "optimization.learning_rate must be at least 0, found inf"),
    ],
)
def test_a_name_or_number_that_is_none_is_refused_in_python_too(name: str, options: dict, choices: str, materials):
    with pytest.raises(InputError, match=rf"^model\.{choices}$"):
        make_stage(name, materials, **options)


@pytest.mark.parametrize(
    ("make", "options", "named"),
    [
        (TemporalAggregationModule, {"flavour": "linear", "variant": "published"}, {"variant=published"}),
        (TemporalAggregationModule, {"flavour": "linear", "width": 16}, set()),
        (TemporalAggregationModule, {"embedding": "mean", "draws": 8}, {"draws=8"}),
        (
            V2AMapperModule,
            {"flavour": "regression", "num_layers": 7, "guidance_scale": 3.0},
            {"guidance_scale=3.0"},
        ),
        (V2AMapperModule, {"hidden_widths": (7,), "num_layers": 1, "num_heads": 1}, set()),
        (V2AMapperModule, {"num_layers": 1, "num_heads": 1, "sample_steps": 3}, set()),
    ],
)
def test_options_without_effect_are_told(make: type, options: dict, named: set[str]):
    widths = (AUDIO_WIDTH,) if make is TemporalAggregationModule else (VISUAL_WIDTH, AUDIO_WIDTH)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make(*widths, **in_groups(make, options))
    told = [str(warning.message) for warning in caught if "has no effect with" in str(warning.message)]
    assert all(any(f".{name} has no effect with model." in text for text in told) for name in named)
    assert bool(told) == bool(named)


def test_embedding_mean_leaves_nothing_to_draw(materials):
    with pytest.warns(
        UserWarning, match=r"^model.sampling.draws=8 has no effect with model.sampling.embedding=mean: .*$"
    ):
        make_stage("remixer", materials, embedding="mean", draws=8)


def test_streamed_scenes_are_projected_batch_by_batch(materials, tmp_path: Path):
    """Kept in memory by their projections, data that do not fit there would not fit there."""
    trained = []
    for residency in ("memory", "stream"):
        module = make_deterministic("remixer", materials)
        projected = []
        module.manifold.visual_projector.register_forward_hook(
            lambda _, x, __, rows=projected: rows.append(x[0][..., 0].numel())
        )
        data = make_data(materials[STAGES["remixer"].data], residency=residency)
        make_trainer(tmp_path, max_epochs=2, limit_val_batches=0).fit(module, datamodule=data)
        trained.append(projected)
    scenes = 2 * (48 // 8) * 8
    assert sum(trained[0]) < 20 + 53 + 23 + 1 < 2 * scenes <= sum(trained[1])
