"""The first methods against worked values, loops, properties and proofs."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hashzoo_plugins.datasets import digits, scenes
from hashzoo_plugins.datasets.pool import stratify
from hashzoo_plugins.pairwise.dhn import DHN
from hashzoo_plugins.shallow.itq import rotations
from hashzoo_plugins.shallow.projection import principal
from hypothesis import given, settings
from hypothesis import strategies as st

from hashzoo.evaluation.metrics import chance_ap, evaluate
from hashzoo.types import Batch, Output, Setting, signs

Z = torch.tensor([[0.9, -0.8, 0.7, -0.6], [0.8, -0.9, -0.5, -0.7], [-0.6, 0.5, 0.9, 0.4]], dtype=torch.float64)
Y = torch.eye(2, dtype=torch.float64)[[0, 0, 1]]
SETTING = Setting(4, 2, False, torch.tensor([2, 1]), 3)


def dhn(code, labels, weight=0.1):
    return DHN(SETTING, weight=weight)(Output(code), Batch((None,), labels, torch.arange(len(code))))


def test_dhn_equals_the_reference_values_of_the_toy_batch():
    terms = dhn(Z, Y)
    pairs = 3
    assert float(terms["pair"]) * pairs == pytest.approx(0.8291590361, abs=1e-9)
    assert float(terms["quantization"]) * pairs == pytest.approx(0.1 * 1.4193280429, abs=1e-9)
    assert float(sum(terms.values())) * pairs == pytest.approx(0.9710918403, abs=1e-9)


def test_the_gradient_of_dhn_equals_the_reference_values():
    code = Z.clone().requires_grad_()
    (3 * sum(dhn(code, Y).values())).backward()
    expected = [-0.3842032788, 0.3852521824, 0.3614848422, 0.3489927113]
    assert code.grad[0].tolist() == pytest.approx(expected, abs=1e-9)
    inner = code.grad[0] * (1 - Z[0] ** 2)  # through tanh, eq. 9
    expected = [-0.0729986230, 0.1386907857, 0.1843572695, 0.2233553352]
    assert inner.tolist() == pytest.approx(expected, abs=1e-9)


def loops(code, labels, weight):
    """DHN's eq. 5 and 7 as written, over unordered pairs."""
    total, pairs = 0.0, 0
    for i in range(len(code)):
        for j in range(i + 1, len(code)):
            inner = sum(float(a) * float(b) for a, b in zip(code[i], code[j], strict=True))
            similar = float((labels[i] * labels[j]).sum() > 0)
            gap = sum(math.log(math.cosh(abs(float(z)) - 1)) for z in [*code[i], *code[j]])
            total += math.log1p(math.exp(inner)) - similar * inner + weight * gap
            pairs += 1
    return total / pairs


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 6), st.integers(1, 5), st.integers(0, 2**31))
def test_dhn_equals_plain_loops_and_its_invariances_hold(batch, bits, seed):
    generator = torch.Generator().manual_seed(seed)
    code = torch.tanh(torch.randn(batch, bits, generator=generator, dtype=torch.float64))
    labels = (torch.rand(batch, 3, generator=generator) < 0.5).double()
    value = float(sum(dhn(code, labels, 0.3).values()))
    assert value == pytest.approx(loops(code, labels, 0.3), abs=1e-9)
    order, places = torch.randperm(batch, generator=generator), torch.randperm(bits, generator=generator)
    flips = signs(torch.randn(bits, generator=generator, dtype=torch.float64))
    for other, theirs in [(code[order], labels[order]), (code[:, places], labels), (code * flips, labels)]:
        assert float(sum(dhn(other, theirs, 0.3).values())) == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e3])
def test_the_gradient_of_dhn_is_finite_at_the_corners_and_agrees_with_finite_differences(scale):
    code = (Z * scale).requires_grad_()
    for labels in (Y, torch.ones_like(Y)):
        (slope,) = torch.autograd.grad(sum(dhn(code, labels).values()), code)
        assert torch.isfinite(slope).all()
    if scale == 1.0:
        assert torch.autograd.gradcheck(lambda c: sum(dhn(c, Y).values()), code)


def test_dhn_refuses_a_batch_without_a_pair():
    with pytest.raises(ValueError, match="two images"):
        dhn(Z[:1], Y[:1])


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31), st.integers(1, 8))
def test_no_iteration_of_itq_raises_its_error_and_rotations_stay_orthogonal(seed, bits):
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(60, bits, generator=generator, dtype=torch.float64)
    path = rotations(v, 15, generator)
    errors = [error for _, error in path]
    assert all(after <= before + 1e-9 for before, after in pairwise(errors))
    for r, _ in path:
        assert torch.allclose(r.T @ r, torch.eye(bits, dtype=v.dtype), atol=1e-9)


def test_itq_turns_a_square_by_45_degrees():
    v = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]], dtype=torch.float64)
    best = min(rotations(v, 50, torch.Generator().manual_seed(s))[-1][1] * 4 for s in range(5))
    assert best == pytest.approx(4 * (math.sqrt(2) - 1) ** 2, abs=1e-9)


def test_principal_directions_are_those_of_scikit_learn():
    from sklearn.decomposition import PCA

    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * torch.arange(1, 7)
    mine = principal(x - x.mean(0), 4)
    theirs = torch.from_numpy(PCA(4, svd_solver="full").fit(x.numpy()).components_.T)
    assert torch.allclose((mine * theirs).sum(0).abs(), torch.ones(4, dtype=torch.float64))
    assert torch.allclose(mine.T @ mine, torch.eye(4, dtype=torch.float64), atol=1e-12)
    assert (((x - x.mean(0)) @ mine).var(0).diff() <= 0).all()


def test_a_perfect_classifier_scores_one_and_a_constant_one_the_closed_form():
    labels = np.arange(40) % 4
    digits_of = ((labels[:, None] >> np.arange(2)) & 1).astype(bool)
    assert evaluate(digits_of, digits_of, labels, labels).means["map@all"] == 1
    constant = np.ones((40, 2), bool)
    assert evaluate(constant, constant, labels, labels).means["map@all"] == pytest.approx(chance_ap(40, 10), abs=1e-12)


@pytest.mark.parametrize("make", [digits.standard, digits.small, digits.inside, scenes.small])
def test_no_image_of_a_part_is_in_another(make):
    data = make()
    parts = {"train": data.train, "database": data.database, "query": data.query}
    images = {n: {p.numpy().tobytes() for p in part.images} for n, part in parts.items()}
    ids = {n: set(part.ids.tolist()) for n, part in parts.items()}
    assert not ids["query"] & (ids["train"] | ids["database"])
    assert not images["query"] & (images["train"] | images["database"])
    assert (ids["train"] <= ids["database"]) == (make is digits.inside)
    assert (data.query.labels.sum(1) >= 1).all()


def test_validation_is_carved_out_of_train_and_nothing_else_moves():
    whole, carved = digits.standard(), digits.standard(validation=0.2)
    assert torch.equal(whole.query.ids, carved.query.ids)
    assert torch.equal(whole.database.ids, carved.database.ids)
    both = set(carved.train.ids.tolist()) | set(carved.validation.ids.tolist())
    assert both == set(whole.train.ids.tolist())
    assert len(carved.validation) == 100
    assert len(carved.train) == 400


def test_parts_are_stratify():
    data = digits.standard()
    for part in (data.train, data.database, data.query):
        counts = part.labels.sum(0)
        assert float(counts.max() - counts.min()) <= 0.04 * len(part)


def test_parts_of_nothing_are_refused_in_words():
    with pytest.raises(ValueError, match="there are no images to draw from"):
        stratify(np.array([], dtype=np.int64), [0, 0], np.random.default_rng(0))


def test_splits_are_the_same_everywhere():
    from hashzoo.data.integrity import fingerprint

    assert {name: fingerprint(make()) for name, make in DIGESTS_OF.items()} == DIGESTS


DIGESTS_OF = {"digits.standard": digits.standard, "digits.small": digits.small, "scenes.small": scenes.small}
DIGESTS = {
    "digits.standard": "f4be393549682551",
    "digits.small": "d8e3f2546080da06",
    "scenes.small": "7a3efb7f3cbfaafd",
}


def test_every_box_of_a_scene_holds_the_digit_its_labels_name():
    data = scenes.small()
    for image, labels, boxes in zip(data.train.images, data.train.labels, data.train.boxes, strict=True):
        assert 1 <= len(boxes) <= 4
        assert 1 <= labels.sum() <= len(boxes)
        outside = image[0].clone()
        for x0, y0, x1, y1 in boxes.tolist():
            assert image[0, y0:y1, x0:x1].max() > 100
            outside[y0:y1, x0:x1] = 0
        assert not outside.any()
