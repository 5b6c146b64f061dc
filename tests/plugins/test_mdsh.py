"""mdsh: centers with a guaranteed smallest distance, the loss against plain loops, the copy of the network."""

from __future__ import annotations

import math

import pytest
import torch
from hashzoo_plugins.pointwise import centers as plain
from hashzoo_plugins.pointwise import csq, dpn, mds, mdsh, orthohash
from hypothesis import given, settings
from hypothesis import strategies as st

from hashzoo.run import Run
from hashzoo.testing import Probe, synthetic_splits
from hashzoo.training.budget import Budget
from hashzoo.types import Batch, Output, Setting
from tests.oracles.toy import CENTERS, SETTING, D, Y, Z, made, near, terms

LENGTHS = (16, 32, 48, 64, 128)
BOUNDS = {
    10: (6, 13, 21, 28, 58),
    21: (6, 12, 19, 26, 56),
    80: (5, 11, 17, 24, 52),
    100: (4, 10, 17, 24, 52),
    1000: (3, 8, 14, 21, 48),
}


def loss_with(rows, setting=SETTING, **options):
    loss = mdsh.MDSHLoss(setting, **options).double()
    loss.centers = rows
    return loss


# --- centers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", BOUNDS)
def test_the_bound_is_that_of_gilbert_and_varshamov(classes):
    assert tuple(mds.distance_bound(classes, bits) for bits in LENGTHS) == BOUNDS[classes]


@pytest.mark.parametrize(("classes", "bits"), [(c, k) for c in BOUNDS for k in LENGTHS if c < 1000 or k in (16, 64)])
def test_the_smallest_distance_of_centers_reaches_the_bound(classes, bits):
    torch.manual_seed(classes + bits)
    rows = mds.distant_rows(classes, bits)
    assert rows.shape == (classes, bits)
    assert rows.abs().eq(1).all()
    assert mds.smallest_distance(rows) >= mds.distance_bound(classes, bits)


def test_hadamard_rows_are_taken_where_they_are_farther_apart():
    assert mds.smallest_distance(mds.distant_rows(10, 64)) == 32
    assert mds.smallest_distance(mds.distant_rows(2, 8)) == 8  # two opposite centers, farther than any two rows


@pytest.mark.parametrize(("classes", "bits", "least"), [(1, 8, 8), (3, 2, 1), (10, 1, 0), (100, 4, 0)])
def test_more_classes_than_far_codes_still_have_centers(classes, bits, least):
    rows = mds.distant_rows(classes, bits)
    assert rows.shape == (classes, bits)
    assert mds.smallest_distance(rows) == least


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), st.integers(2, 12), st.integers(2, 24))
def test_flips_raise_the_mean_distance_and_keep_the_smallest(seed, classes, bits):
    torch.manual_seed(seed)
    before = torch.randint(0, 2, (classes, bits)).float() * 2 - 1
    least = mds.smallest_distance(before)
    after = mds.spread(before, least)
    assert mds.smallest_distance(after) >= least
    assert (after @ after.T).sum() <= (before @ before.T).sum()
    assert before.abs().eq(1).all()  # not changed in place


def test_the_distance_of_rows_is_counted_as_in_plain_loops():
    torch.manual_seed(0)
    rows = torch.randint(0, 2, (7, 9)).float() * 2 - 1
    counted = [
        sum(a != b for a, b in zip(x, y, strict=True)) for i, x in enumerate(rows.tolist()) for y in rows[:i].tolist()
    ]
    assert mds.smallest_distance(rows) == min(counted)


# --- loss ------------------------------------------------------------------------------------------------------------


def test_mdsh_equals_worked_values():
    found = terms(loss_with(CENTERS, quantization=1.0), Z, Y, progress=0.5)
    # cosines with the centers of row 1: 3 / (2 |z|), (.9 - .8 - .7 + .6) / (2 |z|), |z|^2 = 2.3
    first = [2 * c / (2 * math.sqrt(2.3)) for c in (3.0, 0.0)]
    p = math.exp(first[0]) / (math.exp(first[0]) + math.exp(first[1]))
    near(mdsh.center_entropy(Z[:1], CENTERS, Y[:1]), [-math.log(p), -math.log(p)])  # 1 - p of the other class is p
    near(found["quantization"], 0.1225)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), st.integers(1, 5), st.integers(2, 6), st.booleans())
def test_mdsh_equals_plain_loops(seed, count, bits, several):
    code, labels, draw = made(seed, count, bits, multilabel=several)
    rows = torch.randint(0, 2, (3, bits), generator=draw, dtype=D) * 2 - 1
    keys = torch.randn(count, bits, generator=draw, dtype=D)
    loss = loss_with(rows, Setting(bits, 3, several, torch.ones(3), count + 2), beta=2.0, quantization=0.5)
    found = terms(loss, code, labels, progress=0.5, key=keys)

    def cosine(a, b):
        return float(a @ b / a.norm() / b.norm())

    center, pulls = 0.0, []
    for i in range(count):
        logits = [math.sqrt(bits) * cosine(code[i], row) for row in rows]
        p = [math.exp(one) / sum(map(math.exp, logits)) for one in logits]
        center -= sum(math.log(q) if s else math.log(1 - q) for q, s in zip(p, labels[i], strict=True))
        for n in range(count):
            if float(labels[i] @ labels[n]):
                pulls.append(math.log(1 + math.exp((1 - cosine(code[i], keys[n])) / 2)))
    near(found["center"], center / count / 3, 1e-9)
    near(found["pair"], 2 * sum(pulls) / len(pulls), 1e-9)
    near(found["quantization"], 0.5 * (code.abs() - 1).square().mean(), 1e-9)


def test_images_that_were_not_seen_yet_do_not_count():
    loss = loss_with(CENTERS, Setting(4, 2, False, torch.tensor([2, 1]), 1000))
    near(terms(loss, Z, Y, progress=1.0)["pair"], terms(loss_with(CENTERS), Z, Y, progress=1.0)["pair"], 1e-12)
    assert int(loss.known.sum()) == 3


def test_codes_of_a_training_set_are_compared_with_its_images_alone_and_give_the_same_terms():
    ids = torch.tensor([900, 7, 41])
    whole, stored = (loss_with(CENTERS, Setting(4, 2, False, torch.tensor([2, 1]), 1000)) for _ in range(2))
    stored.store(torch.tensor([7, 41, 500, 900]))
    found = [loss(Output(Z), Batch((None,), Y, ids, progress=1.0)) for loss in (whole, stored)]
    near(found[0]["pair"], found[1]["pair"], 1e-12)
    assert (len(whole.bank), len(stored.bank), int(stored.known.sum())) == (1000, 4, 3)


def test_the_pull_between_images_starts_after_a_share_of_the_training():
    loss = loss_with(CENTERS, start=0.3)
    assert "pair" not in terms(loss, Z, Y, progress=0.2)
    assert "pair" in terms(loss, Z, Y, progress=0.3)
    assert "pair" not in terms(loss_with(CENTERS, beta=0.0), Z, Y, progress=1.0)


def test_the_gradient_of_the_pull_passes_the_code_and_not_the_stored_codes():
    loss, keys = loss_with(CENTERS), torch.randn(3, 4, dtype=D)
    code = Z.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda u: sum(terms(loss, u, Y, progress=1.0, key=keys).values()), code, atol=1e-6)


def test_two_opposite_centers_at_128_bits_give_finite_terms():
    rows = torch.ones(2, 128) * torch.tensor([[1.0], [-1]])
    code = rows.clone().requires_grad_()
    logits = 128**0.5 * torch.nn.functional.normalize(code) @ torch.nn.functional.normalize(rows).T
    p = logits.softmax(1)
    assert torch.isnan((1 - torch.eye(2)) * torch.log(1 - p)).any()  # the formula as it stands
    for labels in (torch.eye(2), torch.eye(2).flip(0)):  # all right, all wrong
        value = mdsh.center_entropy(code, rows, labels).mean()
        (slope,) = torch.autograd.grad(value, code)
        assert torch.isfinite(value)
        assert torch.isfinite(slope).all()


# --- training --------------------------------------------------------------------------------------------------------


def test_the_stored_codes_are_those_of_the_copy_and_without_momentum_those_of_the_network():
    data = synthetic_splits()

    def fitted(momentum):
        torch.manual_seed(0)
        method = mdsh.MDSH(data.setting(8), Probe(), momentum=momentum)
        method.train()
        seen = []
        method.loss.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        method.fit(data.train, Run(Budget(epochs=1, batch=64, lr=0.1), 0))
        return seen

    same, late = fitted(0.0), fitted(0.9)
    assert all(torch.equal(output.code.detach(), output.extra["key"]) for output in same)
    assert torch.equal(late[0].code.detach(), late[0].extra["key"])  # the copy starts as the network
    assert not torch.allclose(late[-1].code.detach(), late[-1].extra["key"], atol=1e-3)


def test_neither_the_copy_nor_the_stored_codes_are_saved_with_the_method():
    data = synthetic_splits()
    method = mdsh.MDSH(data.setting(8), Probe())
    assert not [name for name in method.state_dict() if "bank" in name or "known" in name or "copy" in name]
    with pytest.raises(ValueError, match=r"at least 0 and below 1, not 1\.0"):
        mdsh.MDSH(data.setting(8), Probe(), momentum=1.0)


@pytest.mark.parametrize(
    ("loss", "option", "name"),
    [
        (csq.CSQ, "center", "centers"),
        (dpn.DPN, "targets", "targets"),
        (orthohash.OrthoHash, "codebook", "codebook"),
        (orthohash.arc, "codebook", "codebook"),
        (mdsh.MDSHLoss, "centers", "centers"),
    ],
)
def test_losses_with_centers_take_those_with_a_guaranteed_distance(loss, option, name):
    setting = Setting(24, 40, False, torch.ones(40), 40)
    torch.manual_seed(0)
    rows = getattr(loss(setting, **{option: "mds"}), name)
    assert mds.smallest_distance(rows) >= mds.distance_bound(40, 24)
    torch.manual_seed(0)
    assert torch.equal(rows, mds.distant_rows(40, 24))


@pytest.mark.parametrize("kind", ["random", "separated", "auto", "hadamard"])
def test_other_kinds_of_centers_are_drawn_as_before(kind):
    torch.manual_seed(3)
    rows, after = mds.centers(kind, 10, 16), torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(rows, plain.centers(kind, 10, 16))
    assert torch.equal(after, torch.rand(1))
