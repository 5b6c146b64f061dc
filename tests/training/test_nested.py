"""Nested lengths: losses, distillation and weights by plain loops, and what the shorter lengths share."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hashzoo.training.budget import Budget
from hashzoo.training.nested import NestedLoss, conflict_weights, distillation, prefix
from hashzoo.types import Batch, Output

LENGTHS = (2, 3, 5)


def looped_distillation(short, long):
    """The mean of squared differences of similarity rows of length 1."""

    def rows(codes):
        dots = [[sum(a * b for a, b in zip(x, y, strict=True)) for y in codes] for x in codes]
        return [[one / math.sqrt(sum(d * d for d in row)) for one in row] for row in dots]

    pairs = [
        (a, b) for one, other in zip(rows(short), rows(long), strict=True) for a, b in zip(one, other, strict=True)
    ]
    return sum((a - b) ** 2 for a, b in pairs) / len(pairs)


def looped_weights(products):
    """The weights of the lengths by the rule of the public code: a table of factors, then their products."""
    m = len(products)
    alpha = {(k, i): 1.0 for k in range(m) for i in range(m)}
    for k in range(m):
        for i in range(k + 1, m):
            dot, square = products[k][i], products[k][k]
            if dot < 0 and -dot > square / (m - 1):
                alpha[k, i] = square / (m - 1) / -dot
        for i in range(k + 2, m):
            alpha[k, i] = min(alpha[k, i], alpha[k, k + 1])
    weights = [math.prod(alpha[k, i] for k in range(i)) for i in range(m)]
    return [m * w / sum(weights) for w in weights]


class Pull(nn.Module):
    """A loss whose gradients conflict: codes of each length are pulled to another target."""

    def __init__(self, bits):
        super().__init__()
        self.target = torch.linspace(5, 9, bits).double() * (1 if bits % 2 else -1)

    def forward(self, output, batch):
        assert output.code.shape[1] == len(self.target)
        return {"pull": (output.code - self.target).square().sum(1).mean(), "size": 0.1 * output.code.abs().mean()}


class Linear(nn.Module):
    def __init__(self, bits):
        super().__init__()
        self.layer = nn.Linear(4, bits, bias=False).double()

    def forward(self, features):
        return Output(self.layer(features))


def case(seed=0, weighting="conflict", lengths=LENGTHS):
    torch.manual_seed(seed)
    head, features = Linear(max(lengths)), torch.randn(6, 4).double()
    loss = NestedLoss({bits: Pull(bits) for bits in lengths}, head, weighting, 0.1)
    return head, features, loss, Batch((None,), torch.eye(6), torch.arange(6))


def looped_gradients(head, features, loss):
    """The gradient of each length's objective on the weights of the head, from a pass of its own."""
    found = []
    for place, bits in enumerate(LENGTHS):
        output = head(features)
        objective = sum(Pull(bits)(prefix(output, bits), None).values())
        if place + 1 < len(LENGTHS):
            long = output.code[:, : LENGTHS[place + 1]].detach()
            objective = objective + 0.1 * distillation(output.code[:, :bits], long)
        found.append(torch.autograd.grad(objective, head.layer.weight)[0])
    return found


@pytest.mark.parametrize("seed", range(4))
def test_terms_and_weights_are_those_of_plain_loops(seed):
    head, features, loss, batch = case(seed)
    output = head(features)
    terms = loss(output, batch)
    gradients = looped_gradients(head, features, loss)
    table = [[float((gradients[k][:b] * gradients[i][:b]).sum()) for i in range(3)] for k, b in enumerate(LENGTHS)]
    weights = looped_weights(table)
    for place, (bits, weight) in enumerate(zip(LENGTHS, weights, strict=True)):
        own = Pull(bits)(prefix(output, bits), batch)
        expected = {name: weight * term.item() for name, term in own.items()}
        if place + 1 < len(LENGTHS):
            rows = [output.code[:, :b].tolist() for b in LENGTHS[place : place + 2]]
            expected["distillation"] = 0.1 * weight * looped_distillation(*rows)
        assert {name: terms[f"{name} {bits}"].item() for name in expected} == pytest.approx(expected)
    assert len(terms) == 3 * 2 + 2


def test_conflicts_change_the_weights_and_equal_weights_ignore_them():
    shares = {}
    for weighting in ("conflict", "equal"):
        head, features, loss, batch = case(2, weighting)
        output = head(features)
        terms = loss(output, batch)
        shares[weighting] = [
            (terms[f"pull {bits}"] / Pull(bits)(prefix(output, bits), batch)["pull"]).item() for bits in LENGTHS
        ]
    assert shares["equal"] == pytest.approx([1, 1, 1])
    assert shares["conflict"] != pytest.approx([1, 1, 1])


@given(st.integers(2, 5), st.integers(0, 2**31))
def test_no_longer_length_reverses_a_shorter_one(count, seed):
    gradients = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed)).double()
    products = gradients @ gradients.T
    weights = conflict_weights(products)
    assert weights == pytest.approx(looped_weights(products.tolist()))
    assert sum(weights) == pytest.approx(count)
    first = sum(w * float(products[0, i]) for i, w in enumerate(weights))  # along the gradient of the shortest
    assert first >= -1e-9


def test_reading_the_weights_leaves_the_gradients_of_one_backward_pass():
    head, features, loss, batch = case()
    features.requires_grad_()
    terms = loss(head(features), batch)
    assert head.layer.weight.grad is None
    assert features.grad is None
    sum(terms.values()).backward()
    assert features.grad is not None


def test_one_length_gives_the_terms_of_its_loss_bit_by_bit():
    head, features, loss, batch = case(lengths=(5,))
    output = head(features)
    alone = Pull(5)(output, batch)
    assert [value.item() for value in loss(output, batch).values()] == [value.item() for value in alone.values()]


def test_a_prefix_cuts_codes_and_leaves_features_and_class_scores():
    extra = {"second": torch.ones(2, 8), "features": torch.ones(2, 8)}
    cut = prefix(Output(torch.ones(2, 8), torch.ones(2, 3), extra), 5)
    assert cut.logits is not None
    assert [tuple(one.shape) for one in (cut.code, cut.logits, *cut.extra.values())] == [(2, 5), (2, 3), (2, 5), (2, 8)]


def test_the_budget_refuses_gradients_that_come_too_late_and_unknown_weightings():
    with pytest.raises(ValueError, match="use nested = 'equal'"):
        Budget(nested="conflict", accumulate=2)
    assert Budget(nested="equal", accumulate=2).nested == "equal"
    with pytest.raises(ValueError, match="nested"):
        Budget(nested="conflicts")


def test_without_it_a_recorded_budget_knows_nothing_of_it():
    assert Budget(nested_distillation=1.0).recorded() == Budget().recorded()
    assert not [name for name in Budget().recorded() if "nested" in name]
