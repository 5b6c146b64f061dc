"""Metrics of codes against their definitions, written out pair by pair and bit by bit."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hashzoo_plugins.datasets import digits, unseen
from hashzoo_plugins.metrics.bits import bit_balance, bit_correlation, distinct, distortion, quantization
from hashzoo_plugins.metrics.distances import inter, intra
from hashzoo_plugins.metrics.transfer import proportional_rows, transfer
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hashzoo import Backbone, Cascade, Cosine, Features, Hamming, Scan
from hashzoo.errors import UsageError
from hashzoo.evaluation.code_metrics import CodeMetric, CodeSample, code_metrics, evaluate_codes
from hashzoo.evaluation.metrics import evaluate, higher_is_better, parse
from hashzoo.evaluation.scoring import code_sample, encode, evaluate_index, score_queries
from hashzoo.registry import zoo
from hashzoo.run import Run
from hashzoo.testing import Probe, synthetic_splits
from hashzoo.training.budget import Budget


class Pixels(Backbone):
    """The pixels of the digits."""

    dim = 64

    def forward(self, images):
        return Features(images.flatten(1))


EXTRA = zoo.load_plugins().metric_functions()
NAMES = sorted(code_metrics(EXTRA, EXTRA))


def codes(database, query=None, labels=None, query_labels=None, relaxed=None):
    database = np.asarray(database, bool)
    query = database if query is None else np.asarray(query, bool)
    labels = np.ones((len(database), 1)) if labels is None else np.asarray(labels)
    return CodeSample(query, database, labels if query_labels is None else np.asarray(query_labels), labels, relaxed)


def onehot(classes, count):
    return np.eye(count)[np.asarray(classes)]


some_bits = arrays.arrays(bool, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9))


# --- bits ---


@settings(max_examples=200, deadline=None)
@given(some_bits)
def test_balance_is_the_mean_share_of_the_rarer_value(database):
    shares = [min(sum(column), len(column) - sum(column)) / len(column) for column in database.T.tolist()]
    assert bit_balance(codes(database)) == pytest.approx(sum(shares) / len(shares), abs=1e-12)


@settings(max_examples=200, deadline=None)
@given(some_bits)
def test_correlation_is_that_of_every_pair_of_bits_that_vary(database):
    varying = [c for c in database.T.astype(float) if 0 < c.sum() < len(c)]
    found = [abs(np.corrcoef(a, b)[0, 1]) for a, b in itertools.combinations(varying, 2)]
    value = bit_correlation(codes(database))
    assert math.isnan(value) if not found else value == pytest.approx(np.mean(found), abs=1e-9)


@settings(max_examples=200, deadline=None)
@given(some_bits)
def test_distinct_codes_are_those_of_a_set(database):
    assert distinct(codes(database)) == len({tuple(row) for row in database.tolist()}) / len(database)


@settings(max_examples=100, deadline=None)
@given(some_bits, st.randoms(use_true_random=False))
def test_no_use_of_bits_depends_on_the_order_of_items_or_bits_or_on_a_flip(database, random):
    rows, columns = (random.sample(range(n), n) for n in database.shape)
    other = database[rows][:, columns] ^ np.array([random.random() < 0.5 for _ in columns])
    for metric in (bit_balance, bit_correlation, distinct):
        assert metric(codes(other)) == pytest.approx(metric(codes(database)), abs=1e-12, nan_ok=True)


def test_the_ends_of_what_bits_can_be():
    every = np.array(list(itertools.product([0, 1], repeat=4)), bool)
    assert [m(codes(every)) for m in (bit_balance, bit_correlation, distinct)] == [0.5, 0, 1]
    one = np.ones((8, 4), bool)
    assert [m(codes(one)) for m in (bit_balance, distinct)] == [0, 1 / 8]
    assert math.isnan(bit_correlation(codes(one)))
    repeated = np.repeat(every[:, :1], 3, axis=1) ^ np.array([False, True, False])
    assert bit_correlation(codes(repeated)) == pytest.approx(1)


def test_correlation_in_parts_is_that_of_the_whole(monkeypatch):
    import hashzoo_plugins.metrics.bits as module

    database = np.random.default_rng(0).random((50, 6)) < 0.3
    whole = bit_correlation(codes(database))
    monkeypatch.setattr(module, "CHUNK", 7)
    assert bit_correlation(codes(database)) == pytest.approx(whole, abs=1e-12)


# --- relaxed codes ---

real = arrays.arrays(
    np.float64,
    arrays.array_shapes(min_dims=2, max_dims=2, max_side=6),
    elements=st.floats(-4, 4).map(lambda v: round(v, 3)),
)


@settings(max_examples=200, deadline=None)
@given(real)
def test_quantization_is_the_distance_to_the_signs(u):
    b = np.where(u >= 0, 1, -1)
    expected = np.mean([np.sum((x - y) ** 2) / len(x) for x, y in zip(b, u, strict=True)])
    assert quantization(codes([[1]], relaxed=u)) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=200, deadline=None)
@given(real, st.floats(0.01, 100))
def test_distortion_is_what_the_best_scale_leaves_and_does_not_change_with_scale(u, scale):
    left = []
    for row in u:
        b = np.where(row >= 0, 1.0, -1.0)
        s = row @ b / len(row)  # least squares
        left.append(np.sum((row - s * b) ** 2) / np.sum(row**2) if row.any() else 0.0)
    for times in (1, scale):
        value = distortion(codes([[1]], relaxed=times * u))
        assert value == pytest.approx(np.mean(left), abs=1e-9)
        assert 0 <= value <= 1 - 1 / u.shape[1] + 1e-12


def test_a_method_without_a_relaxed_code_has_no_quantization():
    assert math.isnan(quantization(codes([[1]])))
    assert math.isnan(distortion(codes([[1]])))


# --- distances ---


@st.composite
def labelled(draw):
    bits, classes = draw(st.integers(1, 9)), draw(st.integers(1, 3))
    sides = []
    for _ in range(2):
        count = draw(st.integers(1, 7))
        made = draw(arrays.arrays(bool, (count, bits)))
        sides += [made, draw(arrays.arrays(bool, (count, classes))).astype(float)]
    return sides


@settings(max_examples=150, deadline=None)
@given(labelled())
def test_intra_and_inter_are_means_over_all_pairs(sides):
    query, wanted, database, labels = sides
    near, far = [], []
    for (q, a), (d, b) in itertools.product(zip(query, wanted, strict=True), zip(database, labels, strict=True)):
        (near if (a * b).any() else far).append((q != d).mean())
    given_ = codes(database, query, labels, wanted)
    for metric, pairs in ((intra, near), (inter, far)):
        expected = np.mean(pairs) if pairs else math.nan
        assert metric(given_) == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_distances_in_parts_are_those_of_the_whole(monkeypatch):
    import hashzoo_plugins.metrics.distances as module

    rng = np.random.default_rng(1)
    given_ = codes(rng.random((20, 8)) < 0.5, rng.random((11, 8)) < 0.5, onehot(rng.integers(0, 3, 20), 3),
                   onehot(rng.integers(0, 3, 11), 3))  # fmt: skip
    whole = intra(given_), inter(given_)
    monkeypatch.setattr(module, "CHUNK", 4)
    assert (intra(given_), inter(given_)) == whole


def test_a_cell_keeps_the_shares_of_pairs_at_each_distance():
    data = synthetic_splits()
    g = torch.Generator().manual_seed(0)
    query, database = ({"code": torch.rand(len(s), 6, generator=g) < 0.5} for s in (data.query, data.database))
    index = Scan(Hamming("code"))
    index.add(database)
    _, arrays_ = evaluate_index(index, query, data, ("map@all",), {})
    total = np.zeros((2, 7))
    for q, a in zip(query["code"].numpy(), data.query.labels.numpy(), strict=True):
        for d, b in zip(database["code"].numpy(), data.database.labels.numpy(), strict=True):
            total[0 if (a * b).any() else 1, (q != d).sum()] += 1
    for name, row in zip(("distances_relevant", "distances_other"), total, strict=True):
        np.testing.assert_allclose(arrays_[name], row / row.sum(), atol=1e-12)
    labels = data.query.labels.numpy(), data.database.labels.numpy()
    all_ = CodeSample(query["code"].numpy(), database["code"].numpy(), *labels)
    for metric, name in ((intra, "distances_relevant"), (inter, "distances_other")):
        assert metric(all_) == pytest.approx(arrays_[name] @ np.arange(7) / 6, abs=1e-12)


# --- transfer ---


def test_codes_that_tell_classes_apart_by_a_plane_transfer_wholly():
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 4, 400)
    noise = rng.random((400, 12)) < 0.5
    own = onehot(classes, 4).astype(bool)
    made = np.concatenate([own, noise], axis=1)
    given_ = codes(made[:300], made[300:], onehot(classes[:300], 4), onehot(classes[300:], 4))
    assert transfer(given_, None) == 1
    assert transfer(given_, 200) == 1


def test_codes_that_say_nothing_are_at_chance():
    rng = np.random.default_rng(1)
    made, classes = rng.random((3000, 16)) < 0.5, rng.integers(0, 4, 3000)
    given_ = codes(made[:2000], made[2000:], onehot(classes[:2000], 4), onehot(classes[2000:], 4))
    assert abs(transfer(given_, None) - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 1000)
    same = codes(np.ones((40, 3)), np.ones((8, 3)), onehot(np.arange(40) % 4, 4), onehot(np.arange(8) % 4, 4))
    assert transfer(same, None) == 0.25


def test_transfer_is_the_same_again_and_whatever_classes_are_called():
    rng = np.random.default_rng(2)
    made, classes = rng.random((200, 8)) < 0.5, rng.integers(0, 3, 200)
    classes[made[:, 0]] = 0
    plain = codes(made[:150], made[150:], onehot(classes[:150], 3), onehot(classes[150:], 3))
    among = codes(made[:150], made[150:], onehot(classes[:150] + 7, 10), onehot(classes[150:] + 7, 10))
    assert transfer(plain, 100) == transfer(plain, 100) == transfer(among, 100)


def test_a_class_that_was_never_labelled_is_never_found():
    made = np.array([[0], [0], [1], [1]], bool)
    asked = codes(made, [[0], [1], [1], [1]], onehot([0, 0, 1, 1], 3), onehot([0, 1, 2, 2], 3))
    assert transfer(asked, None) == 0.5


def test_transfer_needs_one_label_a_image_and_two_classes():
    made = np.array([[0], [1]], bool)
    assert math.isnan(transfer(codes(made, labels=[[1, 1], [0, 1]]), None))
    assert math.isnan(transfer(codes(made, labels=[[1, 0], [1, 0]]), None))
    assert math.isnan(transfer(codes(made, labels=[[1, 0], [0, 1]]), 1))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(1, 50))
def test_labelled_images_are_chosen_in_proportion_every_class_first(classes, count):
    classes = np.array(classes)
    rows = proportional_rows(classes, count)
    assert len(rows) == min(count, len(classes))
    assert rows.tolist() == sorted(set(rows.tolist()))
    taken, there = (np.bincount(side, minlength=5) for side in (classes[rows], classes))
    for one in range(5):
        mine = np.flatnonzero(classes == one)
        assert set(rows[classes[rows] == one]) == set(mine[: taken[one]])  # the first of a class
        if count >= (there > 0).sum():
            assert taken[one] >= min(1, there[one])
        assert abs(taken[one] - len(rows) * there[one] / len(classes)) <= 5


def test_codes_of_new_classes_know_nothing_of_their_labels():
    data = unseen.draw(digits.base_splits(0), "digits", "unseen", 5, 300, 140, 0)
    run = Run(Budget(backbone="full", epochs=1, batch=64, lr=1e-3), 0)
    method = zoo.load_plugins().method("itq").factory(data.setting(16), Pixels())
    method.fit(data.train, run)
    sides = [encode(run, method, side)["code"].numpy() for side in (data.query, data.database)]
    true = [side.labels for side in (data.query, data.database)]
    assert transfer(CodeSample(*sides, *(labels.numpy() for labels in true)), None) > 0.6
    g = torch.Generator().manual_seed(0)
    wrong = [labels[torch.randperm(len(labels), generator=g)] for labels in true]
    mixed = [replace(s, labels=labels) for s, labels in zip((data.query, data.database), wrong, strict=True)]
    again = [encode(run, method, side)["code"].numpy() for side in mixed]
    for one, other in zip(sides, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert transfer(CodeSample(*again, *(labels.numpy() for labels in wrong)), None) < 0.35  # of five classes


# --- how they are asked for ---


@pytest.mark.parametrize("name", NAMES)
def test_a_metric_of_codes_is_asked_for_by_its_bare_name(name):
    assert parse(name, EXTRA).family == name
    for wrong, cure in ((f"{name}@all", name), (f"{name}@h2", name), (f"{name}x", name)):
        with pytest.raises(UsageError, match=f"did you mean '{cure}"):
            parse(wrong, EXTRA)
    with pytest.raises(UsageError, match=rf"is one number for all queries and has no parts; use '{name}'"):
        parse(f"{name}/tail", EXTRA)


def test_only_a_metric_that_takes_a_number_may_get_one():
    assert parse("transfer@1000", EXTRA).cut == 1000
    assert parse("rprecision", EXTRA).cut is None
    with pytest.raises(UsageError, match="did you mean 'bit-balance'"):
        parse("bit-balance@10", EXTRA)
    with pytest.raises(UsageError, match="at least 1"):
        parse("transfer@0", EXTRA)
    with pytest.raises(UsageError, match="did you mean 'transfer'"):
        parse("transfr", EXTRA)


def test_a_metric_of_codes_is_no_metric_of_counts():
    one = np.ones((1, 2), bool)
    with pytest.raises(UsageError, match="only a benchmark measures it"):
        evaluate(one, one, [0], [0], ["distinct"], extra=EXTRA)


def test_only_what_is_better_when_higher_is_said_to_be():
    names = ("map@all", "p@h2", "rprecision", "transfer", "transfer@10", "transfer/selected")
    assert all(higher_is_better(name, EXTRA) for name in names)
    assert not any(higher_is_better(name, EXTRA) for name in (*NAMES[:-1], "empty@h2", "of another plugin"))


def test_what_gives_no_number_is_named():
    with pytest.raises(ValueError, match="metric 'odd': a metric of codes must return one number or NaN"):
        evaluate_codes(codes([[1]]), {"odd": CodeMetric(lambda coded: np.ones(3))})
    with pytest.raises(ValueError, match="must return one number or NaN, not inf"):
        evaluate_codes(codes([[1]]), {"odd": CodeMetric(lambda coded: math.inf)})


def test_codes_that_are_no_bits_have_no_value_and_no_metric_is_called():
    def never(coded):
        raise AssertionError

    found = evaluate_codes(None, {"never": CodeMetric(never)})
    assert math.isnan(found["never"])


# --- from the index ---


def test_an_index_shows_the_bits_that_it_stores():
    g = torch.Generator().manual_seed(0)
    a, b = (torch.rand(5, n, generator=g) < 0.5 for n in (9, 3))
    plain, side = Scan(Hamming("a")), Scan(Cosine("x"))
    for rows in (slice(0, 2), slice(2, 5)):
        plain.add({"a": a[rows], "unread": b[rows]})
    side.add({"x": torch.rand(5, 2, generator=g)})
    cascade = Cascade(Hamming("a"), Hamming("b"), 2)
    cascade.add({"a": a, "b": b})
    np.testing.assert_array_equal(plain.bits(), a.numpy())
    np.testing.assert_array_equal(cascade.bits(), torch.cat([a, b], 1).numpy())
    assert side.bits() is None


@pytest.mark.parametrize(("name", "relaxed"), [("lsh", False), ("dhn", True)])
def test_a_method_is_looked_at_as_it_encodes(name, relaxed):
    data, house = synthetic_splits(), zoo.load_plugins()
    run = Run(Budget(backbone="full", epochs=1, batch=64, lr=1e-3), 0)
    method = house.method(name).factory(data.setting(8), Probe())
    method.fit(data.train, run)
    index, query = method.index(), encode(run, method, data.query)
    index.add(encode(run, method, data.database))
    found = code_sample(method, index, query, run, data)
    np.testing.assert_array_equal(found.query, query["code"].numpy())
    np.testing.assert_array_equal(found.database, encode(run, method, data.database)["code"].numpy())
    assert (found.relaxed is not None) == relaxed
    if relaxed:
        np.testing.assert_array_equal(found.relaxed >= 0, found.query)


def test_metrics_of_codes_alone_leave_nothing_to_rank():
    data = synthetic_splits()
    index = Scan(Hamming("code"))
    index.add({"code": torch.ones(len(data.database), 4, dtype=torch.bool)})
    asked = {"": {"code": torch.ones(len(data.query), 4, dtype=torch.bool)}}
    found, _ = score_queries(index, asked, data, ("distinct",), EXTRA)
    assert (found.means, found.per_query, found.excluded) == ({}, {}, 0)
