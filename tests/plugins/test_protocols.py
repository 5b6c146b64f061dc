"""Long-tailed and composed protocols: sizes, seeds, and what stays out of what."""

from __future__ import annotations

import pytest
import torch
from hashzoo_plugins.datasets import composed, digits, longtail
from hypothesis import given, settings
from hypothesis import strategies as st

from hashzoo.data.integrity import drop_bad_images, fingerprint
from hashzoo.registry import zoo
from hashzoo.registry.build import inspect_images, load_data
from hashzoo.testing import synthetic_splits

HOUSE = zoo.load_plugins()


@pytest.mark.parametrize(
    ("largest", "factor", "expected", "total"),
    [
        (5000, 100, [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50], 12_406),
        (5000, 50, [5000, 3237, 2096, 1357, 878, 568, 368, 238, 154, 100], 13_996),
        (5000, 10, [5000, 3871, 2997, 2320, 1796, 1391, 1077, 834, 645, 500], 20_431),
        (858, 100, [858, 514, 308, 184, 110, 66, 39, 23, 14, 8], 2_124),
        (858, 50, [858, 555, 359, 232, 150, 97, 63, 40, 26, 17], 2_397),
        (858, 10, [858, 664, 514, 398, 308, 238, 184, 143, 110, 85], 3_502),
    ],
)
def test_class_sizes_are_those_stated_for_cifar_10_and_imagenette(largest, factor, expected, total):
    assert longtail.class_sizes(largest, factor, 10) == expected
    assert sum(expected) == total


def test_the_smaller_reading_of_cifar_10_has_the_stated_totals():
    assert [sum(longtail.class_sizes(1000, factor, 10)) for factor in (100, 50, 10)] == [2_478, 2_795, 4_084]


@pytest.mark.parametrize("name", ["digits.lt10", "digits.lt50", "digits.lt100"])
def test_a_long_tail_is_drawn_by_seed_and_leaves_queries_and_database_alone(name):
    build = HOUSE.dataset(name).factory
    data, again, other = build(), build(), build(seed=1)
    assert fingerprint(data) == fingerprint(again) != fingerprint(other)
    counts = data.setting(8).class_counts.tolist()
    whole = digits.base_splits(0)
    smallest = int(whole.train.labels.sum(0).min())
    assert counts == longtail.class_sizes(smallest, int(name.removeprefix("digits.lt")), 10)
    assert torch.equal(data.database.ids, whole.database.ids)
    assert torch.equal(data.query.ids, whole.query.ids)
    assert torch.isin(data.train.ids, data.database.ids).all()
    assert not torch.isin(data.query.ids, data.database.ids).any()
    rows = {int(i): n for n, i in enumerate(whole.train.ids)}
    assert torch.equal(data.train.labels, whole.train.labels[[rows[int(i)] for i in data.train.ids]])


def test_a_long_tailed_database_holds_what_is_learned_from():
    data = HOUSE.dataset("digits.lt50").factory(database="longtail")
    assert torch.equal(data.database.ids, data.train.ids)


def test_a_tail_that_would_leave_a_class_empty_is_refused():
    with pytest.raises(ValueError, match="leaves classes without an image"):
        longtail.draw(synthetic_splits(), 100, 0, "balanced")


@settings(deadline=None, max_examples=15)
@given(st.sampled_from(composed.OPERATIONS), st.integers(0, 2**31), st.sampled_from(["proper", "any"]))
def test_composed_queries_are_distinct_seeded_and_carry_the_label_algebra(operation, seed, kind):
    data = synthetic_splits(multilabel=True)
    made, again = (composed.draw(data, operation, 40, seed, kind) for _ in range(2))
    pairs = made.pairs
    assert pairs is not None
    assert fingerprint(made) == fingerprint(again)
    assert len({*zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)}) == 40
    assert (pairs.first != pairs.second).all()
    for i, j, found in zip(pairs.first, pairs.second, pairs.labels, strict=True):
        a, b = ({*torch.nonzero(data.query.labels[k])[:, 0].tolist()} for k in (i, j))
        sets = {"union": a | b, "intersection": a & b, "difference": (a - b) or a}
        wanted = sets[operation]
        assert {*torch.nonzero(found)[:, 0].tolist()} == wanted != set()
        if kind == "proper":
            assert wanted not in (a, b)


def test_too_few_pairs_are_refused_with_the_number_there_are():
    with pytest.raises(ValueError, match="have a union, but 100000 were requested"):
        composed.draw(synthetic_splits(multilabel=True), "union", 100_000, 0, "proper")


def test_protocols_refuse_data_that_they_cannot_score():
    with pytest.raises(ValueError, match="several labels"):
        composed.draw(synthetic_splits(), "union", 5, 0, "any")
    with pytest.raises(ValueError, match="one label each"):
        longtail.draw(synthetic_splits(multilabel=True), 2, 0, "balanced")


def test_other_pairs_are_another_fingerprint():
    build = HOUSE.dataset("scenes.union").factory
    assert fingerprint(build(queries=50)) != fingerprint(build(queries=51))
    assert fingerprint(build(queries=50)) != fingerprint(HOUSE.dataset("scenes.standard").factory())


def test_pairs_of_a_query_that_does_not_decode_are_left_out():
    class Broken(list):
        def __getitem__(self, row):
            if row == 3:
                raise OSError("damaged")
            return super().__getitem__(row)

    from dataclasses import replace

    data = composed.draw(synthetic_splits(multilabel=True), "union", 200, 0, "proper")
    query = replace(data.query, images=Broken(data.query.images.unbind()))

    class House:
        def dataset(self, name):
            return self

        def factory(self):
            return replace(data, query=query)

    raw = load_data(House(), "x", {})
    looked = inspect_images("x", raw, skip_bad=True)
    found = drop_bad_images(raw, looked)
    assert looked.left_out == 1
    assert 0 < len(found.pairs) < 200
    united = composed.algebra("union", found.query.labels[found.pairs.first], found.query.labels[found.pairs.second])
    assert torch.equal(united, found.pairs.labels)
