"""knn-sign: its neighbor lists, its loss by plain loops, its gradient, and what it draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hashzoo_plugins.pointwise import knn_sign
from hypothesis import given, settings
from hypothesis import strategies as st

from hashzoo.testing import Probe
from hashzoo.types import Output
from tests.oracles.embeddings import HOUSE, fit, gaussian, recalls
from tests.oracles.toy import SETTING, D, batch, made, near, t, terms

SEEDS = st.integers(0, 2**31)
MANY = settings(deadline=None, max_examples=20)


def closeness(metric, a, b):
    """How near two rows are, by the definition of the metric."""
    if metric == "l2":
        return -math.dist(a, b)
    inner = sum(x * y for x, y in zip(a, b, strict=True))
    return inner if metric == "ip" else inner / math.hypot(*a) / math.hypot(*b)


@pytest.mark.parametrize("metric", ["cosine", "", "ip", "l2"])
def test_the_lists_are_those_of_a_full_sort_without_the_row_itself_and_across_blocks(metric, monkeypatch):
    monkeypatch.setattr(knn_sign, "BLOCK", 4)
    x = torch.randn(11, 3, generator=torch.Generator().manual_seed(0), dtype=D)
    rows = x.tolist()
    for i, found in enumerate(knn_sign.neighbour_lists(x, 10, metric).tolist()):
        others = [j for j in range(11) if j != i]
        assert found == sorted(others, key=lambda j: -closeness(metric, rows[i], rows[j]))


def with_lists(seed, count, bits, nearest):
    """Codes of a batch and of three drawn rows for each, with lists of twelve training rows."""
    code, labels, draw = made(seed, count, bits)
    order = [torch.randperm(12, generator=draw) for _ in range(count)]
    rows = torch.stack([one[0] for one in order])
    lists = torch.stack([one[1:] for one in order])
    extra = {
        "rows": rows,
        "list": lists[:, :nearest],
        "drawn rows": lists.gather(1, torch.randint(11, (count, 3), generator=draw)),
        "drawn": torch.randn(count, 3, bits, generator=draw, dtype=D),
    }
    return code, labels, extra


@MANY
@given(SEEDS, st.integers(2, 6), st.integers(1, 4))
def test_the_loss_equals_plain_loops(seed, count, nearest):
    code, labels, extra = with_lists(seed, count, 4, nearest)
    found = terms(knn_sign.NeighbourRecall(SETTING, nearest=nearest, temperature=0.4), code, labels, **extra)
    every = [*zip(extra["rows"].tolist(), code.tolist(), strict=True)]
    for rows, codes in zip(extra["drawn rows"].tolist(), extra["drawn"].tolist(), strict=True):
        every += zip(rows, codes, strict=True)
    losses = []
    for i in range(count):
        scores: dict[str, list[float]] = {"near": [], "rest": []}
        for row, z in every:
            agree = sum(1 if (a >= 0) == (b >= 0) else -1 for a, b in zip(code[i].tolist(), z, strict=True))
            if row != int(extra["rows"][i]):
                scores["near" if row in extra["list"][i].tolist() else "rest"].append(agree / (4 * 0.4))
        rest = sum(math.exp(one) for one in scores["rest"])
        losses += [-math.log(math.exp(one) / (math.exp(one) + rest)) for one in scores["near"]]
    near(found["contrast"], sum(losses) / max(1, len(losses)), 1e-9)


def test_a_worked_value():
    """Bits agree in 4 of 4 with the neighbor and in 2 of 4 with the other row: log(1 + exp(-1 / temperature))."""
    code, features = t([1, 1, 1, 1], [2, 3, 1, 1], [-1, -1, 1, 1]), t([1, 0.1], [1, 0], [0, 1])
    found = terms(
        knn_sign.NeighbourRecall(SETTING, nearest=1, temperature=0.5), code, torch.eye(3, dtype=D), features=features
    )
    pair = [math.log1p(math.exp(-2)), math.log1p(math.exp(-2)), math.log(2)]
    near(found["contrast"], sum(pair) / 3, 1e-9)


def test_the_gradient_is_that_of_the_loss_at_the_signs_by_finite_differences():
    """The sign passes the gradient on, so it is that of the same loss of real codes, where the codes are signs."""
    code, labels, extra = with_lists(5, 5, 4, 3)
    loss = knn_sign.NeighbourRecall(SETTING, nearest=3, temperature=0.4)
    code.requires_grad_()
    (slope,) = torch.autograd.grad(terms(loss, code, labels, **extra)["contrast"], code)

    def of_real(b):
        every = torch.cat([b, torch.where(extra["drawn"].flatten(0, 1) >= 0, 1.0, -1.0).to(D)])
        known = torch.cat([extra["rows"], extra["drawn rows"].flatten()])
        close = (extra["list"][:, :, None] == known).any(1)
        own = extra["rows"][:, None] == known
        return float(knn_sign.contrast(b @ every.T / (4 * 0.4), close, ~(close | own)))

    at, step = torch.where(code.detach() >= 0, 1.0, -1.0).to(D), 1e-6
    for i, k in np.ndindex(5, 4):
        move = torch.zeros_like(at)
        move[i, k] = step
        assert float(slope[i, k]) == pytest.approx((of_real(at + move) - of_real(at - move)) / (2 * step), abs=1e-6)


def test_drawn_rows_are_some_of_the_neighbours_and_some_of_the_others():
    method = knn_sign.KNNSign(SETTING, Probe(), nearest=3, length=8, positives=2, further=4)
    lists = torch.arange(8).repeat(200, 1)
    drawn = method.draw(lists, 3, torch.Generator().manual_seed(0))
    assert drawn.shape == (200, 6)
    assert set(drawn[:, :2].flatten().tolist()) == {0, 1, 2}
    assert set(drawn[:, 2:].flatten().tolist()) == {3, 4, 5, 6, 7}
    assert method.draw(lists[:, :3], 3, torch.Generator()).shape == (200, 2)  # nothing is further


def test_lists_of_true_neighbours_teach_more_than_lists_of_random_rows(monkeypatch):
    data = gaussian()
    true = recalls(data, *fit("knn-sign", data, 16)[1:])[0]

    def random_lists(x, count, metric):
        draw = torch.Generator().manual_seed(0)
        return torch.rand(len(x), len(x), generator=draw).fill_diagonal_(-1).topk(count).indices

    monkeypatch.setattr(knn_sign, "neighbour_lists", random_lists)
    assert true > recalls(data, *fit("knn-sign", data, 16)[1:])[0] + 0.03


@pytest.mark.parametrize("head", ["norm", "mlp"])
def test_both_heads_are_made_of_two_bits_for_two_rows_without_further_ones(head):
    rows = gaussian(count=40)
    method, _, _ = fit("knn-sign", rows, 2, head=head, length=60)
    assert type(method.head).__name__ == {"norm": "Norm", "mlp": "MLP"}[head]


def test_wrong_options_name_the_values():
    with pytest.raises(ValueError, match=r"knn-sign needs length > nearest.* not length=5, nearest=10"):
        knn_sign.KNNSign(SETTING, Probe(), length=5)
    with pytest.raises(ValueError, match="temperature > 0, not nearest=10, temperature=0"):
        knn_sign.NeighbourRecall(SETTING, temperature=0)
    with pytest.raises(ValueError, match="a head that returns its features, such as linear"):
        knn_sign.NeighbourRecall(SETTING)(Output(torch.ones(3, 4)), batch(torch.eye(3)))
    assert HOUSE.method("knn-sign").card.supervision == "none"
