import pytest
import torch

from lightning_ss2a.losses import consistency_loss


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_the_mean_cosine_distance_of_both_modalities(seed: int, dtype: torch.dtype):
    generator = torch.Generator().manual_seed(seed)
    embeddings = [torch.randn(5, 7, generator=generator).to(dtype) * scale for scale in (1, 3, 0.2, 1)]
    student_visual, student_audio, teacher_visual, teacher_audio = embeddings
    expected = 0.0
    for ours, theirs in ((student_visual, teacher_visual), (student_audio, teacher_audio)):
        a, b = ours.double(), theirs.double()
        expected += float((1 - (a * b).sum(1) / a.norm(dim=1) / b.norm(dim=1)).mean()) / 2
    assert float(consistency_loss(*embeddings)) == pytest.approx(expected, rel=1e-6)


def test_gradients_reach_the_student_alone():
    student = [torch.randn(4, 6, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    teacher = [torch.randn(4, 6, dtype=torch.float64) for _ in range(2)]
    assert torch.autograd.gradcheck(lambda v, a: consistency_loss(v, a, *teacher), student)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="one shape"):
        consistency_loss(torch.ones(2, 3), torch.ones(2, 3), torch.ones(2, 3), torch.ones(1, 3))
