"""Nested code lengths: one head for the longest code, whose prefixes are the shorter codes.

Source: Nested Hash Layer (NHL), arXiv 2412.08922, by its text and its public code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from hashzoo.types import Batch, Output

#: Entries of ``Output.extra`` that are codes, and are cut like them.
CODES = ("second",)


def join_lengths(weighting: str, lengths: Iterable[int]) -> str:
    """How keys of cells record nested lengths.

    >>> join_lengths("equal", [32, 16]), split_lengths("equal:16/32"), split_lengths("")
    ('equal:16/32', ('equal', (16, 32)), ('', ()))
    """
    return f"{weighting}:{'/'.join(map(str, sorted(set(lengths))))}"


def split_lengths(recorded: str) -> tuple[str, tuple[int, ...]]:
    """The weighting and the lengths, ascending, that a recorded budget names; no length without any."""
    weighting, _, lengths = recorded.partition(":")
    return weighting, tuple(int(one) for one in lengths.split("/") if one)


def prefix(output: Output, bits: int) -> Output:
    """The output of a head with the first bits of its codes; class scores and other tensors stay as they are."""
    extra = {name: value[:, :bits] if name in CODES else value for name, value in output.extra.items()}
    return replace(output, code=output.code[:, :bits], extra=extra)


class Prefix:
    """A forward hook of a head that returns the first bits of its code."""

    def __init__(self, bits: int) -> None:
        self.bits = bits

    def __call__(self, head: nn.Module, inputs: tuple[Any, ...], output: Output) -> Output:
        """The output with a shorter code."""
        return prefix(output, self.bits)


def distillation(short: Tensor, long: Tensor) -> Tensor:
    """How far the similarities of the images by a short code are from those by a longer one, which gets no gradient.

    The inner products of all pairs of a batch, each row scaled to length 1; the mean squared difference.

    >>> codes = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    >>> round(float(distillation(codes[:, :1], codes)), 6)
    0.292893
    """
    wanted = normalize(long.detach() @ long.detach().T)
    return (normalize(short @ short.T) - wanted).square().mean()


def conflict_weights(products: Tensor) -> list[float]:
    """Weights of m lengths from the inner products (m, m) of their gradients, shortest length first; their sum is m.

    A longer length whose gradient opposes that of a shorter one gets so small a weight that all longer ones together
    do not reverse the shorter one.

    >>> conflict_weights(torch.tensor([[1.0, -2.0], [-2.0, 9.0]]))  # the second would reverse the first
    [1.3333333333333333, 0.6666666666666666]
    >>> conflict_weights(torch.tensor([[1.0, 0.5], [0.5, 9.0]]))
    [1.0, 1.0]
    """
    rows, count = products.double().tolist(), len(products)
    weights = [1.0] * count
    for k in range(count - 1):
        bound = rows[k][k] / (count - 1)
        first = 1.0  # that of the next length, which no later one exceeds
        for i in range(k + 1, count):
            opposed = -rows[k][i]
            share = bound / opposed if opposed > 0 and opposed > bound else 1.0
            first = share if i == k + 1 else first
            weights[i] *= min(share, first)
    return [count * weight / sum(weights) for weight in weights]


class NestedLoss(nn.Module):
    """The losses of several code lengths, each for a prefix of the same code.

    Args:
        losses: The loss of each length, which was built for that length.
        head: The head, whose gradients decide the weights; it is not part of the state of this module.
        weighting: ``"conflict"`` for :func:`conflict_weights`, or ``"equal"``.
        distilled: Weight of :func:`distillation` of each length from the next longer one.
    """

    def __init__(self, losses: Mapping[int, nn.Module], head: nn.Module, weighting: str, distilled: float) -> None:
        super().__init__()
        self.lengths = tuple(sorted(losses))
        self.by_length = nn.ModuleDict({str(bits): losses[bits] for bits in self.lengths})
        self.weighting, self.distilled = weighting, distilled
        self._head = [head]  # in a list, so that it is not registered as a submodule

    @property
    def losses(self) -> dict[int, nn.Module]:
        """The loss of each length."""
        return {bits: self.by_length[str(bits)] for bits in self.lengths}

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """The weighted terms of every length, named ``TERM BITS``."""
        terms = {bits: self._terms(bits, output, batch) for bits in self.lengths}
        weights = self._weights(terms)
        return {
            f"{name} {bits}": weight * term
            for (bits, own), weight in zip(terms.items(), weights, strict=True)
            for name, term in own.items()
        }

    def _terms(self, bits: int, output: Output, batch: Batch) -> dict[str, Tensor]:
        """The terms of one length, without its weight."""
        found: dict[str, Tensor] = self.by_length[str(bits)](prefix(output, bits), batch)
        longer = next((other for other in self.lengths if other > bits), None)
        if longer is None:
            return found
        apart = distillation(output.code[:, :bits], output.code[:, :longer])
        return found | {"distillation": self.distilled * apart}

    def _weights(self, terms: Mapping[int, Mapping[str, Tensor]]) -> list[float]:
        if self.weighting == "equal" or len(terms) == 1 or not torch.is_grad_enabled():
            return [1.0] * len(terms)
        parameters = [value for value in self._head[0].parameters() if value.requires_grad]
        gradients = [_gradient(sum(own.values()), parameters) for own in terms.values()]  # type: ignore[arg-type]
        stacked = torch.stack(gradients)
        return conflict_weights(stacked @ stacked.T)


def _gradient(objective: Tensor, parameters: list[Tensor]) -> Tensor:
    """The gradient of an objective as one vector. It stops at the head: the backbone is not passed."""
    found = torch.autograd.grad(objective, parameters, retain_graph=True, allow_unused=True)
    return torch.cat(
        [
            torch.zeros_like(value).flatten() if own is None else own.flatten()
            for own, value in zip(found, parameters, strict=True)
        ]
    )
