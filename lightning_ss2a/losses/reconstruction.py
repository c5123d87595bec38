"""Reconstruction loss of Eq. 4: cosine distance between the true and the reconstructed audio embedding."""

import torch
import torch.nn.functional as F
from torch import Tensor


def cosine_distance_loss(prediction: Tensor, target: Tensor) -> Tensor:
    r"""Computes the mean absolute cosine distance.

    .. math:: \frac{1}{N} \sum_i \left| 1 - \cos(p_i, t_i) \right|

    Computed in float32 or wider, also under autocast.

    Args:
        prediction: embeddings, ``[..., D]``, any norm.
        target: embeddings of the same shape, any norm.

    Returns:
        The loss, a scalar in [0, 2].

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> import torch
        >>> from lightning_ss2a.losses import cosine_distance_loss
        >>> cosine_distance_loss(torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
        tensor(0.5000)
    """
    if prediction.shape != target.shape:
        raise ValueError(
            f"prediction and target must have one shape, got {tuple(prediction.shape)} and {tuple(target.shape)}"
        )
    dtype = torch.promote_types(torch.promote_types(prediction.dtype, target.dtype), torch.float32)
    return (1 - F.cosine_similarity(prediction.to(dtype), target.to(dtype), dim=-1)).abs().mean()


def reconstruction_loss(audio: Tensor, from_audio: Tensor, from_visual: Tensor) -> Tensor:
    r"""Computes the reconstruction loss of the manifold (Eq. 4), averaged over the batch.

    .. math::
        L_r = \frac{1}{2} \left( \| 1 - \cos(a, \chi(e_{audio})) \| + \| 1 - \cos(a, \chi(e_{visual})) \| \right)

    Args:
        audio: true audio embeddings, ``[..., A]``.
        from_audio: reconstructed from the audio's manifold embedding, ``[..., A]``.
        from_visual: reconstructed from the visual's manifold embedding, ``[..., A]``.

    Returns:
        The loss, a scalar in [0, 2].

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> import torch
        >>> from lightning_ss2a.losses import reconstruction_loss
        >>> audio = torch.tensor([[1.0, 0.0]])
        >>> reconstruction_loss(audio, from_audio=audio, from_visual=torch.tensor([[0.0, 1.0]]))
        tensor(0.5000)
    """
    return (cosine_distance_loss(from_audio, audio) + cosine_distance_loss(from_visual, audio)) / 2
