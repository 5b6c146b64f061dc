"""wch: the loss against plain loops and worked values, patches that match, and the faults of its public code."""

from __future__ import annotations

import math

import pytest
import torch
from hashzoo_plugins.pointwise import wch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, normalize

from hashzoo.testing import Probe
from hashzoo.types import Batch, Features, Output, Setting, signs
from tests.oracles.toy import SETTING, D, Y, Z, batch, made, near, t, terms
from tests.plugins.test_unsupervised import cosine

EIGHT = Setting(8, 2, False, torch.tensor([1, 1]), 2)


def patches(draw, images, count=3, width=2):
    return torch.randn(images, count, width, generator=draw, dtype=D)


def matched(first, second):
    """s_ij by its definition."""
    return [
        [sum(max(cosine(p, q) for q in b) for p in a) / len(a) for b in second.tolist()]
        for a in first.tolist()
    ]  # fmt: skip


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), st.integers(2, 5))
def test_wch_equals_plain_loops(seed, count):
    first, labels, draw = made(seed, count, 4)
    second = torch.randn(count, 4, generator=draw, dtype=D)
    ours, theirs = patches(draw, count), patches(draw, count)
    loss = wch.WCH(SETTING, temperature=0.5, patch_temperature=0.4, weight=0.7)
    found = terms(loss, first, labels, second=second, patches=ours, **{"second patches": theirs})
    h, g, s, total = signs(first).tolist(), signs(second).tolist(), matched(ours, theirs), 0.0
    for i in range(count):
        c = [sum(a * b for a, b in zip(h[i], g[j], strict=True)) / (4 * 0.5) for j in range(count)]
        norm = math.log(sum(map(math.exp, c)))
        total -= sum(math.exp((s[i][j] - s[i][i]) / 0.4) * (c[j] - norm) for j in range(count))
    near(found["contrast"], total / count, 1e-9)
    near(found["balance"], 0.7 * sum((sum(row[k] for row in h) / count) ** 2 for k in range(4)) / 4, 1e-9)
    near(found["energy"], -0.7)


def test_wch_equals_worked_values():
    code, one = t([0.5, -2.0], [-1.0, -0.1]), t([1, 0], [0, 1])
    found = terms(wch.WCH(SETTING), code, Y[:2], patches=torch.stack([one, one[[0, 0]]]))
    # s is [1, .5], [1, 1]: every patch of the second image is in the first; c is 1 / .3 on the diagonal, else 0
    norm = math.log(math.exp(1 / 0.3) + 1)
    near(found["contrast"], (norm - 1 / 0.3 + math.exp(-0.5 / 0.2) * norm + norm - 1 / 0.3 + norm) / 2)
    near(found["balance"], 0.5)


def test_patches_are_described_by_those_of_the_other_view_that_are_alike():
    first, second = t([1, 0], [0, 1])[None], t([0, 3], [2, 0])[None]
    e = math.e
    a, b = wch.mutual(first, second)
    near(a, t([2 * e, 3], [2, 3 * e]) / (e + 1))
    near(b, t([1, e], [e, 1]) / (e + 1))
    far = wch.mutual(*(100 * one for one in (first, second)))
    near(far[0], 100 * a)  # cosines do not see the length, means do


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 4))
def test_the_best_match_of_an_image_is_itself_in_any_order_of_its_patches(seed, images, count):
    draw = torch.Generator().manual_seed(seed)
    x = patches(draw, images, count)
    found = wch.best_matches(x, x[:, torch.randperm(count, generator=draw)])
    near(found.diagonal(), torch.ones(images), 1e-9)
    assert float(found.max()) <= 1 + 1e-9
    near(found, wch.best_matches(3 * x, x), 1e-9)


def test_the_gradient_is_that_of_the_terms_at_the_signs_by_finite_differences():
    first, labels, draw = made(7, 6, 4)
    second = torch.randn(6, 4, generator=draw, dtype=D)
    extra = {name: patches(draw, 6) for name in ("patches", "second patches")}
    loss = wch.WCH(SETTING)

    def value(a, b):
        return sum(terms(loss, a, labels, second=b, **extra).values())

    def smooth(h, g):  # the same terms of any h, not only of signs
        alike = wch.best_matches(extra["patches"], extra["second patches"])
        w = (alike / 0.2).softmax(1)
        return cross_entropy(h @ g.T / 1.2, w / w.diagonal()[:, None]) + h.mean(0).square().mean() - h.square().mean()

    codes = first.requires_grad_(), second.requires_grad_()
    found = torch.autograd.grad(value(*codes), codes)
    at = tuple(signs(code.detach()).requires_grad_() for code in codes)
    assert torch.autograd.gradcheck(smooth, at)
    for one, expected in zip(found, torch.autograd.grad(smooth(*at), at), strict=True):
        near(one, expected, 1e-12)


def test_labels_are_not_read_and_the_order_of_the_batch_does_not_matter():
    code, labels, draw = made(5, 6, 4)
    x, order = patches(draw, 6), torch.tensor([3, 0, 5, 1, 4, 2])
    one = terms(wch.WCH(SETTING), code, labels, patches=x)
    assert terms(wch.WCH(SETTING), code, labels * 0, patches=x) == one
    other = terms(wch.WCH(SETTING), code[order], labels, patches=x[order])
    near(torch.stack(list(other.values())), torch.stack(list(one.values())), 1e-9)


def test_the_targets_have_no_gradient_unlike_those_of_the_public_code():
    """With one, the loss falls by making the patches of different images unlike, whatever the codes are."""
    code, labels, draw = made(1, 4, 4)
    x = patches(draw, 4).requires_grad_()
    found = sum(terms(wch.WCH(SETTING), code.requires_grad_(), labels, patches=x).values())
    assert torch.autograd.grad(found, x, allow_unused=True) == (None,)

    n = normalize(x, dim=2)
    alike = torch.einsum("nid,mjd->nmij", n, n).amax(3).mean(2)
    public = cross_entropy((signs(code) @ signs(code).T / 1.2).detach(), (alike / 0.2).softmax(1) / 0.5)
    assert torch.autograd.grad(public, x)[0].abs().max() > 1e-3


def test_tanh_does_not_start_saturated_as_with_the_weights_of_the_public_code():
    torch.manual_seed(0)
    head = wch.PatchHead(EIGHT, Probe())
    features = Features(torch.zeros(64, 128), [torch.rand(64, 32, 2, 2)])
    slope = 1 - head(features).code.detach().square()
    assert float(slope.min()) > 0.5
    for layer in (head.layers[0], head.layers[2]):
        torch.nn.init.kaiming_uniform_(layer.weight, mode="fan_out")
        torch.nn.init.normal_(layer.bias)
    assert float((1 - head(features).code.detach().square()).median()) < 1e-3


def test_both_views_reach_the_loss_and_attend_to_each_other_in_training_alone():
    method = wch.WeightedContrast(EIGHT, Probe()).eval()
    first, second = method.views
    assert first == second
    images = torch.rand(2, 3, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    output = method.seen(Batch((images[0], images[1]), torch.eye(3), torch.arange(3)))
    one, two = (method.backbone(view) for view in images)
    a, b = wch.mutual(wch.tokens(one), wch.tokens(two))
    near(output.extra["patches"], a)
    near(output.extra["second patches"], b)
    near(output.code, torch.tanh(method.head.layers(method.head.norm(a.mean(1)))))
    alone = method.head(one)
    near(alone.code, torch.tanh(method.head.layers(method.head.norm(one.maps[-1].mean((2, 3))))))
    assert not torch.equal(alone.code, output.code)
    assert torch.equal(method.relaxed(Batch((images[0],), torch.eye(3), torch.arange(3))), alone.code)


def test_a_backbone_or_head_without_patches_is_refused_in_one_line():
    plain = Probe()
    plain.map_dims = ()
    with pytest.raises(
        ValueError, match="wch needs patch tokens, but this backbone has no feature map; use"
    ) as refused:
        wch.WeightedContrast(EIGHT, plain)
    assert "\n" not in str(refused.value)
    with pytest.raises(ValueError, match="wch needs a head that returns patches, such as wch"):
        wch.WCH(SETTING)(Output(Z), batch(Y))
