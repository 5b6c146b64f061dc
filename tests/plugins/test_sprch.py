"""sprch: the contrast against plain loops, its pace, its gradient, and the faults of its public code."""

from __future__ import annotations

import math

import pytest
import torch
from hashzoo_plugins.pairwise import sprch
from hypothesis import given, settings
from hypothesis import strategies as st

from hashzoo.types import Setting
from tests.oracles.toy import SETTING, D, Y, Z, made, near, terms


def loss_with(vectors, setting=SETTING, **options):
    loss = sprch.SPRCH(setting, **options).double()
    loss.prototypes.data = vectors
    return loss


def test_two_opposite_codes_of_two_classes_have_the_worked_value():
    code, labels = torch.tensor([[1.0, 1], [-1, -1]], dtype=D), torch.eye(2, dtype=D)
    loss = loss_with(code.clone(), Setting(2, 2, False, torch.ones(2), 2), temperature=0.5)
    # every image: itself and its prototype at cosine 1, the other image and prototype at -1, one image for each class
    right, wrong = 2 * math.exp(2), 2 * math.exp(-2)
    near(terms(loss, code, labels)["contrast"], -math.log(right / (right + wrong)))
    # at the end of the pace: weights exp(-2)^(1/4) for right pairs, exp(-2) for wrong ones
    right, wrong = right * math.exp(-0.5), wrong * math.exp(-2)
    near(terms(loss, code, labels, progress=1.0)["contrast"], -math.log(right / (right + wrong)))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.integers(2, 6), st.integers(1, 6), st.sampled_from([0.0, 0.2, 0.9]), st.booleans())
def test_sprch_equals_plain_loops(seed, count, bits, progress, several):
    code, labels, draw = made(seed, count, bits, classes=4, multilabel=several)
    vectors = torch.randn(4, bits, generator=draw, dtype=D)
    loss = loss_with(vectors, Setting(bits, 4, several, torch.ones(4), count))
    pace, total = min(1.0, 3 * progress), 0.0

    def summand(a, b, positive):
        cosine = float(a @ b / a.norm() / b.norm())
        weight = math.exp(-1 - cosine) ** (pace / 4) if positive else math.exp(-1 + cosine) ** pace
        return weight * math.exp(cosine / 0.3)

    for i in range(count):
        right, wrong = [], []
        for j in range(count):
            same = float(labels[i] @ labels[j]) > 0
            (right if same else wrong).append(summand(code[i], code[j], same))
        own = [summand(code[i], vectors[c].tanh(), True) for c in range(4) if labels[i, c]]
        other = [summand(code[i], vectors[c].tanh(), False) for c in range(4) if not labels[i, c]]
        p = sum(right) + len(right) / len(own) * sum(own)
        n = sum(wrong) + (len(wrong) / len(other) * sum(other) if other else 0.0)
        total -= math.log(p / (p + n))
    near(terms(loss, code, labels, progress=progress)["contrast"], total / count, 1e-9)


def test_the_weights_of_the_pace_get_no_gradient():
    draw = torch.Generator().manual_seed(0)
    vectors, code = torch.randn(2, 4, generator=draw, dtype=D), Z.clone().requires_grad_()
    loss = loss_with(vectors)
    assert torch.autograd.gradcheck(lambda u: terms(loss, u, Y)["contrast"], code, atol=1e-6)
    (paced,) = torch.autograd.grad(terms(loss, code, Y, progress=1.0)["contrast"], code)

    def fixed(u):  # the same with weights of the code as it is
        cosine = torch.nn.functional.normalize(u) @ torch.nn.functional.normalize(torch.cat([Z, vectors.tanh()])).T
        other = torch.nn.functional.normalize(u) @ torch.nn.functional.normalize(u).T
        cosine = torch.cat([other, cosine[:, 3:]], 1)
        alike = torch.cat([Y @ Y.T > 0, Y > 0], 1)
        held = cosine.detach()
        weights = torch.where(alike, torch.exp(-1 - held) ** 0.25, torch.exp(-1 + held))
        images = torch.cat(
            [torch.ones(3, 3, dtype=D), torch.where(Y > 0, (Y @ Y.T).sum(1, True), (Y @ Y.T == 0).sum(1, True))], 1
        )
        summands = images * weights.detach() * torch.exp(cosine / 0.3)
        return -torch.log((summands * alike).sum(1) / summands.sum(1)).mean()

    (expected,) = torch.autograd.grad(fixed(code), code)
    near(paced, expected, 1e-7)


@pytest.mark.parametrize("progress", [0.0, 1 / 3, 1.0])
def test_the_pace_ends_after_a_third_of_the_training(progress):
    loss = loss_with(torch.ones(2, 4, dtype=D))
    late = terms(loss, Z, Y, progress=progress)["contrast"]
    equal = torch.isclose(late, terms(loss, Z, Y, progress=0.5)["contrast"])
    assert bool(equal) == (progress > 0)
    unpaced = loss_with(torch.ones(2, 4, dtype=D), paced=False)
    near(terms(unpaced, Z, Y, progress=progress)["contrast"], terms(loss, Z, Y)["contrast"])


@pytest.mark.parametrize(
    "labels",
    [[[0.0, 0], [1, 0], [0, 1]], [[1.0, 1], [1, 0], [0, 1]], [[0.0, 0]] * 3, [[1.0, 1]] * 3],
    ids=["an image without a label", "an image with every label", "no label", "every label"],
)
def test_images_without_positives_or_negatives_give_finite_terms(labels):
    code = Z.clone().requires_grad_()
    value = terms(loss_with(torch.randn(2, 4, dtype=D)), code, torch.tensor(labels, dtype=D), progress=0.5)["contrast"]
    (slope,) = torch.autograd.grad(value, code)
    assert torch.isfinite(value)
    assert torch.isfinite(slope).all()


def test_an_image_without_a_label_does_not_change_the_mean_over_the_others_but_is_one_of_their_negatives():
    loss, labels = loss_with(torch.ones(2, 4, dtype=D)), Y.clone()
    labels[2] = 0
    found = terms(loss, Z, labels)["contrast"]
    assert found > terms(loss, Z[:2], Y[:2])["contrast"]
