"""Methods of pairs and triplets against worked values, plain loops and what their papers prove."""

from __future__ import annotations

import math
from itertools import combinations, pairwise

import pytest
import torch
from hashzoo_plugins.pairwise import adsh, cnnh, dch, dnnh, dpsh, dqn, dsdh, dsh, dtsh, hashnet, mihash, pairs
from hashzoo_plugins.pairwise.triplets import triplets
from hypothesis import given, settings
from hypothesis import strategies as st

from hashzoo.bench.facts import marks
from hashzoo.evaluation.scoring import encode
from hashzoo.run import Run
from hashzoo.testing import Probe, synthetic_splits
from hashzoo.training.budget import Budget
from hashzoo.types import Codes, Features, Output, Setting, Splits, signs
from tests.oracles.toy import SETTING, D, Y, Z, batch, made, near, t, terms

SEEDS = st.integers(0, 2**31)


def setting(bits, classes=3, multilabel=False, pool=8):
    return Setting(bits, classes, multilabel, torch.full((classes,), 2), pool)


# --- worked values ---------------------------------------------------------------------------------------------------


def test_dsh_equals_the_reference_values():
    found = terms(dsh.DSH(SETTING, margin=8, alpha=1.0), Z, Y)
    near(found["pair"] * 3, 2.7)
    near(found["quantization"] * 3, 7.4)


def test_dpsh_equals_the_reference_values():
    found = terms(dpsh.DPSH(SETTING, eta=3.0), Z, Y)  # 3 labels in train: the weight of the mean is 1
    near(found["pair"] * 3, 1.3122360813)
    near(found["quantization"] * 3, 1.47)


def test_dtsh_equals_the_reference_values():
    query, near_, far = triplets(batch(Y).similar)
    assert list(zip(query.tolist(), near_.tolist(), far.tolist(), strict=True)) == [(0, 1, 2), (1, 0, 2)]
    theta = Z @ Z.T / 2
    near(dtsh.disorder(theta[query, near_], theta[query, far], 2.0), t(1.2914188132, 0.9220225697))
    near(terms(dtsh.DTSH(SETTING), Z, Y)["triplet"], (1.2914188132 + 0.9220225697) / 2)


def test_hashnet_equals_the_reference_value():
    loss = hashnet.HashNet(SETTING, growth=0.0)
    assert loss.alpha == 2.5
    near(terms(loss, torch.atanh(Z), Y)["pair"], 0.1432050403)


@pytest.mark.parametrize(
    ("gamma", "pair", "quantization"),
    [(20.0, 2.0363704390, 0.0025437537), (2.0, 0.7823925623, 0.0250612314)],
)
def test_dch_equals_the_reference_values(gamma, pair, quantization):
    found = terms(dch.DCH(SETTING, gamma=gamma, quantization=1.0), Z, Y)
    near(found["pair"], pair)
    near(found["quantization"], quantization)


def test_the_distance_of_dch_and_its_two_algebraic_forms_agree():
    distance = 2 * (1 - pairs.cosines(Z))
    near(distance[0, 1], 0.654384542)
    d, s = pairs.upper(distance), pairs.upper(batch(Y).similar)
    for gamma in (2.0, 20.0):
        near(dch.cross_entropy(d, s, gamma), s * torch.log(d / gamma) + torch.log(1 + gamma / d), 1e-14)


def test_the_cosine_part_of_dqn_equals_the_reference_value():
    near(terms(dqn.DQNLoss(2, 4, 4, 1.0), Z, Y)["pair"], 0.2082808780)


def test_mihash_equals_the_reference_values():
    near(mihash.information(Z, batch(Y).similar, 2), t(0.2715513171, 0.3966701069, 0.0))
    near(mihash.information(signs(Z), batch(Y).similar, 4), t(1.0, 1.0, 0.0))
    loss = mihash.MIHash(SETTING, slope=2.0)
    near(terms(loss, torch.atanh(Z), Y)["information"], -(0.2715513171 + 0.3966701069) / 3)


# --- plain loops -----------------------------------------------------------------------------------------------------


def loop_pairs(code, labels, cost):
    """The mean over i < j of cost(u_i, u_j, similar), in plain Python."""
    values = []
    for i, j in combinations(range(len(code)), 2):
        similar = bool((labels[i] * labels[j]).sum() > 0)
        values.append(cost([float(x) for x in code[i]], [float(x) for x in code[j]], similar))
    return sum(values) / len(values)


def dot(u, v):
    return sum(a * b for a, b in zip(u, v, strict=True))


def logistic(theta, similar):
    return math.log1p(math.exp(-abs(theta))) + max(theta, 0) - theta * similar


def dsh_loop(u, v, similar):
    d = sum((a - b) ** 2 for a, b in zip(u, v, strict=True))
    pull = sum(abs(abs(a) - 1) for a in [*u, *v])
    return (d / 2 if similar else max(2 * len(u) - d, 0) / 2) + 0.01 * pull


@settings(deadline=None, max_examples=30)
@given(SEEDS, st.integers(2, 7), st.integers(1, 6), st.booleans())
def test_pair_losses_equal_plain_loops(seed, count, bits, several):
    code, labels, _ = made(seed, count, bits, multilabel=several)
    about = setting(bits, multilabel=several)
    near(sum(terms(dsh.DSH(about), code, labels).values()), loop_pairs(code, labels, dsh_loop), 1e-9)
    found = terms(dpsh.DPSH(about), code, labels)
    near(found["pair"], loop_pairs(code, labels, lambda u, v, s: logistic(dot(u, v) / 2, s)), 1e-9)
    near(found["quantization"], 10 / 6 * float((code.abs() - 1).square().sum(1).mean()), 1e-9)


@settings(deadline=None, max_examples=30)
@given(SEEDS, st.integers(2, 7), st.integers(1, 6))
def test_balanced_dpsh_weights_similar_and_other_pairs_alike(seed, count, bits):
    code, labels, _ = made(seed, count, bits, multilabel=False)
    found = terms(dpsh.DPSH(setting(bits), similar="balanced"), code, labels)
    apart = {True: [], False: []}
    for i, j in combinations(range(count), 2):
        similar = dot(labels[i].tolist(), labels[j].tolist()) > 0
        apart[similar].append(logistic(dot(code[i].tolist(), code[j].tolist()) / 2, similar))
    means = [sum(one) / len(one) for one in apart.values() if one]
    near(found["pair"], sum(means), 1e-9)


def test_dpsh_balances_pairs_where_few_are_similar_and_only_there():
    def loss(counts, **options):
        return dpsh.DPSH(Setting(8, len(counts), False, torch.tensor(counts), sum(counts)), **options).balanced

    assert [loss(counts) for counts in ([50] * 10, [30] * 100, [900, *[1] * 100], [0] * 3)] == [
        False,
        True,
        False,
        False,
    ]
    assert (loss([50] * 10, similar="balanced"), loss([30] * 100, similar="equal")) == (True, False)


@settings(deadline=None, max_examples=30)
@given(SEEDS, st.integers(2, 7), st.integers(1, 6), st.booleans(), st.floats(0, 1))
def test_weighted_pair_losses_equal_plain_loops(seed, count, bits, several, progress):
    code, labels, _ = made(seed, count, bits, multilabel=several)
    all_pairs = list(combinations(range(count), 2))
    alike = [bool((labels[i] * labels[j]).sum() > 0) for i, j in all_pairs]

    def weight(i, j, similar):
        total = len(all_pairs) / max(1, sum(alike) if similar else len(alike) - sum(alike))
        if not (several and similar):
            return total
        return total * float((labels[i] * labels[j]).sum() / ((labels[i] + labels[j]) > 0).sum())

    h = torch.tanh(math.sqrt(1 + 50 * progress) * code)
    expected = cauchy = 0.0
    for (i, j), similar in zip(all_pairs, alike, strict=True):
        expected += weight(i, j, similar) * logistic(10 / bits * dot(h[i].tolist(), h[j].tolist()), similar)
        cosine = dot(code[i].tolist(), code[j].tolist()) / float(code[i].norm() * code[j].norm())
        d = max(bits / 2 * (1 - cosine), 0)
        cost = math.log1p(d / 20) if similar else math.log1p(20 / max(d, 1e-6))
        cauchy += weight(i, j, similar) * cost
    about = setting(bits, multilabel=several)
    near(terms(hashnet.HashNet(about), code, labels, progress)["pair"], expected / len(all_pairs), 1e-8)
    near(terms(dch.DCH(about), code, labels)["pair"], cauchy / len(all_pairs), 1e-6)


@settings(deadline=None, max_examples=30)
@given(SEEDS, st.integers(2, 7), st.integers(1, 5))
def test_triplet_losses_equal_plain_loops(seed, count, bits):
    code, labels, _ = made(seed, count, bits)
    likelihoods, hinges = [], []
    f = ((torch.tanh(code) + 1) / 2).tolist()
    for q in range(count):
        for p in range(count):
            for n in range(count):
                same = [int(labels[i].argmax()) for i in (q, p, n)]
                if p == q or same[0] != same[1] or same[0] == same[2]:
                    continue
                theta = (dot(code[q].tolist(), code[p].tolist()) - dot(code[q].tolist(), code[n].tolist())) / 2
                likelihoods.append(logistic(theta - bits / 2, True))
                gaps = [sum((a - b) ** 2 for a, b in zip(f[q], f[o], strict=True)) for o in (p, n)]
                hinges.append(max(0, gaps[0] - gaps[1] + 1))
    found = terms(dtsh.DTSH(setting(bits)), code, labels)["triplet"]
    near(found, sum(likelihoods) / max(1, len(likelihoods)), 1e-9)
    near(terms(dnnh.DNNH(setting(bits)), torch.tanh(code), labels)["triplet"], sum(hinges) / max(1, len(hinges)), 1e-9)


def test_the_gradients_of_the_triplet_hinge_are_those_of_the_paper():
    f = t([0.9, 0.2], [0.7, 0.4], [0.6, 0.6]).requires_grad_()
    apart = dnnh.distances(f)
    dnnh.hinge(apart[0, 1], apart[0, 2]).backward()
    a, b, c = f.detach()
    near(f.grad, torch.stack([2 * (c - b), 2 * (b - a), 2 * (a - c)]), 1e-12)
    near(dnnh.hinge(t(0.5), t(0.5)), 1.0)


def test_divide_and_encode_reads_one_slice_a_bit():
    torch.manual_seed(0)
    head = dnnh.DivideAndEncode(setting(3), Probe(), slice=5)
    head.requires_grad_(False)
    x = torch.randn(4, 128)
    s = head.layer(x)  # (4, 15)
    expected = [
        [torch.sigmoid((s[i, 5 * k : 5 * k + 5] * head.weight[k]).sum() + head.bias[k]) for k in range(3)]
        for i in range(4)
    ]
    near(head(Features(x)).code, 2 * dnnh.step(torch.tensor(expected), 0.25) - 1, 1e-6)


# --- relations and properties ----------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=20)
@given(SEEDS, st.integers(2, 6), st.integers(1, 6))
def test_dsh_is_half_the_contrastive_loss_and_its_regulariser(seed, count, bits):
    from hashzoo_plugins.structured.multigrain import Contrastive

    code, labels, _ = made(seed, count, bits)
    about = setting(bits)
    half = terms(Contrastive(about), code, labels)["pair"] / 2
    regulariser = 2 * 0.01 * (code.abs() - 1).abs().sum(1).mean()
    near(sum(terms(dsh.DSH(about), code, labels).values()), half + regulariser, 1e-9)


PAIR_LOSSES = [dsh.DSH, dpsh.DPSH, dtsh.DTSH, dnnh.DNNH, hashnet.HashNet, dch.DCH, mihash.MIHash]


@pytest.mark.parametrize("loss", PAIR_LOSSES)
@settings(deadline=None, max_examples=15)
@given(seed=SEEDS, count=st.integers(2, 7), bits=st.integers(1, 6))
def test_no_order_of_images_or_bits_and_no_common_flip_changes_a_pair_loss(loss, seed, count, bits):
    code, labels, draw = made(seed, count, bits)
    made_loss = loss(setting(bits))
    value = sum(terms(made_loss, code, labels).values())
    order, places = torch.randperm(count, generator=draw), torch.randperm(bits, generator=draw)
    flips = signs(torch.randn(bits, generator=draw, dtype=D))
    for other, theirs in [(code[order], labels[order]), (code[:, places], labels), (code * flips, labels)]:
        near(sum(terms(made_loss, other, theirs).values()), value, 1e-9)


@pytest.mark.parametrize("loss", PAIR_LOSSES)
def test_a_batch_of_one_image_is_refused_by_losses_of_pairs(loss):
    with pytest.raises(ValueError, match="two images"):
        terms(loss(SETTING), Z[:1], Y[:1])


def test_the_slope_of_the_regulariser_at_zero_is_that_of_a_positive_code():
    code = torch.zeros(2, 4, dtype=D, requires_grad=True)
    terms(dsh.DSH(SETTING, alpha=1.0), code, Y[:2])["quantization"].backward()
    near(code.grad, torch.full((2, 4), -1.0))


def test_the_tanh_of_hashnet_ends_as_sharp_as_in_the_paper():
    code = torch.full((2, 1), 0.1, dtype=D)
    found = terms(hashnet.HashNet(setting(1), alpha=1.0), code, Y[[0, 0]], 1.0)["pair"]
    near(found, logistic(math.tanh(math.sqrt(51) * 0.1) ** 2, True), 1e-9)


@settings(deadline=None, max_examples=25)
@given(SEEDS, st.integers(2, 6), st.integers(1, 8))
def test_the_shares_of_every_distance_sum_to_one(seed, count, bits):
    code, _, _ = made(seed, count, bits)
    for phi in (torch.tanh(code), signs(code)):
        for bins in (1, max(1, bits // 2), bits):
            shares = mihash.histogram(phi, bins)
            assert shares.shape == (count, count, bins + 1)
            near(shares.sum(2), torch.ones(count, count), 1e-9)


# --- methods with tables ---------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=20)
@given(SEEDS, st.integers(2, 20), st.integers(1, 6))
def test_no_sweep_of_cnnh_raises_its_objective(seed, count, bits):
    _, labels, draw = made(seed, count, bits)
    h, path = cnnh.decompose(batch(labels).similar, bits, 5, draw)
    assert all(after <= before + 1e-9 for before, after in pairwise(path))
    assert h.abs().max() <= 1
    near(path[-1], (2 * batch(labels).similar - 1 - h @ h.T / bits).square().sum(), 1e-7)


def test_one_coordinate_of_cnnh_is_never_worse_than_before():
    draw = torch.Generator().manual_seed(3)
    for _ in range(50):
        residual = torch.randn(6, 6, generator=draw, dtype=D)
        residual = ((residual + residual.T) * 3).numpy()
        column, last = (2 * torch.rand(2, 6, generator=draw, dtype=D) - 1).numpy()
        expected = residual - last[:, None] * last + column[:, None] * column
        before = ((expected - column[:, None] * column) ** 2).sum()
        cnnh.sweep(column, residual, last)
        assert (residual == expected).all()
        assert ((residual - column[:, None] * column) ** 2).sum() <= before + 1e-9


def test_cnnh_is_exact_for_two_classes():
    labels = torch.eye(2, dtype=D)[[0, 0, 1, 1, 1]]
    h, path = cnnh.decompose(batch(labels).similar, 4, 30, torch.Generator().manual_seed(0))
    near(path[-1], 0.0, 1e-4)
    assert len({tuple(row) for row in (h >= 0).tolist()}) == 2


@settings(deadline=None, max_examples=20)
@given(SEEDS, st.integers(3, 20), st.integers(1, 6))
def test_no_round_of_dsdh_raises_the_objective_of_its_codes(seed, count, bits):
    u, labels, draw = made(seed, count, bits)
    b, how = signs(torch.randn(count, bits, generator=draw, dtype=D)), (0.01, 1.0, 0.01)
    w = torch.zeros(bits, 3, dtype=D)
    value = dsdh.objective(b, u, labels, w, *how)
    for _ in range(4):
        w, b_next = dsdh.solve(b, u, labels, *how, 10)
        middle = dsdh.objective(b, u, labels, w, *how)
        after = dsdh.objective(b_next, u, labels, w, *how)
        assert after <= middle + 1e-9 <= value + 2e-9
        assert torch.equal(b_next.abs(), torch.ones_like(b_next))
        b, value = b_next, after


@settings(deadline=None, max_examples=20)
@given(SEEDS, st.integers(3, 15), st.integers(1, 6))
def test_no_update_of_the_codes_of_adsh_raises_its_loss(seed, count, bits):
    u, labels, draw = made(seed, count, bits)
    rows = torch.randint(count, (count,), generator=draw)  # some images twice, with other outputs
    u = torch.tanh(u)
    v = signs(torch.randn(count, bits, generator=draw, dtype=D))
    s = adsh.targets(labels[rows], labels, adsh.ratio(labels))
    for gamma in (0.0, 200.0):
        after = adsh.update(v, u, s, rows, gamma)
        assert adsh.objective(after, u, s, rows, gamma) <= adsh.objective(v, u, s, rows, gamma) + 1e-8
        assert torch.equal(after.abs(), torch.ones_like(v))


def test_the_targets_of_adsh_balance():
    labels = torch.eye(4, dtype=D)
    s = adsh.targets(labels, labels, adsh.ratio(labels))
    near(s[0], t(1.0, -1 / 3, -1 / 3, -1 / 3))
    near(s.sum(), 0.0)


def fitted(factory, data: Splits, bits=8, **options):
    torch.manual_seed(0)
    method = factory(data.setting(bits), Probe(), **options)
    run = Run(Budget(epochs=2, batch=32), 0)
    method.train()
    method.fit(data.train, run)
    return method.eval(), run


def test_adsh_gives_a_training_image_of_the_database_its_learned_code_and_the_row_is_marked():
    data = synthetic_splits()
    method, run = fitted(adsh.ADSH, data)
    learned = method.loss.codes[data.train.ids] > 0
    assert torch.equal(encode(run, method, data.train, ids=True)["code"], learned)
    assert not torch.equal(encode(run, method, data.train)["code"], learned)
    assert torch.equal(encode(run, method, data.database, ids=True)["code"], encode(run, method, data.database)["code"])
    inside = Splits(data.train, data.train, data.query, False, data.class_names)
    assert marks(method, True, inside) == "learned database codes"
    assert marks(method, True, data) == ""
    assert marks(method, False, inside) == ""


def test_adsh_learns_from_a_sample_at_a_time_when_there_are_more_images():
    data = synthetic_splits()
    method, _ = fitted(adsh.ADSH, data, sample=50)
    assert torch.equal(method.loss.codes[data.train.ids].abs(), torch.ones(len(data.train), 8))


def test_the_distance_of_dqn_is_that_of_the_query_from_the_words_of_each_image():
    draw = torch.Generator().manual_seed(0)
    codebook = torch.randn(3, 4, 2, generator=draw, dtype=D)
    z = torch.randn(5, 6, generator=draw, dtype=D)
    words = dqn.nearest(codebook, z)
    database: Codes = {"code": dqn.digits(words, 2)}
    found = dqn.Quantized(codebook)({"z": z}, database)
    for q in range(5):
        for i in range(5):
            expected = sum(float((z[q, 2 * m : 2 * m + 2] - codebook[m, words[i, m]]).square().sum()) for m in range(3))
            assert float(found[q, i]) == pytest.approx(expected, abs=1e-5)
    for i in range(5):  # each word is the nearest of its part
        for m in range(3):
            away = (z[i, 2 * m : 2 * m + 2] - codebook[m]).square().sum(1)
            assert int(words[i, m]) == int(away.argmin())
    assert dqn.decoded(codebook, words).shape == (5, 6)


def test_dqn_stores_as_many_bits_as_asked_and_refuses_what_does_not_divide():
    data = synthetic_splits()
    method, run = fitted(dqn.DQN, data, bits=16)
    codes = encode(run, method, data.query)
    index = method.index()
    index.add(codes)
    assert index.stored_bits() == 16
    assert codes["code"].shape == (80, 16)
    assert method.codebook.shape == (2, 256, 150)
    with pytest.raises(ValueError, match="does not divide 20 bits"):
        dqn.DQN(data.setting(20), Probe())
    with pytest.raises(ValueError, match="width must be at least"):
        dqn.DQN(data.setting(64), Probe(), width=7)


def test_the_network_of_cnnh_learns_from_a_sample_when_the_table_would_be_too_large():
    data = synthetic_splits()
    method, _ = fitted(cnnh.CNNH, data, sample=60)
    given_codes = method.loss.bits[data.train.ids].sum(1) > 0
    assert 50 <= int(given_codes.sum()) <= 60  # an image whose bits are all 0 looks as one without


def test_a_head_that_hands_no_features_on_is_refused_by_losses_that_need_them():
    from hashzoo_plugins.pointwise.bihalf import BiHalf

    with pytest.raises(ValueError, match="needs a head that returns its features"):
        BiHalf(SETTING)(Output(Z), batch(Y))
