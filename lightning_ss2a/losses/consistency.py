"""Consistency of a student with its teacher (Tarvainen and Valpola, 2017; paper, supplement 2.2)."""

from torch import Tensor

from lightning_ss2a.losses.reconstruction import cosine_distance_loss


def consistency_loss(
    student_visual: Tensor, student_audio: Tensor, teacher_visual: Tensor, teacher_audio: Tensor
) -> Tensor:
    r"""Computes the mean cosine distance between a student's and a teacher's embeddings of the same pairs.

    .. math::
        L_{cons} = \frac{1}{2} \left( 1 - \cos(s_{visual}, t_{visual}) + 1 - \cos(s_{audio}, t_{audio}) \right)

    Args:
        student_visual: the student's embeddings of the visuals, ``[..., M]``.
        student_audio: the student's embeddings of the audio, ``[..., M]``.
        teacher_visual: the teacher's embeddings of the visuals, ``[..., M]``; no gradient reaches the teacher if these
            were made without.
        teacher_audio: the teacher's embeddings of the audio, ``[..., M]``.

    Returns:
        The loss, a scalar in [0, 2].

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> import torch
        >>> from lightning_ss2a.losses import consistency_loss
        >>> east, north = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        >>> consistency_loss(east, east, teacher_visual=east, teacher_audio=north)
        tensor(0.5000)
    """
    visual = cosine_distance_loss(student_visual, teacher_visual)
    return (visual + cosine_distance_loss(student_audio, teacher_audio)) / 2
