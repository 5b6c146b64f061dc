"""The distance of relaxed codes to their bits, and gradients through the sign."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn.functional import softplus

from hashzoo import signs


def gap(code: Tensor) -> Tensor:
    """u - sgn(u) of relaxed codes, in the same shape. Its magnitude is | |u| - 1 |; at u = 0, sgn(0) = +1.

    >>> import torch
    >>> gap(torch.tensor([-0.5, 0.0, 2.0]))
    tensor([ 0.5000, -1.0000,  1.0000])
    """
    return code - signs(code)


def straight_through(code: Tensor) -> Tensor:
    """sgn(u), with the gradient of the identity (straight-through estimator).

    >>> import torch
    >>> u = torch.tensor([-0.5, 0.0, 2.0], requires_grad=True)
    >>> b = straight_through(u)
    >>> b.detach(), torch.autograd.grad((b * torch.tensor([1.0, 2, 3])).sum(), u)[0]
    (tensor([-1.,  1.,  1.]), tensor([1., 2., 3.]))
    """
    return signs(code).detach() + (code - code.detach())


def log_cosh(t: Tensor) -> Tensor:
    """log cosh t, computed without overflow as |t| + softplus(-2 |t|) - log 2.

    >>> import torch
    >>> round(float(log_cosh(torch.tensor(-1.0))), 6), float(log_cosh(torch.tensor(1e3))) > 999
    (0.433781, True)
    """
    return t.abs() + softplus(-2 * t.abs()) - math.log(2)
