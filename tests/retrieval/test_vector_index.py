"""Vectors are encoded, indexed, searched and re-scored; the recall of a search is what was measured."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import hashzoo
from hashzoo.retrieval import code_file
from hashzoo.retrieval.vector_encoder import CHOICE
from tests.embedded import COUNT, DIM, FACTOR, QUERIES, K, embed
from tests.in_process import command, refused

CLOSE = 0.03  # of an expected recall: an index orders ties by row


@pytest.fixture(scope="module", params=["cosine", "l2", "ip"])
def embedded(request, tmp_path_factory):
    return embed(tmp_path_factory.mktemp("embedded"), metric=request.param)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return embed(tmp_path_factory.mktemp("one"))


def test_a_search_has_the_recall_that_was_measured(embedded):
    index = hashzoo.open_vector_index(embedded.index)
    for factor, name in ((0, f"recall@{K}"), (1, f"recall@{K}"), (FACTOR, f"recall@{K}:f{FACTOR}")):
        hits = index.search(embedded.queries, K, factor)
        assert abs(embedded.recall(hits.rows) - embedded.metrics[name]) < CLOSE
        assert hits.exact == (factor > 0)
    everything = index.search(embedded.queries, K, COUNT / K)
    assert embedded.recall(everything.rows) > 0.99  # float16 can swap neighbors that are nearly as near
    assert (np.diff(everything.scores, axis=1) <= 0).all()


def test_real_queries_have_the_recall_that_was_measured(one, tmp_path):
    chosen = {"k": K, "factor": FACTOR, "factor_by_code": 9, "asymmetric": True}
    for suffix in (".json", ".safetensors"):
        (tmp_path / f"method{suffix}").write_bytes(one.cell.with_suffix(suffix).read_bytes())
    (tmp_path / CHOICE).write_text(json.dumps(chosen))
    assert command("index", "build", tmp_path, "--vectors", one.vectors, "-o", tmp_path / "my.index") == 0
    index = hashzoo.open_vector_index(tmp_path / "my.index")
    assert (index.asymmetric, index.factor) == (True, FACTOR)
    found = one.recall(index.search(one.queries, K).rows)
    assert abs(found - one.metrics[f"recall@{K}:f{FACTOR}/asym"]) < CLOSE
    with pytest.raises(hashzoo.UsageError, match="chosen for real queries; use exact"):
        hashzoo.open_vector_index(tmp_path / "my.index", engine="faiss-flat")


def test_int8_re_scores_nearly_as_well_and_takes_half_the_bytes(one, tmp_path):
    assert command("index", "build", one.cell, "--vectors", one.vectors, "--rescore", "int8", "-o", tmp_path / "i") == 0
    index = hashzoo.open_vector_index(tmp_path / "i")
    assert one.recall(index.search(one.queries, K, COUNT / K).rows) > 0.95
    assert np.load(tmp_path / "i.npy").nbytes == COUNT * DIM == np.load(f"{one.index}.npy").nbytes // 2


def test_codes_of_a_file_are_those_of_the_method(one, tmp_path, capsys):
    assert command("encode", one.cell, one.vectors, "-o", tmp_path / "codes.npz") == 0
    assert f"{COUNT} vectors; code: " in capsys.readouterr().out
    stored, encoder = code_file.read(tmp_path / "codes.npz"), hashzoo.load_vector_encoder(one.cell)
    assert (len(stored), stored.paths[7]) == (COUNT, "7")
    array = np.load(one.vectors)
    for given in (one.vectors, array, torch.from_numpy(array)):
        assert torch.equal(encoder.encode(given)["code"], stored.codes(0, COUNT)["code"])
    doubled = encoder.encode(2 * array)["code"]  # cosine does not see the length
    assert (doubled == stored.codes(0, COUNT)["code"]).float().mean() > 0.999


def test_a_search_prints_the_rows_of_each_query(one, capsys):
    assert command("search", one.index, one.queries, "--top", "3", "--factor", "5", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    hits = hashzoo.open_vector_index(one.index).search(one.queries, 3, 5)
    assert [[hit["row"] for hit in answer["found"]] for answer in found["answers"]] == hits.rows.tolist()
    assert found["exact"]
    assert command("search", one.index, one.queries, "--top", "2") == 0
    assert capsys.readouterr().out.count("row ") >= QUERIES


@pytest.mark.parametrize(
    ("array", "code", "words"),
    [
        (np.zeros((3, 5), np.float32), 2, "has 5 columns"),
        (np.full((3, DIM), np.nan, np.float32), 3, "row 0 of"),
        (np.diag([1.0] * (DIM - 1) + [np.inf]), 3, f"row {DIM - 1} of"),
        (np.zeros((3, DIM), np.float32), 3, "is zero"),
        (np.array([[1.0], [1.0, 2.0]], object), 2, "Python objects"),
        (np.zeros((0, DIM), np.float32), 2, "0 rows"),
        (np.zeros(DIM, np.float32), 2, "x[None]"),
    ],
    ids=["width", "nan", "inf", "zero", "ragged", "no rows", "one vector"],
)
def test_vectors_that_cannot_be_used_are_refused_in_one_line(array, code, words, one, tmp_path, capsys):
    bad = tmp_path / "bad.npy"
    np.save(bad, array, allow_pickle=True)
    outputs = tmp_path / "codes.npz", tmp_path / "new.index"
    for arguments in (
        ("encode", one.cell, bad, "-o", outputs[0]),
        ("index", "build", one.cell, "--vectors", bad, "-o", outputs[1]),
        ("search", one.index, bad),
    ):
        error = refused(capsys, code, *arguments)
        assert words in error
        assert "bad.npy" in error
    assert not any(path.exists() for path in outputs)


def test_options_of_the_other_kind_are_refused(one, tmp_path, capsys):
    assert "or --vectors FILE" in refused(capsys, 2, "index", "build", one.cell, "-o", tmp_path / "i")
    both = ("index", "build", one.cell, one.queries, "--vectors", one.vectors, "-o", tmp_path / "i")
    assert "a CELL and --vectors FILE" in refused(capsys, 2, *both)
    assert "holds vectors" in refused(capsys, 2, "search", one.index, one.queries, "--html")
    assert "factor" in refused(capsys, 2, "search", one.index, one.queries, "--factor", "0.5")
    with pytest.raises(hashzoo.UsageError, match="open_vector_index"):
        hashzoo.open_index(one.index)
    with pytest.raises(hashzoo.UsageError, match="trained on vectors"):
        hashzoo.load_encoder(one.cell)


def test_another_copy_of_the_vectors_is_refused(one, tmp_path, capsys):
    for suffix in ("", ".npy"):
        (tmp_path / f"my.index{suffix}").write_bytes(one.index.with_name(f"my.index{suffix}").read_bytes())
    np.save(tmp_path / "my.index.npy", np.load(tmp_path / "my.index.npy")[::-1])
    assert "is not the copy of" in refused(capsys, 3, "search", tmp_path / "my.index", one.queries)
    (tmp_path / "my.index.npy").unlink()
    assert "are missing" in refused(capsys, 3, "search", tmp_path / "my.index", one.queries)


def test_a_number_that_float16_cannot_hold_is_named(tmp_path, capsys):
    made = embed(tmp_path, metric="l2")
    large = np.load(made.vectors)
    large[5] *= 1e6
    np.save(tmp_path / "large.npy", large)
    error = refused(capsys, 2, "index", "build", made.cell, "--vectors", tmp_path / "large.npy", "-o", tmp_path / "i")
    assert "row 5 of" in error
    assert "--rescore int8" in error
    assert not (tmp_path / "i").exists()
    assert not (tmp_path / "i.npy").exists()


def test_a_file_that_shrinks_while_it_is_encoded_ends_the_command_without_output(one, tmp_path, monkeypatch, capsys):
    from hashzoo.retrieval import vector_encoder

    shrinking, read = tmp_path / "emb.npy", vector_encoder.checked_numbers
    shrinking.write_bytes(one.vectors.read_bytes())

    def shorter(vectors, rows):
        with shrinking.open("r+b") as file:
            file.truncate(500)
        return read(vectors, rows)

    monkeypatch.setattr(vector_encoder, "checked_numbers", shorter)
    error = refused(capsys, 3, "encode", one.cell, shrinking, "-o", tmp_path / "codes.npz")
    assert "emb.npy became shorter while it was read" in error
    assert not (tmp_path / "codes.npz").exists()
