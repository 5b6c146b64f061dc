"""The cost of closed forms and of class centers grows slowly with images, features and classes."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import torch
from hashzoo_plugins.pointwise.centers import DRAWS, random_rows, separated_rows
from hashzoo_plugins.pointwise.csq import CSQ
from hashzoo_plugins.shallow import span
from hashzoo_plugins.shallow.cca_itq import canonical
from hypothesis import given, settings
from hypothesis import strategies as st

from hashzoo.registry import zoo
from tests.plugins.test_shallow_spectral import encoded, fitted

HOUSE = zoo.load_plugins()
CLOSED = sorted(
    name for name, entry in HOUSE.methods.items() if entry.plugin == "hashzoo" and entry.card.kind == "shallow"
)
#: Methods whose problem has one row and column for each feature or class, unless there are fewer images.
SQUARE = ("cca-itq", "cosdish", "imh", "itq", "pcah", "s3plh", "sh", "ssh")


def classes_of(images, features, classes, seed=0):
    """Features (n, D) around the centers of their classes, and one-hot labels (n, C)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.eye(classes)[torch.arange(images) % classes]
    centers = torch.randn(classes, features, generator=generator)
    return labels @ centers + torch.randn(images, features, generator=generator), labels


def seconds(name, *sizes):
    """Processor time of the fit of a method, which another program on the machine hardly changes."""
    x, labels = classes_of(*sizes)
    start = time.process_time()
    fitted(HOUSE.method(name).factory, x, labels, 8)
    return time.process_time() - start


def test_every_shallow_method_is_tried():
    assert {*SQUARE, "bre", "fsdh", "ksh", "lsh", "sdh"} <= set(CLOSED)


@pytest.mark.parametrize("name", CLOSED)
def test_a_few_images_with_many_features_take_no_time(name):
    assert seconds(name, 17, 12_288, 4) < 10  # minutes with a matrix of features by features


@pytest.mark.slow
@pytest.mark.parametrize("name", CLOSED)
@pytest.mark.parametrize("sizes", [(20_000, 32, 4), (300, 32, 5000), (5000, 32, 1000), (17, 40_000, 4)])
def test_the_cost_grows_slowly_with_images_features_and_classes(name, sizes):
    assert seconds(name, *sizes) < 30


@pytest.mark.parametrize("name", ["fsdh", "cca-itq"])
def test_more_classes_than_images_take_no_time(name):
    assert seconds(name, 40, 8, 6000) < 10


@pytest.mark.parametrize("name", [name for name in SQUARE if name != "cca-itq"])
@pytest.mark.parametrize("images", [12, 30])
def test_fewer_images_than_features_give_the_same_codes_in_coordinates_of_the_images(name, images, monkeypatch):
    x, labels = classes_of(images, 40, 3)
    queries, _ = classes_of(200, 40, 3, seed=1)
    x, queries = x * torch.linspace(2, 0.5, 40), queries * torch.linspace(2, 0.5, 40)
    options = {"embedding": "laplacian"} if name == "imh" else {}  # the descent of t-SNE follows the last digit
    wide, _ = fitted(HOUSE.method(name).factory, x, labels, 4, **options)
    monkeypatch.setattr(span, "WIDE", 0)
    narrow, _ = fitted(HOUSE.method(name).factory, x, labels, 4, **options)
    assert narrow.state_dict().keys() == wide.state_dict().keys()
    for name_of, value in wide.state_dict().items():
        assert narrow.state_dict()[name_of].shape == value.shape
    flipped = encoded(narrow, queries) ^ encoded(wide, queries)  # the sign of an eigenvector is arbitrary
    share = flipped.float().mean(0)
    assert torch.minimum(share, 1 - share).max() <= 0.01
    if name != "ssh" and name != "s3plh":
        assert share.max() <= 0.01


def test_correlations_are_the_same_in_coordinates_of_the_images(monkeypatch):
    monkeypatch.setattr(span, "WIDE", 0)
    x, labels = classes_of(12, 40, 3)
    x, y = (x - x.mean(0)).double(), (labels - labels.mean(0)).double()
    found, back = span.coordinates(x)
    (w, r), (v, q) = canonical(x, y, 1e-4), canonical(found, y, 1e-4)
    torch.testing.assert_close(r[:2], q[:2])  # three classes have two correlations
    directions, others = w[:, :2] * r[:2], back(v[:, :2] * q[:2])
    torch.testing.assert_close(directions @ directions.T, others @ others.T)


def test_more_bits_than_images_leave_cca_without_more_correlations(monkeypatch):
    monkeypatch.setattr(span, "WIDE", 0)
    x, labels = classes_of(6, 40, 3)
    method, _ = fitted(HOUSE.method("cca-itq").factory, x, labels, 16)
    assert method.projection.shape == (40, 16)
    assert method.projection.isfinite().all()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 2**31))
def test_coordinates_keep_inner_products_and_map_directions_back(images, features, seed):
    x = torch.randn(images, features, generator=torch.Generator().manual_seed(seed))
    x[images // 2 :] = x[0].clone()  # of less than full rank
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(span, "WIDE", 0)
        found, back = span.coordinates(x)
    assert found.shape[1] == min(images, features)
    torch.testing.assert_close(found.double() @ found.double().T, x.double() @ x.double().T)
    weights = torch.randn(found.shape[1], 3, dtype=torch.float64)
    torch.testing.assert_close(x.double() @ back(weights).double(), found.double() @ weights)


def slow_rows(classes, bits):
    """Each row the one of the drawn rows that is farthest from all previous ones, by all distances."""
    rows = random_rows(1, bits)
    while len(rows) < classes:
        drawn = random_rows(DRAWS, bits)
        nearest = ((bits - drawn @ rows.T) / 2).amin(1)
        rows = torch.cat([rows, drawn[nearest.argmax()][None]])
    return rows


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 200), st.integers(0, 2**31))
def test_separated_centers_are_those_of_a_search_of_all_pairs(classes, bits, seed):
    torch.manual_seed(seed)
    expected, after = slow_rows(classes, bits), torch.rand(1)
    torch.manual_seed(seed)
    assert torch.equal(separated_rows(classes, bits), expected)
    assert torch.equal(torch.rand(1), after)


def test_centers_of_ten_thousand_classes_take_seconds():
    separated_rows(2, 64)  # compiled
    start = time.process_time()
    CSQ(SimpleNamespace(bits=64, classes=10_000))
    assert time.process_time() - start < 30  # minutes with distances of all pairs
