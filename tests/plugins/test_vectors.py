"""The dataset of the user's own vectors: which rows are queries, database and training set, and their labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hashzoo_plugins.datasets.vectors import vectors

from hashzoo import UsageError

X = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)


@pytest.fixture
def root(tmp_path):
    np.save(tmp_path / "emb.npy", X)
    np.save(tmp_path / "q.npy", X[:7] + 1)
    np.save(tmp_path / "classes.npy", np.arange(50) % 3)
    (tmp_path / "classes.txt").write_text("\n".join("abc"[i % 3] for i in range(50)))
    return tmp_path


def test_without_queries_a_tenth_is_drawn_and_left_out_of_the_database(root):
    data, again, other = (vectors(root=root / "emb.npy", seed=seed) for seed in (0, 0, 1))
    assert (len(data.query), len(data.database), len(data.train)) == (5, 45, 45)
    assert sorted([*data.query.ids.tolist(), *data.database.ids.tolist()]) == list(range(50))
    assert data.query.ids.tolist() == again.query.ids.tolist() != other.query.ids.tolist()
    (found,) = data.findings
    assert (found.name, found.count, found.detail) == ("held-out-queries", 5, "by vectors.seed = 0")
    assert not data.labelled


def test_the_draw_is_the_same_on_every_machine(root):
    assert vectors(root=root / "emb.npy").query.ids.tolist() == DRAWN


DRAWN = [2, 6, 10, 18, 27]


def test_queries_of_a_file_of_their_own_go_on_after_the_last_row(root):
    data = vectors(root=root / "emb.npy", queries=root / "q.npy", metric="l2")
    assert (len(data.query), len(data.database)) == (7, 50)
    assert data.query.ids.tolist() == list(range(50, 57))
    np.testing.assert_array_equal(data.query.images[np.arange(7)].numpy(), X[:7] + 1)
    assert (data.metric, data.source) == ("l2", "6 x float32, l2")
    assert vectors(root=root / "emb.npy", queries="q.npy").query.ids.tolist() == data.query.ids.tolist()


def test_queries_in_the_file_of_the_vectors_are_found(tmp_path):
    np.savez(tmp_path / "x.npz", train=X, test=X[:4])
    data = vectors(root=tmp_path / "x.npz")
    assert (len(data.query), len(data.database)) == (4, 50)
    assert [one.name for one in data.findings] == ["read-as-parts"]


def test_cosine_divides_vectors_by_their_lengths_and_other_metrics_do_not(root):
    lengths = {m: vectors(root=root / "emb.npy", metric=m).train.images[:].norm(dim=1) for m in ("cosine", "ip", "l2")}
    assert lengths["cosine"].numpy() == pytest.approx(1)
    assert lengths["ip"].tolist() == lengths["l2"].tolist() != lengths["cosine"].tolist()


def test_training_vectors_are_drawn_from_the_database(root):
    data = vectors(root=root / "emb.npy", train=10, query=0.2)
    assert (len(data.train), len(data.query)) == (10, 10)
    assert torch.isin(data.train.ids, data.database.ids).all()


@pytest.mark.parametrize(("file", "names"), [("classes.npy", ("0", "1", "2")), ("classes.txt", ("a", "b", "c"))])
def test_labels_follow_their_rows(file, names, root):
    data = vectors(root=root / "emb.npy", labels=root / file)
    assert (data.class_names, data.multilabel, data.labelled) == (names, False, True)
    for part in data.parts().values():
        assert part.labels.argmax(1).tolist() == (part.ids % 3).tolist()


def test_multi_hot_labels_and_labels_of_queries_are_read(root):
    np.save(root / "hot.npy", np.random.default_rng(0).random((50, 4)) < 0.5)
    np.save(root / "query-hot.npy", np.eye(7, 4, dtype=int))
    given = {"queries": root / "q.npy", "labels": root / "hot.npy"}
    data = vectors(root=root / "emb.npy", **given, query_labels=root / "query-hot.npy")
    assert (data.multilabel, data.query.labels.shape) == (True, (7, 4))
    with pytest.raises(UsageError, match="query_labels too"):
        vectors(root=root / "emb.npy", **given)


BAD = {
    "width": ({"queries": "narrow.npy"}, r"narrow.npy has 5 columns and .*emb.npy has 6"),
    "both": ({"queries": "q.npy", "query": 5}, "leave out one"),
    "all": ({"query": 50}, "leaves none of the 50 rows"),
    "many": ({"train": 60}, "vectors.train = 60 is more than the 45"),
    "part": ({"query": 1.5}, "a fraction below 1 or a whole number"),
    "labels": ({"labels": "seven.npy"}, r"seven.npy has labels of shape \(7,\) for 50 vectors"),
    "numbers": ({"labels": "real.npy"}, "real.npy holds float64; classes are integers or text"),
    "hot": ({"labels": "emb.npy"}, r"is \(N, C\) and not multi-hot"),
    "lone": ({"query_labels": "seven.npy"}, "needs vectors.labels"),
    "drawn": ({"labels": "classes.npy", "query_labels": "seven.npy"}, "leave out vectors.query_labels"),
    "missing": ({"labels": "none.npy"}, "there is no file .*none.npy"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_refused_with_the_file_and_the_cure(name, root):
    np.save(root / "narrow.npy", X[:, :5])
    np.save(root / "seven.npy", np.arange(7))
    np.save(root / "real.npy", np.arange(50.0))
    given, said = BAD[name]
    given = {key: root / value if isinstance(value, str) else value for key, value in given.items()}
    with pytest.raises(UsageError, match=said):
        vectors(root=root / "emb.npy", **given)
