"""Shared by the quantizers: features as a metric compares them, and distances of real queries to what codes stand for.

The metric is that of the data, ``setting.metric``; images have none and are compared by cosine. For the cosine,
features are divided by their lengths, so that the order by cosine is that by Euclidean distance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from hashzoo import Codes, Distance, Setting
from hashzoo_plugins.shallow import span

Metric = Literal["data", "cosine", "ip", "l2"]

ITEMS = 1 << 13  # items whose vectors are computed in float64 at a time


def metric_of(setting: Setting, given: Metric) -> str:
    """The metric that an option names: that of the data by default, and the cosine if the data have none."""
    return (setting.metric or "cosine") if given == "data" else given


def compared(features: Tensor, metric: str) -> Tensor:
    """Features (B, D) as they are compared: at length 1 for the cosine.

    >>> compared(torch.tensor([[3.0, 4.0]]), "cosine"), compared(torch.tensor([[3.0, 4.0]]), "ip")
    (tensor([[0.6000, 0.8000]]), tensor([[3., 4.]]))
    """
    return normalize(features, dim=1) if metric == "cosine" else features


def rotated(x: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """A random rotation (D, count) of centered rows (N, D): of their top principal directions if there are fewer.

    With more columns than features, rows are padded with zeros before they are rotated.
    """
    rotation = torch.linalg.qr(torch.randn(count, count, generator=generator)).Q.to(x)
    fewer = count < x.shape[1]
    axes = span.principal(x, count) if fewer else torch.eye(x.shape[1], count).to(x)
    turned: Tensor = axes @ rotation
    return turned


def coordinate_bits(bits: int, features: int, given: int, method: str) -> int:
    """Bits of each coordinate: ``given``, or with 0 one more than ``bits`` have for each feature, up to 8.

    Raises ValueError if there are fewer bits than one coordinate takes.

    >>> [coordinate_bits(bits, 384, 0, "x") for bits in (64, 384, 1536, 9999)]
    [1, 2, 5, 8]
    """
    if not 0 <= given <= 8:
        raise ValueError(f"{method} needs coordinate_bits from 1 to 8, or 0 to choose by the code length, not {given}")
    if given > bits:
        raise ValueError(f"{method} with coordinate_bits = {given} needs {given} bits or more, not {bits}")
    return given or min(8, bits, 1 + bits // features)


def digits(numbers: Tensor, width: int) -> Tensor:
    """(B, M width) bool binary digits, highest first, of numbers (B, M): packed, 8 digits are the byte of a number.

    >>> digits(torch.tensor([[5, 2]]), 3).int()
    tensor([[1, 0, 1, 0, 1, 0]], dtype=torch.int32)
    """
    places = torch.arange(width - 1, -1, -1, device=numbers.device)
    return (numbers[:, :, None] >> places & 1).bool().flatten(1)


def numbers(code: Tensor, width: int) -> Tensor:
    """(N, M) int64 numbers from their binary digits (N, M width): the inverse of :func:`digits`.

    >>> numbers(digits(torch.tensor([[5, 2]]), 3), 3)
    tensor([[5, 2]])
    """
    places = 1 << torch.arange(width - 1, -1, -1, device=code.device)
    found: Tensor = (code.unflatten(1, (-1, width)) * places).sum(2)  # type: ignore[no-untyped-call]
    return found


class Decoded(Distance):
    """The distance of a real query to the vectors that codes stand for.

    Args:
        metric: ``"ip"`` for minus the inner product, any other for the squared Euclidean distance.
        stored: Names of the codes that are stored.
        decode: The vectors (n, D) of the stored codes of n items.
    """

    def __init__(self, metric: str, stored: tuple[str, ...], decode: Callable[[Codes], Tensor]) -> None:
        self.metric, self.stored, self.decode = metric, stored, decode

    def __call__(self, query: Codes, database: Codes) -> Tensor:
        """(Q, N) float32, rounded from float64, so that items with equal codes are at equal distance."""
        q = query["query"].double()
        count = len(database[self.stored[0]])
        found = torch.empty(len(q), count)
        for start in range(0, count, ITEMS):
            part = slice(start, start + ITEMS)
            x = self.decode({name: database[name][part] for name in self.stored}).double()  # (n, D)
            product = q @ x.T
            if self.metric != "ip":
                product = product - (x.square().sum(1) + q.square().sum(1, keepdim=True)) / 2
                product = 2 * product
            found[:, part] = -product.float()
        return found
