"""What all stages with one network share: Lightning around them changes nothing, and its switches work."""

import math
import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor, nn
from torch._dynamo.utils import counters

from lightning_ss2a.callbacks import Throughput
from lightning_ss2a.data import ShardDataset
from lightning_ss2a.errors import InputError
from lightning_ss2a.seeding import mix_seed
from lightning_ss2a.training.base import StageModule
from lightning_ss2a.training.checks import check_trainer
from lightning_ss2a.training.optimization import OptimizationOptions
from lightning_ss2a.training.validation.baselines import fit_training_statistics
from tests.manifold_examples import SaveAfterValidation, largest_difference, parameters_of, write_learnable_pairs
from tests.stage_examples import STAGES, fit_stage, make_deterministic, make_stage, write_materials

BATCHES = 6  # of 8 rows, an epoch
EACH = pytest.mark.parametrize("name", STAGES)


@pytest.fixture(scope="module")
def materials(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_materials(tmp_path_factory.mktemp("data"))


def make(name: str, materials: dict[str, str], seed: int = 0, random: bool = True, **options) -> StageModule:
    return (make_stage if random else make_deterministic)(name, materials, seed, **options)


# -------------------------------------------------------------------- the plain loop


def plain_loop(module: StageModule, steps: list[list[tuple]], rates: list[float], clip: float | None) -> None:
    """AdamW on the network as one would write it without Lightning; the batches of a step are averaged."""
    named = [parameter for parameter in module.network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in named if p.ndim > 1], "weight_decay": 0.02},
        {"params": [p for p in named if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1.0, foreach=False, fused=False)
    module.train()
    for batches, rate in zip(steps, rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate
        module.zero_grad()
        for epoch, number, batch in batches:
            torch.manual_seed(mix_seed(0, epoch, number, 0))
            (module.losses(batch)["loss"] / len(batches)).backward()
        if clip is not None:
            norm = math.sqrt(sum(float(p.grad.double().square().sum()) for p in named))
            for p in named:
                p.grad *= min(1.0, clip / norm)
        optimizer.step()


def as_steps(batches: list, accumulate: int) -> list[list[tuple]]:
    """(epoch, number in it, batch) of each batch of each step; the last step of an epoch may have fewer."""
    numbered = [(i // BATCHES, i % BATCHES, batch) for i, batch in enumerate(batches)]
    epochs = [numbered[i : i + BATCHES] for i in range(0, len(numbered), BATCHES)]
    return [epoch[i : i + accumulate] for epoch in epochs for i in range(0, BATCHES, accumulate)]


def factor(step: int, warmup: int, total: int) -> float:
    if step < warmup:
        return (step + 1) / warmup
    return (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2


@EACH
@pytest.mark.parametrize(("accumulate", "clip", "random"), [(1, None, True), (2, 0.05, False), (3, None, True)])
def test_fit_equals_a_plain_loop(name, materials, tmp_path: Path, accumulate: int, clip: float | None, random: bool):
    """With the trainer's own clipping and accumulation; draws too, since a step's come from its number alone."""
    options = {"weight_decay": 0.02, "warmup_steps": 2, "schedule": "cosine"}
    module, twin = (make(name, materials, 1, random, **options) for _ in range(2))
    options = {"gradient_clip_val": clip, "accumulate_grad_batches": accumulate, "limit_val_batches": 0}
    trainer, recorder = fit_stage(name, materials, tmp_path, module, **options)
    steps = as_steps(recorder.batches, accumulate)
    assert trainer.global_step == len(steps) == 2 * BATCHES / accumulate
    before, twin.statistics = parameters_of(twin), module.statistics
    plain_loop(twin, steps, [3e-3 * factor(step, 2, len(steps)) for step in range(len(steps))], clip)
    assert largest_difference(moving(module), moving(twin)) <= 2e-6
    assert largest_difference(parameters_of(module), before) > 1e-3


def moving(module: StageModule) -> dict[str, Tensor]:
    """All parameters but the biases of keys: a softmax over keys does not see them, and AdamW blows up rounding."""
    return {name: p for name, p in parameters_of(module).items() if not name.endswith(("key.bias", "to_k.bias"))}


@EACH
def test_two_batches_of_a_step_have_the_gradient_of_one_twice_as_large(name: str, materials, tmp_path: Path):
    """Where a row's loss is its own; a contrastive loss compares it with its batch."""
    options = {"contrastive_weight": 0.0} if name == "translator" else {}
    materials = materials | {"pairs": write_learnable_pairs(tmp_path / "pairs", views=None)}
    gradients = []

    class Watched:
        def __init__(self, module: StageModule) -> None:
            module.on_before_optimizer_step = lambda optimizer: gradients.append(
                {n: p.grad.clone() for n, p in module.network.named_parameters() if p.grad is not None}
            )

    for size, accumulate in ((16, 1), (8, 2)):
        module = make_deterministic(name, materials, **options)
        Watched(module)
        recorder = fit_stage(
            name,
            materials,
            tmp_path,
            module,
            {"batch_size": size},
            accumulate_grad_batches=accumulate,
            max_steps=1,
            limit_val_batches=0,
        )[1]
        gradients.append(torch.cat([batch["index"] for batch in recorder.batches]).sort().values)
    whole, rows, parts, same_rows = gradients
    assert torch.equal(rows, same_rows)
    assert whole.keys() == parts.keys()
    scale = max(float(gradient.abs().max()) for gradient in whole.values())
    assert scale > 1e-4
    assert largest_difference(whole, parts) <= 2e-5 * scale


# -------------------------------------------------------------------- schedules and logs


@EACH
@pytest.mark.parametrize(
    ("accumulate", "options", "steps"),
    [(1, {"max_epochs": 2}, 12), (4, {"max_epochs": 3}, 6), (2, {"max_epochs": -1, "max_steps": 7}, 7)],
)
def test_the_cosine_ends_with_the_run(name, materials, tmp_path: Path, accumulate: int, options: dict, steps: int):
    module = make_stage(name, materials, warmup_steps=2, schedule="cosine")
    trainer, recorder = fit_stage(
        name, materials, tmp_path, module, accumulate_grad_batches=accumulate, limit_val_batches=0, **options
    )
    assert trainer.global_step == steps
    rates = [recorder.learning_rates[i] for i in range(len(recorder.learning_rates)) if i % BATCHES % accumulate == 0]
    assert rates == pytest.approx([3e-3 * factor(step, 2, steps) for step in range(steps)])
    assert module.lr_schedulers().get_last_lr() == pytest.approx([0.0, 0.0], abs=1e-12)


TERMS = {
    "remixer": {"cosine", "kl"},
    "aggregation": {"cosine", "kl"},
    "linear": {"cosine"},
    "regression": {"cosine"},
    "diffusion": {"denoising"},
    "translator": {"contrastive", "cosine"},
}


@EACH
def test_logged_terms_are_those_of_the_loss(name: str, materials, tmp_path: Path):
    options = {"kl_weight": 0.01} if "kl" in TERMS[name] else {}
    module = make_stage(name, materials, **options)
    recorder = fit_stage(name, materials, tmp_path, module, max_epochs=1, limit_val_batches=0)[1]
    assert len(recorder.training) == BATCHES
    others = {"train/loss", "train/learning_rate", "train/gradient_norm"}
    for terms in recorder.training.values():
        assert terms.keys() == others | {f"train/loss_{term}" for term in TERMS[name]}
        weights = {"kl": 0.01}
        total = sum(weights.get(term, 1) * terms[f"train/loss_{term}"] for term in TERMS[name])
        assert terms["train/loss"] == pytest.approx(total, rel=1e-6)
        assert terms["train/gradient_norm"] > 0
        assert terms["train/learning_rate"] == pytest.approx(3e-3)


@EACH
def test_the_gradient_norm_is_that_before_clipping(name: str, materials, tmp_path: Path):
    norms = []
    for clip in (None, 1e-3):
        module = make_stage(name, materials)
        recorder = fit_stage(
            name, materials, tmp_path, module, max_steps=1, limit_val_batches=0, gradient_clip_val=clip
        )[1]
        norms.append(recorder.training[0, 0]["train/gradient_norm"])
    assert norms[0] == norms[1] > 1e-3


@EACH
def test_terms_are_logged_where_loggers_write_and_at_the_end_of_an_epoch(name: str, materials, tmp_path: Path):
    written = []
    module = make_stage(name, materials)
    module._log_training = lambda terms: written.append((module.current_epoch, module.global_step))
    fit_stage(name, materials, tmp_path, module, log_every_n_steps=4, limit_val_batches=0)
    assert written == [(0, 3), (0, 5), (1, 7), (1, 11)]


# -------------------------------------------------------------------- seeds


@EACH
def test_one_seed_gives_the_same_bits_and_another_does_not(name: str, materials, tmp_path, monkeypatch):
    runs = []
    for seed in ("0", "0", "1"):
        monkeypatch.setenv("PL_GLOBAL_SEED", seed)
        torch.manual_seed(len(runs))  # what the process has drawn before must not matter
        module = make_stage(name, materials)
        recorder = fit_stage(name, materials, tmp_path, module, max_epochs=1)[1]
        runs.append((parameters_of(module), recorder.training, recorder.validation))
    assert largest_difference(runs[0][0], runs[1][0]) == 0
    assert runs[0][1:] == runs[1][1:]
    assert (largest_difference(runs[0][0], runs[2][0]) > 1e-5) == (name != "linear")  # which draws nothing


@EACH
def test_validation_in_the_middle_of_an_epoch_does_not_change_training(name: str, materials, tmp_path: Path):
    modules, recorders = [], []
    for options in ({}, {"val_check_interval": 2, "num_sanity_val_steps": 2}):
        modules.append(make_stage(name, materials))
        recorders.append(fit_stage(name, materials, tmp_path, modules[-1], **options)[1])
    assert [len(recorder.validation) for recorder in recorders] == [2, 6]
    assert largest_difference(*(parameters_of(module) for module in modules)) == 0
    assert recorders[1].validation[2::3] == recorders[0].validation


# -------------------------------------------------------------------- precision and compilation


@EACH
def test_bf16_mixed_learns_and_keeps_parameters_and_losses_in_float32(name: str, materials, tmp_path: Path):
    options = {"validate_cycle_mix": True} if name == "remixer" else {}
    module = make_deterministic(name, materials, learning_rate=1e-2, **options)
    epochs = {"max_epochs": 6, "check_val_every_n_epoch": 3}
    recorder = fit_stage(name, materials, tmp_path, module, precision="bf16-mixed", **epochs)[1]
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    losses = [terms["train/loss"] for terms in recorder.training.values()]
    assert sum(losses[-BATCHES:]) < 0.9 * sum(losses[:BATCHES])
    assert all(math.isfinite(value) for values in recorder.validation for value in values.values())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = module.losses(recorder.batches[0])
    assert {term.dtype for term in terms.values()} == {torch.float32}


@EACH
def test_baselines_do_not_depend_on_the_precision(name: str, materials, tmp_path: Path):
    baselines = []
    for precision in ("32-true", "bf16-mixed"):
        module = make_stage(name, materials)
        values = fit_stage(name, materials, tmp_path, module, max_epochs=1, precision=precision)[1].validation[0]
        baselines.append({name: value for name, value in values.items() if "_baseline/" in name})
    assert len(baselines[0]) >= 7
    assert baselines[0] == baselines[1]


@pytest.mark.slow
@EACH
def test_compiled_training_equals_eager(name: str, materials, tmp_path: Path):
    recorders, names = [], []
    for compiled in (False, True):
        torch._dynamo.reset()
        counters.clear()
        module = make_deterministic(name, materials, step="compiled" if compiled else "eager")
        recorders.append(fit_stage(name, materials, tmp_path, module, num_sanity_val_steps=2)[1])
        names.append(list(module.state_dict()))
        assert (counters["stats"]["unique_graphs"] > 0) == compiled
        assert counters["frames"]["total"] == counters["frames"]["ok"]  # none was given up
    assert names[0] == names[1]
    eager, compiled = recorders
    for step, terms in eager.training.items():
        assert compiled.training[step] == pytest.approx(terms, rel=2e-3, abs=1e-6), step
    assert compiled.validation[-1] == pytest.approx(eager.validation[-1], rel=0.02, abs=0.05)


@EACH
@pytest.mark.parametrize(("accumulate", "clip"), [pytest.param(1, None, marks=pytest.mark.slow), (2, 0.05)])
def test_a_step_of_flat_parameters_is_the_eager_one(
    name: str, materials, tmp_path: Path, accumulate: int, clip: float | None
):
    """With the trainer's own clipping and accumulation, and with draws in the same order; without the compiler.

    A validation of one batch is between the epochs.
    """
    runs = {}
    for way in ("eager", "compiled", "graph"):
        module = make_stage(name, materials, 1, step=way, weight_decay=0.02)
        options = {"gradient_clip_val": clip, "accumulate_grad_batches": accumulate, "limit_val_batches": 1}
        with torch.compiler.set_stance("force_eager"):
            trainer, recorder = fit_stage(name, materials, tmp_path, module, **options)
        runs[way] = moving(module), recorder.training, trainer.global_step
    weights, logged, steps = runs.pop("eager")
    for way, (found, terms_found, steps_found) in runs.items():
        assert largest_difference(weights, found) <= 5e-6, way
        assert steps == steps_found
        for number, terms in logged.items():
            assert terms_found[number] == pytest.approx(terms, rel=1e-3, abs=1e-6), (way, number)


@pytest.mark.parametrize("step", ["compiled", "graph"])
def test_after_a_fit_nothing_is_left_of_the_step(materials, tmp_path: Path, step: str):
    """A module can be pickled, and a parameter that is saved alone brings no buffer with it."""
    module = make_stage("translator", materials, step=step)
    with torch.compiler.set_stance("force_eager"):
        trainer, _ = fit_stage("translator", materials, tmp_path, module, max_epochs=1)
    before = moving(module)
    assert all(p.untyped_storage().nbytes() == 4 * p.numel() for p in module.network.parameters())
    copy = pickle.loads(pickle.dumps(module))
    assert largest_difference(moving(copy), before) == 0
    trainer.save_checkpoint(tmp_path / "after.ckpt")
    saved = torch.load(tmp_path / "after.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(saved[name], value) for name, value in module.state_dict().items())


@pytest.mark.parametrize("step", ["compiled", "graph"])
def test_frozen_parts_stay_frozen_and_a_run_goes_on_with_either_step(materials, tmp_path: Path, step: str):
    """A translator without contrastive loss has a temperature that nothing moves, and no state of an eager AdamW."""
    weights = []
    for ways in (("eager", "eager"), ("eager", step), (step, "eager")):
        for number, way in enumerate(ways, 1):
            module = make_deterministic("translator", materials, step=way, contrastive_weight=0.0)
            first = next(module.network.parameters()).requires_grad_(False)
            before = first.clone()
            resume = {"ckpt_path": tmp_path / "last.ckpt", "weights_only": True} if number == 2 else {}
            with torch.compiler.set_stance("force_eager"):
                trainer, _ = fit_stage(
                    "translator", materials, tmp_path, module, max_steps=4 * number, max_epochs=-1, **resume
                )
            trainer.save_checkpoint(tmp_path / "last.ckpt")
            assert torch.equal(first, before)
        weights.append(moving(module))
    assert largest_difference(weights[0], weights[1]) <= 5e-6
    assert largest_difference(weights[0], weights[2]) <= 5e-6


# -------------------------------------------------------------------- what is refused


@EACH
@pytest.mark.parametrize("precision", ["16-true", "bf16-true", "64-true"])
def test_precisions_that_metrics_cannot_use_are_refused_before_training(name, materials, tmp_path, precision: str):
    with pytest.raises(InputError, match=f"trainer.precision: {precision} is not supported; use 32-true or bf16-mixed"):
        fit_stage(name, materials, tmp_path, make_stage(name, materials), precision=precision)


def test_sharded_strategies_are_refused():
    trainer = SimpleNamespace(
        state=SimpleNamespace(fn="fit"),
        gradient_clip_val=0.5,
        accumulate_grad_batches=4,
        precision="32-true",
        strategy=object.__new__(FSDPStrategy),
    )
    with pytest.raises(InputError, match=r"trainer.strategy: FSDPStrategy is not supported; use auto or ddp"):
        check_trainer(trainer, owns_optimization=False)


OUT_OF_RANGE = {
    ("learning_rate", -1.0): set(STAGES),
    ("weight_decay", -1.0): set(STAGES),
    ("warmup_steps", -1): set(STAGES),
    ("top_n", 0): set(STAGES) - {"translator"},
    ("kl_weight", -1.0): {"remixer", "aggregation"},
    ("draws", 0): {"remixer", "aggregation"},
    ("iterations", 0): {"remixer"},
    ("samples", 0): {"remixer"},
    ("ccmr_alpha", -0.1): {"translator"},
    ("contrastive_weight", -1.0): {"translator"},
    ("cosine_weight", -1.0): {"translator"},
}


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [(name, option, value) for (option, value), names in OUT_OF_RANGE.items() for name in sorted(names)],
)
def test_numbers_out_of_range_are_named(name: str, option: str, value: float, materials):
    with pytest.raises(InputError, match=rf"^model(\.\w+)?\.{option} must be at least .*, found {value}$"):
        make_stage(name, materials, **{option: value})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("remixer", {"dropout": 1.0}, "model.remixer.dropout must be"),
        ("remixer", {"token_dropout": -0.1}, "model.remixer.token_dropout must be"),
        ("remixer", {"num_heads": 3}, "model.remixer.num_heads must divide width 16, found 3"),
        ("remixer", {"conditions": "sound"}, "model.remixer.conditions must be one of"),
        ("remixer", {"max_slots": 1}, "model.remixer.max_slots is 1, needs room for a source and the global embedding"),
        ("remixer", {"max_slots": 0, "use_global": False}, "model.remixer.max_slots must be at least 1, found 0$"),
        ("remixer", {"feedback": "replace", "use_global": False}, "model.cycle_mix.feedback=replace overwrites"),
        ("aggregation", {"dropout": 1.0}, "model.aggregator.dropout must be"),
        ("aggregation", {"num_layers": 0}, "model.aggregator.num_layers must be"),
        ("regression", {"hidden_widths": ()}, "model.regression.hidden_widths must"),
        ("diffusion", {"sample_steps": 2000}, "model.diffusion.sample_steps must be between 1 and train_steps=1000"),
        ("diffusion", {"guidance_scale": -1.0}, "model.diffusion.guidance_scale must be"),
        ("translator", {"dropout": 1.0}, "model.translator.dropout must be"),
        ("translator", {"contrastive_weight": 0.0, "cosine_weight": 0.0}, "are both 0: there is nothing to learn"),
    ],
)
def test_options_that_make_no_network_are_named(name: str, options: dict, message: str, materials):
    with pytest.raises(InputError, match=message):
        make_stage(name, materials, **options)


@pytest.mark.parametrize("name", sorted(set(STAGES) - {"linear"}))  # a cosine that finds no way to overflow
def test_a_loss_that_is_no_number_stops_the_run(name: str, materials, tmp_path: Path):
    module = make_stage(name, materials, learning_rate=1e30)
    with pytest.raises(InputError, match=r"train/loss is (nan|inf).*lower model.optimization.learning_rate"):
        fit_stage(name, materials, tmp_path, module, callbacks=[Throughput()], max_epochs=8, limit_val_batches=0)


# -------------------------------------------------------------------- what the module promises Lightning


@EACH
def test_fast_dev_run(name: str, materials, tmp_path: Path):
    trainer, recorder = fit_stage(name, materials, tmp_path, make_stage(name, materials), fast_dev_run=True)
    assert trainer.global_step == 1
    assert len(recorder.validation) == 1


@EACH
def test_a_checkpoint_alone_makes_the_module_again(name: str, materials, tmp_path: Path):
    module = make_stage(name, materials, learning_rate=1e-2)
    recorder = fit_stage(name, materials, tmp_path, module, callbacks=[SaveAfterValidation(tmp_path)])[1]
    again = type(module).load_from_checkpoint(tmp_path / "012.ckpt", weights_only=True)
    state, expected = again.state_dict(), module.state_dict()
    assert largest_difference(state, expected) == 0
    assert dict(again.hparams) == dict(module.hparams)
    assert len(recorder.validation) == 2
    fields = module.statistics.state_dict()
    assert largest_difference(again.statistics.state_dict(), fields) == 0


class Plain(StageModule):
    """A stage that says nothing of itself."""

    def __init__(self) -> None:
        super().__init__({}, 2, None, OptimizationOptions(), step="eager")
        self.layer = nn.Linear(2, 2)


@pytest.mark.parametrize(
    "call", [lambda m: m.network, lambda m: m.losses({}), lambda m: m.measure({}), lambda m: m.architecture]
)
def test_what_a_stage_has_to_say_itself(call):
    with pytest.raises(NotImplementedError):
        call(Plain())


def test_gradients_reach_every_parameter_of_every_network(materials):
    """So that DistributedDataParallel waits for none in vain; a linear aggregator and the rest alike."""
    for name in STAGES:
        module = make_stage(name, materials)
        module.statistics = fit_training_statistics(ShardDataset(materials[STAGES[name].data], "train"))
        batch = next(iter(ShardDataset(materials[STAGES[name].data], "train", 8)))
        module.losses(batch)["loss"].backward()
        without = [n for n, p in module.network.named_parameters() if p.requires_grad and p.grad is None]
        assert without == [], name
