"""Kernel, manifold and discrete methods against worked values, plain loops and what their mathematics promises."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from hashzoo_plugins.shallow import anchors, cosdish, discrete, fsdh, imh, ksh, sdh, similarity
from hashzoo_plugins.shallow.cosdish import COSDISH
from hashzoo_plugins.shallow.fsdh import FSDH
from hashzoo_plugins.shallow.imh import IMH
from hashzoo_plugins.shallow.ksh import KSH
from hashzoo_plugins.shallow.ridge import ridge
from hashzoo_plugins.shallow.sdh import SDH
from hypothesis import given, settings
from hypothesis import strategies as st

from hashzoo.evaluation.scoring import encode
from hashzoo.run import Run
from hashzoo.testing import Probe, check_method, synthetic_splits
from hashzoo.training.budget import Budget
from hashzoo.types import Setting, signs

D = torch.float64
B = torch.tensor([[1.0, 1, -1, 1], [1, 1, -1, -1], [-1, 1, 1, 1]], dtype=D)
Y = torch.eye(2, dtype=D)[[0, 0, 1]]
SETTING = Setting(16, 2, False, torch.tensor([2, 1]), 3)
SEEDS = st.integers(0, 2**31)


def drawn(seed):
    return torch.Generator().manual_seed(seed)


def gaussian(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=D)


def near(found, expected, places=1e-6):
    assert torch.as_tensor(found).flatten().tolist() == pytest.approx(
        torch.as_tensor(expected, dtype=D).flatten().tolist(), abs=places
    )


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: KSH(SETTING, Probe(), anchors=0), "anchors >= 1"),
        (lambda: SDH(SETTING, Probe(), weight=0.0), "weight > 0"),
        (lambda: FSDH(SETTING, Probe(), rho=0.0), "rho > 0"),
        (lambda: COSDISH(SETTING, Probe(), rounds=0), "rounds >= 1"),
        (lambda: COSDISH(SETTING, Probe(), drawn=-1), "drawn >= 0"),
        (lambda: IMH(SETTING, Probe(), anchors=16, embedding="laplacian"), "16 bits, 16 anchors"),
        (lambda: IMH(SETTING, Probe(), nearest=0), "nearest=0"),
        (lambda: IMH(SETTING, Probe(), iterations=0), "iterations=0"),
        (lambda: KSH(SETTING, Probe(), iterations=0), "iterations=0"),
        (lambda: SDH(SETTING, Probe(), sweeps=0), "sweeps >= 1"),
        (lambda: FSDH(SETTING, Probe(), nu=-1.0), "nu >= 0"),
    ],
)
def test_what_cannot_be_served_is_refused(make, why):
    with pytest.raises(ValueError, match=why):
        make()


# --- anchors, ridge, similarity --------------------------------------------------------------------------------------


def test_kernel_features_equal_a_plain_loop():
    generator = drawn(0)
    x, a = gaussian(generator, 7, 3), gaussian(generator, 4, 3)
    loop = [[math.exp(-sum(float(p - q) ** 2 for p, q in zip(r, c, strict=True)) / 1.7) for c in a] for r in x]
    near(anchors.rbf(x, a, 1.7), loop, 1e-12)
    units, own = ([r / math.sqrt(sum(float(v) ** 2 for v in r)) for r in rows] for rows in (x, a))
    loop = [[1.0, *(math.exp(-float((r - c).square().sum()) / (2 * 0.4**2)) for c in own)] for r in units]
    near(anchors.lifted(x, torch.stack(own), 0.4), loop, 1e-12)


@pytest.mark.parametrize("chunk", [1, 3, 10, 4096])
def test_distances_and_sums_in_chunks_equal_those_in_one(chunk, monkeypatch):
    from hashzoo_plugins.shallow import ridge as module

    x, y = gaussian(drawn(0), 10, 3), gaussian(drawn(1), 10, 2)
    monkeypatch.setattr(anchors, "CHUNK", chunk)
    monkeypatch.setattr(module, "CHUNK", chunk)
    near(anchors.squared_distances(x, x[:4]), torch.cdist(x, x[:4]).square(), 1e-12)
    near(module.cross(x, y), x.T @ y, 1e-12)


def test_far_from_the_origin_distances_are_those_of_float64():
    x = (torch.rand(20, 8, generator=drawn(0)) + 100).float()
    exact = (x.double()[:, None] - x.double()[None]).square().sum(2)
    assert torch.allclose(anchors.squared_distances(x, x).double(), exact, atol=1e-8)


def test_anchors_are_distinct_training_rows_and_padding_adds_nothing():
    x = torch.arange(10.0)[:, None]
    assert len(set(anchors.draw(x, 6, drawn(0)).flatten().tolist())) == 6
    assert sorted(anchors.draw(x, 99, drawn(0)).flatten().tolist()) == x.flatten().tolist()
    coefficients = torch.ones(3, 2)
    whole = anchors.rbf(x, anchors.padded(x[:3], 8), 1.0) @ anchors.padded(coefficients, 8)
    assert torch.equal(whole, anchors.rbf(x, x[:3], 1.0) @ coefficients)


def test_ridge_agrees_with_scikit_learn_and_its_gradient_is_zero():
    from sklearn.linear_model import Ridge

    x, y = gaussian(drawn(0), 30, 5), gaussian(drawn(1), 30, 3)
    found = ridge(x, y, 0.7)
    near(found, torch.from_numpy(Ridge(0.7, fit_intercept=False).fit(x.numpy(), y.numpy()).coef_.T), 1e-9)
    near(x.T @ (x @ found - y) + 0.7 * found, torch.zeros_like(found), 1e-9)


def test_pairs_are_similar_iff_they_share_a_label_and_both_sides_of_balance_weigh_the_same():
    labels = torch.tensor([[1.0, 1, 0], [0, 1, 1], [1, 0, 0], [0, 0, 0]])
    s = similarity.signed(labels, labels)
    assert s.tolist() == [[1, 1, 1, -1], [1, 1, -1, -1], [1, -1, 1, -1], [-1, -1, -1, -1]]
    assert float(similarity.balanced(s).sum()) == pytest.approx(0, abs=1e-6)
    ones = torch.ones(2, 2)
    assert torch.equal(similarity.balanced(ones), ones)


# --- KSH -------------------------------------------------------------------------------------------------------------


def test_two_bits_that_split_two_classes_use_the_similarity_up():
    s = similarity.signed(Y, Y)
    h = torch.tensor([1.0, 1, -1], dtype=D)
    near(h @ (2 * s) @ h, 18.0)
    (_, first, once), (_, second, twice) = ksh.greedy(torch.stack([h], 1), s, 2, 20)
    near(once, s)
    near(twice, torch.zeros_like(s))
    near(first * first[0], h)
    near(second * second[0], h)


@settings(deadline=None, max_examples=10)
@given(SEEDS, st.integers(1, 4))
def test_ksh_keeps_the_exact_residual_and_no_bit_is_worse_than_its_spectral_start(seed, count):
    generator = drawn(seed)
    kernel, labels = gaussian(generator, 25, 6), torch.eye(3, dtype=D)[torch.randint(3, (25,), generator=generator)]
    s = similarity.signed(labels, labels)
    codes, before = torch.zeros(25, 0, dtype=D), count * s
    for a, h, r in ksh.greedy(kernel, s, count, 50):
        codes = torch.cat([codes, h[:, None]], 1)
        near(r, count * s - codes @ codes.T, 1e-9)
        assert torch.equal(h, signs(kernel @ a))
        start = signs(kernel @ ksh.spectral(kernel, before))
        assert float(h @ before @ h) >= float(start @ before @ start) - 1e-9
        before = r


def test_the_spectral_start_is_the_largest_generalised_eigenvector_scaled_to_the_sample():
    import scipy.linalg

    kernel, r = gaussian(drawn(0), 30, 5), gaussian(drawn(1), 30, 30)
    r = r + r.T
    a, gram = ksh.spectral(kernel, r), kernel.T @ kernel
    assert float(a @ gram @ a) == pytest.approx(30, abs=1e-9)
    largest = scipy.linalg.eigh((kernel.T @ r @ kernel).numpy(), gram.numpy(), eigvals_only=True)[-1]
    assert float(a @ kernel.T @ r @ kernel @ a) / 30 == pytest.approx(largest, rel=1e-4)


def test_the_smoothed_gradient_agrees_with_finite_differences_and_the_descent_descends():
    kernel, r = gaussian(drawn(0), 12, 4), gaussian(drawn(1), 12, 12)
    r, a, step = r + r.T, gaussian(drawn(2), 4), 1e-6
    value, slope = ksh.smoothed(a, kernel, r)
    phi = 2 / (1 + torch.exp(-kernel @ a)) - 1
    near(value, -(phi @ r @ phi), 1e-9)
    for j, unit in enumerate(torch.eye(4, dtype=D)):
        ahead, behind = (ksh.smoothed(a + sign * step * unit, kernel, r)[0] for sign in (1, -1))
        assert float(slope[j]) == pytest.approx(float(ahead - behind) / (2 * step), rel=1e-5, abs=1e-5)
    assert ksh.smoothed(ksh.refined(a, kernel, r, 100), kernel, r)[0] < value


def test_ksh_scales_by_the_mean_squared_distance_of_all_training_images():
    data = synthetic_splits()
    torch.manual_seed(0)
    run, backbone = Run(Budget(), 0), Probe()
    method = KSH(data.setting(4), backbone, anchors=20, sample=30)
    method.fit(data.train, run)
    x = run.features(backbone, data.train).pooled.double()
    squared = torch.cdist(x, method.anchors.double()).square()
    assert float(method.scale) == pytest.approx(2 * float(squared.mean()), rel=1e-5)
    near(method.mean, torch.exp(-squared / float(method.scale)).mean(0), 1e-5)


# --- SDH and FSDH ----------------------------------------------------------------------------------------------------


def test_the_classifier_of_sdh_equals_the_reference_value():
    w = ridge(B, Y, 1.0)
    near(sdh.objective(Y, B, w, B, 1.0, 0.5), 0.5529411765)


@settings(deadline=None, max_examples=25)
@given(SEEDS, st.integers(1, 5), st.floats(0, 1))
def test_no_update_of_the_discrete_descent_raises_the_objective_of_sdh(seed, bits, nu):
    generator = drawn(seed)
    y = torch.eye(3, dtype=D)[torch.randint(3, (20,), generator=generator)]
    b, f, w = signs(gaussian(generator, 20, bits)), gaussian(generator, 20, bits), gaussian(generator, bits, 3)
    q, value = y @ w.T + nu * f, float("inf")
    for sweep in range(4):  # each sweep on its own
        now = float(sdh.objective(y, b, w, f, 1.0, nu))
        assert now <= value + 1e-9
        value, b = now, discrete.descent(b, q, w, 1)
        expected = discrete.descent(signs(q), q, w, sweep)
        step = signs(q)
        for _ in range(sweep):  # the formula as written
            for k in range(bits):
                rest = [j for j in range(bits) if j != k]
                before = float(sdh.objective(y, step, w, f, 1.0, nu))
                step[:, k] = signs(q[:, k] - step[:, rest] @ w[rest] @ w[k])
                assert float(sdh.objective(y, step, w, f, 1.0, nu)) <= before + 1e-9
        assert torch.equal(step, expected)


def test_a_bit_whose_argument_is_zero_stays_and_the_codes_given_are_not_changed():
    b = torch.tensor([[-1.0, 1.0], [1.0, -1.0]], dtype=D)
    given_codes = b.clone()
    assert torch.equal(discrete.descent(b, torch.zeros_like(b), torch.eye(2, dtype=D), 3), b)
    w = torch.tensor([[1.0], [1.0]], dtype=D)  # the argument of bit 0 is q - b_1
    assert torch.equal(discrete.descent(b, torch.stack([b[:, 1], 9 * b[:, 1]], 1), w, 1), b)
    discrete.descent(b, -9 * b, w, 1)
    assert torch.equal(b, given_codes)


def test_one_bit_has_the_least_objective_of_all_codes():
    y, f, w = Y, torch.tensor([[0.3], [-0.2], [0.1]], dtype=D), torch.tensor([[0.6, -0.4]], dtype=D)
    found = discrete.descent(-torch.ones(3, 1, dtype=D), y @ w.T + 0.5 * f, w, 1)
    every = [torch.tensor(c, dtype=D)[:, None] for c in product([-1.0, 1.0], repeat=3)]
    least = min(float(sdh.objective(y, c, w, f, 1.0, 0.5)) for c in every)
    assert float(sdh.objective(y, found, w, f, 1.0, 0.5)) == pytest.approx(least, abs=1e-12)


def test_classifier_and_regression_of_sdh_are_stationary():
    w = ridge(B, Y, 1.0).requires_grad_()
    phi = gaussian(drawn(0), 3, 2)
    p = ridge(phi, B, 1e-2).requires_grad_()
    (slope,) = torch.autograd.grad(sdh.objective(Y, B, w, B, 1.0, 0.5), w)
    near(slope, torch.zeros_like(slope), 1e-9)
    (slope,) = torch.autograd.grad((B - phi @ p).square().sum() + 1e-2 * p.square().sum(), p)
    near(slope, torch.zeros_like(slope), 1e-9)


def test_the_class_codes_of_fsdh_equal_the_reference_values_and_the_regression_decides_a_tie_of_votes():
    w = ridge(Y, B, 1.0)
    near(w, [[2 / 3, 2 / 3, -2 / 3, 0], [-1 / 2, 1 / 2, 1 / 2, 1 / 2]], 1e-12)
    assert fsdh.codes(Y, w, torch.zeros_like(B), 1e-5)[0].tolist() == [1, 1, -1, 1]
    assert fsdh.codes(Y, w, -torch.ones_like(B), 1e-5)[0].tolist() == [1, 1, -1, -1]


@settings(deadline=None, max_examples=25)
@given(SEEDS, st.floats(0, 1))
def test_the_codes_of_fsdh_are_the_best_and_no_step_raises_its_objective(seed, nu):
    generator = drawn(seed)
    b, f = signs(gaussian(generator, 3, 2)), gaussian(generator, 3, 2)
    before = float(fsdh.objective(b, Y, gaussian(generator, 2, 2), f, 1.0, nu))
    w = ridge(Y, b, 1.0)
    solved = float(fsdh.objective(b, Y, w, f, 1.0, nu))
    found = float(fsdh.objective(fsdh.codes(Y, w, f, nu), Y, w, f, 1.0, nu))
    every = [torch.tensor(c, dtype=D).view(3, 2) for c in product([-1.0, 1.0], repeat=6)]
    assert found == pytest.approx(min(float(fsdh.objective(c, Y, w, f, 1.0, nu)) for c in every), abs=1e-9)
    assert found <= solved + 1e-9 <= before + 2e-9


def test_with_the_default_weight_all_images_of_a_label_set_share_a_code_of_fsdh():
    b, y = signs(gaussian(drawn(0), 60, 8)), torch.eye(3, dtype=D)[torch.arange(60) % 3]
    codes = fsdh.codes(y, ridge(y, b, 1.0), gaussian(drawn(1), 60, 8), 1e-5)
    votes = y.T @ b  # (C, K); ties aside
    decided = (votes != 0)[torch.arange(60) % 3]
    assert torch.equal(codes[decided], signs(votes)[torch.arange(60) % 3][decided])


# --- COSDISH ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("columns", "alike"), [(0, False), (8, True)])
def test_more_classes_than_bits_get_codes_of_their_own_only_if_columns_of_most_are_drawn(columns, alike, monkeypatch):
    split = replace(synthetic_splits().train, labels=torch.eye(40)[torch.arange(240) % 40])
    setting, found = Setting(8, 40, False, torch.full((40,), 6), 240), []
    monkeypatch.setattr(cosdish, "ridge", lambda c, b, weight: found.append(b) or c.new_zeros(c.shape[1], 8))
    COSDISH(setting, Probe(), rounds=3, drawn=columns).fit(split, Run(Budget(backbone="frozen"), 0))
    commonest = int(found[0].unique(dim=0, return_counts=True)[1].max())
    assert (commonest > 120) is alike


def test_codes_of_h_and_minus_h_fit_two_classes_exactly_and_are_not_left():
    h = signs(gaussian(drawn(0), 6))
    b, s = torch.stack([h, h, -h]), similarity.signed(Y, Y)
    rows = torch.tensor([0, 2])
    assert float(cosdish.objective(s[:, rows], b, rows)) == 0
    assert torch.equal(cosdish.columns(s[:, rows], b, rows), b[rows])


@settings(deadline=None, max_examples=25)
@given(SEEDS, st.integers(1, 5), st.booleans())
def test_the_step_of_the_drawn_images_never_raises_the_squared_objective(seed, bits, balanced):
    generator = drawn(seed)
    labels = torch.eye(3, dtype=D)[torch.randint(3, (18,), generator=generator)]
    b, rows = signs(gaussian(generator, 18, bits)), torch.randperm(18, generator=generator)[:bits]
    s = similarity.signed(labels, labels[rows])
    s = similarity.balanced(s) if balanced else s
    after = b.clone()
    after[rows] = cosdish.columns(s, b, rows)
    assert float(cosdish.objective(s, after, rows)) <= float(cosdish.objective(s, b, rows)) + 1e-6


@settings(deadline=None, max_examples=25)
@given(SEEDS, st.integers(1, 6))
def test_the_quadratic_programme_ends_no_lower_and_no_single_flip_improves_it(seed, n):
    generator = drawn(seed)
    e, p, b = gaussian(generator, n, n), gaussian(generator, n), signs(gaussian(generator, n))
    e = (e + e.T).fill_diagonal_(0.0)
    found = cosdish.quadratic(e, p, b)
    assert cosdish.value(e, p, found) >= cosdish.value(e, p, b)
    for i in range(n):
        flipped = found.clone()
        flipped[i] = -flipped[i]
        assert cosdish.value(e, p, flipped) <= cosdish.value(e, p, found) + 2 * cosdish.SMALL


def test_the_quadratic_form_of_one_bit_is_the_objective_up_to_a_constant():
    generator = drawn(3)
    labels = torch.eye(3, dtype=D)[torch.randint(3, (10,), generator=generator)]
    b, rows = signs(gaussian(generator, 10, 1)), torch.arange(4)  # one bit: the form is the whole problem
    s = similarity.signed(labels, labels[rows])

    def value(c):
        codes = b.clone()
        codes[rows] = c
        return float(cosdish.objective(s, codes, rows))

    every = [torch.tensor(c, dtype=D)[:, None] for c in product([-1.0, 1.0], repeat=4)]
    assert value(cosdish.columns(s, b, rows)) == min(value(c) for c in every)


@settings(deadline=None, max_examples=25)
@given(SEEDS)
def test_the_votes_on_all_others_are_the_best_for_the_absolute_error(seed):
    generator = drawn(seed)
    s, own, old = (signs(gaussian(generator, *shape)) for shape in ((1, 3), (3, 3), (1, 3)))
    found = discrete.kept(s @ own, old)
    every = [torch.tensor(c, dtype=D)[None] for c in product([-1.0, 1.0], repeat=3)]
    assert float((3 * s - found @ own.T).abs().sum()) == min(float((3 * s - c @ own.T).abs().sum()) for c in every)


# --- IMH -------------------------------------------------------------------------------------------------------------


def test_the_weights_of_the_nearest_anchors_sum_to_one_and_equal_a_plain_loop():
    generator = drawn(0)
    x, a, e, sigma = gaussian(generator, 6, 3), gaussian(generator, 9, 3), gaussian(generator, 9, 2), torch.tensor(1.3)
    squared = anchors.squared_distances(x, a)
    for r, row in zip(squared, imh.interpolated(squared, e, sigma, 4), strict=True):
        near_by = sorted(range(9), key=lambda j: float(r[j]))[:4]
        weights = [math.exp(-float(r[j]) / 1.3**2) for j in near_by]
        near(row, sum(w * e[j] for w, j in zip(weights, near_by, strict=True)) / sum(weights))
    near(imh.interpolated(squared, torch.ones(9, 1, dtype=D), sigma, 4), torch.ones(6), 1e-12)
    near(imh.interpolated(squared + 1e6, torch.ones(9, 1, dtype=D), sigma, 4), torch.ones(6), 1e-12)


def test_a_query_equal_to_an_anchor_far_from_the_others_gets_its_code():
    a, e = 100 * torch.eye(6, dtype=D), gaussian(drawn(0), 6, 4)
    near(imh.interpolated(anchors.squared_distances(a, a), e, torch.tensor(1.0), 5), e, 1e-9)


def test_sigma_is_the_mean_distance_to_the_last_of_the_nearest_training_anchors_and_stays():
    data = synthetic_splits()
    torch.manual_seed(0)
    run, backbone = Run(Budget(), 0), Probe()
    method = IMH(data.setting(4), backbone, anchors=30, nearest=3)
    method.fit(data.train, run)
    x = run.features(backbone, data.train).pooled
    expected = torch.cdist(x.double(), method.anchors.double()).sort(1).values[:, 2].mean()
    before = float(method.sigma)
    assert before == pytest.approx(float(expected), rel=1e-5)
    encode(run, method, data.query)
    assert float(method.sigma) == before


def test_eigenmaps_are_those_of_the_laplacian_as_written():
    generator = drawn(0)
    a, x, sigma = gaussian(generator, 25, 3), gaussian(generator, 40, 3), torch.tensor(1.0, dtype=D)
    squared = anchors.squared_distances(x, a)
    found = imh.laplacian(a, squared, sigma, 3)

    rest, w = torch.zeros(40, 25, dtype=D), torch.zeros(25, 25, dtype=D)
    for i, row in enumerate(squared):
        for j in row.argsort()[:3]:
            rest[i, j] = torch.exp(-row[j])
    for i in range(25):
        distances = (a[i] - a).square().sum(1)
        for j in [j for j in distances.argsort().tolist() if j != i][: imh.NEIGHBOURS]:
            w[i, j] = w[j, i] = torch.exp(-distances[j])
    y = gaussian(generator, 25)
    others = rest @ y / rest.sum(1)  # what the rest is given by its anchors
    energy = sum(0.5 * w[i, j] * (y[i] - y[j]) ** 2 for i in range(25) for j in range(25))
    energy = energy + 2 * sum(rest[i, j] * (others[i] - y[j]) ** 2 for i in range(40) for j in range(25))
    near(y @ found @ y, energy, 1e-9)
    near(found.sum(1), torch.zeros(25), 1e-9)

    maps = imh.eigenmaps(found, 4)
    near(maps.T @ maps, torch.eye(4), 1e-9)
    values = (maps * (found @ maps)).sum(0)
    assert (values > imh.FLOOR).all()
    near(values, torch.linalg.eigvalsh(found)[1:5], 1e-9)
    with pytest.raises(ValueError, match="24 eigenmaps for 25 bits"):
        imh.eigenmaps(found, 25)


def test_equal_images_leave_fewer_places_than_anchors_without_a_warning():
    x = torch.tensor([[0.0, 0], [0, 0], [0, 0], [1, 1], [1, 1], [5, 5]])
    found = imh.centers(x, 5, 20, drawn(0))
    assert found.shape == (5, 2)
    assert {tuple(r) for r in found.round().tolist()} == {(0.0, 0.0), (1.0, 1.0), (5.0, 5.0)}
    assert imh.centers(x, 99, 20, drawn(0)).shape == (6, 2)


def test_the_embedding_of_anchors_is_centered_and_seeded():
    a = gaussian(drawn(0), 30, 5)
    first, again, other = (imh.tsne(a, 8, drawn(seed)) for seed in (1, 1, 2))
    near(first.mean(0), torch.zeros(8), 1e-5)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.isfinite().all()


def test_imh_with_eigenmaps_keeps_the_contract():
    def make(setting, backbone):
        return IMH(setting, backbone, embedding="laplacian")

    assert [f"{f.check}: {f.why}" for f in check_method(make) if not f.ok] == []
