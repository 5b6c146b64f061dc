"""What keeps the codes of dcoh and two-level-cam apart at their defaults, and the operators of dcoh."""

from __future__ import annotations

import pytest
import torch
from hashzoo_plugins.datasets.composed import algebra
from hashzoo_plugins.structured.dcoh import (
    DCOH,
    FullyConnected,
    MultiLevel,
    Operators,
    overlap,
    overlapping,
    risen,
    triplets,
)
from hashzoo_plugins.structured.two_level_cam import TwoLevelCAM, TwoLevelLoss
from hypothesis import given, settings
from hypothesis import strategies as st

from hashzoo import Backbone
from hashzoo.run import Run
from hashzoo.testing import Probe, synthetic_splits
from hashzoo.testing.methods import share_of_one_code
from hashzoo.training.budget import Budget
from hashzoo.types import Batch, Features, Output, Setting

D = torch.float64
SEVERAL = Setting(6, 3, True, torch.ones(3), 8)


class Wide(Backbone):
    def __init__(self, dim):
        super().__init__()
        self.dim = dim

    def forward(self, images):
        return Features(images)


@pytest.mark.parametrize("method", [DCOH, TwoLevelCAM])
def test_the_defaults_keep_the_codes_of_images_with_several_labels_apart(method):
    assert share_of_one_code(method, 64, True, 1e-2) < 0.4  # the contract of tests/testing has 16 bits at 1e-4


@pytest.mark.parametrize(("dim", "hidden"), [(8, 256), (1280, 256), (4096, 4096), (4608, 4096)])
def test_the_layers_have_the_width_of_the_paper_only_for_features_of_its_network(dim, hidden):
    with torch.device("meta"):
        layers = FullyConnected(SEVERAL, Wide(dim)).layers
    assert [m.out_features for m in layers if isinstance(m, torch.nn.Linear)] == [hidden, hidden, 6]


def test_the_code_is_not_saturated_however_large_the_features_are():
    torch.manual_seed(0)
    head = FullyConnected(SEVERAL, Wide(8))
    for scale in (1.0, 1e2, 1e4):
        code = head(Features(scale * torch.randn(64, 8))).code
        assert 0.4 < float(code.detach().abs().mean()) < 0.8, scale


def test_terms_are_those_of_a_bit_so_that_weights_hold_at_every_length():
    torch.manual_seed(0)
    codes, labels = (
        torch.tanh(torch.randn(5, 6, dtype=D)),
        torch.tensor([[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1], [1, 1, 1]]),
    )
    anchors = torch.arange(5)
    terms = MultiLevel(SEVERAL).double().terms(codes, labels.to(D), anchors)
    plain = triplets(codes, overlap(labels.to(D), "jaccard"), 3.0, anchors)
    assert float(terms["triplet"].detach()) == pytest.approx(float(plain) / 6, abs=1e-12)
    twice = MultiLevel(Setting(12, 3, True, torch.ones(3), 8)).double()
    doubled = twice.terms(codes.repeat(1, 2), labels.to(D), anchors)["triplet"]
    assert float(doubled.detach()) == pytest.approx(float(terms["triplet"].detach()), abs=1e-12)
    levels = TwoLevelLoss(SEVERAL, classification=0.0)
    for code in (codes, codes.repeat(1, 2)):
        pair = levels(Output(code, extra={"local": code}), Batch((None,), labels.to(D), anchors))["global pair"]
        total = 0.0
        for i in range(5):
            for j in range(i + 1, 5):
                distance = float((code[i] - code[j]).square().sum())
                alike = bool((labels[i] * labels[j]).any())
                total += distance if alike else max(0.0, 2.0 * code.shape[1] - distance)
        assert float(pair) == pytest.approx(total / 10 / 2 / code.shape[1], abs=1e-9)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.integers(2, 9))
def test_pairs_of_a_difference_are_proper_and_every_image_that_has_one_is_first(seed, count):
    g = torch.Generator().manual_seed(seed)
    labels = (torch.rand(count, 4, generator=g) < 0.5).float()
    first, second = overlapping(labels, g)

    def proper(i, j):
        a, b = ({c for c in range(4) if labels[row, c]} for row in (i, j))
        return bool(a & b) and bool(a - b)

    assert all(proper(i, j) for i, j in zip(first.tolist(), second.tolist(), strict=True))
    assert first.tolist() == [i for i in range(count) if any(proper(i, j) for j in range(count))]
    made = algebra("difference", labels[first], labels[second])
    assert (made != labels[first]).any(1).all()
    assert (made.sum(1) > 0).all()


def test_all_suitable_partners_are_drawn():
    labels = torch.tensor([[1.0, 1, 1, 0], [1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 0, 1]])
    g = torch.Generator().manual_seed(0)
    drawn = {int(overlapping(labels, g)[1][0]) for _ in range(40)}
    assert drawn == {1, 2}


@pytest.mark.parametrize("tie", [False, True])
def test_a_residual_operator_is_the_linear_one_plus_two_layers(tie):
    torch.manual_seed(0)
    made = Operators(3, tie, "residual").double()
    a, b = torch.randn(2, 3, dtype=D), torch.randn(2, 3, dtype=D)
    linear = Operators(3, tie).double()
    linear.load_state_dict({n: v for n, v in made.state_dict().items() if n.startswith("maps.")})
    made.requires_grad_(False)
    linear.requires_grad_(False)
    for name in ("union", "intersection", "difference"):
        assert torch.equal(made(name, a, b), linear(name, a, b))  # at first nothing is added
        part = made.corrections[name]
        part.second.weight.data.normal_()
        part.second.bias.data.normal_()
        expected = linear(name, a, b).clone()
        for x, y in [(a, b), (b, a)] if tie and name != "difference" else [(a, b)]:
            for row in range(2):
                pair = [*x[row].tolist(), *y[row].tolist()]
                units = [
                    max(0.0, sum(w * v for w, v in zip(weights.tolist(), pair, strict=True)) + float(bias))
                    for weights, bias in zip(part.first.weight, part.first.bias, strict=True)
                ]
                for k in range(3):
                    expected[row, k] += sum(
                        w * u for w, u in zip(part.second.weight[k].tolist(), units, strict=True)
                    ) + float(part.second.bias[k])
        assert torch.allclose(made(name, a, b), expected, atol=1e-12)
        if tie and name != "difference":
            assert torch.allclose(made(name, a, b), made(name, b, a), atol=1e-12)


@pytest.mark.parametrize("operator", ["linear", "residual"])
def test_the_weight_of_the_adversary_rises_after_the_warm_up(operator):
    data, seen = synthetic_splits(multilabel=True), []
    torch.manual_seed(0)
    method = DCOH(data.setting(4), Probe(), hidden=16, warmup=0.2, operator=operator)
    run = Run(Budget(epochs=5, batch=120), 0)
    step = run.step

    def watched(optimizer, losses, backward=None):
        if "adversarial" in losses:
            seen.append(float(losses["adversarial"].detach()))
        elif "triplet" in losses:
            seen.append(None)
        step(optimizer, losses, backward)

    run.step = watched
    method.train()
    method.fit(data.train, run)
    assert seen[:3] == [None, None, 0.0]
    assert all(value > 0 for value in seen[3:])
    assert [risen(p, 0.2) for p in (0.2, 0.3, 0.4, 1.0)] == [0.0, 0.5, 1.0, 1.0]
