"""Averages against float64 by hand; copies that nothing moves but the average."""

import threading

import pytest
import torch
from torch import nn

from lightning_ss2a.models import Manifold, ManifoldOptions
from lightning_ss2a.models.ema import ema_decay, frozen_copy, relative_distance, update_ema


class WithBuffers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.norm = nn.BatchNorm1d(3)


def make_manifold(**options) -> Manifold:
    options = {"width": 4, "projector_widths": (8, 8), "reconstructor_widths": (8, 8)} | options
    return Manifold(6, 5, ManifoldOptions(**options))


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("decay", "schedule"), [(0.9, "constant"), (0.999, "warmup"), (0.5, "warmup")])
def test_fifty_updates_equal_float64_by_hand(seed: int, decay: float, schedule: str):
    generator = torch.Generator().manual_seed(seed)
    student = make_manifold()
    teacher = frozen_copy(student)
    by_hand = {name: p.detach().double().clone() for name, p in student.named_parameters()}
    for t in range(50):
        with torch.no_grad():
            for p in student.parameters():
                p.add_(torch.randn(p.shape, generator=generator), alpha=0.1)
        d = decay if schedule == "constant" else min(decay, (1 + t) / (10 + t))
        assert ema_decay(t, decay, schedule) == d
        update_ema(teacher, student, d)
        by_hand = {name: d * by_hand[name] + (1 - d) * p.detach().double() for name, p in student.named_parameters()}
    for name, p in teacher.named_parameters():
        assert float((p.double() - by_hand[name]).abs().max()) < 1e-6, name


def test_buffers_are_copied_whatever_their_type():
    student = WithBuffers()
    teacher = frozen_copy(student)
    for _ in range(3):
        student.norm(torch.randn(8, 3) + 5)
    update_ema(teacher, student, decay=1.0)
    for (name, theirs), ours in zip(teacher.named_buffers(), student.buffers(), strict=True):
        assert torch.equal(theirs, ours), name
    assert int(teacher.norm.num_batches_tracked) == 3
    assert teacher.norm.running_mean.data_ptr() != student.norm.running_mean.data_ptr()


@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_the_ends_of_the_decay(decay: float):
    student, teacher = make_manifold(), make_manifold()
    expected = {name: p.clone() for name, p in (teacher if decay else student).state_dict().items()}
    update_ema(teacher, student, decay)
    torch.testing.assert_close(teacher.state_dict(), expected, rtol=0, atol=1e-7)


def test_a_frozen_copy_is_deterministic_in_training_mode_and_takes_no_gradients():
    student = make_manifold(dropout=0.5).train()
    teacher = frozen_copy(student).train()
    visual = torch.randn(9, 6)
    first, second = teacher.project_visual(visual).mean, teacher.project_visual(visual).mean
    assert torch.equal(first, second)
    assert not first.requires_grad
    assert torch.equal(first, student.eval().project_visual(visual).mean)
    assert {module.p for module in student.modules() if isinstance(module, nn.Dropout)} == {0.5}
    assert not {p.data_ptr() for p in student.parameters()} & {p.data_ptr() for p in teacher.parameters()}


def test_relative_distance_by_hand():
    student, teacher = nn.Linear(2, 1), nn.Linear(2, 1)
    for module, values in ((student, [3.0, 0.0, 4.0]), (teacher, [0.0, 0.0, 4.0])):
        nn.utils.vector_to_parameters(torch.tensor(values), module.parameters())
    assert float(relative_distance(teacher, student)) == pytest.approx(3 / 5)
    assert float(relative_distance(student, student)) == 0


def test_hooks_stay_with_what_is_watched():
    """A profiler's hold what cannot be copied."""
    calls = []
    student = make_manifold()
    lock = threading.Lock()
    for module in student.modules():
        module.register_forward_pre_hook(lambda *_, lock=lock: calls.append(lock))
        module.register_forward_hook(lambda *_, lock=lock: calls.append(lock))
    batch = torch.randn(2, 6)
    frozen_copy(student).project_visual(batch)
    assert calls == []
    student.project_visual(batch)
    assert calls
