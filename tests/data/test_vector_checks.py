"""What is found in vectors, by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hashzoo.data.audit import KINDS, STATEMENTS, audit_splits
from hashzoo.data.integrity import drop_bad_images, fingerprint, inspect_splits
from hashzoo.data.vector_checks import require_different, row_keys, vector_findings
from hashzoo.data.vectors import ArrayMatrix, Vectors
from hashzoo.errors import UsageError
from hashzoo.types import Split, Splits

X = np.random.default_rng(0).normal(size=(40, 6))


def splits(array, queries=5, metric="cosine"):
    """All but the last rows are database and training set, the last are queries."""
    matrix, total = ArrayMatrix(array, "x.npy"), len(array)

    def part(rows):
        return Split(Vectors(matrix, rows, unit=metric == "cosine"), torch.zeros(len(rows), 0), torch.from_numpy(rows))

    database = part(np.arange(total - queries))
    query = part(np.arange(total - queries, total))
    return Splits(database, database, query, False, (), notes={"train": "inside"}, metric=metric)


def found(array, **options):
    return {one.name: one for one in vector_findings(splits(array, **options)) if one.count}


def changed(**places):
    array = X / np.linalg.norm(X, axis=1, keepdims=True)
    for row, value in places.items():
        array[int(row[1:])] = value
    return array


def test_sound_vectors_have_no_finding():
    assert found(changed()) == {}


def test_numbers_that_are_not_finite_and_rows_of_zeros_are_named():
    one = found(changed(r3=np.nan, r7=np.inf, r38=0))["unusable-vectors"]
    assert (one.count, one.total) == (3, 40)
    assert one.examples[0] == "row 3 of x.npy has nan in column 0"
    assert "row 38 of x.npy is zero, which has no direction" in one.examples[2]
    assert "row 38" not in " ".join(found(changed(r3=np.nan, r38=0), metric="l2")["unusable-vectors"].examples)


def test_a_number_beyond_float32_is_not_finite():
    assert found(changed(r2=1e39))["unusable-vectors"].count == 1


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_lengths_other_than_one_are_stated_with_what_the_metric_makes_of_them(metric):
    one = found(3 * changed(), metric=metric)["lengths"]
    assert one.count == 40
    assert "from 3 to 3" in one.detail
    assert {"cosine": "divided", "ip": "inner product", "l2": "l2"}[metric] in one.detail


def test_constant_columns_are_named():
    array = changed()
    array[:, 4] = 0.25
    one = found(array)["constant-columns"]
    assert (one.count, one.total, one.examples) == (1, 6, ("column 4",))


def test_equal_rows_are_named_and_equal_keys_alone_are_not(monkeypatch):
    array = changed()
    array[9], array[20] = array[2], array[2]
    one = found(array)["duplicate-rows"]
    assert (one.count, one.examples) == (2, ("row 9 of x.npy = row 2 of x.npy", "row 20 of x.npy = row 2 of x.npy"))
    monkeypatch.setattr("hashzoo.data.vector_checks.row_keys", lambda values: np.zeros(len(values), np.uint64))
    assert "duplicate-rows" not in found(changed())


def test_queries_inside_the_database_are_named():
    array = changed()
    array[36] = array[1]
    one = found(array)["query-copy-in-database"]
    assert (one.count, one.total, one.examples) == (1, 5, ("row 36 of x.npy = row 1 of x.npy",))


def test_zeros_of_both_signs_are_equal():
    assert row_keys(np.array([[0.0, 1.0]], np.float32)) == row_keys(np.array([[-0.0, 1.0]], np.float32) + np.float32(0))


def test_every_finding_is_a_kind_and_the_audit_reports_it():
    array = changed(r3=np.nan)
    array[36], array[9], array[:, 4] = array[1], array[2], 0.25
    findings = audit_splits(splits(array))
    names = [one.name for one in findings]
    assert {"unusable-vectors", "constant-columns", "duplicate-rows", "query-copy-in-database", "lengths"} <= set(names)
    assert names == sorted(names, key=list(KINDS).index)
    assert "lengths" in STATEMENTS


def test_unusable_vectors_are_left_out_and_the_fingerprint_is_that_of_the_rest():
    data = splits(changed(r3=np.nan))
    inspection = inspect_splits(data)
    assert inspection.left_out == 2  # in database and training set
    kept = drop_bad_images(data, inspection)
    assert len(kept.database) == 34
    assert fingerprint(data, inspection) == fingerprint(kept)
    assert fingerprint(kept) != fingerprint(splits(changed()))


def test_the_fingerprint_depends_on_the_metric():
    assert fingerprint(splits(changed(), metric="ip")) != fingerprint(splits(changed(), metric="l2"))


def test_vectors_that_are_all_equal_are_refused():
    data = splits(np.ones((20, 3)))
    with pytest.raises(UsageError, match=r"mine: all 15 rows of the database in x.npy are equal"):
        require_different("mine", data, vector_findings(data))
