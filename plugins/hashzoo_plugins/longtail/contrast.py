"""Contrastive loss within a batch, and the weights of its positives."""

from __future__ import annotations

import torch
from torch import Tensor


def contrast(z: Tensor, keys: Tensor, drawn: Tensor, temperature: float, divisor: Tensor | None = None) -> Tensor:
    """The mean of -sum_p W_ip log(e^s_ip / sum_{k != i} e^s_ik / n_ik), s = z keys' / temperature.

    Anchors z (A, K) are the first A of the keys (M, K), all of length 1. ``drawn`` is W (A, M), the weights of the
    positives of each anchor; ``divisor`` is n (A, M), 1 by default. Anchors without positives are excluded; the result
    is 0 if no anchor is left.

    >>> z = torch.eye(2)[[0, 0, 1]]
    >>> contrast(z, z, same(torch.tensor([0, 0, 1])), 1.0)
    tensor(0.3133)
    """
    s = z @ keys.T / temperature  # (A, M)
    compared = s if divisor is None else s - divisor.log()
    own = torch.eye(*s.shape, dtype=torch.bool, device=s.device)
    compared = compared.masked_fill(own, torch.finfo(s.dtype).min)  # finite, for an anchor without other keys
    losses = (drawn * (torch.logsumexp(compared, 1, keepdim=True) - s)).sum(1)
    return losses.sum() / (drawn.sum(1) > 0).sum().clamp(min=1)


def same(classes: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """(M, M) weights of supervised contrast: 1 / |P_i| for each other image of the class of the anchor.

    They have the type ``dtype`` of the compared vectors, or float32 if that is wider.

    >>> same(torch.tensor([0, 0, 0, 1]))[[0, 3]]
    tensor([[0.0000, 0.5000, 0.5000, 0.0000],
            [0.0000, 0.0000, 0.0000, 0.0000]])
    """
    wide = torch.promote_types(dtype, torch.float32)
    alike = (classes[:, None] == classes[None]).to(wide).fill_diagonal_(0)
    return alike / alike.sum(1, keepdim=True).clamp(min=1)


def k_positive(classes: Tensor, images: Tensor, k: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """(M, M) weights of k-positive contrast: the other view of the image and k others of its class, 1 / (k + 1) each.

    The k images are not sampled: each of the m others has its expected weight, min(k, m) / m of one.

    >>> k_positive(torch.tensor([0, 0, 0, 0]), torch.tensor([0, 1, 2, 0]), 1)[0]
    tensor([0.0000, 0.2500, 0.2500, 0.5000])
    """
    views, wide = images[:, None] == images[None], torch.promote_types(dtype, torch.float32)
    others = ((classes[:, None] == classes[None]) & ~views).to(wide)
    own = views.to(wide).fill_diagonal_(0)
    m = others.sum(1, keepdim=True)
    weight = own + others * m.clamp(max=k) / m.clamp(min=1)
    return weight / weight.sum(1, keepdim=True).clamp(min=1)
