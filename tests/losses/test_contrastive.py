import math

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from lightning_ss2a.losses import ContrastiveOptions, ccmr_mask, contrastive_loss, gather_with_gradient
from tests.distributed import run_distributed

ROWS, WIDTH, VISUAL_WIDTH, AUDIO_WIDTH = 12, 6, 5, 7
GRID = [(alpha, mask_diagonal) for alpha in (0.0, 0.35, 1.0) for mask_diagonal in (True, False)]


def make_batch(rows: int = ROWS, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    widths = {"visual_embedding": WIDTH, "audio_embedding": WIDTH, "visual": VISUAL_WIDTH, "audio": AUDIO_WIDTH}
    batch = {name: torch.randn(rows, width, generator=generator, dtype=dtype) for name, width in widths.items()}
    batch["visual"] += 0.5  # cosines of raw embeddings are mostly positive: a cone
    return batch


def loss_and_gradients(batch: dict[str, Tensor], ccmr_alpha: float = 0.0, **options) -> list[Tensor]:
    embeddings = [batch[name].clone().requires_grad_() for name in ("visual_embedding", "audio_embedding")]
    temperature = torch.tensor(14.0, dtype=embeddings[0].dtype, requires_grad=True)
    options = ContrastiveOptions(ccmr_alpha, **options)
    raw = {"visual": batch["visual"], "audio": batch["audio"]}
    loss = contrastive_loss(*embeddings, temperature, **raw, options=options)
    return [loss.detach(), *torch.autograd.grad(loss, (*embeddings, temperature))]


def cosine(x: list[float], y: list[float]) -> float:
    return sum(a * b for a, b in zip(x, y, strict=True)) / (math.hypot(*x) * math.hypot(*y))


def loss_by_hand(batch: dict[str, Tensor], temperature: float, alpha: float, mask_diagonal: bool) -> float:
    """Eq. 3, 6 and 7 entry by entry in Python floats."""
    names = ("visual_embedding", "audio_embedding", "visual", "audio")
    visual_embedding, audio_embedding, visual, audio = (batch[name].tolist() for name in names)
    count = len(visual)

    def similarity(i: int, j: int) -> float:
        alike = min(1.0, max(0.0, cosine(visual[i], visual[j]) * cosine(audio[i], audio[j])))
        mask = 1.0 if i == j and not mask_diagonal else math.exp(-alpha * alike**alpha)
        return temperature * cosine(visual_embedding[i], audio_embedding[j]) * mask

    matrix = [[similarity(i, j) for j in range(count)] for i in range(count)]
    total = 0.0
    for i in range(count):
        row, column = matrix[i], [matrix[j][i] for j in range(count)]
        total += sum(math.log(sum(map(math.exp, entries))) - matrix[i][i] for entries in (row, column))
    return total / (2 * count)


@pytest.mark.parametrize(("alpha", "mask_diagonal"), GRID)
@pytest.mark.parametrize("chunk_size", [None, 5])
def test_loss_equals_formula_by_hand(alpha: float, mask_diagonal: bool, chunk_size: int | None):
    batch = make_batch()
    loss, *_ = loss_and_gradients(batch, ccmr_alpha=alpha, ccmr_mask_diagonal=mask_diagonal, chunk_size=chunk_size)
    expected = loss_by_hand(batch, 14.0, alpha, mask_diagonal)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("alpha", "mask_diagonal"), GRID)
@pytest.mark.parametrize("chunk_size", [1, 5, ROWS, 100])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])
def test_chunks_equal_plain(alpha, mask_diagonal, chunk_size, dtype, tolerance):
    batch = make_batch(dtype=dtype)
    plain = loss_and_gradients(batch, ccmr_alpha=alpha, ccmr_mask_diagonal=mask_diagonal)
    chunked = loss_and_gradients(batch, ccmr_alpha=alpha, ccmr_mask_diagonal=mask_diagonal, chunk_size=chunk_size)
    for expected, found in zip(plain, chunked, strict=True):
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("chunk_size", [None, 4])
def test_gradients_pass_gradcheck(chunk_size: int | None):
    batch = make_batch(rows=5)

    def function(visual_embedding: Tensor, audio_embedding: Tensor, temperature: Tensor) -> Tensor:
        raw = {"visual": batch["visual"], "audio": batch["audio"]}
        options = ContrastiveOptions(0.35, chunk_size=chunk_size)
        return contrastive_loss(visual_embedding, audio_embedding, temperature, **raw, options=options)

    inputs = [batch["visual_embedding"], batch["audio_embedding"], torch.tensor(5.0, dtype=torch.float64)]
    assert torch.autograd.gradcheck(function, [tensor.requires_grad_() for tensor in inputs])


@pytest.mark.parametrize("chunk_size", [None, 4])
def test_gradient_reaches_embeddings_but_not_raw_inputs(chunk_size: int | None):
    batch = {name: tensor.requires_grad_() for name, tensor in make_batch().items()}
    temperature = torch.tensor(5.0)
    options = ContrastiveOptions(0.35, chunk_size=chunk_size)
    contrastive_loss(**batch, temperature=temperature, options=options).backward()
    assert batch["visual_embedding"].grad is not None
    assert batch["audio_embedding"].grad is not None
    assert batch["visual"].grad is None
    assert batch["audio"].grad is None


def test_chunks_without_gradients():
    batch = make_batch()
    options = {"ccmr_alpha": 0.35, "chunk_size": 5}
    expected, *_ = loss_and_gradients(batch, **options)
    with torch.no_grad():
        loss = contrastive_loss(**batch, temperature=torch.tensor(14.0), options=ContrastiveOptions(**options))
    assert loss == expected


def test_matched_pairs_lose_less_than_shuffled_ones():
    embedding = make_batch()["visual_embedding"]
    temperature = torch.tensor(14.0)
    matched = contrastive_loss(embedding, embedding, temperature)
    assert matched < contrastive_loss(embedding, embedding.roll(1, 0), temperature)
    assert matched < 0.1


def test_norms_do_not_matter_and_identical_rows_stay_finite():
    batch = make_batch()
    scaled = {name: tensor * 7 for name, tensor in batch.items()}
    first, second = (loss_and_gradients(each, ccmr_alpha=0.35)[0] for each in (batch, scaled))
    torch.testing.assert_close(first, second)
    same = {name: tensor[:1].expand(4, -1) for name, tensor in batch.items()}
    same["visual"] = torch.zeros_like(same["visual"])
    for chunk_size in (None, 3):
        values = loss_and_gradients(same, ccmr_alpha=0.35, chunk_size=chunk_size)
        assert all(value.isfinite().all() for value in values)
        assert values[0].item() == pytest.approx(math.log(4))


@pytest.mark.parametrize("chunk_size", [None, 5])
def test_computed_in_float32_under_autocast(chunk_size: int | None):
    batch = make_batch(dtype=torch.float32)
    expected = loss_and_gradients(batch, ccmr_alpha=0.35, chunk_size=chunk_size)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss_and_gradients(batch, ccmr_alpha=0.35, chunk_size=chunk_size)
    assert found[0].dtype == torch.float32
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_bfloat16_embeddings_give_float32_loss_and_bfloat16_gradients():
    batch = {name: tensor.bfloat16() for name, tensor in make_batch().items()}
    loss, gradient, *_ = loss_and_gradients(batch, ccmr_alpha=0.35)
    assert loss.dtype == torch.float32
    assert gradient.dtype == torch.bfloat16


@pytest.mark.parametrize("chunk_size", [None, 5])
def test_torch_compile_gives_the_same(chunk_size: int | None):
    batch = make_batch()
    compiled = torch.compile(loss_and_gradients, backend="aot_eager")
    for expected, found in zip(
        loss_and_gradients(batch, ccmr_alpha=0.35, chunk_size=chunk_size),
        compiled(batch, ccmr_alpha=0.35, chunk_size=chunk_size),
        strict=True,
    ):
        torch.testing.assert_close(found, expected)


def test_mask_by_hand():
    visual, audio = torch.tensor([[1.0, 0.0], [0.6, 0.8]]), torch.tensor([[0.0, 2.0], [0.0, 3.0]])
    off_diagonal = math.exp(-0.35 * 0.6**0.35)
    expected = torch.tensor([[math.exp(-0.35), off_diagonal], [off_diagonal, math.exp(-0.35)]])
    torch.testing.assert_close(ccmr_mask(visual, audio, 0.35), expected)
    torch.testing.assert_close(ccmr_mask(visual, audio, 0.35, ccmr_mask_diagonal=False), expected.fill_diagonal_(1))
    assert torch.equal(ccmr_mask(visual, audio, 0.0), torch.ones(2, 2))


def test_mask_clamps_opposites_and_keeps_orthogonal_pairs():
    visual, audio = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    mask = ccmr_mask(visual, audio, 0.35)
    assert mask[0, 1] == 1  # product -1, clamped to 0
    assert ccmr_mask(visual, -visual + 0 * audio, 0.35)[0, 1] == pytest.approx(math.exp(-0.35))  # (-1) * (-1)


def test_mask_of_some_rows_is_a_part_of_the_whole():
    batch = make_batch()
    visual, audio = batch["visual"], batch["audio"]
    columns = {"columns_visual": visual, "columns_audio": audio}
    for mask_diagonal in (True, False):
        whole = ccmr_mask(visual, audio, 0.35, ccmr_mask_diagonal=mask_diagonal)
        part = ccmr_mask(visual[4:9], audio[4:9], 0.35, **columns, ccmr_mask_diagonal=mask_diagonal, diagonal_offset=4)
        torch.testing.assert_close(part, whole[4:9])
        torch.testing.assert_close(whole, whole.T)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunk_size": 0}, "chunk_size must be at least 1, found 0"),
        ({"ccmr_alpha": -1.0}, "ccmr_alpha must be at least 0, found -1.0"),
        ({"ccmr_alpha": float("nan")}, "ccmr_alpha must be at least 0, found nan"),
    ],
)
def test_bad_options_are_named(options: dict, message: str):
    with pytest.raises(ValueError, match=rf"^model\.contrastive\.{message}$"):
        ContrastiveOptions(**options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"options": ContrastiveOptions(0.3), "visual": None}, "ccmr_alpha=0.3 needs the raw inputs"),
        ({"options": ContrastiveOptions(0.3), "audio": torch.ones(3, 2)}, r"embeddings \(12\), got 12 and 3"),
        ({"audio_embedding": torch.ones(12, 2)}, r"one shape \[rows, width\], got \(12, 6\) and \(12, 2\)"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        contrastive_loss(**{**make_batch(), "temperature": torch.tensor(1.0), **arguments})


def test_mask_names_rows_that_do_not_pair_up():
    with pytest.raises(ValueError, match="got 3 and 2 rows"):
        ccmr_mask(torch.ones(3, 2), torch.ones(2, 2), 0.3)


def losses_of_rank(options: dict) -> list[Tensor]:
    rank, share = dist.get_rank(), ROWS // dist.get_world_size()
    own = {name: tensor[rank * share : (rank + 1) * share] for name, tensor in make_batch().items()}
    return loss_and_gradients(own, **options)


def all_losses_of_rank(cases: list[dict]) -> list[list[Tensor]]:
    return [losses_of_rank(options) for options in cases]


def gather_of_rank() -> tuple[Tensor, Tensor]:
    rows = torch.full((2, 3), float(dist.get_rank() + 1), requires_grad=True)
    gathered = gather_with_gradient(rows)
    (gathered * torch.arange(4.0).unsqueeze(1) * (dist.get_rank() + 1)).sum().backward()
    return gathered.detach(), rows.grad


def test_ranks_give_the_gradients_of_the_global_batch():
    cases = [
        {"ccmr_alpha": alpha, "ccmr_mask_diagonal": mask_diagonal, "chunk_size": chunk_size}
        for alpha, mask_diagonal in GRID
        for chunk_size in (None, 4)
    ]
    by_rank = run_distributed(all_losses_of_rank, cases)
    for case, *ranks in zip(cases, *by_rank, strict=True):
        loss, visual_gradient, audio_gradient, temperature_gradient = loss_and_gradients(make_batch(), **case)
        losses, visual_gradients, audio_gradients, temperature_gradients = zip(*ranks, strict=True)
        # DistributedDataParallel averages: inputs that live on one rank count 1 / world_size.
        torch.testing.assert_close(sum(losses) / 2, loss, rtol=0, atol=1e-10)
        torch.testing.assert_close(torch.cat(visual_gradients) / 2, visual_gradient, rtol=0, atol=1e-10)
        torch.testing.assert_close(torch.cat(audio_gradients) / 2, audio_gradient, rtol=0, atol=1e-10)
        torch.testing.assert_close(sum(temperature_gradients) / 2, temperature_gradient, rtol=0, atol=1e-10)


def test_gather_returns_rows_in_rank_order_and_sums_gradients():
    for rank, (gathered, gradient) in enumerate(run_distributed(gather_of_rank)):
        assert gathered[:, 0].tolist() == [1, 1, 2, 2]
        # Row n has weight n on rank 0 and 2n on rank 1, summed: 3n.
        assert gradient[:, 0].tolist() == [3 * (2 * rank), 3 * (2 * rank + 1)]


def test_gather_alone_is_the_identity():
    rows = torch.ones(2, 3)
    assert gather_with_gradient(rows) is rows


@pytest.mark.parametrize("seed", range(3))
def test_a_masked_diagonal_rewards_opposite_modalities(seed: int):
    """Without any matching at all, turning one modality round lowers the loss of Eq. 7 as printed, and only that."""
    generator = torch.Generator().manual_seed(seed)
    visual, audio = torch.rand(32, 16, generator=generator), torch.rand(32, 16, generator=generator)
    same = torch.ones(32, 8)

    def loss(audio_embedding: torch.Tensor, mask_diagonal: bool) -> torch.Tensor:
        raw, options = {"visual": visual, "audio": audio}, ContrastiveOptions(0.35, mask_diagonal)
        return contrastive_loss(same, audio_embedding, torch.tensor(14.0), **raw, options=options)

    assert loss(-same, True) < math.log(32) < loss(same, True)
    assert loss(same, False) < math.log(32) < loss(-same, False)
