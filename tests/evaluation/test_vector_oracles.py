"""Independent oracles of methods on vectors: NumPy scripts from formulas, faiss, exact comparison of candidates."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hashzoo.distance import Distance, Hamming
from hashzoo.evaluation.metrics import score
from hashzoo.hamming.counting import distance_counts
from hashzoo.hamming.packing import pack
from hashzoo.hamming.relevance import neighbours
from hashzoo.index import Scan
from hashzoo.run import Run
from hashzoo.training.budget import Budget
from tests.oracles.embeddings import HOUSE, fit, gaussian, minilm, numbers, recalls, truth
from tests.shared_data import needs

FREE = sorted(
    name
    for name, entry in HOUSE.methods.items()
    if entry.card.supervision == "none" and name not in ("chance", "wch")  # which needs patches
)
TIED = {"float16", "float32", "opq", "pq", "rabitq", "rabitq-b", "sq", "turboquant", "unquantized"}  # hardly ever


# --- NumPy from the formulas -----------------------------------------------------------------------------------------


def draws(rows, columns, seed=0):
    """The Gaussian numbers that a method draws from a run of this seed, in float64."""
    return torch.randn(rows, columns, generator=Run(Budget(), seed).generator).double().numpy()


def principal(x, count):
    """The directions of most variance, the largest entry of each positive: a rotation depends on the signs."""
    found = np.linalg.eigh(x.T @ x)[1][:, ::-1][:, :count]
    return found * np.sign(found[np.abs(found).argmax(0), np.arange(count)])


def directions(name, x, bits):
    """(D, K) the directions of a method for centered rows (N, D)."""
    if name == "bq":
        return np.eye(x.shape[1])[:, :bits]
    if name == "lsh":
        return draws(x.shape[1], bits)
    axes = principal(x, bits)
    if name == "pcah":
        return axes
    turn = np.linalg.qr(draws(bits, bits))[0]
    for _ in range(50 if name == "itq" else 0):
        b = np.where(x @ axes @ turn >= 0, 1.0, -1.0)
        s, _, t = np.linalg.svd(b.T @ (x @ axes))
        turn = (s @ t).T
    return axes @ turn


def numpy_recall(name, data, bits, k=10):
    """The mean expected recall by a NumPy script: no function of hashzoo counts, ranks or encodes."""
    database, query = (numbers(side.images).astype(np.float64) for side in (data.database, data.query))
    exact = np.argsort(-(query @ database.T), axis=1)[:, :k]
    mean = database.mean(0)
    w = directions(name, database - mean, bits)
    items, asked = (np.where((side - mean) @ w >= 0, 1.0, -1.0) for side in (database, query))
    distances = np.rint((bits - asked @ items.T) / 2)
    shares = []
    for row, true in zip(distances, exact, strict=True):
        last = np.partition(row, k - 1)[k - 1]  # the distance at place k, whose items share the places left
        before, tied = (row < last).sum(), (row == last).sum()
        shares.append(((row[true] < last).sum() + (row[true] == last).sum() * (k - before) / tied) / k)
    return np.mean(shares)


@pytest.mark.parametrize("name", ["bq", "lsh", "pcah", "pca-rr", "itq"])
@pytest.mark.parametrize("bits", [8, 16])
def test_recall_is_that_of_a_numpy_script(name, bits):
    data = gaussian()
    _, index, query = fit(name, data, bits)
    assert recalls(data, index, query)[0] == pytest.approx(numpy_recall(name, data, bits), abs=0.01)


@pytest.mark.slow
@needs("data", "minilm_41k.npy")
@pytest.mark.parametrize("name", ["bq", "lsh", "pcah", "pca-rr", "itq"])
@pytest.mark.parametrize("bits", [64, 128, 256, 384])
def test_recall_on_sentence_embeddings_is_that_of_a_numpy_script(name, bits):
    data = minilm(1000)
    _, index, query = fit(name, data, bits)
    assert recalls(data, index, query)[0] == pytest.approx(numpy_recall(name, data, bits), abs=0.01)


# --- faiss and the order of bits -------------------------------------------------------------------------------------


def test_codes_distances_and_recall_of_lsh_are_those_of_faiss():
    faiss = pytest.importorskip("faiss")
    data = gaussian()
    method, index, query = fit("lsh", data, 16)
    theirs = faiss.IndexLSH(16, 16, True, False)
    faiss.copy_array_to_vector(np.ascontiguousarray(method.projection.T.numpy()).ravel(), theirs.rrot.A)
    database, asked = (numbers(side.images) - method.mean.numpy() for side in (data.database, data.query))
    theirs.add(database)
    codes = faiss.vector_to_array(theirs.codes).reshape(600, 2)
    assert (np.unpackbits(codes, axis=1, bitorder="little") == index.bits()).mean() > 0.999
    distances, rows = theirs.search(asked, 600)
    mine = index.search(query, 600)
    found = np.empty((30, 600))
    np.put_along_axis(found, mine.rows.numpy(), mine.distances.numpy().astype(float), axis=1)
    assert (np.take_along_axis(found, rows, 1) == distances).mean() > 0.99
    counts = distance_counts(np.take_along_axis(distances, np.argsort(rows, axis=1), 1), truth(data).nearest(10))
    assert score(counts, ["recall@10"])["recall@10"].mean() == pytest.approx(recalls(data, index, query)[0], abs=0.005)


def test_bits_are_packed_as_sentence_transformers_and_pgvector_pack_them():
    """``quantize_embeddings(precision="ubinary")`` is np.packbits(x > 0): the first number is the highest bit of the
    first byte. ``binary_quantize`` of pgvector sets bit 0x80 >> i % 8 of byte i / 8 where x_i > 0.
    """
    data = gaussian("l2")
    _, index, _ = fit("bq", data, 13, center=False)
    x = numbers(data.database.images)[:, :13]
    assert (index.packed("code") == np.packbits(x > 0, axis=-1)).all()
    by_bit = np.zeros((len(x), 2), np.uint8)
    for i in range(13):
        by_bit[:, i // 8] |= np.where(x[:, i] > 0, 0x80 >> i % 8, 0).astype(np.uint8)
    assert (by_bit == pack(x > 0)).all()


def test_sentence_transformers_gives_the_same_bytes():
    quantization = pytest.importorskip("sentence_transformers.quantization")
    x = np.random.default_rng(0).normal(size=(5, 24)).astype(np.float32)
    assert (quantization.quantize_embeddings(x, precision="ubinary") == pack(x > 0)).all()


# --- ties ------------------------------------------------------------------------------------------------------------


class Given(Distance):
    """Distances that are given: a query holds its own."""

    stored = ("row",)

    def __call__(self, query, database):
        return query["distances"][:, database["row"]]


@pytest.mark.parametrize("items", [2, 3, 5, 8, 12])
@pytest.mark.parametrize("kind", ["real", "bits"])
def test_expected_recall_is_the_mean_over_random_orders_of_ties(kind, items):
    """With the other parameters, a thousand cases: each query has distances and neighbors of its own."""
    rng, cases, orders = np.random.default_rng(items), 100, 200
    k = int(rng.integers(1, items))
    listed = rng.permuted(np.tile(np.arange(items), (cases, 1)), axis=1)[:, :k]
    if kind == "real":
        distances = rng.normal(size=(cases, 3)).astype(np.float32)[:, rng.integers(0, 3, items)]
        index, query = Scan(Given()), {"distances": torch.from_numpy(distances)}
        index.add({"row": torch.arange(items)})
    else:
        codes, asked = (rng.random((count, 4)) < 0.5 for count in (items, cases))
        distances = (asked[:, None] != codes).sum(2)
        index, query = Scan(Hamming("code")), {"code": torch.from_numpy(asked)}
        index.add({"code": torch.from_numpy(codes)})
    counts = index.counts(query, neighbours(listed, items))
    noise = rng.random((orders, cases, items))
    order = np.lexsort((noise, np.broadcast_to(distances, noise.shape)), axis=2)
    relevant = np.zeros((cases, items), bool)
    np.put_along_axis(relevant, listed, True, axis=1)
    hits = np.take_along_axis(np.broadcast_to(relevant, noise.shape), order, axis=2).cumsum(2) / k
    for factor in (1, 1.5, 3):
        found = score(counts, [f"recall@{k}:f{factor}"])[f"recall@{k}:f{factor}"]
        share = hits[:, :, min(items, int(np.ceil(k * factor))) - 1]  # (orders, cases)
        error = share.std(0) / np.sqrt(orders)
        assert (np.abs(found - share.mean(0)) <= 5 * error + 1e-9).all()
        assert abs((found - share.mean(0)).mean()) <= 4 * np.sqrt(np.square(error).sum()) / cases + 1e-9


def agrees_with_explicit_comparison(name, data, bits, orders):
    """Recall for F = 1..10 is that of the top 10 after an exact comparison of the first 10 F, ties in random order."""
    _, index, query = fit(name, data, bits)
    database, asked = (numbers(side.images).astype(np.float64) for side in (data.database, data.query))
    exact, rng = asked @ database.T, np.random.default_rng(0)
    ranking = index.search(query, len(database))
    distances = np.empty(exact.shape)
    np.put_along_axis(distances, ranking.rows.numpy(), ranking.distances.double().numpy(), axis=1)
    explicit = np.zeros((orders, 10, len(asked)))
    for one in explicit:
        order = np.lexsort((rng.random(distances.shape), distances), axis=1)[:, :100]
        for factor in range(1, 11):
            candidates = order[:, : 10 * factor]
            best = np.argsort(-np.take_along_axis(exact, candidates, 1), axis=1)[:, :10]
            kept = np.take_along_axis(candidates, best, 1)
            one[factor - 1] = [np.isin(m, true).mean() for m, true in zip(kept, truth(data).rows, strict=True)]
    names = [f"recall@10:f{factor}" for factor in range(1, 11)]
    found = score(index.counts(query, truth(data).nearest(10)), names)
    expected = np.array([found[one] for one in names])  # (10, Q)
    mean, error = explicit.mean(0), explicit.std(0) / np.sqrt(orders)
    if name in TIED:
        assert np.abs(expected - mean).max() < 0.11  # of one neighbor, if two items are at equal distance
    # few orders underestimate the error of queries with many ties, of which one order in a hundred differs
    assert np.abs(expected - mean).mean() <= 3 * error.mean() + 1e-3
    assert (np.abs((expected - mean).mean(1)) <= 5 * np.sqrt(np.square(error).sum(1)) / len(asked) + 1e-3).all()


@pytest.mark.parametrize("name", ["itq", "pq", "rabitq-b", "sq"])
def test_recall_is_that_of_exact_comparison_of_the_candidates(name):
    agrees_with_explicit_comparison(name, gaussian(), 8, 8)


@pytest.mark.slow
@needs("data", "minilm_41k.npy")
@pytest.mark.parametrize("name", FREE)
def test_recall_on_sentence_embeddings_is_that_of_exact_comparison_for_every_method_without_labels(name):
    agrees_with_explicit_comparison(name, minilm(100, every=5), 64, 5)
