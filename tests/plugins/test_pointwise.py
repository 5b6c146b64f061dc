"""Methods of single images and of no labels against worked values, plain loops and what their papers prove."""

from __future__ import annotations

import math

import pytest
import torch
from hashzoo_plugins.heads.linear import Norm
from hashzoo_plugins.pointwise import bihalf, centers, cibhash, csq, dhd, dpn, greedyhash, orthohash
from hashzoo_plugins.pointwise.features import mismatch
from hashzoo_plugins.quantization import gap, log_cosh, straight_through
from hypothesis import given, settings
from hypothesis import strategies as st

from hashzoo.evaluation.scoring import encode
from hashzoo.run import Run
from hashzoo.testing import Probe, synthetic_splits
from hashzoo.training.budget import Budget
from hashzoo.types import Features, Output, Setting
from tests.oracles.toy import CENTERS, SETTING, D, Y, Z, batch, made, near, t, terms

SEEDS = st.integers(0, 2**31)
SEVERAL = Setting(4, 2, True, torch.tensor([2, 1]), 3)


def with_centers(loss, name, rows=CENTERS):
    setattr(loss, name, rows)
    return loss


# --- worked values ---------------------------------------------------------------------------------------------------


def test_the_cubic_term_of_greedyhash_equals_the_reference_value():
    near(greedyhash.cubic(Z), 0.0555833333)


def test_csq_equals_the_reference_values():
    found = terms(with_centers(csq.CSQ(SETTING, quantization=1.0), "centers"), Z, Y)
    near(found["center"], 0.6953840379)
    near(found["quantization"], 0.1225)
    smooth = terms(with_centers(csq.CSQ(SETTING, quantization=1.0, quantizer="log-cosh"), "centers"), Z, Y)
    near(smooth["quantization"], 0.2365546738)


def test_dpn_equals_the_reference_values():
    found = terms(with_centers(dpn.DPN(SETTING), "targets"), Z, Y)["polarization"]
    near(found, 2.8333333333)
    near(found / 4, 0.7083333333)


@pytest.mark.parametrize(("margin", "value"), [(0.2, 1.5380967698), (0.0, 0.9101802683)])
def test_orthohash_equals_the_reference_values(margin, value):
    loss = with_centers(orthohash.OrthoHash(SETTING, margin=margin), "codebook")
    near(terms(loss, Z, Y)["codeword"], value)
    if margin == 0:  # without a margin angles and cosines are the same
        near(terms(with_centers(orthohash.arc(SETTING, margin=0.0), "codebook"), Z, Y)["codeword"], value)


def test_bihalf_equals_the_reference_codes_and_gradient():
    u = t([0.3, -1.2], [0.1, 0.4], [-0.5, 2.0], [0.9, 0.2]).requires_grad_()
    b = bihalf.halves(u, 6.0)
    near(b, t([1, -1], [-1, 1], [-1, 1], [1, -1]))
    (slope,) = torch.autograd.grad((b * 0).sum(), u)
    near(slope, t([-0.525, -0.15], [0.825, -0.45], [0.375, 0.75], [-0.075, 0.9]))


def test_cibhash_equals_the_reference_values():
    first, second = t([2, -1, 0.5, -3], [-1, 1, 2, 0.2]), t([1, -2, -0.5, -1], [-2, 0.5, 1, 0.4])
    found = terms(cibhash.CIBHashLoss(0.3, 0.001), first, torch.eye(2, dtype=D), second=second)
    near(found["contrast"], 0.0245652227)
    near(found["divergence"] / 0.001, 0.3377435281)
    near(sum(found.values()), 0.0249029662, 1e-9)


# --- centers ---------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 6), st.data())
def test_hadamard_centers_differ_in_half_of_the_bits_or_in_all(power, data):
    bits = 2**power
    rows = centers.hadamard_rows(data.draw(st.integers(1, 2 * bits)), bits)
    distances = {int(d) for d in ((bits - rows @ rows.T) / 2).flatten()}
    assert distances <= {0, bits // 2, bits}
    assert len(torch.unique(rows, dim=0)) == len(rows)


def test_hadamard_centers_are_refused_where_there_are_none():
    with pytest.raises(ValueError, match="must be a power of two"):
        centers.hadamard_rows(3, 12)
    with pytest.raises(ValueError, match="at most 32 classes"):
        centers.hadamard_rows(33, 16)
    assert centers.centers("auto", 33, 16).shape == (33, 16)
    assert centers.centers("auto", 10, 12).abs().eq(1).all()


def test_separated_centers_lie_farther_apart_than_coin_tosses():
    def least(rows):
        d = (rows.shape[1] - rows @ rows.T) / 2
        return float((d + 1e9 * torch.eye(len(rows))).min())

    torch.manual_seed(0)
    drawn = [(least(centers.separated_rows(20, 24)), least(centers.random_rows(20, 24))) for _ in range(10)]
    assert all(apart > tossed for apart, tossed in drawn)


def test_the_target_of_several_labels_is_the_vote_of_their_centers():
    rows, ties = t([1.0, -1, 1, -1], [1, 1, -1, -1], [-1, 1, 1, -1]), t(-1.0, -1, 1, 1)
    near(centers.vote(t([1.0, 1, 0], [1, 1, 1]), rows, ties), t([1.0, -1, 1, -1], [1, 1, 1, -1]))


@pytest.mark.parametrize("loss", [csq.CSQ, dpn.DPN])
def test_a_vote_of_many_labels_that_ends_even_is_decided_by_the_fixed_vector(loss):
    about = Setting(3, 6, True, torch.ones(6), 2)
    made_loss = loss(about)
    rows = torch.tensor([[1.0], [1], [1], [-1], [-1], [-1]]).repeat(1, 3)
    made_loss.register_buffer("centers" if loss is csq.CSQ else "targets", rows)
    found = []
    for side in (1.0, -1.0):
        made_loss.ties = torch.full((3,), side)
        found.append(next(iter(terms(made_loss, torch.full((1, 3), 0.9), torch.ones(1, 6)).values())))
    assert found[0] < found[1]  # sixths of six labels would not sum to 0


@pytest.mark.parametrize("loss", [csq.CSQ, dpn.DPN, orthohash.OrthoHash, dhd.DHD])
def test_an_image_without_a_label_is_named_by_losses_that_aim_at_labels(loss):
    labels = Y.clone()
    labels[1] = 0
    with pytest.raises(ValueError, match="at least one label per image"):
        terms(loss(SEVERAL).double(), Z, labels)


# --- plain loops and properties --------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(SEEDS, st.integers(1, 6), st.integers(1, 6))
def test_csq_and_dpn_equal_plain_loops(seed, count, bits):
    code, labels, draw = made(seed, count, bits, multilabel=True)
    h = torch.tanh(code)
    rows = torch.randint(0, 2, (3, bits), generator=draw, dtype=D) * 2 - 1
    ties = torch.randint(0, 2, (bits,), generator=draw, dtype=D) * 2 - 1
    about = Setting(bits, 3, True, torch.ones(3), count)
    bce = hinge = 0.0
    for i in range(count):
        for k in range(bits):
            total = sum(float(rows[c, k]) for c in range(3) if labels[i, c])
            target = float(ties[k]) if total == 0 else math.copysign(1, total)
            p = (float(h[i, k]) + 1) / 2
            bce -= math.log(p if target > 0 else 1 - p)
            hinge += max(0, 1 - float(code[i, k]) * target)
    central = with_centers(with_centers(csq.CSQ(about), "centers", rows), "ties", ties)
    near(terms(central, h, labels)["center"], bce / count / bits, 1e-5)
    polar = with_centers(with_centers(dpn.DPN(about), "targets", rows), "ties", ties)
    near(terms(polar, code, labels)["polarization"], hinge / count, 1e-9)


@settings(deadline=None, max_examples=30)
@given(SEEDS, st.integers(1, 6), st.integers(2, 6), st.sampled_from(["cos", "arc"]))
def test_orthohash_equals_plain_loops_and_does_not_see_the_length_of_a_code(seed, count, bits, kind):
    code, labels, draw = made(seed, count, bits, multilabel=True)
    rows = torch.randint(0, 2, (3, bits), generator=draw, dtype=D) * 2 - 1
    about = Setting(bits, 3, True, torch.ones(3), count)
    loss = with_centers(orthohash.OrthoHash(about, kind=kind), "codebook", rows)
    total = 0.0
    for i in range(count):
        scores = []
        for c in range(3):
            cosine = float(code[i] @ rows[c] / code[i].norm() / rows[c].norm())
            cosine = min(1 - 1e-6, max(1e-6 - 1, cosine)) if kind == "arc" else cosine
            own = bool(labels[i, c])
            scores.append(8 * (cosine - 0.2 * own if kind == "cos" else math.cos(math.acos(cosine) + 0.2 * own)))
        log_sum = math.log(sum(math.exp(s) for s in scores))
        total -= sum(s - log_sum for s, y in zip(scores, labels[i], strict=True) if y) / float(labels[i].sum())
    value = terms(loss, code, labels)["codeword"]
    near(value, total / count, 1e-9)
    lengths = torch.rand(count, 1, generator=draw, dtype=D) + 0.1
    near(terms(loss, code * lengths, labels)["codeword"], value, 1e-9)


@settings(deadline=None, max_examples=30)
@given(SEEDS, st.integers(1, 5), st.integers(1, 5))
def test_dpn_is_zero_only_where_every_output_lies_beyond_the_margin(seed, count, bits):
    code, _, draw = made(seed, count, bits)
    target = torch.randint(0, 2, (count, bits), generator=draw, dtype=D) * 2 - 1
    beyond = (1 + code.abs()) * target
    near(dpn.polarization(beyond, target, 1.0), torch.zeros(count))
    beyond[0, 0] = 0.9 * target[0, 0]
    near(dpn.polarization(beyond, target, 1.0)[0], 0.1)


def test_the_gradient_passes_the_sign_of_greedyhash_as_it_is():
    loss = greedyhash.GreedyHash(SETTING, alpha=0.0).double()
    code = Z.clone().requires_grad_()
    terms(loss, code, Y)["classification"].backward()
    b = straight_through(Z).requires_grad_()
    torch.nn.functional.cross_entropy(loss.classifier(b), Y).backward()
    near(code.grad, b.grad, 1e-12)
    assert float(code.grad.abs().max()) > 0


def test_cosines_of_features_are_matched_over_pairs_as_in_plain_loops():
    draw = torch.Generator().manual_seed(1)
    codes, features = (torch.randn(5, n, generator=draw, dtype=D) for n in (4, 7))
    values = []
    for i in range(5):
        for j in range(i):
            a, b = (float(x[i] @ x[j] / x[i].norm() / x[j].norm()) for x in (codes, features))
            values.append((a - b) ** 2)
    near(mismatch(codes, features), sum(values) / len(values), 1e-12)


@settings(deadline=None, max_examples=20)
@given(SEEDS, st.integers(2, 9), st.integers(1, 4))
def test_half_of_every_bit_is_one_in_a_batch_and_a_image_is_encoded_by_its_own_sign(seed, count, bits):
    code, _, _ = made(seed, count, bits)
    b = bihalf.halves(code, 6.0)
    assert ((b == 1).sum(0) == count // 2).all()
    for k in range(bits):  # none of the upper half lies below one of the lower half
        assert code[b[:, k] == 1, k].min() >= code[b[:, k] == -1, k].max()


def test_bihalf_encodes_by_sign_and_not_by_its_batch():
    from hashzoo.registry import zoo

    data = synthetic_splits()
    torch.manual_seed(0)
    method = zoo.load_plugins().method("bihalf").factory(data.setting(8), Probe())
    run = Run(Budget(epochs=1), 0)
    method.fit(data.train, run)
    whole, alone = encode(run, method, data.query), encode(run, method, data.query, size=1)
    assert float((whole["code"] == alone["code"]).float().mean()) > 0.995
    assert not torch.equal(whole["code"].sum(0), torch.full((8,), len(data.query) // 2))


@settings(deadline=None, max_examples=30)
@given(SEEDS, st.integers(2, 5), st.integers(1, 5))
def test_cibhash_equals_plain_loops(seed, count, bits):
    code, _, _ = made(seed, 2 * count, bits)
    first, second = code[:count], code[count:]
    b = [[1.0 if x >= 0 else -1.0 for x in row] for row in code.tolist()]
    total = 0.0
    for i in range(2 * count):
        scores = {
            j: math.exp(sum(p * q for p, q in zip(b[i], b[j], strict=True)) / bits / 0.3)
            for j in range(2 * count)
            if j != i
        }
        total -= math.log(scores[(i + count) % (2 * count)] / sum(scores.values()))
    kl = 0.0
    for z, w in ((first, second), (second, first)):
        p, q = torch.sigmoid(z), torch.sigmoid(w)
        kl += float((p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum())
    found = terms(cibhash.CIBHashLoss(0.3, 1.0), first, torch.eye(count, dtype=D), second=second)
    near(found["contrast"], total / (2 * count), 1e-9)
    near(found["divergence"], kl / 2 / count, 1e-9)
    assert float(cibhash.divergence(first, second).min()) >= -1e-12
    near(cibhash.divergence(first, first), torch.zeros(count), 1e-12)


def test_the_fixed_side_of_a_divergence_gets_no_gradient():
    z, fixed = Z.clone().requires_grad_(), (Z + 0.1).requires_grad_()
    cibhash.divergence(z, fixed).sum().backward()
    assert fixed.grad is None
    assert z.grad is not None


def test_single_stream_dhd_normalises_every_code_and_has_the_loss_of_the_dual_stream():
    torch.manual_seed(0)
    data = synthetic_splits()
    method = dhd.DeepHashDistillation(data.setting(8), Probe())
    assert isinstance(method.head.norm, torch.nn.LayerNorm)
    first, second = (torch.tanh(torch.randn(4, 8)) for _ in range(2))
    labels = torch.eye(6)[[0, 1, 2, 2]]
    found = method.loss(Output(first, extra={"second": second}), batch(labels))
    alone = method.loss(Output(first), batch(labels))
    assert set(found) - set(alone) == {"distillation"}
    near(found["proxy"], alone["proxy"])
    near(found["distillation"], 0.1 * (1 - torch.cosine_similarity(first, second)).mean())


def test_one_bit_is_not_normalised_against_itself():
    with pytest.raises(ValueError, match="two bits or more"):
        dhd.DeepHashDistillation(Setting(1, 2, False, torch.tensor([2, 1]), 3), Probe())


def test_the_head_of_orthohash_balances_its_bits_over_a_batch():
    torch.manual_seed(0)
    code = Norm(SETTING, Probe())(Features(torch.randn(32, 128) + 3)).code
    near(code.mean(0), torch.zeros(4), 1e-5)
    near(code.var(0, correction=0), torch.ones(4), 1e-3)


@settings(deadline=None, max_examples=20)
@given(SEEDS)
def test_the_gap_to_a_bit_is_that_of_the_size_to_one(seed):
    code, _, _ = made(seed, 3, 4)
    near(gap(code).abs(), (code.abs() - 1).abs(), 1e-12)
    near(log_cosh(gap(code)), torch.log(torch.cosh(code.abs() - 1)), 1e-12)


#: What holds one number a bit in each loss: it moves with the bits.
BY_BIT = {
    csq.CSQ: ("centers", "ties"),
    dpn.DPN: ("targets", "ties"),
    orthohash.OrthoHash: ("codebook",),
    orthohash.arc: ("codebook",),
    dhd.DHD: ("proxies",),
    greedyhash.GreedyHash: ("classifier.weight",),
    greedyhash.Unsupervised: (),
    bihalf.BiHalf: (),
}


@pytest.mark.parametrize("factory", BY_BIT, ids=lambda factory: factory.__name__)
@pytest.mark.parametrize("several", [False, True], ids=["one label", "several"])
def test_bits_may_change_places_or_sides_together_with_what_belongs_to_them(factory, several):
    code, labels, draw = made(5, 6, 4, multilabel=several)
    code = 0.9 * torch.tanh(code)
    torch.manual_seed(0)
    loss = factory(Setting(4, 3, several, torch.full((3,), 2), 6)).double()
    features = torch.randn(6, 5, generator=draw, dtype=D)
    value = sum(terms(loss, code, labels, features=features).values())
    places, sides = torch.randperm(4, generator=draw), torch.tensor([1.0, -1, -1, 1], dtype=D)
    parts = {**dict(loss.named_parameters()), **dict(loss.named_buffers())}
    before = {name: parts[name].detach().clone() for name in BY_BIT[factory]}
    for turned in (lambda x: x[..., places], lambda x: x * sides):
        for name, old in before.items():
            parts[name].data.copy_(turned(old))
        near(sum(terms(loss, turned(code), labels, features=features).values()), value, 1e-9)
    for name, old in before.items():
        parts[name].data.copy_(old)
    order = torch.randperm(6, generator=draw)
    near(sum(terms(loss, code[order], labels[order], features=features[order]).values()), value, 1e-9)
