"""The strict grade and the Jaccard gain of composed queries, against plain loops."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hashzoo import Hamming, Pairs, Scan, UsageError
from hashzoo.distance import Distance
from hashzoo.evaluation.metrics import parse, score
from hashzoo.evaluation.scoring import score_queries
from hashzoo.hamming.counting import hamming_counts
from hashzoo.hamming.packing import pack
from hashzoo.hamming.relevance import graded
from hashzoo.index import Cascade
from hashzoo.testing import synthetic_splits

#: Two images, {a, b} without {b, c} = {a}, and a database in the order in which their codes are ranked.
FIRST, SECOND, TARGET = [1, 1, 0, 0], [0, 1, 1, 0], [1, 0, 0, 0]
DATABASE = [[1, 1, 0, 0], [1, 0, 0, 1], [0, 0, 0, 1], [1, 0, 0, 0]]
CODES = [[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]]


def splits(first, second, target, database, operation="difference"):
    data = synthetic_splits(multilabel=True)
    first, second, target, database = (
        torch.tensor(np.array(part)).float() for part in (first, second, target, database)
    )
    labels = torch.cat([first, second])
    query = replace(data.query.take(torch.arange(len(labels))), labels=labels)
    rows = torch.arange(len(first))
    pairs = Pairs(operation, rows, rows + len(first), target)
    whole = replace(data.database.take(torch.arange(len(database))), labels=database)
    return replace(data, query=query, database=whole, pairs=pairs)


def index_of(codes, kind):
    made = {
        "scan": lambda: Scan(Hamming("code")),
        "cascade": lambda: Cascade(Hamming("code"), Hamming("code"), 2),
        "real": lambda: Scan(Slow()),
    }[kind]()
    made.add({"code": torch.tensor(codes).bool()})
    return made


class Slow(Distance):
    """The Hamming distance in the form of a real one."""

    stored = ("code",)

    def __call__(self, query, database):
        return (query["code"][:, None] != database["code"][None]).sum(2).double()


def measured(data, codes, asked, kind, *names):
    query = {"": {"code": torch.tensor(asked).bool()}}
    query["first"] = query[""]
    found, _ = score_queries(index_of(codes, kind), query, data, names, {})
    return {name: values.tolist() for name, values in found.per_query.items()}


@pytest.mark.parametrize("kind", ["scan", "cascade", "real"])
@pytest.mark.parametrize("numba", ["on", "off"])
def test_an_item_with_a_removed_label_has_no_strict_grade_and_a_smaller_gain(monkeypatch, kind, numba):
    monkeypatch.setenv("HASHZOO_NUMBA", numba)
    data = splits([FIRST], [SECOND], [TARGET], DATABASE)
    names = (
        "ndcg@all",
        "ndcg@all/strict",
        "ndcg@all/jaccard",
        "ndcg@all/first/strict",
        "map@all/strict",
        "acg@2/strict",
    )
    found = measured(data, CODES, [[0, 0, 0, 0]], kind, *names)
    second, fourth = 1 / math.log2(3), 1 / math.log2(5)
    plain = (1 + second + fourth) / (1 + second + 0.5)  # three items have the label a, one of them at place 4
    strict = (second + fourth) / (1 + second)  # the first item holds b
    jaccard = (0.5 + 0.5 * second + fourth) / (1 + 0.5 * second + 0.5 * 0.5)
    expected = [plain, strict, jaccard, strict, (1 / 2 + 2 / 4) / 2, 1 / 2]
    for name, value in zip(names, expected, strict=True):
        assert found[name] == [pytest.approx(value, abs=1e-12)], name


def plain(operation, a, b, target, database, order, cut, gain):
    """NDCG by plain loops, without ties."""

    def value(item):
        shared = sum(x * y for x, y in zip(target, item, strict=True))
        if gain == "jaccard":
            return shared / sum(max(x, y) for x, y in zip(target, item, strict=True))
        removed = [y and not t for y, t in zip(b, target, strict=True)]
        if operation == "difference" and any(r and i for r, i in zip(removed, item, strict=True)):
            return 0.0
        return 2.0**shared - 1

    values = [value(item) for item in database]
    ranked, best = [values[i] for i in order], sorted(values, reverse=True)
    total, ideal = (sum(v / math.log2(t + 2) for t, v in enumerate(side[:cut])) for side in (ranked, best))
    return total / ideal if ideal else math.nan


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 2**31), st.sampled_from(["union", "intersection", "difference"]), st.sampled_from(["scan", "real"])
)
def test_both_equal_plain_loops(seed, operation, kind):
    from hashzoo_plugins.datasets.composed import algebra

    g = np.random.default_rng(seed)
    first, second, database = ((g.random((n, 5)) < 0.5).astype(int) for n in (3, 3, 9))
    for part in (first, second, database):
        part[np.arange(len(part)), g.integers(5, size=len(part))] = 1  # no empty label set
    target = algebra(operation, torch.tensor(first), torch.tensor(second)).numpy()
    codes = np.tri(9, 9, -1, dtype=int)  # item i is at distance i from a code of zeros
    order, cut = g.permutation(9), int(g.integers(1, 10))
    data = splits(first, second, target, database, operation)
    names = [f"ndcg@{cut}/{gain}" for gain in ("strict", "jaccard")]
    found = measured(data, codes[np.argsort(order)], np.zeros((3, 9), int), kind, *names)
    for name, gain in zip(names, ("strict", "jaccard"), strict=True):
        rows = zip(first, second, target, strict=True)
        expected = [plain(operation, a, b, t, database, order, cut, gain) for a, b, t in rows]
        assert found[name] == pytest.approx(expected, abs=1e-9, nan_ok=True), name


def test_grades_of_lists_are_counted_as_grades_of_labels():
    g = np.random.default_rng(0)
    codes, grades = [pack(g.random((n, 20)) < 0.5) for n in (4, 30)], g.integers(0, 4, (4, 30))
    counts = hamming_counts(*codes, 20, graded(grades, 3), graded=True)
    for level in range(4):
        assert counts.grades[:, :, level].sum(1).tolist() == (grades == level).sum(1).tolist()
    plain = hamming_counts(*codes, 20, graded(grades, 3))
    assert np.array_equal(plain.relevant, counts.relevant)
    assert np.array_equal(plain.items, counts.items)


def test_names_that_have_no_such_grade_are_refused_and_others_read():
    assert (parse("ndcg@100/strict").part, parse("ndcg@100/strict").gain) == ("", "strict")
    assert (parse("ndcg@100/first/jaccard").part, parse("ndcg@100/first/jaccard").gain) == ("first", "jaccard")
    for name in ("map@all/jaccard", "recall@10/strict", "ndcg@10/head/strict", "ndcg@10/strict/first"):
        with pytest.raises(UsageError):
            parse(name)
    counts = hamming_counts(*[pack(np.ones((1, 4), bool))] * 2, 4, graded(np.ones((1, 1), np.int64), 1))
    with pytest.raises(UsageError, match="needs a benchmark"):
        score(counts, ["ndcg@10/strict"])
