"""Quantizers of vectors against faiss, plain loops, known constants and the exact order."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hashzoo_plugins.shallow import estimates, opq, pq, sq
from hashzoo_plugins.shallow.rabitq_b import Estimate, grid_numbers
from hashzoo_plugins.shallow.turboquant import levels
from hypothesis import given, settings
from hypothesis import strategies as st

from hashzoo.bench.plan import training_facts
from hashzoo.training.budget import Budget
from tests.oracles.embeddings import HOUSE, fit, gaussian, minilm, numbers, recall_of, recalls
from tests.oracles.toy import D, near
from tests.shared_data import needs

faiss = pytest.importorskip("faiss")
NEW = ["pq", "opq", "sq", "turboquant", "rabitq-b", "float16", "float32"]


def array(vector):
    return np.ascontiguousarray(vector.numpy(), np.float32)


def faiss_pq(method, dim):
    """The PQ index of faiss with the centroids of a fitted method."""
    index = faiss.IndexPQ(dim, len(method.codebook), 8)
    faiss.copy_array_to_vector(array(method.codebook).ravel(), index.pq.centroids)
    index.is_trained = True
    return index


def stored(index, name="code"):
    return index.packed(name)


# --- pq and opq ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
def test_codes_distances_and_recall_of_pq_are_those_of_faiss(metric):
    data = gaussian(metric)
    method, index, query = fit("pq", data, 32)
    theirs = faiss_pq(method, 16)
    theirs.metric_type = faiss.METRIC_INNER_PRODUCT if metric == "ip" else faiss.METRIC_L2
    theirs.add(numbers(data.database.images))
    codes = faiss.vector_to_array(theirs.codes).reshape(600, 4)
    assert (stored(index) == codes).mean() > 0.999
    distances, rows = theirs.search(numbers(data.query.images), 600)
    mine = index.search(query, 600)
    found = torch.zeros(30, 600).scatter_(1, mine.rows, mine.distances).gather(1, torch.from_numpy(rows))
    near(found, torch.from_numpy(-distances if metric == "ip" else distances), 1e-3)
    assert recalls(data, index, query)[0] == pytest.approx(recall_of(data, rows[:, :10]), abs=0.005)
    assert index.stored_bits() == 32
    assert index.nbytes() == 600 * 4


def test_codes_and_distances_of_opq_are_those_of_faiss():
    data = gaussian()
    method, index, query = fit("opq", data, 32)
    near(method.rotation.T @ method.rotation, torch.eye(16), 1e-5)
    turn = faiss.LinearTransform(16, 16)
    faiss.copy_array_to_vector(array(method.rotation.T).ravel(), turn.A)
    turn.is_trained = True
    theirs = faiss.IndexPreTransform(turn, faiss_pq(method, 16))
    theirs.add(numbers(data.database.images))
    codes = faiss.vector_to_array(faiss.downcast_index(theirs.index).codes).reshape(600, 4)
    assert (stored(index) == codes).mean() > 0.999
    distances, rows = theirs.search(numbers(data.query.images), 10)
    mine = index.search(query, 600)
    found = torch.zeros(30, 600).scatter_(1, mine.rows, mine.distances).gather(1, torch.from_numpy(rows))
    near(found, torch.from_numpy(distances), 1e-3)
    assert recalls(data, index, query)[0] == pytest.approx(recall_of(data, rows), abs=0.005)


def error_of(name, data, bits, **options):
    """The mean squared distance of the training vectors to what their codes stand for."""
    method, index, _ = fit(name, data, bits, **options)
    x = index.distance.decode({"code": torch.from_numpy(np.unpackbits(stored(index), axis=1)).bool()})
    rotated = torch.from_numpy(numbers(data.database.images)) @ getattr(method, "rotation", torch.eye(x.shape[1]))
    return float((rotated - x).square().sum(1).mean())


def test_the_rotation_of_opq_lowers_the_error_that_pq_leaves_and_steps_lower_it_further():
    data = gaussian()
    plain, learned, start = error_of("pq", data, 32), error_of("opq", data, 32), error_of("opq", data, 32, iterations=0)
    assert learned <= start * 1.01
    assert learned < plain


def test_opq_of_fewer_images_than_features_learns_the_same_code_in_their_span(monkeypatch):
    data = gaussian(count=300, dim=320)
    method, index, query = fit("opq", data, 16, iterations=2)
    monkeypatch.setattr("hashzoo_plugins.shallow.span.WIDE", 8)
    other, same, asked = fit("opq", data, 16, iterations=2)
    assert int((other.rotation.abs().sum(0) > 0).sum()) == 300 < int((method.rotation.abs().sum(0) > 0).sum())
    near(other.rotation.T @ other.rotation, torch.diag((other.rotation.abs().sum(0) > 0).float()), 1e-5)
    assert recalls(data, same, asked) == pytest.approx(recalls(data, index, query), abs=0.03)


def test_more_steps_of_k_means_lower_the_error():
    data = gaussian()
    errors = [error_of("pq", data, 16, iterations=count) for count in (1, 3, 10)]
    assert errors == sorted(errors, reverse=True)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 12))
def test_parts_of_unequal_size_hold_every_feature_once(features, parts):
    parts = min(parts, features)
    places = pq.layout(features, parts)
    x = torch.arange(2.0 * features).reshape(2, features) + 1
    split = pq.parted(x, places)
    assert split.shape[0] == parts
    assert torch.equal(pq.joined(split, places), x)
    sizes = (places >= 0).sum(1)
    assert int(sizes.max() - sizes.min()) <= 1


def test_fewer_images_than_centroids_are_their_own_centroids():
    data = gaussian(count=40)
    _, index, query = fit("pq", data, 16)
    x = index.distance.decode({"code": torch.from_numpy(np.unpackbits(stored(index), axis=1)).bool()})
    near(x, torch.from_numpy(numbers(data.database.images)), 1e-5)
    assert recalls(data, index, query)[0] == pytest.approx(1, abs=0.01)


def test_directions_are_given_to_parts_so_that_products_of_variances_are_alike():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 12, generator=draw) * torch.logspace(1, -1, 12)
    turned = x @ opq.allocated(x, pq.layout(12, 3))
    products = turned.var(0).log().reshape(3, 4).sum(1)
    naive = x.var(0).log().reshape(3, 4).sum(1)
    assert float(products.max() - products.min()) < 0.2 * float(naive.max() - naive.min())


@pytest.mark.parametrize("name", ["pq", "opq"])
def test_bits_that_are_no_bytes_and_more_bytes_than_features_are_refused(name):
    data = gaussian()
    says = f"{name} stores a byte for each part: 20 bits are no multiple of 8; use 16 or 24 bits"
    with pytest.raises(ValueError, match=says):
        fit(name, data, 20)
    assert HOUSE.unmet(name, training_facts(20, {}, Budget(), data, 16)) == says
    assert "17 bytes, 16 features" in HOUSE.unmet(name, training_facts(136, {}, Budget(), data, 16))
    assert HOUSE.unmet(name, training_facts(128, {}, Budget(), data, 16)) == ""


# --- sq and floats ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "kind"), [("int8", "QT_8bit"), ("int4", "QT_4bit")])
@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_codes_and_distances_of_sq_are_those_of_faiss(width, kind, metric):
    data = gaussian(metric)
    _, index, query = fit("sq", data, 8, width=width)
    by = faiss.METRIC_INNER_PRODUCT if metric == "ip" else faiss.METRIC_L2
    theirs = faiss.IndexScalarQuantizer(16, getattr(faiss.ScalarQuantizer, kind), by)
    theirs.train(numbers(data.train.images))
    theirs.add(numbers(data.database.images))
    codes = faiss.vector_to_array(theirs.codes).reshape(600, -1)
    assert (index._plain["numbers"][0].numpy() == codes).mean() > 0.99  # a value at the edge of two rounds either way
    distances, rows = theirs.search(numbers(data.query.images), 600)
    mine = index.search(query, 600)
    found = torch.zeros(30, 600).scatter_(1, mine.rows, mine.distances).gather(1, torch.from_numpy(rows))
    near(found, torch.from_numpy(-distances if metric == "ip" else distances), 0.02 if width == "int8" else 1.0)
    assert recalls(data, index, query)[0] == pytest.approx(recall_of(data, rows[:, :10]), abs=0.005)
    assert index.stored_bits() == 16 * (8 if width == "int8" else 4)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 9), st.integers(0, 2**31))
def test_two_numbers_in_a_byte_are_read_back(features, seed):
    code = torch.randint(16, (3, features), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    assert torch.equal(sq.unpaired(sq.paired(code), features), code)


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_floats_keep_the_exact_neighbors_by_the_metric_of_the_data(metric):
    data = gaussian(metric)
    for name, bits in (("float32", 32), ("float16", 16)):
        _, index, query = fit(name, data, 8)
        assert recalls(data, index, query)[0] == pytest.approx(1, abs=0 if name == "float32" else 0.02)
        assert index.stored_bits() == 16 * bits


def test_a_metric_that_is_given_replaces_that_of_the_data():
    data = gaussian("ip")
    _, index, query = fit("float32", data, 8, metric="l2")
    assert recalls(data, index, query)[0] < 1
    assert estimates.metric_of(gaussian("ip").setting(8), "data") == "ip"


# --- turboquant ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "expected"), [(1, 0.3634), (2, 0.1175), (3, 0.03454), (4, 0.009497)])
def test_levels_have_the_published_least_distortion_of_a_gaussian_variable(width, expected):
    """Max (IRE Transactions on Information Theory 1960), table 1."""
    grid = levels(width)
    x = torch.linspace(-8, 8, 400_001, dtype=D)
    density = (-x.square() / 2).exp() / math.sqrt(2 * math.pi)
    error = (x - grid[torch.bucketize(x, (grid[1:] + grid[:-1]) / 2)]).square()
    assert float(torch.trapezoid(error * density, x)) == pytest.approx(expected, rel=2e-3)


def test_turboquant_loses_the_distortion_of_its_levels_and_stores_its_bits_and_a_length():
    data = gaussian("l2")
    for width in (1, 2, 4):
        method, index, _ = fit("turboquant", data, 16 * width, coordinate_bits=width)
        code = torch.from_numpy(np.unpackbits(stored(index), axis=1)).bool()
        x = index.distance.decode({"code": code, "norm": index._plain["norm"][0]})
        v = (torch.from_numpy(numbers(data.database.images)) - method.mean) @ method.projection
        lost = float(((x - v).square().sum(1) / v.square().sum(1)).mean())
        assert lost == pytest.approx({1: 0.3634, 2: 0.1175, 4: 0.009497}[width], rel=0.2)
        assert index.stored_bits() == 16 * width + 32


# --- rabitq with several bits ----------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31), st.integers(1, 8), st.integers(1, 4))
def test_the_grid_vector_has_nearly_the_largest_cosine_of_all_scales(seed, features, width):
    o = torch.randn(1, features, generator=torch.Generator().manual_seed(seed), dtype=D)
    o = o / o.norm()
    y = grid_numbers(o, width) - (2**width - 1) / 2
    reached = float((y * o).sum() / y.norm())
    steps, best = np.arange(1, 2 ** (width - 1)), -1.0
    for t in np.unique(np.concatenate([[1e-9], *(steps / abs(float(c)) for c in o[0])])) + 1e-12:  # where y changes
        z = np.sign(o[0].numpy()) * (np.minimum(np.floor(t * o[0].abs().numpy()), 2 ** (width - 1) - 1) + 0.5)
        best = max(best, float((z * o[0].numpy()).sum() / np.linalg.norm(z)))
    assert best - 0.004 <= reached <= best + 1e-6


def test_one_bit_of_rabitq_b_is_rabitq():
    data = gaussian()
    _, one, asked = fit("rabitq-b", data, 16, coordinate_bits=1, query_bits=4)
    _, other, query = fit("rabitq", data, 16)
    assert (one.packed("code") == other.packed("code")).all()
    mine, theirs = (one.search(asked, 600), other.search(query, 600))
    near(mine.distances, theirs.distances, 1e-4)


@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_estimates_of_rabitq_b_have_no_bias_over_rotations(metric):
    draw = torch.Generator().manual_seed(0)
    o, q = (torch.nn.functional.normalize(torch.randn(1, 16, generator=draw, dtype=D)) for _ in range(2))
    q = torch.nn.functional.normalize(o + 0.8 * q)
    r = torch.linalg.qr(torch.randn(1000, 16, 16, generator=draw, dtype=D)).Q
    ours, theirs = (o @ r)[:, 0], (q @ r)[:, 0]
    code = grid_numbers(ours, 2)
    kept = {
        "code": estimates.digits(code, 2),
        "norm": torch.ones(1000, dtype=D),
        "scale": ((code - 1.5) * ours).sum(1),
    }
    found = Estimate(metric, 2)({"query": theirs}, kept).diagonal().double()
    true, error = float((o - q).square().sum() if metric == "l2" else -(o @ q.T)), float(found.std()) / math.sqrt(1000)
    assert abs(float(found.mean()) - true) < 4 * error
    assert float(found.std()) < 0.2


def faiss_rabitq(data, method, width):
    """Rows by faiss, of vectors that the method has centered and rotated."""
    database, query = (
        array((torch.from_numpy(numbers(side.images)) - method.mean) @ method.projection)
        for side in (data.database, data.query)
    )
    theirs = faiss.IndexRaBitQ(database.shape[1], faiss.METRIC_L2, width)
    theirs.train(np.concatenate([database, -database]))  # whose center is 0, as that of the rotated vectors is
    theirs.qb = 0
    theirs.add(database)
    return theirs.search(query, 50)[1]


def recall_beside_faiss(data, bits, width):
    if width == 1:
        method, index, query = fit("rabitq", data, bits, query_bits=0)
    else:
        method, index, query = fit("rabitq-b", data, bits, coordinate_bits=width, query_bits=0)
    rows = faiss_rabitq(data, method, width)
    mine = recalls(data, index, query, (1, 5))
    return mine, [recall_of(data, rows[:, : 10 * factor]) for factor in (1, 5)]


def test_recall_of_rabitq_is_that_of_faiss():
    mine, theirs = recall_beside_faiss(gaussian("l2", count=3000, dim=32), 32, 1)
    assert mine == pytest.approx(theirs, abs=0.005)


@pytest.mark.parametrize("width", [2, 4])
def test_recall_of_rabitq_with_several_bits_is_not_below_that_of_faiss(width):
    """Not equal: faiss completes the signs by other bits with factors of their own, and its estimates are less near."""
    mine, theirs = recall_beside_faiss(gaussian("l2", count=3000, dim=32), 32 * width, width)
    assert (mine >= np.array(theirs) - 0.005).all()


def test_the_bits_of_a_coordinate_are_chosen_by_the_length_and_a_wrong_number_is_named():
    data = gaussian()
    assert [fit(name, data, 40)[0].width for name in ("turboquant", "rabitq-b")] == [3, 3]
    assert fit("rabitq-b", data, 40)[1].stored_bits() == 39 + 64  # 13 coordinates
    with pytest.raises(ValueError, match="turboquant needs coordinate_bits from 1 to 8, or 0"):
        fit("turboquant", data, 16, coordinate_bits=9)
    with pytest.raises(ValueError, match="rabitq-b with coordinate_bits = 8 needs 8 bits or more, not 4"):
        fit("rabitq-b", data, 4, coordinate_bits=8)
    facts = training_facts(16, {"coordinate_bits": 2}, Budget(), gaussian(count=5), 16)
    assert "turboquant needs at least as many training images as coordinates: 8 of 2 bits, 5" in HOUSE.unmet(
        "turboquant", facts
    )


# --- together --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NEW)
def test_a_database_in_blocks_has_the_counts_of_one_block(name, monkeypatch):
    data = gaussian()
    _, index, query = fit(name, data, 16)
    whole = index.search(query, 600)
    monkeypatch.setattr("hashzoo.index.ITEMS", 7)
    near(index.search(query, 600).distances, whole.distances, 1e-5)
    assert index._plain.keys() <= {"numbers", "norm", "scale", "features"}


@pytest.mark.slow
@needs("data", "minilm_41k.npy")
@pytest.mark.parametrize("width", [1, 2])
def test_recall_of_rabitq_on_sentence_embeddings_is_that_of_faiss(width):
    mine, theirs = recall_beside_faiss(minilm(1000), 384 * width, width)
    assert (mine >= np.array(theirs) - 0.005).all()
    assert width > 1 or mine == pytest.approx(theirs, abs=0.005)


@pytest.mark.slow
@needs("data", "minilm_41k.npy")
@pytest.mark.parametrize("name", ["pq", "opq"])
def test_recall_of_product_quantizers_on_sentence_embeddings_is_that_of_faiss(name):
    """With centroids that each learns on its own; the rotation of opq here starts better and takes fewer steps."""
    data = minilm(1000)
    method, index, query = fit(name, data, 128)
    theirs = faiss.IndexPQ(384, 16, 8)
    if name == "opq":
        turn = faiss.OPQMatrix(384, 16)
        turn.niter, turn.max_train_points = 20, 16384
        theirs = faiss.IndexPreTransform(turn, theirs)
    theirs.train(numbers(data.train.images))
    theirs.add(numbers(data.database.images))
    rows = theirs.search(numbers(data.query.images), 50)[1]
    mine, other = recalls(data, index, query, (1, 5)), [recall_of(data, rows[:, : 10 * f]) for f in (1, 5)]
    if name == "pq":
        same = faiss_pq(method, 384)
        same.add(numbers(data.database.images))
        rows = same.search(numbers(data.query.images), 50)[1]
        assert mine == pytest.approx([recall_of(data, rows[:, : 10 * f]) for f in (1, 5)], abs=0.001)
        assert mine == pytest.approx(other, abs=0.01)  # by chance of the start
    else:
        assert (mine >= np.array(other) - 0.005).all()
