"""Codes of vectors in other programs, re-scored there, have the recall that hashzoo measured."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hashzoo.cli.main import main
from hashzoo.hamming.packing import unpack
from hashzoo.retrieval import code_file
from hashzoo.retrieval.vector_encoder import load_vector_encoder
from tests.embedded import BITS, COUNT, DIM, FACTOR, K, embed, unit

CLOSE = 0.03  # of an expected recall: other programs order ties in their own way
MEASURED = f"recall@{K}:f{FACTOR}"


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    return embed(tmp_path_factory.mktemp("embedded"))


def export(source, target, output) -> None:
    main(["export", str(source), "--to", target, "-o", str(output)], standalone_mode=False)


def packed_queries(embedded) -> np.ndarray:
    return np.packbits(load_vector_encoder(embedded.cell).encode(embedded.queries)["code"].numpy(), axis=1)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_one_index_of_faiss_takes_vectors_and_re_scores(metric, tmp_path):
    faiss = pytest.importorskip("faiss")
    made = embed(tmp_path, metric=metric)
    export(made.index, "faiss", tmp_path / "my.faiss")
    index = faiss.read_index(str(tmp_path / "my.faiss"))
    assert index.ntotal == COUNT
    queries = unit(made.queries) if metric == "cosine" else np.load(made.queries)
    for factor, name in ((FACTOR, MEASURED), (1, f"recall@{K}")):
        index.k_factor = factor
        assert abs(made.recall(index.search(queries.astype(np.float32), K)[1]) - made.metrics[name]) < CLOSE
    assert json.loads((tmp_path / "my.faiss.json").read_text())["takes"].startswith("float32 vectors")


def test_bits_that_are_no_signs_of_a_linear_map_become_an_index_of_bits(tmp_path):
    faiss = pytest.importorskip("faiss")
    made = embed(tmp_path, method="sh")
    export(made.index, "faiss", tmp_path / "my.faiss")
    index = faiss.read_index_binary(str(tmp_path / "my.faiss"))
    rows = index.search(packed_queries(made), K)[1]
    assert abs(made.recall(rows) - made.metrics[f"recall@{K}"]) < CLOSE


def test_lancedb_finds_candidates_by_code_and_returns_their_vectors(embedded, tmp_path):
    lancedb = pytest.importorskip("lancedb")
    export(embedded.index, "lancedb", tmp_path / "my.lancedb")
    table = lancedb.connect(str(tmp_path / "my.lancedb")).open_table("vectors")
    found = []
    for code, query in zip(packed_queries(embedded), unit(embedded.queries), strict=True):
        search = table.search(code, vector_column_name="code").distance_type("hamming").limit(FACTOR * K)
        near = search.to_list()
        found.append([row["row"] for row in sorted(near, key=lambda row: -np.dot(row["vector"], query))[:K]])
    assert abs(embedded.recall(np.array(found)) - embedded.metrics[MEASURED]) < CLOSE


def test_parquet_holds_codes_and_vectors_by_row(embedded, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    export(embedded.index, "parquet", tmp_path / "my.parquet")
    table = parquet.read_table(tmp_path / "my.parquet")
    assert table.column_names == ["row", "code", "vector"]
    vectors = np.array(table["vector"].to_pylist())
    np.testing.assert_allclose(vectors, unit(embedded.vectors), atol=1e-3)
    codes = unpack(np.frombuffer(b"".join(table["code"].to_pylist()), np.uint8).reshape(COUNT, -1), BITS)
    asked = unpack(packed_queries(embedded), BITS)
    near = np.argsort((asked[:, None] != codes).sum(2), axis=1, kind="stable")[:, : FACTOR * K]
    exact = np.take_along_axis(unit(embedded.queries) @ vectors.T, near, axis=1)
    rows = np.take_along_axis(near, np.argsort(-exact, axis=1, kind="stable")[:, :K], axis=1)
    assert abs(embedded.recall(rows) - embedded.metrics[MEASURED]) < CLOSE


def test_onnx_packs_the_bits_of_vectors_as_they_come_from_the_model(embedded, tmp_path, capsys):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    export(embedded.cell, "onnx", tmp_path / "my.onnx")
    assert "vectors: 0 of" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(str(tmp_path / "my.onnx"))
    given = 3 * np.load(embedded.queries)  # the graph divides by the length
    (packed,) = session.run(None, {"vectors": given})
    stored = code_file.read(embedded.index).packed_code().rows
    near = np.bitwise_count(packed[:, None] ^ stored).sum(2).argsort(axis=1, kind="stable")[:, :K]
    assert abs(embedded.recall(near) - embedded.metrics[f"recall@{K}"]) < CLOSE
    about = json.loads((tmp_path / "my.onnx.json").read_text())
    assert about["input"]["shape"] == ["batch", DIM]
