"""Exact neighbors: against plain NumPy in float64, with ties, close calls and blocks, and their cache."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashzoo.data import vectors as vectors_module
from hashzoo.data.vectors import ArrayMatrix, Vectors
from hashzoo.evaluation import truth as truth_module
from hashzoo.evaluation.truth import cached_truth, exact_neighbours
from hashzoo.storage.cache import cache_folder


def plain(query, database, metric):
    """Scores (Q, N) by their definition."""
    q, x = query.astype(np.float64), database.astype(np.float64)
    if metric == "l2":
        return -np.square(q[:, None] - x[None]).sum(2)
    if metric == "cosine":
        q, x = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (q, x))
    return q @ x.T


def vectors(array):
    return Vectors(ArrayMatrix(array, "x.npy"))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    metric=st.sampled_from(["cosine", "ip", "l2"]),
    kind=st.sampled_from(["float64", "float32", "float16", "int8"]),
    items=st.integers(4, 90),
    k=st.integers(1, 3),
)
def test_neighbors_are_those_of_plain_loops(seed, metric, kind, items, k):
    rng = np.random.default_rng(seed)
    array = (20 * rng.normal(size=(items + 5, 6))).clip(-120, 120).astype(kind) + np.asarray(1, kind)
    array[~array.any(axis=1)] = 1
    query, database = array[:5], array[5:]
    found = exact_neighbours(vectors(query), vectors(database), k, metric)
    scores = plain(query, database, metric)
    best = np.sort(scores, axis=1)[:, ::-1]
    np.testing.assert_allclose(found.scores, best[:, : k + 1], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(np.take_along_axis(scores, found.rows, 1), best[:, :k], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_blocks_and_many_queries_change_nothing(metric, monkeypatch):
    rng = np.random.default_rng(0)
    query, database = vectors(rng.normal(size=(30, 8))), vectors(rng.normal(size=(500, 8)))
    whole = exact_neighbours(query, database, 4, metric)
    monkeypatch.setattr(vectors_module, "BLOCK", 4 * 8 * 37)
    monkeypatch.setattr(truth_module, "QUERIES", 7)
    monkeypatch.setattr(truth_module, "TOGETHER", 1000)
    parts = exact_neighbours(query, database, 4, metric)
    assert (whole.rows == parts.rows).all()
    np.testing.assert_allclose(whole.scores, parts.scores, rtol=1e-12)


def test_neighbors_closer_together_than_float32_can_tell_are_found():
    rng = np.random.default_rng(0)
    base = rng.normal(size=64)
    base /= np.linalg.norm(base)
    database = base + 1e-9 * rng.normal(size=(300, 64))  # equal in float32
    found = exact_neighbours(vectors(base[None]), vectors(database), 5, "l2")
    assert found.rows[0].tolist() == np.argsort(np.square(database - base).sum(1))[:5].tolist()


def test_equal_vectors_are_ties_and_come_by_row():
    database = np.repeat(np.eye(4), 3, axis=0)
    found = exact_neighbours(vectors(np.eye(4)[:2]), vectors(database), 2, "cosine")
    assert found.rows.tolist() == [[0, 1], [3, 4]]
    assert found.margin(2).tolist() == [0, 0]
    assert found.margin(1).tolist() == [0, 0]
    assert exact_neighbours(vectors(np.eye(4)[:2]), vectors(database), 3, "cosine").margin(3).tolist() == [1, 1]


def test_as_many_neighbors_as_vectors_are_refused():
    with pytest.raises(ValueError, match="more than 4 vectors"):
        exact_neighbours(vectors(np.eye(4)), vectors(np.eye(4)), 4, "l2")


def test_the_truth_is_computed_once_and_again_if_its_file_is_damaged():
    made = []

    def compute():
        made.append(1)
        return exact_neighbours(vectors(np.eye(5)), vectors(np.eye(5)), 2, "ip")

    first, second = (cached_truth({"of": "test"}, 2, compute) for _ in range(2))
    assert (len(made), first.rows.tolist()) == (1, second.rows.tolist())
    assert first.scores.tolist() == second.scores.tolist()
    for file in (cache_folder() / "truth").glob("*.npz"):
        file.write_bytes(file.read_bytes()[:200])
    cached_truth({"of": "test"}, 2, compute)
    cached_truth({"of": "other"}, 2, compute)
    assert len(made) == 3


def test_a_truth_that_fails_leaves_nothing_in_the_cache():
    def compute():
        raise OSError("the file became shorter")

    with pytest.raises(OSError, match="shorter"):
        cached_truth({"of": "a file that shrinks"}, 2, compute)
    assert cached_truth({"of": "a file that shrinks"}, 1, lambda: exact_neighbours(
        vectors(np.eye(5)), vectors(np.eye(5)), 1, "ip"
    )).items == 5  # fmt: skip


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HASHZOO_CACHE", str(tmp_path / "file"))
    made = cached_truth({"of": "x"}, 1, lambda: exact_neighbours(vectors(np.eye(5)), vectors(np.eye(5)), 1, "ip"))
    assert made.rows[:, 0].tolist() == [0, 1, 2, 3, 4]


def test_the_lock_of_a_truth_is_free_again():
    for of in ("a", "a", "b"):
        cached_truth({"lock": of}, 1, lambda: exact_neighbours(vectors(np.eye(5)), vectors(np.eye(5)), 1, "ip"))
    import filelock

    for file in (cache_folder() / "truth").glob("*.lock"):
        filelock.FileLock(file, timeout=0).acquire().lock.release()
