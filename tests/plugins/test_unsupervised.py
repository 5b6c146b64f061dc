"""CroVCA, SDC, NSH and UHSCM against worked values, plain loops, what their papers prove, and faults of public code."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from hashzoo_plugins.pointwise import crovca, nsh, sdc, uhscm
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, normalize

from hashzoo.errors import UsageError
from hashzoo.run import Run
from hashzoo.testing import Probe, synthetic_splits
from hashzoo.training.budget import Budget
from hashzoo.types import Batch, Output, Setting, signs
from tests.oracles.toy import SETTING, D, Y, Z, batch, made, near, t, terms

SEEDS = st.integers(0, 2**31)
MANY = settings(deadline=None, max_examples=20)


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def bce(logit, target):
    p = 1 / (1 + math.exp(-logit))
    return -math.log(p if target else 1 - p)


# --- crovca ----------------------------------------------------------------------------------------------------------


def coding_rate(rows, eps):
    """R(p) by its definition, with the determinant of the (K, K) matrix."""
    m, k = rows.shape
    z = rows / rows.norm(dim=1, keepdim=True)
    return -((k + m) / (k * m)) * 0.5 * float(torch.linalg.slogdet(torch.eye(k, dtype=D) + k / (m * eps) * z.T @ z)[1])


@MANY
@given(SEEDS, st.integers(1, 7), st.integers(1, 7))
def test_crovca_equals_plain_loops(seed, count, bits):
    first, labels, draw = made(seed, count, bits)
    second = torch.randn(count, bits, generator=draw, dtype=D)
    found = terms(crovca.unsupervised(SETTING, gamma=0.3), first, labels, second=second)
    views, total = (first.tolist(), second.tolist()), 0.0
    for v in (0, 1):
        for i in range(count):
            total += sum(bce(views[v][i][k], views[1 - v][i][k] >= 0) for k in range(bits))
    near(found["alignment"], total / (2 * count * bits), 1e-9)
    near(found["rate"], 0.3 * (coding_rate(first, 0.05) + coding_rate(second, 0.05)) / 2, 1e-9)


@MANY
@given(SEEDS, st.integers(1, 6), st.booleans())
def test_supervised_crovca_equals_plain_loops(seed, count, multilabel):
    first, labels, draw = made(seed, count, 4, multilabel=multilabel)
    second = torch.randn(count, 4, generator=draw, dtype=D)
    found = terms(crovca.supervised(SETTING), first, labels, second=second)
    total = 0.0
    for i in range(count):
        for k in range(4):
            target = 0.0
            for c in range(3):
                members = [float(p[j, k]) for p in (first, second) for j in range(count) if labels[j, c]]
                target += sum(members) / len(members) if labels[i, c] else 0.0
            total += sum(bce(float(p[i, k]), target >= 0) for p in (first, second))
    near(found["alignment"], total / (2 * count * 4), 1e-9)


def test_the_rate_is_least_for_codes_that_fill_the_space_and_greatest_for_one_code():
    spread, one = torch.eye(8, dtype=D), torch.ones(8, 8, dtype=D)
    draw = torch.Generator().manual_seed(0)
    others = [torch.randn(8, 8, generator=draw, dtype=D) for _ in range(20)]
    assert all(crovca.rate(spread, 0.05) < crovca.rate(p, 0.05) < crovca.rate(one, 0.05) for p in others)
    near(crovca.rate(3 * others[0], 0.05), crovca.rate(others[0], 0.05))  # the length of a code does not matter


def test_the_targets_of_crovca_have_no_gradient_and_a_zero_is_a_one():
    first, second = (Z.clone().requires_grad_() for _ in range(2))
    loss = crovca.unsupervised(SETTING, gamma=0.0)
    loss(Output(first, extra={"second": second}), batch(Y))["alignment"].backward()
    near(first.grad, (torch.sigmoid(Z) - (Z >= 0).to(D)) / (2 * Z.numel()), 1e-12)
    assert loss.targets([torch.zeros(1, 2), torch.zeros(1, 2)], Y)[0].all()


def test_with_labels_an_image_without_one_is_refused_instead_of_having_a_code_of_zeros():
    labels = Y.clone()
    labels[1] = 0
    with pytest.raises(ValueError, match="crovca-s needs at least one label per image"):
        terms(crovca.supervised(SETTING), Z, labels)


@pytest.mark.parametrize(("size", "widths"), [("small", [128]), ("large", [2048, 2048])])
def test_the_hash_coder_has_the_layers_of_its_size_and_starts_small(size, widths):
    torch.manual_seed(0)
    head = crovca.HashCoder(Setting(16, 2, False, torch.tensor([1, 1]), 2), Probe(), size=size)
    layers = [layer for layer in head.layers if isinstance(layer, torch.nn.Linear)]
    assert [layer.out_features for layer in layers] == [*widths, 16]
    assert all(float(layer.weight.detach().std()) == pytest.approx(0.02, rel=0.1) for layer in layers)
    assert not any(layer.bias.any() for layer in layers)
    assert isinstance(head.layers[-1], torch.nn.BatchNorm1d)


@pytest.mark.parametrize("method", [crovca.CroVCA, crovca.CroVCASupervised, nsh.NaturallySorted])
def test_both_views_are_drawn_alike_and_reach_the_loss(method):
    made_method = method(Setting(8, 2, False, torch.tensor([1, 1]), 2), Probe()).eval()
    first, second = made_method.views
    assert first == second
    assert first.strength == 1
    images = torch.rand(2, 3, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    output = made_method.seen(Batch((images[0], images[1]), torch.eye(3), torch.arange(3)))
    near(output.code, made_method.head(made_method.backbone(images[0])).code)
    near(output.extra["second"], made_method.head(made_method.backbone(images[1])).code)
    if method is nsh.NaturallySorted:
        near(output.extra["second latent"].norm(dim=1), torch.ones(3))
        assert not torch.equal(output.extra["latent"], output.extra["second latent"])


# --- sdc -------------------------------------------------------------------------------------------------------------


def test_the_targets_of_sdc_are_quantiles_by_integration():
    """Beta(2, 2) has the density 6 x (1 - x) and the distribution function 3 x^2 - 2 x^3."""
    for i, target in enumerate(sdc.quantiles(5, 2.0).tolist()):
        x = (target + 1) / 2
        assert 3 * x**2 - 2 * x**3 == pytest.approx((2 * i + 1) / 10)


@MANY
@given(SEEDS, st.integers(2, 9), st.booleans())
def test_sdc_equals_plain_loops(seed, count, floor):
    code, labels, draw = made(seed, count, 4)
    features = torch.randn(count, 5, generator=draw, dtype=D)
    found = terms(sdc.SDC(SETTING, shape=3.0, quantization=0.5, floor=floor), code, labels, features=features)
    z, f = code.tolist(), features.tolist()
    order = sorted(combinations(range(count), 2), key=lambda p: cosine(f[p[0]], f[p[1]]))
    targets = [max(0.0, q) if floor else q for q in sdc.quantiles(len(order), 3.0).tolist()]
    gaps = [abs(cosine(z[i], z[j]) - q) for (i, j), q in zip(order, targets, strict=True)]
    near(found["calibration"], sum(gaps) / len(gaps))
    near(found["quantization"], 0.5 * sum(1 - cosine(row, [1 if v >= 0 else -1 for v in row]) for row in z) / count)


def circle(angles):
    return torch.stack([angles.cos(), angles.sin()], 1)


def test_sdc_reads_the_order_of_the_features_and_not_their_cosines():
    code, labels = circle(t([0.0, 0.2, 3.0])[0]), torch.eye(3, dtype=D)
    near_by, far_off = circle(t([0.0, 0.1, 0.3])[0]), circle(t([0.0, 1.0, 3.0])[0])  # pairs in the same order
    one, two = (terms(sdc.SDC(SETTING), code, labels, features=f)["calibration"] for f in (near_by, far_off))
    near(one, two, 1e-12)
    other = terms(sdc.SDC(SETTING), code, labels, features=near_by[[0, 2, 1]])["calibration"]
    assert abs(float(other - one)) > 1e-3


def test_the_loss_of_sdc_is_zero_for_cosines_at_their_targets():
    code = circle(torch.tensor([0.0, math.acos(sdc.quantiles(1, 5.0))], dtype=D))
    near(terms(sdc.SDC(SETTING), code, torch.eye(2, dtype=D), features=code)["calibration"], 0.0, 1e-9)


def test_the_order_of_the_batch_does_not_change_the_loss_of_sdc_as_it_does_for_pairs_by_place():
    code, labels, draw = made(4, 6, 4)
    features, order = torch.randn(6, 5, generator=draw, dtype=D), torch.tensor([3, 0, 5, 1, 4, 2])
    one = terms(sdc.SDC(SETTING), code, labels, features=features)["calibration"]
    near(terms(sdc.SDC(SETTING), code[order], labels, features=features[order])["calibration"], one, 1e-12)


def test_the_features_of_sdc_get_no_gradient():
    features = torch.randn(3, 5, dtype=D).requires_grad_()
    code = Z.clone().requires_grad_()
    sum(terms(sdc.SDC(SETTING), code, Y, features=features).values()).backward()
    assert features.grad is None
    assert code.grad.abs().sum() > 0


def test_the_defaults_of_sdc_are_those_of_the_published_runs_and_not_of_the_class():
    loss = sdc.SDC(SETTING)
    assert (loss.shape, loss.quantization, loss.floor) == (5.0, 1.0, True)
    with pytest.raises(ValueError, match="shape > 0, not 0"):
        sdc.SDC(SETTING, shape=0)


# --- nsh -------------------------------------------------------------------------------------------------------------


@MANY
@given(SEEDS, st.integers(2, 5), st.integers(1, 3))
def test_nsh_equals_plain_loops(seed, count, positives):
    first, labels, draw = made(seed, count, 4)
    first = torch.tanh(first)
    second = torch.tanh(torch.randn(count, 4, generator=draw, dtype=D))
    ours, theirs = (normalize(torch.randn(count, 3, generator=draw, dtype=D)) for _ in range(2))
    extra = {"second": second, "latent": ours, "second latent": theirs}
    found = terms(nsh.NSH(SETTING, positives=positives), first, labels, **extra)
    h, g, z, w = first.tolist(), second.tolist(), ours.tolist(), theirs.tolist()
    total, used = 0.0, min(positives, count)
    for i in range(count):
        s = [sum(a * b for a, b in zip(h[i], g[j], strict=True)) / 8 + 0.5 for j in range(count)]
        c = []
        for place in sorted(s, reverse=True):
            weights = [math.exp(-abs(one - place) * 4) for one in s]  # tau = 1 / K
            expected = [sum(p * z[j][x] for j, p in enumerate(weights)) / sum(weights) for x in range(3)]
            c.append(sum(a * b for a, b in zip(expected, w[i], strict=True)) / 0.3)
        rest = sum(math.exp(one) for one in c[positives:])
        total -= sum(math.log(math.exp(c[r]) / (math.exp(c[r]) + rest)) for r in range(used)) / used
    near(found["contrast"], total / count, 1e-9)
    near(found["quantization"], (torch.cat([first, second]).abs() - 1).square().mean(), 1e-9)


def test_soft_sorting_becomes_sorting_and_ties_share_a_place():
    s = t([0.2, 0.9, 0.5], [0.5, 0.5, 0.1])
    near(nsh.softsort(s, 1e-4)[0], t([0, 1, 0], [0, 0, 1], [1, 0, 0]))
    near(nsh.softsort(s, 1e-4)[1], t([0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]))
    near(nsh.softsort(s, 0.3).sum(2), torch.ones(2, 3))


def test_the_order_of_the_batch_does_not_change_the_loss_of_nsh():
    code, labels, draw = made(3, 6, 4)
    z, order = normalize(torch.randn(6, 3, generator=draw, dtype=D)), torch.tensor([3, 0, 5, 1, 4, 2])
    one = terms(nsh.NSH(SETTING), torch.tanh(code), labels, latent=z)["contrast"]
    near(terms(nsh.NSH(SETTING), torch.tanh(code)[order], labels, latent=z[order])["contrast"], one, 1e-12)


def test_the_codes_of_nsh_learn_from_the_contrast_through_the_order():
    code, labels, draw = made(1, 6, 4)
    code = torch.tanh(code).requires_grad_()
    z = normalize(torch.randn(6, 3, generator=draw, dtype=D))
    terms(nsh.NSH(SETTING, quantization=0.0), code, labels, latent=z)["contrast"].backward()
    assert code.grad.abs().sum() > 1e-3


def test_one_softmax_has_a_gradient_where_two_have_lost_it():
    """A positive far behind 20 negatives: with a second softmax, as in the port, nothing pulls it back."""

    def slope(loss):
        c = torch.cat([torch.full((1, 1), -1.0, dtype=D), torch.ones(1, 20, dtype=D)], 1) / 0.1
        c.requires_grad_()
        loss(c).backward()
        return float(c.grad[0, 0])

    first = torch.zeros(1, dtype=torch.long)
    assert slope(lambda c: nsh.contrast(c, 1)) == pytest.approx(-1, abs=1e-6)
    assert abs(slope(lambda c: cross_entropy(c.softmax(1), first))) < 1e-8
    best = torch.tensor([[50.0] + [-50.0] * 20], dtype=D)  # a perfect order
    assert float(nsh.contrast(best, 1)) < 1e-9
    assert float(cross_entropy(best.softmax(1), first)) == pytest.approx(math.log(1 + 20 / math.e))


def test_nsh_names_a_head_without_features_and_has_no_contrast_without_negatives():
    with pytest.raises(ValueError, match="a head that returns a latent vector or its features, such as nsh or linear"):
        terms(nsh.NSH(SETTING), Z, Y)
    near(terms(nsh.NSH(SETTING, positives=3), Z, Y, features=Z)["contrast"], 0.0)


# --- uhscm -----------------------------------------------------------------------------------------------------------


def shares_by_loops(x, rows, sharpness):
    """The second distributions over the concepts that the rows select, as lists of length 1."""
    m = len(x[0])

    def softmax(row, kept):
        top = max(row[j] for j in kept)
        e = [math.exp(sharpness * len(kept) * (row[j] - top)) if j in kept else 0.0 for j in range(m)]
        return [v / sum(e) for v in e]

    first = [softmax(x[i], range(m)) for i in rows]
    wins = [sum(max(range(m), key=p.__getitem__) == j for p in first) for j in range(m)]
    kept = [j for j in range(m) if wins[j] > len(rows) / (2 * m)] or list(range(m))
    second = [softmax(row, kept) for row in x]
    return [[v / math.sqrt(sum(w * w for w in p)) for v in p] for p in second]


@MANY
@given(SEEDS, st.integers(2, 6), st.floats(-0.9, 1))
def test_uhscm_equals_plain_loops(tmp_path_factory, seed, count, threshold):
    code, labels, draw = made(seed, count, 4)
    code, x = torch.tanh(code), torch.rand(count, 5, generator=draw) / 10
    path = tmp_path_factory.mktemp("scores") / "x.npy"
    np.save(path, x.numpy())
    options = {"threshold": threshold, "temperature": 0.3, "alpha": 0.7, "beta": 0.01}
    found = terms(
        uhscm.UHSCMLoss(Setting(4, 3, False, torch.ones(3), count), scores=str(path), **options), code, labels
    )
    p, u = shares_by_loops(x.tolist(), range(count), 3.0), code.tolist()
    s = [[2 * sum(a * b for a, b in zip(p[i], p[j], strict=True)) - 1 for j in range(count)] for i in range(count)]
    c = [[cosine(u[i], u[j]) for j in range(count)] for i in range(count)]
    assume(all(abs(s[i][j] - threshold) > 1e-5 for i in range(count) for j in range(count) if i != j))
    pulls = []
    for i in range(count):
        similar = [j for j in range(count) if j == i or s[i][j] >= threshold]
        rest = sum(math.exp(c[i][k] / 0.3) for k in range(count) if k not in similar) + 1e-5
        pulls += [-math.log(math.exp(c[i][j] / 0.3) / rest) for j in similar]
    near(
        found["similarity"], sum((c[i][j] - s[i][j]) ** 2 for i in range(count) for j in range(count)) / count**2, 1e-5
    )
    near(found["quantization"], 0.01 * sum((1 - abs(v)) ** 2 for row in u for v in row) / count)
    near(found["contrast"], 0.7 * sum(pulls) / len(pulls))


def test_concepts_that_fit_few_images_best_are_dropped_and_only_training_images_count():
    scores = torch.tensor([[0.3, 0.1, 0.2], [0.3, 0.1, 0.2], [0.1, 0.1, 0.3], [0.1, 0.3, 0.2], [0.1, 0.3, 0.2]])
    train = torch.arange(3)  # image 2 is the only one of concept 2: 1 > 3 / 6; no image is of concept 1
    near(uhscm.concept_shares(scores, train, 3.0)[:, 1], torch.zeros(5))
    assert (uhscm.concept_shares(scores, torch.arange(5), 3.0)[:, 1] > 0).all()
    assert (uhscm.concept_shares(scores, torch.tensor([0, 1, 0, 1, 0, 1, 2]), 3.0)[:, 2] == 0).all()  # 1 < 7 / 6
    near(uhscm.concept_shares(scores, train, 3.0).norm(dim=1), torch.ones(5))


def test_the_training_images_of_a_method_select_its_concepts(tmp_path):
    data = synthetic_splits()
    pool = data.setting(8).pool
    scores = np.zeros((pool, 2), np.float32)
    scores[:, 1] = 1
    scores[data.train.ids, 0] = 2  # all other images are of concept 1
    np.save(tmp_path / "x.npy", scores)
    method = uhscm.UHSCM(data.setting(8), Probe(), scores=str(tmp_path / "x.npy"))
    method.fit(data.train, Run(Budget(epochs=1, batch=64), 0))
    assert (method.loss.shares[:, 1] == 0).all()
    assert not any("shares" in name for name in method.state_dict())  # codes need no scores


def test_codes_learn_the_similarity_of_concepts_and_not_that_of_features(tmp_path):
    """Features are of two groups; the concepts pair the images across them."""
    concepts = torch.tensor([0, 1] * 8)
    np.save(tmp_path / "x.npy", torch.eye(2)[concepts].numpy())
    loss = uhscm.UHSCMLoss(Setting(8, 2, False, torch.tensor([8, 8]), 16), scores=str(tmp_path / "x.npy"))
    z = torch.randn(16, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    optimizer = torch.optim.Adam([z], 0.05)
    for _ in range(150):
        optimizer.zero_grad()
        sum(terms(loss, torch.tanh(z), torch.zeros(16, 2)).values()).backward()
        optimizer.step()
    alike = signs(z.detach()) @ signs(z.detach()).T / 8
    same = concepts[:, None] == concepts[None]
    assert alike[same].min() > 0.9
    assert alike[~same].max() < -0.9


def test_uhscm_without_scores_compares_codes_with_centered_features():
    code, labels, draw = made(2, 5, 4)
    features = torch.randn(5, 3, generator=draw, dtype=D)
    loss, middle = uhscm.UHSCMLoss(SETTING), features - features.mean(0)
    found = terms(loss, code, labels, features=features)["similarity"]
    gaps = [
        (cosine(code[i].tolist(), code[j].tolist()) - cosine(middle[i].tolist(), middle[j].tolist())) ** 2
        for i in range(5)
        for j in range(5)
    ]
    near(found, sum(gaps) / 25)
    with pytest.raises(ValueError, match="uhscm needs a head that returns its features"):
        terms(loss, code, labels)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no file .*x.npy; give a .npy file"),
        (b"text", "is not a .npy file; write it with numpy.save"),
        (np.zeros(3, np.float32), "is no table; give one row of concept scores for each image"),
        (np.zeros((2, 4), np.float32), "has 2 rows, and image ids reach 2; give one row for each image"),
        (np.full((3, 4), np.nan, np.float32), "not finite real numbers"),
        (np.zeros((3, 4), np.int64), "not finite real numbers"),
    ],
)
def test_a_file_of_scores_that_does_not_fit_is_named_with_the_fix(tmp_path, content, message):
    path = tmp_path / "x.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)
    with pytest.raises(UsageError, match=message):
        terms(uhscm.UHSCMLoss(SETTING, scores=str(path)), Z, Y)


def test_the_contrast_of_uhscm_is_finite_without_a_dissimilar_image(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((3, 1), np.float32))
    code = Z.clone().requires_grad_()
    found = terms(uhscm.UHSCMLoss(SETTING, scores=str(tmp_path / "x.npy")), code, Y)["contrast"]
    assert torch.isfinite(found)
    assert torch.isfinite(torch.autograd.grad(found, code)[0]).all()
    with pytest.raises(ValueError, match="uhscm: threshold must be above -1 and at most 1, not 2"):
        uhscm.UHSCMLoss(SETTING, threshold=2)


# --- all of them -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [crovca.unsupervised, sdc.SDC, nsh.NSH, uhscm.UHSCMLoss])
def test_losses_without_labels_do_not_read_them(loss):
    code, labels, draw = made(5, 6, 4)
    features = torch.randn(6, 5, generator=draw, dtype=D)
    values = [terms(loss(SETTING), code, given, features=features) for given in (labels, labels.flip(0), labels * 0)]
    assert values[0] == values[1] == values[2]


@pytest.mark.parametrize("loss", [crovca.unsupervised, crovca.supervised, sdc.SDC, nsh.NSH, uhscm.UHSCMLoss])
def test_the_gradient_agrees_with_finite_differences_on_two_views(loss):
    code, labels, draw = made(7, 6, 4)
    extra = {name: torch.randn(6, 5, generator=draw, dtype=D) for name in ("features", "latent", "second latent")}
    second = torch.randn(6, 4, generator=draw, dtype=D)
    made_loss = loss(SETTING)

    def value(a, b):
        return sum(terms(made_loss, a, labels, second=b, **extra).values())

    assert torch.autograd.gradcheck(value, (code.requires_grad_(), second.requires_grad_()), eps=1e-7, atol=1e-5)


def test_the_sign_of_a_code_of_zeros_has_a_length():
    """With sgn(0) = 0 the cosine to the sign would be 0 / 0."""
    found = terms(sdc.SDC(SETTING), torch.zeros(4, 4, dtype=D), torch.eye(4, dtype=D), features=torch.eye(4, dtype=D))
    assert all(torch.isfinite(value) for value in found.values())
    assert signs(torch.zeros(1)).item() == 1
