"""A plugin's own distance of whole numbers is counted as Hamming distance is: by a histogram, never by a sort."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import hashzoo
from hashzoo import (
    Card,
    Cascade,
    Codes,
    Hamming,
    Method,
    PackedDistance,
    Scan,
    bits,
    check_method,
    relevance,
    unpack,
    weighted_distances,
)
from hashzoo.evaluation.metrics import score
from hashzoo.hamming import counting, distances
from tests.oracles import brute


class Weighted(PackedDistance):
    """Weighted Hamming distance in plain PyTorch, as a plugin writes it."""

    def __init__(self, name: str, weights: torch.Tensor):
        super().__init__(name)
        self.weights = weights

    def largest(self, bits: int) -> int:
        return int(self.weights.sum())

    def packed(self, query: Codes, database: np.ndarray) -> torch.Tensor:
        items = torch.from_numpy(unpack(database, len(self.weights)))
        differ = query[self.name][:, None] ^ items[None]
        return (differ * self.weights).sum(2)


class Compiled(Weighted):
    """The same distance by the function that hashzoo has for it."""

    def packed(self, query: Codes, database: np.ndarray) -> torch.Tensor:
        codes = np.packbits(query[self.name].numpy(), axis=1)
        return torch.from_numpy(weighted_distances(codes, self.weights.numpy(), database))


class WeightedLSH(Method):
    """Random hyperplanes, whose bits count by weights."""

    card = Card("shallow", "none")

    def __init__(self, setting, backbone):
        super().__init__()
        self.backbone = backbone
        self.register_buffer("mean", torch.zeros(backbone.dim))
        self.register_buffer("planes", torch.zeros(backbone.dim, setting.bits))
        self.register_buffer("weights", torch.ones(setting.bits, dtype=torch.long))

    def fit(self, train, run):
        x = run.features(self.backbone, train).pooled
        self.mean = x.mean(0)
        self.planes = torch.randn(self.planes.shape, generator=run.generator).to(x)
        self.weights = 1 + ((x - self.mean) @ self.planes).var(0).argsort().argsort() % 8

    def encode(self, batch):
        return {"code": bits((self.backbone(batch.images).pooled - self.mean) @ self.planes)}

    def index(self):
        return Scan(Weighted("code", self.weights))


METRICS = ("map@all", "map@5", "p@3", "r@4", "ndcg@5", "map@all:best", "map@7:hits")


@pytest.fixture
def without_numba(monkeypatch):
    return lambda off: monkeypatch.setenv("HASHZOO_NUMBA", "off" if off else "on")


@pytest.fixture
def no_sort(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("distances were sorted")

    monkeypatch.setattr("hashzoo.index.distance_counts", refuse)
    monkeypatch.setattr(counting.np, "argsort", refuse)


def problem(seed: int, queries: int, items: int, width: int, largest: int = 3):
    g = torch.Generator().manual_seed(seed)
    codes = [{"code": torch.rand(n, width, generator=g) < 0.5} for n in (queries, items)]
    weights = torch.randint(0, largest + 1, (width,), generator=g)
    labels = [(torch.rand(n, 4, generator=g) < 0.4).numpy() for n in (queries, items)]
    return *codes, weights, labels


def plain_distances(query, database, weights):
    """The definition, with loops over queries and items."""

    def distance(q, d):
        return sum(w for w, a, b in zip(weights.tolist(), q, d, strict=True) if a != b)

    return np.array([[distance(q, d) for d in database["code"].tolist()] for q in query["code"].tolist()])


@pytest.mark.parametrize("off", [False, True])
@pytest.mark.parametrize("kind", [Weighted, Compiled])
@pytest.mark.parametrize("width", [3, 12, 70])
def test_a_plugins_weighted_hamming_distance_scores_as_by_brute_force(width, kind, off, without_numba, no_sort):
    without_numba(off)
    query, database, weights, (query_labels, labels) = problem(width, 5, 60, width)
    index = Scan(kind("code", weights))
    for rows in torch.arange(60).split(7):
        index.add({"code": database["code"][rows]})
    counts = index.counts(query, relevance(query_labels, labels), graded=True)
    expected = plain_distances(query, database, weights)
    assert len(set(expected[0].tolist())) < 60  # there are ties
    values = score(counts, METRICS)
    for q in range(5):
        groups = sorted(set(expected[q].tolist()))
        shared = (query_labels[q] & labels).sum(1)
        assert counts.items[q, : len(groups)].tolist() == [int((expected[q] == d).sum()) for d in groups]
        assert counts.relevant[q, : len(groups)].tolist() == [int((shared[expected[q] == d] > 0).sum()) for d in groups]
        assert not counts.items[q, len(groups) :].any()
    for name, value in values.items():
        assert value.shape == (5,), name


@pytest.mark.parametrize("kind", [Weighted, Compiled])
def test_metrics_by_a_weighted_distance_are_means_over_all_orders_of_ties(kind, no_sort):
    for seed in range(20):
        query, database, weights, (query_labels, labels) = problem(seed, 1, 6, 3)
        shared = (query_labels[0] & labels).sum(1)
        if not shared.any():
            continue
        index = Scan(kind("code", weights))
        index.add(database)
        values = score(index.counts(query, relevance(query_labels, labels), graded=True), METRICS)
        expected = plain_distances(query, database, weights)[0].tolist()
        for name, metric, cut in (("map@all", "map", 6), ("map@5", "map", 5), ("p@3", "p", 3), ("ndcg@5", "ndcg", 5)):
            by_hand = brute.mean_over_orders(metric, expected, shared.tolist(), cut)
            assert values[name][0] == pytest.approx(by_hand, abs=1e-12), name


@pytest.mark.parametrize("kind", [Weighted, Compiled])
def test_a_search_by_a_plugins_distance_orders_equal_items_by_row(kind):
    query, database, weights, _ = problem(1, 4, 50, 9)
    index = Scan(kind("code", weights))
    index.add(database)
    ranking = index.search(query, 13)
    expected = plain_distances(query, database, weights)
    for q in range(4):
        order = sorted(range(50), key=lambda row, q=q: (expected[q, row], row))[:13]
        assert ranking.rows[q].tolist() == order
        assert ranking.distances[q].tolist() == expected[q, order].tolist()


def test_a_mask_gives_what_weights_of_zero_and_one_give():
    query, database, weights, (query_labels, labels) = problem(2, 4, 50, 20, largest=1)
    masked, weighted = Scan(Hamming("code", mask="mask")), Scan(Compiled("code", weights))
    for index in (masked, weighted):
        index.add(database)
    query["mask"] = weights.bool().expand(4, 20)
    prepared = relevance(query_labels, labels)
    assert np.array_equal(masked.counts(query, prepared).items, weighted.counts(query, prepared).items)
    assert torch.equal(masked.search(query, 9).rows, weighted.search(query, 9).rows)
    assert masked.search(query, 9).distances.dtype == torch.int32


def test_a_cascade_ranks_by_distances_of_a_plugin_also_of_one_code():
    query, database, weights, (query_labels, labels) = problem(3, 4, 50, 8)
    index = Cascade(Hamming("code"), Weighted("code", weights), depth=10)
    index.add(database)
    coarse, fine = (
        plain_distances(query, database, torch.ones(8, dtype=torch.long)),
        plain_distances(query, database, weights),
    )
    ranking = index.search(query, 50)
    for q in range(4):
        last = sorted(coarse[q])[9]
        nearer = coarse[q] <= last
        again = sorted(np.flatnonzero(nearer).tolist(), key=lambda row, q=q: (fine[q, row], coarse[q, row], row))
        rest = sorted(np.flatnonzero(~nearer).tolist(), key=lambda row, q=q: (coarse[q, row], row))
        assert ranking.rows[q].tolist() == again + rest
    counts = index.counts(query, relevance(query_labels, labels))
    assert counts.items.sum(1).tolist() == [50] * 4
    assert not counts.hamming
    assert index.stored_bits() == 8


def test_metrics_within_a_radius_need_hamming_distances():
    query, database, weights, (query_labels, labels) = problem(4, 3, 20, 8)
    index = Scan(Weighted("code", weights))
    index.add(database)
    with pytest.raises(hashzoo.UsageError, match="needs integer Hamming distances"):
        score(index.counts(query, relevance(query_labels, labels)), ["p@h2"])


@pytest.mark.parametrize("off", [False, True])
def test_a_distance_beyond_the_declared_largest_is_named(off, without_numba):
    without_numba(off)
    query, database, weights, (query_labels, labels) = problem(5, 3, 20, 8)
    distance = Weighted("code", weights)
    distance.largest = lambda _bits: 2
    index = Scan(distance)
    index.add(database)
    with pytest.raises(ValueError, match="`largest` allows 0 to 2; correct `largest`"):
        index.counts(query, relevance(query_labels, labels))


def test_real_numbers_from_a_packed_distance_are_refused():
    query, database, weights, (query_labels, labels) = problem(6, 3, 20, 8)
    index = Scan(Weighted("code", weights / 2))
    index.add(database)
    with pytest.raises(ValueError, match="distances must be integers, not float32"):
        index.counts(query, relevance(query_labels, labels))


def test_a_code_of_real_numbers_is_refused_by_a_packed_distance():
    with pytest.raises(ValueError, match="'code' is compared bit by bit and encode gave float32"):
        Scan(Weighted("code", torch.ones(4, dtype=torch.long))).add({"code": torch.zeros(3, 4)})


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    queries=st.integers(1, 4),
    items=st.one_of(st.integers(1, 40), st.sampled_from([4095, 4096, 4097])),
    largest=st.sampled_from([0, 1, 7, 300, 70_000, 2**20 + 5]),
    dtype=st.sampled_from([np.uint8, np.int16, np.int32, np.int64]),
    graded=st.booleans(),
    off=st.booleans(),
)
def test_whole_numbers_are_counted_as_real_ones_are(seed, queries, items, largest, dtype, graded, off):
    rng = np.random.default_rng(seed)
    largest = min(largest, np.iinfo(dtype).max)
    given_ = rng.integers(0, largest + 1, (queries, items)).astype(dtype)
    prepared = relevance(rng.random((queries, 9)) < 0.3, rng.random((items, 9)) < 0.3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HASHZOO_NUMBA", "off" if off else "on")
        fast = counting.integer_counts(given_, largest, prepared, graded)
    slow = counting.distance_counts(given_.astype(np.float64), prepared, graded)
    assert np.array_equal(fast.items, slow.items)
    assert np.array_equal(fast.relevant, slow.relevant)
    assert (fast.grades is None and slow.grades is None) or np.array_equal(fast.grades, slow.grades)
    assert not fast.hamming


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    width=st.integers(1, 150),
    items=st.one_of(st.integers(1, 40), st.sampled_from([4095, 4096, 4097])),
    largest=st.sampled_from([0, 1, 2, 1000]),
    each=st.booleans(),
    off=st.booleans(),
)
def test_weighted_distances_are_sums_of_weights(seed, width, items, largest, each, off):
    rng = np.random.default_rng(seed)
    query, database = rng.random((3, width)) < 0.5, rng.random((items, width)) < 0.5
    weights = rng.integers(0, largest + 1, (3, width) if each else width)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HASHZOO_NUMBA", "off" if off else "on")
        made = weighted_distances(hashzoo.pack(query), weights, hashzoo.pack(database))
    differ = query[:, None] != database[None]
    assert made.dtype == np.int32
    assert np.array_equal(made, (differ * (weights[:, None] if each else weights)).sum(2))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones(7, int), "weights (7,) do not go with codes (2, 2)"),
        (np.ones((3, 16), int), "weights (3, 16) do not go with codes (2, 2)"),
        (np.full(16, -1), "weights must be integers of at least 0"),
        (np.full(16, 0.5), "weights must be integers of at least 0"),
        (np.full(16, 2**30), "whose sum is below 2^31"),
    ],
)
def test_weights_that_do_not_fit_are_named(weights, message):
    codes = np.zeros((2, 2), np.uint8)
    with pytest.raises(ValueError, match=re.escape(message)):
        weighted_distances(codes, weights, codes)


@pytest.mark.parametrize("dtype", [np.int64, np.float32, np.float64])
def test_nearest_by_sorts_as_a_stable_sort_does(dtype):
    rng = np.random.default_rng(0)
    given_ = rng.integers(0, 5, (3, 40)).astype(dtype)
    if dtype != np.int64:
        given_[1, :30] = np.nan  # fewer numbers than are wanted
        given_[2, 3] = np.nan
    rows, values = distances.nearest_by(given_, 17)
    assert np.array_equal(rows, np.argsort(given_, axis=1, kind="stable")[:, :17])
    assert np.array_equal(values, np.take_along_axis(given_, rows, 1), equal_nan=dtype != np.int64)
    assert values.dtype == given_.dtype


def test_a_method_with_its_own_distance_keeps_the_contract():
    assert [one for one in check_method(WeightedLSH) if not one.ok] == []


def test_a_distance_that_returns_an_array_is_named_with_the_fix():
    class Wrong(PackedDistance):
        def largest(self, bits):
            return bits

        def packed(self, query, database):
            return np.zeros((len(query["code"]), len(database)), np.int64)

    index = Scan(Wrong("code"))
    index.add({"code": torch.ones(3, 8, dtype=torch.bool)})
    with pytest.raises(TypeError, match=r"Wrong\.packed returned ndarray; return a tensor"):
        index.counts({"code": torch.ones(2, 8, dtype=torch.bool)}, relevance([0, 1], [0, 1, 1]))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.data())
def test_a_prefix_of_a_code_ranks_as_the_shorter_code(length, data):
    first = data.draw(st.integers(1, length))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    query, items = (torch.rand(n, length, generator=generator) < 0.5 for n in (3, 12))
    labels = torch.rand(15, 2, generator=generator).round()
    judged = relevance(labels[:3], labels[3:])
    whole, short = Scan(Hamming("code", prefix=first)), Scan(Hamming("code"))
    whole.add({"code": items})
    short.add({"code": items[:, :first]})
    asked = ({"code": query}, {"code": query[:, :first]})
    rankings = [index.search(codes, 5) for index, codes in zip((whole, short), asked, strict=True)]
    counts = [index.counts(codes, judged) for index, codes in zip((whole, short), asked, strict=True)]
    assert torch.equal(rankings[0].rows, rankings[1].rows)
    assert torch.equal(rankings[0].distances, rankings[1].distances)
    assert np.array_equal(counts[0].items, counts[1].items)
    assert np.array_equal(counts[0].relevant, counts[1].relevant)
    by_hand = (query[:, None, :first] != items[None, :, :first]).sum(2)
    assert torch.equal(Hamming("code", prefix=first)({"code": query}, {"code": items}).long(), by_hand)


def test_a_mask_and_a_prefix_both_limit_the_bits_that_count():
    one = {"code": torch.tensor([[True] * 10]), "mask": torch.tensor([[True, False] * 5])}
    zero = {"code": torch.zeros(1, 10, dtype=torch.bool)}
    assert Hamming("code", "mask", prefix=7)(one, zero).item() == 4


def test_a_cascade_with_a_prefix_as_coarse_code_stores_the_code_once():
    generator = torch.Generator().manual_seed(0)
    query, items = ({"code": torch.rand(n, 24, generator=generator) < 0.5} for n in (4, 50))
    cascade, twice = (Cascade(coarse, Hamming("code"), 10) for coarse in (Hamming("code", prefix=9), Hamming("short")))
    cascade.add(items)
    twice.add(items | {"short": items["code"][:, :9]})
    assert torch.equal(cascade.ranks(query), twice.ranks(query | {"short": query["code"][:, :9]}))
    assert (cascade.stored_bits(), twice.stored_bits()) == (24, 33)


def test_a_prefix_longer_than_the_code_is_refused():
    code = {"code": torch.ones(1, 8, dtype=torch.bool)}
    with pytest.raises(ValueError, match="has 8 bits and cannot be compared by its first 9"):
        Hamming("code", prefix=9)(code, code)
