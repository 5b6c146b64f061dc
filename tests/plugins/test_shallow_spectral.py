"""LSH, PCAH, SH, CCA-ITQ, BRE, SSH and S3PLH against worked values, plain loops and other solvers."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import scipy.linalg
import torch
from hashzoo_plugins.shallow.bre import BRE, best_weight, codes, flips, objective, sweep
from hashzoo_plugins.shallow.cca_itq import CCAITQ, canonical
from hashzoo_plugins.shallow.labelled import sample
from hashzoo_plugins.shallow.lsh import LSH
from hashzoo_plugins.shallow.pcah import PCAH
from hashzoo_plugins.shallow.projection import leading, principal
from hashzoo_plugins.shallow.s3plh import S3PLH, sequential
from hashzoo_plugins.shallow.sh import SH, waves
from hashzoo_plugins.shallow.similarity import signed
from hashzoo_plugins.shallow.ssh import SSH, adjusted
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from hashzoo.backbone import Backbone
from hashzoo.run import Run
from hashzoo.training.budget import Budget
from hashzoo.training.feature_store import PrecomputedBackbone, StoredFeatures
from hashzoo.types import Batch, Features, Setting, Split, signs

D = torch.float64
SEEDS = st.integers(0, 2**31)


def t(*rows):
    return torch.tensor(rows, dtype=D)


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=D)


def clusters(seed, n=120, dim=8, classes=4):
    """Features (n, dim) around class centers, float32, with one-hot labels (n, classes)."""
    labels = torch.eye(classes)[torch.arange(n) % classes]
    spread = torch.linspace(1.5, 0.3, dim, dtype=D)
    return ((2 * labels.double() @ normal(seed, classes, dim) + normal(seed + 1, n, dim)) * spread + 3).float(), labels


class Given(Backbone):
    """Gives back the features it is given."""

    def __init__(self, dim):
        super().__init__()
        self.dim = dim

    def forward(self, images):
        return images


def fitted(factory, x, labels, bits, seed=0, **values):
    classes = labels.shape[1]
    setting = Setting(bits, classes, bool((labels.sum(1) > 1).any()), labels.sum(0).long(), len(x))
    method = factory(setting, PrecomputedBackbone(Given(x.shape[1]), maps=False), **values)
    run = Run(Budget(), seed)
    method.fit(Split(StoredFeatures([x.numpy()]), labels, torch.arange(len(x))), run)
    return method, run


def encoded(method, x):
    return method.encode(Batch((Features(x),), torch.zeros(len(x), 1), torch.arange(len(x))))["code"]


@pytest.mark.parametrize("factory", [CCAITQ, SSH])
def test_more_bits_than_features_are_refused_where_directions_run_out(factory):
    x, labels = clusters(0)
    with pytest.raises(ValueError, match="9 bits, 8 features"):
        fitted(factory, x, labels, 9)


def test_fewer_images_than_directions_are_refused_where_directions_run_out():
    x, labels = clusters(0)
    with pytest.raises(ValueError, match="at least as many training images as bits: 8 bits, 5 images"):
        fitted(SSH, x[:5], labels[:5], 8)


@pytest.mark.parametrize("factory", [LSH, SH, BRE, S3PLH])
def test_more_bits_than_features_are_served_where_they_do_not(factory):
    x, labels = clusters(0)
    assert encoded(fitted(factory, x, labels, 20)[0], x).shape == (120, 20)


@pytest.mark.parametrize(
    ("factory", "values", "reason"),
    [
        (CCAITQ, {"ridge": 0.0}, "ridge > 0"),
        (SSH, {"labelled": 1}, "labelled must be at least 2"),
        (S3PLH, {"labelled": 1}, "labelled must be at least 2"),
        (BRE, {"points": 1}, "points >= 2"),
        (BRE, {"supervised": True, "halved": True}, "leave it out with supervised"),
    ],
)
def test_hyperparameters_that_make_no_sense_are_refused(factory, values, reason):
    x, labels = clusters(0)
    with pytest.raises(ValueError, match=reason):
        fitted(factory, x, labels, 4, **values)


# LSH and PCAH


def test_random_hyperplanes_differ_in_the_share_of_the_angle():
    x = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    method, _ = fitted(LSH, x, torch.ones(2, 1), 100_000, center=False)
    first, second = encoded(method, x)
    assert float((first != second).float().mean()) == pytest.approx(0.25, abs=4 * 0.0014)
    turned = method.projection / method.projection.norm(dim=0)
    assert abs(float(turned.square().mean(1)[0]) - 0.5) < 0.01
    assert abs(float(turned.pow(4).mean(1)[0]) - 3 / 8) < 0.01  # of directions that are all alike, not of a square


@settings(deadline=None, max_examples=15)
@given(SEEDS, st.floats(0.01, 100))
def test_random_hyperplanes_see_only_the_direction_from_the_mean(seed, scale):
    x, labels = clusters(seed)
    method, _ = fitted(LSH, x, labels, 16, seed)
    moved = method.mean + scale * (x - method.mean)
    margin = ((x - method.mean) @ method.projection).abs() > 1e-4  # nearer to a hyperplane, rounding decides
    assert (encoded(method, x) == encoded(method, moved))[margin].all()


@settings(deadline=None, max_examples=15)
@given(SEEDS)
def test_a_rotation_of_the_data_flips_whole_bits_of_pca_codes_at_most(seed):
    x, labels = clusters(seed)
    turn = torch.linalg.qr(normal(seed + 2, 8, 8)).Q.float()
    before, after = fitted(PCAH, x, labels, 4)[0], fitted(PCAH, x @ turn, labels, 4)[0]
    margin = ((x - before.mean) @ before.projection).abs() > 1e-2
    for k in range(4):
        same = (encoded(before, x) == encoded(after, x @ turn))[margin[:, k], k]
        assert same.all() or not same.any()


def test_small_principal_directions_survive_single_precision():
    scale = torch.logspace(0, -3, 8, dtype=D)
    x = (normal(0, 400, 8) * scale) @ torch.linalg.qr(normal(1, 8, 8)).Q
    exact = torch.linalg.svd(x, full_matrices=False).Vh.T
    found = principal(x.float(), 8).double()
    assert ((exact * found).sum(0).abs() > 1 - 1e-6).all()
    assert (found.gather(0, found.abs().argmax(0, keepdim=True)) > 0).all()


# Spectral hashing


def test_waves_in_a_box_of_four_by_two_are_the_worked_ones():
    side, omega = waves(t(4, 2), 3)
    assert side.tolist() == [0, 0, 1]
    assert omega.square().tolist() == pytest.approx([(math.pi * f) ** 2 for f in (1 / 4, 2 / 4, 1 / 2)], abs=1e-12)
    assert omega.square().tolist() == pytest.approx([0.617, 2.467, 2.467], abs=5e-4)


def plain_spectral(v, train, bits):
    """Codes as the paper's procedure has them: a table of modes, and products over all sides."""
    low, ranges = train.min(0), train.max(0) - train.min(0)
    most = [math.ceil((bits + 1) * r / ranges.max()) for r in ranges]
    modes = [[0] * len(ranges)]
    for j, m in enumerate(most):
        modes += [[step if side == j else 0 for side in range(len(ranges))] for step in range(1, m)]
    omegas = sorted(
        ([math.pi * s / r for s, r in zip(m, ranges, strict=True)] for m in modes), key=lambda o: np.dot(o, o)
    )
    out = [
        [math.prod(math.sin(w * (x - a) + math.pi / 2) for w, x, a in zip(o, row, low, strict=True)) for row in v]
        for o in omegas[1 : bits + 1]
    ]
    return np.array(out).T


@settings(deadline=None, max_examples=10)
@given(SEEDS, st.sampled_from([3, 8, 20]))
def test_spectral_codes_equal_the_products_over_all_sides(seed, bits):
    x, labels = clusters(seed)
    method, _ = fitted(SH, x[:80], labels[:80], bits)
    centered = (x - x[:80].mean(0)).double().numpy()
    pca = principal(torch.from_numpy(centered[:80]), min(bits, 8)).numpy()
    expected = plain_spectral(centered @ pca, centered[:80] @ pca, bits)  # queries in the ranges of train
    clear = np.abs(expected) > 1e-3
    assert (encoded(method, x).numpy() == (expected >= 0))[clear].all()
    assert clear.mean() > 0.98


def test_the_first_wave_cuts_at_the_middle_of_the_range_and_not_at_the_mean():
    x = torch.cat([torch.zeros(50, 1), torch.ones(10, 1), 10 * torch.ones(1, 1)])
    method, _ = fitted(SH, x, torch.ones(61, 1), 1)
    ends = encoded(method, torch.tensor([[0.0], [4.9], [5.1], [10.0]])).flatten().tolist()
    assert ends == [True, True, False, False]


def test_features_that_are_all_alike_still_give_codes():
    assert encoded(fitted(SH, torch.ones(20, 3), torch.ones(20, 1), 5)[0], torch.ones(2, 3)).shape == (2, 5)


# CCA-ITQ


def centered(x, labels):
    return (x - x.mean(0)).double(), (labels - labels.mean(0)).double()


@settings(deadline=None, max_examples=15)
@given(SEEDS, st.booleans())
def test_canonical_correlations_solve_the_generalised_eigenproblem(seed, several):
    x, labels = clusters(seed)
    if several:
        labels = ((labels + (normal(seed, 120, 4) > 1)) > 0).float()
    x, y = centered(x, labels)
    w, r = canonical(x, y, 1e-4)
    c = np.cov(x.numpy().T, y.numpy().T)
    c_xx, c_xy, c_yy = c[:8, :8] + 1e-4 * np.eye(8), c[:8, 8:], c[8:, 8:] + 1e-4 * np.eye(4)
    squares, theirs = scipy.linalg.eigh(c_xy @ np.linalg.inv(c_yy) @ c_xy.T, c_xx)
    assert np.allclose(r[:4] ** 2, squares[::-1][:4], atol=1e-8)
    assert np.allclose(w.T.numpy() @ c_xx @ w.numpy(), np.eye(8), atol=1e-8)
    overlap = np.abs(theirs[:, ::-1][:, :3].T @ c_xx @ w[:, :3].numpy())
    assert np.allclose(overlap, np.eye(3), atol=1e-5)


@settings(deadline=None, max_examples=10)
@given(SEEDS)
def test_four_classes_have_exactly_three_correlations_and_the_method_says_so(seed):
    x, labels = clusters(seed)
    _, r = canonical(*centered(x, labels), 1e-4)
    assert int((r > 1e-6).sum()) == 3
    assert (r <= 1).all()
    assert (r.diff() <= 0).all()
    assert fitted(CCAITQ, x, labels, 6)[1].logged["correlations"] == 3


@settings(deadline=None, max_examples=10)
@given(SEEDS)
def test_canonical_directions_are_multiplied_by_their_correlation_and_never_divided(seed):
    x, labels = clusters(seed)
    method, _ = fitted(CCAITQ, x, labels, 5)
    wide, y = centered(x, labels)
    _, r = canonical(wide, y, 1e-4)
    root = torch.linalg.cholesky(wide.T @ wide / 119 + 1e-4 * torch.eye(8, dtype=D))
    found = torch.linalg.svdvals(root.T @ method.projection.double())  # of R W diag(r) Q = U diag(r) Q
    assert torch.allclose(found[:3], r[:3], atol=1e-5)
    assert (found[3:] < 1e-5).all()


# BRE


def test_the_reconstruction_error_of_the_worked_points():
    x = t([1, 0], [0, 1], [-1, 0], [0.6, 0.8])
    d, s = 1 - x @ x.T, t([1, 1], [1, -1], [-1, -1], [1, 1])
    assert objective(s, d) == pytest.approx(2.11, abs=1e-9)
    assert objective(s, d / 2) == pytest.approx(0.24, abs=1e-9)


def quadratic(seed, size):
    a = normal(seed, size, size)
    return (a + a.T).fill_diagonal_(0)


@settings(deadline=None, max_examples=30)
@given(SEEDS, st.integers(1, 12))
def test_flips_gain_what_the_quadratic_form_does(seed, size):
    a, s = quadratic(seed, size), signs(normal(seed + 1, size))
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    gains = flips(a.numpy(), s.clone().numpy(), order.numpy())
    for m in range(size):
        other = s.clone()
        other[order[: m + 1]] *= -1
        assert gains[m] == pytest.approx(float(other @ a @ other - s @ a @ s), abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(SEEDS, st.integers(2, 12), st.booleans())
def test_no_weight_anywhere_is_better_than_the_one_found(seed, size, twins):
    a, rest, kappa = quadratic(seed, size), normal(seed + 1, size), normal(seed + 2, size)
    kappa[0] = 0  # a point that never flips
    if twins:
        rest, kappa = (v[torch.arange(size) // 2 + size // 2] for v in (rest, kappa))  # points that flip together

    def value(w):
        s = signs(rest + w * kappa)
        return float(s @ a @ s)

    found = value(best_weight(a, rest, kappa))
    at = sorted(-float(r / k) for r, k in zip(rest, kappa, strict=True) if k != 0)
    tried = [at[0] - 1, at[-1] + 1, *((p + q) / 2 for p, q in pairwise(at) if q - p > 1e-9)]
    assert found == pytest.approx(max(value(w) for w in tried), abs=1e-9)


@settings(deadline=None, max_examples=15)
@given(SEEDS, st.integers(1, 6), st.booleans())
def test_no_sweep_of_the_coordinate_descent_raises_the_reconstruction_error(seed, bits, supervised):
    x = normalize(normal(seed, 30, 5), dim=1)
    y = torch.eye(3, dtype=D)[torch.arange(30) % 3]
    d = (1 - signed(y, y)) / 2 if supervised else 1 - x @ x.T
    kappa = torch.stack(
        [x @ x[torch.randperm(30, generator=torch.Generator().manual_seed(k))[:4]].T for k in range(bits)]
    )
    weights = 0.001 * normal(seed + 1, bits, 4)
    errors, moved = [objective(codes(kappa, weights), d)], True
    while moved and len(errors) < 50:
        moved = sweep(kappa, bits * (1 - 2 * d), weights)
        errors.append(objective(codes(kappa, weights), d))
        assert errors[-1] < errors[-2] if moved else errors[-1] == errors[-2]
    assert not moved  # it ends where no single weight can be bettered


def test_bre_says_when_it_learns_from_labels_and_only_then_looks_at_them():
    x, labels = clusters(0)
    other = labels[torch.randperm(120, generator=torch.Generator().manual_seed(0))]
    for supervised in (False, True):
        one, two = (fitted(BRE, x, y, 8, supervised=supervised)[0] for y in (labels, other))
        assert one.mark == ("learned from labels" if supervised else "")
        assert torch.equal(encoded(one, x), encoded(two, x)) != supervised


def test_bre_encodes_as_the_sum_over_its_anchors():
    x, labels = clusters(3, n=30)
    method, run = fitted(BRE, x, labels, 6, seed=5)
    unit = normalize((x - method.mean).double(), dim=1)
    direct = signs(unit @ method.projection.double())  # unit length does not change a sign
    assert torch.equal(encoded(method, x), direct > 0)
    assert objective(direct, 1 - unit @ unit.T) == pytest.approx(run.logged["reconstruction"], rel=1e-9)


# SSH and S3PLH

SOME = t([1, 1], [2, -1], [-1, 1], [-2, -1])
PAIRS = signed(t([1, 0], [1, 0], [0, 1], [0, 1]), t([1, 0], [1, 0], [0, 1], [0, 1])).fill_diagonal_(0)


def test_the_worked_pairs_choose_the_first_axis():
    supervised = adjusted(torch.zeros(4, 2, dtype=D), SOME, PAIRS, 1.0) * len(SOME) ** 2
    assert torch.allclose(supervised, t([26, 0], [0, -4]), atol=1e-12)
    assert sequential(torch.zeros(2, 2, dtype=D), SOME, PAIRS, 0.2, 1).flatten().tolist() == pytest.approx([1, 0])
    bit = signs(SOME)
    violations = [int(((bit[:, k, None] * bit[:, k]) * PAIRS < 0).sum()) for k in (0, 1)]
    assert violations == [0, 8]


@settings(deadline=None, max_examples=15)
@given(SEEDS, st.sampled_from([30, 120]))
def test_pairs_add_up_to_class_sums_and_never_cancel_the_variance(seed, count):
    x, labels = (v.double() for v in clusters(seed))
    x = x - x.mean(0)
    some, y = x[:count], labels[:count]
    sums, whole = y.T @ some, some.sum(0)
    expected = (2 * sums.T @ sums - torch.outer(whole, whole) - some.T @ some) / count**2 + x.T @ x / 120
    found = adjusted(x, some, signed(y, y).fill_diagonal_(0), 1.0)
    assert torch.allclose(found, expected, atol=1e-9)
    assert np.linalg.matrix_rank(found.numpy()) == 8  # four classes alone would leave four directions to chance


@settings(deadline=None, max_examples=15)
@given(SEEDS)
def test_without_labelled_pairs_the_directions_are_those_of_pca(seed):
    x = clusters(seed)[0].double()
    x = x - x.mean(0)
    pca, nothing = principal(x, 5), torch.zeros(20, 20, dtype=D)
    for found in (
        leading(adjusted(x, x[:20], nothing, 0.7), 5),
        sequential(x.T @ x / 120, x[:20], nothing, 0.2, 5),
    ):
        assert torch.allclose((found * pca).sum(0), torch.ones(5, dtype=D), atol=1e-9)


def plain_sequential(x, some, s, eta, count):
    """The paper's algorithm with X itself deflated, entry by entry."""
    x, s, chosen = x.copy(), s.copy(), []
    for _ in range(count):
        m = x.T @ x / len(x) + eta * some.T @ s @ some / len(some)
        w = np.linalg.eigh(m)[1][:, -1]
        for i in range(len(some)):
            for j in range(len(some)):
                said = (some[i] @ w) * (some[j] @ w)
                if said * s[i, j] < 0:
                    s[i, j] -= said
        x = x - np.outer(x @ w, w)
        chosen.append(w)
    return np.array(chosen).T, x


@settings(deadline=None, max_examples=10)
@given(SEEDS)
def test_sequential_directions_equal_those_of_the_loop_that_deflates_the_data(seed):
    x, labels = clusters(seed)
    x = (x - x.mean(0)).double()
    s = signed(labels[:20], labels[:20]).fill_diagonal_(0).double()
    found = sequential(x.T @ x / len(x), x[:20], s, 0.2, 6)
    expected, deflated = plain_sequential(x.numpy(), x[:20].numpy(), s.numpy(), 0.2, 6)
    assert np.allclose(np.abs((found.numpy() * expected).sum(0)), 1, atol=1e-6)
    assert np.allclose(deflated @ expected[:, -1], 0, atol=1e-9)  # the last direction is gone from the data


def test_sequential_codes_do_not_depend_on_the_scale_of_the_features():
    x, labels = clusters(1)
    assert torch.equal(
        encoded(fitted(S3PLH, x, labels, 12)[0], x), encoded(fitted(S3PLH, x / 32, labels, 12)[0], x / 32)
    )


@pytest.mark.parametrize("factory", [SSH, S3PLH])
def test_the_labels_of_images_outside_the_sample_are_not_looked_at(factory):
    x, labels = clusters(2)
    rows = sample(120, 40, torch.Generator().manual_seed(7))
    hidden = torch.ones_like(labels)
    hidden[rows] = labels[rows]
    whole, part = (fitted(factory, x, y, 6, seed=7, labelled=40)[0] for y in (labels, hidden))
    assert torch.equal(whole.projection, part.projection)
    assert not torch.equal(whole.projection, fitted(factory, x, hidden, 6, seed=8, labelled=40)[0].projection)


def test_orthogonal_directions_maximise_the_objective_over_all_orthonormal_ones():
    x, labels = clusters(4)
    method, _ = fitted(SSH, x, labels, 3, labelled=120)
    wide, s = (x - x.mean(0)).double(), signed(labels, labels).fill_diagonal_(0).double()
    m = adjusted(wide, wide, s, 1.0)

    def reached(w):
        return float(torch.trace(w.T @ m @ w))

    best = method.projection.double()
    assert torch.allclose(best.T @ best, torch.eye(3, dtype=D), atol=1e-5)
    for seed in range(20):
        assert reached(torch.linalg.qr(normal(seed, 8, 3)).Q) <= reached(best)
