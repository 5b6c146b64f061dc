"""hyp2: the threshold by codes of the tables, the loss against plain loops, and the faults of its public code."""

from __future__ import annotations

import math

import pytest
import torch
from hashzoo_plugins.pointwise import hyp2
from hypothesis import given, settings
from hypothesis import strategies as st

from hashzoo.registry import zoo
from hashzoo.types import Setting
from tests.oracles.toy import CENTERS, SETTING, D, Y, Z, made, near, terms


def loss_with(proxies, setting=SETTING, **options):
    loss = hyp2.HyP2(setting, **options).double()
    loss.proxies.data = proxies
    return loss


@pytest.mark.parametrize(
    ("bits", "classes", "zeta"),
    [
        (16, 80, 0.25),
        (32, 80, 0.125),
        (32, 10, 0.0),
        (48, 80, 1 / 12),
        (64, 81, 0.0),
        (64, 200, 0.09375),
        (128, 200, 0.0),
    ],
)
def test_the_threshold_is_that_of_the_paper(bits, classes, zeta):
    assert hyp2.threshold(classes, bits) == pytest.approx(zeta)


#: Optimal distances of linear codes of 16, 24 and 32 bits by dimension from 1, of Brouwer's table.
TABLE = {
    16: (16, 10, 8, 8, 8, 6, 6, 5, 4, 4),
    24: (24, 16, 13, 12, 12, 10, 10, 8, 8, 8),
    32: (32, 21, 18, 16, 16, 16, 14, 13, 12, 12),
}


@pytest.mark.parametrize("bits", TABLE)
def test_a_positive_threshold_comes_from_the_best_code(bits):
    for dimension, best in enumerate(TABLE[bits], 1):
        assert hyp2.threshold(2**dimension, bits) == pytest.approx(max(0.0, 1 - 2 * best / bits))


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 200), st.integers(1, 5000))
def test_a_threshold_exists_for_every_length_and_number_of_classes(bits, classes):
    assert 0 <= hyp2.threshold(classes, bits) < 1


def test_hyp2_equals_worked_values():
    found = terms(loss_with(CENTERS, margin=0.1), Z, Y)
    length = [math.sqrt(float(z @ z)) for z in Z]
    own = [3.0 / 2 / length[0], 1.9 / 2 / length[1], -1.4 / 2 / length[2]]
    near(found["positive"], 1 - sum(own) / 3)
    other = [0.0, 1.1 / 2 / length[1], -0.6 / 2 / length[2]]
    near(found["negative"], sum(max(0.0, one - 0.1) for one in other) / 3)
    near(found["irrelevant"], 0.0)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 6), st.sampled_from([0.0, 0.2]))
def test_hyp2_equals_plain_loops(seed, count, bits, margin):
    code, _, draw = made(seed, count, bits)
    labels = (torch.rand(count, 5, generator=draw) < 0.4).to(D)
    proxies = torch.randn(5, bits, generator=draw, dtype=D)
    loss = loss_with(proxies, Setting(bits, 5, True, torch.ones(5), count), margin=margin)

    def cosine(a, b):
        return float(a @ b / a.norm() / b.norm())

    def mean(values):
        return sum(values) / max(1, len(values))

    near_own = [1 - cosine(code[i], proxies[j]) for i in range(count) for j in range(5) if labels[i, j]]
    far = [max(0.0, cosine(code[i], proxies[j]) - margin) for i in range(count) for j in range(5) if not labels[i, j]]
    apart = [
        max(0.0, cosine(code[i], code[j]) - margin)
        for i in range(count)
        for j in range(count)
        if labels[i].sum() > 1 and labels[j].sum() > 1 and not float(labels[i] @ labels[j])
    ]
    found = terms(loss, code, labels)
    near(found["positive"], mean(near_own), 1e-9)
    near(found["negative"], mean(far), 1e-9)
    near(found["irrelevant"], 0.5 * mean(apart), 1e-9)


@pytest.mark.parametrize("labels", [torch.zeros(3, 2), torch.ones(3, 2)], ids=["no label", "every label"])
def test_a_batch_without_positive_or_negative_pairs_has_finite_terms(labels):
    code = Z.clone().requires_grad_()
    value = sum(terms(loss_with(CENTERS), code, labels.to(D)).values())
    (slope,) = torch.autograd.grad(value, code)
    assert torch.isfinite(value)
    assert torch.isfinite(slope).all()


def test_images_of_one_label_are_not_pushed_apart_directly():
    twin = torch.ones(2, 4, dtype=D)
    single, several = torch.eye(2, 4, dtype=D), torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 1]], dtype=D)
    loss = loss_with(torch.randn(4, 4, dtype=D), Setting(4, 4, True, torch.ones(4), 2), margin=0.0)
    near(terms(loss, twin, single)["irrelevant"], 0.0)
    near(terms(loss, twin, several)["irrelevant"], 0.5)


def test_the_proxies_learn_at_twice_the_rate_of_the_network():
    assert zoo.load_plugins().method("hyp2").factory.loss_rate == 2.0
