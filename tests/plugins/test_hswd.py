"""hswd: the quantization term against drawn signs and plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from hashzoo_plugins.pointwise import bihalf, hswd
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles.toy import SETTING, Y, Z, made, near, terms


def term(code, **options):
    return terms(hswd.HSWD(SETTING, weight=1.0, **options), code, Y)["hswd"]


@pytest.mark.parametrize("count", [1, 2, 5, 64])
def test_the_expectation_of_sorted_signs_is_that_of_counted_coins(count):
    for i, value in enumerate(hswd.expected_signs(count).tolist(), 1):
        tails = sum(math.comb(count, t) for t in range(i, count + 1)) / 2**count
        assert value == pytest.approx(1 - 2 * tails)


def test_the_default_term_is_the_mean_over_all_draws_of_signs():
    signs = torch.tensor([[1.0 if draw >> i & 1 else -1.0 for i in range(3)] for draw in range(8)]).double()
    columns = Z.sort(dim=0).values
    means = [(columns - row.sort().values[:, None]).square().mean() for row in signs]
    near(term(Z), sum(means) / 8, 1e-12)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), st.integers(2, 9), st.integers(1, 4))
def test_halves_are_the_code_of_bihalf(seed, count, bits):
    code, _, _ = made(seed, count, bits)
    near(term(code, target="halves"), (code - bihalf.halves(code, 0.0)).square().mean(), 1e-9)


def test_drawn_signs_vary_about_the_expectation():
    torch.manual_seed(0)
    values = torch.stack([term(Z, target="random") for _ in range(2000)])
    assert float(values.std()) > 0.1
    assert abs(float(values.mean() - term(Z))) < 4 * float(values.std()) / 2000**0.5


@pytest.mark.parametrize("target", ["expected", "halves"])
def test_the_term_is_least_for_balanced_bits_and_does_not_depend_on_the_order_of_the_batch(target):
    balanced, skewed = torch.ones(8, 2).double(), torch.ones(8, 2).double()
    balanced[:4] = -1
    assert term(balanced, target=target) < term(skewed, target=target)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    near(term(balanced[order], target=target), term(balanced, target=target), 1e-12)


def test_halves_pull_to_one_and_the_expectation_to_less_in_the_middle_of_the_batch():
    balanced = torch.ones(64, 1).double()
    balanced[:32] = -1
    near(term(balanced, target="halves"), 0.0)
    assert term(0.9 * balanced) < term(balanced)  # drawn signs are rarely 1 in exactly half of a batch
    near(hswd.expected_signs(64).abs().mean(), 0.900653, 1e-5)


def test_the_gradient_agrees_with_finite_differences():
    for target in ("expected", "halves"):
        assert torch.autograd.gradcheck(lambda u, target=target: term(u, target=target), Z.clone().requires_grad_())
