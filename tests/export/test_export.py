"""Codes in other programs have the neighbors that hashzoo finds, and an exported encoder gives torch's codes."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hashzoo.cli.main import main
from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.evaluation.scoring import encode, relaxed_codes
from hashzoo.export import faiss_lists, milvus
from hashzoo.hamming.distances import nearest
from hashzoo.hamming.packing import unpack
from hashzoo.registry import zoo
from hashzoo.retrieval.code_file import StoredCodes
from hashzoo.retrieval.encoder import load_encoder
from tests.export.stored import ABOUT, BITS, COUNT, NEAREST, QUERIES, agrees
from tests.measured import cell_of


def told(file: Path) -> dict:
    return json.loads(file.read_text())


def test_faiss_finds_the_same_neighbours_up_to_ties(kept, index, tmp_path):
    faiss = pytest.importorskip("faiss")
    main(["export", str(index), "--to", "faiss", "-o", str(tmp_path / "codes.faiss")], standalone_mode=False)
    read = faiss.read_index_binary(str(tmp_path / "codes.faiss"))
    for query in QUERIES:
        distances, rows = read.search(kept.arrays["bits.code"][query : query + 1], NEAREST)
        agrees(kept, query, list(zip(rows[0].tolist(), distances[0].tolist(), strict=True)))
    paths = (tmp_path / "codes.faiss.paths").read_text().splitlines()
    assert (len(paths), paths[3]) == (COUNT, kept.paths[3].replace("\n", "\\n"))
    about = told(tmp_path / "codes.faiss.json")
    assert (about["method"], about["codes"]["code"]["bits"], about["dimension"]) == ("any", BITS, 24)
    for name, digest in about["files"].items():
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == digest


def test_lists_of_faiss_have_the_rows_of_the_collection_and_find_all_neighbours_when_all_are_searched(kept, tmp_path):
    faiss = pytest.importorskip("faiss")
    faiss_lists.export(kept, tmp_path / "lists", rows=200)
    about, found = told(tmp_path / "lists" / "manifest.json"), {query: [] for query in QUERIES}
    assert [(one["start"], one["rows"]) for one in about["shards"]] == [(0, 200), (200, 200), (400, COUNT - 400)]
    for shard in about["shards"]:
        read = faiss.read_index_binary(str(tmp_path / "lists" / shard["file"]))
        assert (read.nlist, read.nprobe) == (about["lists"], about["nprobe"])
        read.nprobe = read.nlist
        for query in QUERIES:
            distances, rows = read.search(kept.arrays["bits.code"][query : query + 1], NEAREST)
            found[query] += [pair for pair in zip(distances[0].tolist(), rows[0].tolist(), strict=True) if pair[1] >= 0]
        paths = (tmp_path / "lists" / shard["paths"]).read_text().splitlines()
        named = [path.replace("\n", "\\n") for path in kept.paths[shard["start"] :][: shard["rows"]]]
        assert paths[:50] == named[:50]
    for query in QUERIES:
        agrees(kept, query, [(row, far) for far, row in sorted(found[query])[:NEAREST]])
    with pytest.raises(UsageError, match="lists exists; name a new folder"):
        faiss_lists.export(kept, tmp_path / "lists")
    with pytest.raises(UsageError, match="faiss-ivf needs 64 codes or more, not 0"):
        faiss_lists.export(StoredCodes({**kept.metadata}, [], {}), tmp_path / "few")


def test_files_for_milvus_have_the_columns_that_its_bulk_writer_makes(kept, tmp_path, monkeypatch):
    """Those of pymilvus 3.0.2: ``LocalBulkWriter`` writes int64, string, and lists of uint8 and of float."""
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(milvus, "ROWS", 300)
    milvus.export(kept, tmp_path / "rows")
    tables = [pyarrow.parquet.read_table(tmp_path / "rows" / f"part-0000{number}.parquet") for number in (0, 1)]
    columns = {field.name: str(field.type).replace("item", "element") for field in tables[0].schema}
    lists = {"code": "list<element: uint8>", "fine": "list<element: uint8>", "vector": "list<element: float>"}
    assert columns == {"row": "int64", "path": "string", **lists}
    table = pyarrow.concat_tables(tables)
    assert table["row"].to_pylist() == list(range(COUNT))
    np.testing.assert_array_equal(np.array(table["code"].to_pylist(), np.uint8), kept.arrays["bits.code"])
    np.testing.assert_array_equal(np.array(table["vector"].to_pylist(), np.float32), kept.arrays["values.vector"])
    assert told(tmp_path / "rows" / "manifest.json")["fields"]["code"] == {"type": "BINARY_VECTOR", "dim": 24}


def names_of_the_page(word: str) -> dict:
    """What the code of the page on many codes defines that contains a word."""
    page = (Path(__file__).parents[2] / "docs" / "howto" / "large-search.md").read_text(encoding="utf-8")
    (code,) = (one for one in re.findall(r"^```python\n(.*?)^```", page, re.S | re.M) if word in one)
    exec(code, known := {"__name__": "page"})  # noqa: S102
    return known


def test_qdrant_finds_the_same_neighbours_with_the_function_of_the_page(kept, index, tmp_path):
    qdrant_client = pytest.importorskip("qdrant_client")
    pytest.importorskip("pyarrow")
    known = names_of_the_page("qdrant_client")
    main(["export", str(index), "--to", "parquet", "-o", str(tmp_path / "codes.parquet")], standalone_mode=False)
    client = qdrant_client.QdrantClient(":memory:")
    known["load"](client, tmp_path / "codes.parquet", BITS)
    for query in QUERIES:
        asked = unpack(kept.arrays["bits.code"][query : query + 1], BITS)[0].astype(float).tolist()
        points = client.query_points("images", query=asked, limit=NEAREST).points
        agrees(kept, query, sorted(((one.id, one.score) for one in points), key=lambda found: found[1]))
    client.close()


def test_the_function_of_the_page_searches_all_lists(kept, tmp_path):
    pytest.importorskip("faiss")
    known = names_of_the_page("faiss.read_index")
    faiss_lists.export(kept, tmp_path / "lists", rows=200)
    rows, distances = known["search"](tmp_path / "lists", kept.arrays["bits.code"][list(QUERIES)], NEAREST)
    exact = nearest(kept.arrays["bits.code"][list(QUERIES)], kept.arrays["bits.code"], NEAREST)[1]
    assert (distances <= exact[:, -1:]).mean() > 0.9
    apart = (
        unpack(kept.arrays["bits.code"], BITS)[rows] != unpack(kept.arrays["bits.code"], BITS)[list(QUERIES)][:, None]
    ).sum(2)
    np.testing.assert_array_equal(apart, distances)


def test_parquet_holds_the_bytes_of_every_code(kept, index, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    main(["export", str(index), "--to", "parquet", "-o", str(tmp_path / "codes.parquet")])
    table = parquet.read_table(tmp_path / "codes.parquet")
    assert table["row"].to_pylist() == list(range(COUNT))
    packed = np.frombuffer(b"".join(table["code"].to_pylist()), np.uint8).reshape(COUNT, -1)
    np.testing.assert_array_equal(packed, kept.arrays["bits.code"])
    np.testing.assert_array_equal(np.array(table["vector"].to_pylist(), np.float32), kept.arrays["values.vector"])
    assert table["path"][COUNT - 1].as_py() == "caf\\xe9.jpg"
    about = told(tmp_path / "codes.parquet.json")
    assert about["codes_sha256"]["code"] == hashlib.sha256(packed.tobytes()).hexdigest()


def test_lancedb_finds_the_same_neighbours_up_to_ties(kept, index, tmp_path):
    lancedb = pytest.importorskip("lancedb")
    output = tmp_path / "codes.lancedb"
    main(["export", str(index), "--to", "lancedb", "-o", str(output)])
    table = lancedb.connect(str(output)).open_table("images")
    for query in QUERIES:
        asked = kept.arrays["bits.code"][query]
        rows = table.search(asked, vector_column_name="code").distance_type("hamming").limit(NEAREST).to_list()
        agrees(kept, query, sorted(((row["row"], row["_distance"]) for row in rows), key=lambda found: found[1]))
    assert told(output / "manifest.json")["table"] == "images"
    with pytest.raises(SystemExit) as stopped:
        main(["export", str(index), "--to", "lancedb", "-o", str(output)])
    assert stopped.value.code == 2


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


@pytest.mark.parametrize(("method", "backbone"), [("itq", "pixels"), ("dhn", "tiny")])
def test_onnx_gives_the_codes_of_torch_for_any_number_of_images(results, method, backbone, tmp_path, capsys):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    cell = cell_of(results, method, backbone=backbone, dataset="digits.standard", bits=[20])
    main(["export", str(cell), "--to", "onnx", "-o", str(tmp_path / "e.onnx")], standalone_mode=False)
    assert "checked against torch with 297 images: " in capsys.readouterr().out
    session = onnxruntime.InferenceSession(str(tmp_path / "e.onnx"), providers=["CPUExecutionProvider"])
    of, images = load_encoder(cell).trained, zoo.load_plugins().dataset("digits.standard").factory().database
    some = images.take(torch.arange(1000))
    codes = encode(of.run, of.method, some)["code"].numpy()
    (packed,) = session.run(None, {"images": some.images.numpy()})
    relaxed = relaxed_codes(of.run, of.method, some)
    apart = unpack(packed, 20) != codes
    assert not (apart if relaxed is None else apart & (relaxed.numpy().__abs__() >= 1e-5)).any()
    assert apart.mean() < 1e-3
    (one,) = session.run(None, {"images": some.images[:1].numpy()})
    assert (one[0] == packed[0]).mean() > 0.6  # a bit near 0 may differ between batches
    about = told(tmp_path / "e.onnx.json")
    assert about["outputs"]["code"] == {"bits": 20, "shape": ["batch", 3], "type": "uint8"}
    assert about["input"]["shape"] == ["batch", 1, 8, 8]


def test_a_graph_that_gives_other_codes_is_not_written(results):
    from hashzoo.export import onnx

    of = load_encoder(cell_of(results, "itq", dataset="digits.standard", bits=[20])).trained
    module = onnx.PackedEncoder(of, ["code"])
    images = zoo.load_plugins().dataset("digits.standard").factory().query.images[:60]
    sound = onnx.compare(module, images, lambda some: [part.numpy() for part in module(some)])
    assert (sound.images, sound.bits, sound.differing) == (60, 1200, 0)
    with pytest.raises(EnvironmentFailure, match="nothing was written"):
        onnx.compare(module, images, lambda some: [part.numpy() ^ 128 for part in module(some)])


def test_a_bit_on_its_threshold_may_differ_and_another_may_not():
    from hashzoo.export import onnx

    class Given(nn.Module):
        names = ("code",)

        def codes(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"code": images >= 0}

    values = torch.tensor([[1e-6, 1.0, -1.0, -1e-6]])
    near, far = (np.packbits([bits], axis=1) for bits in ([0, 1, 0, 1], [0, 0, 0, 1]))
    found = onnx.compare(Given(), values, lambda _: [near])  # type: ignore[arg-type]
    assert (found.differing, found.max_margin) == (2, pytest.approx(1e-6))
    with pytest.raises(EnvironmentFailure, match="1 from its threshold"):
        onnx.compare(Given(), values, lambda _: [far])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("target", "module", "extra"),
    [("faiss", "faiss", "search"), ("parquet", "pyarrow", "parquet"), ("lancedb", "lancedb", "lancedb")],
)
def test_a_missing_extra_is_named(target, module, extra, index, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SystemExit) as stopped:
        main(["export", str(index), "--to", target, "-o", str(tmp_path / "out")])
    assert (stopped.value.code, f"hashzoo[{extra}]" in capsys.readouterr().err) == (3, True)


def test_what_cannot_be_exported_is_said(index, results, tmp_path, kept, capsys):
    for arguments, says in (
        ([str(index), "--to", "onnx"], "name a cell's .json"),
        (["cell.json", "--to", "faiss"], "exports codes"),
        ([str(index), "--to", "faiss", "--code", "vector"], "there is no code 'vector'; there are: code, fine"),
        ([str(index), "--to", "parquet", "--code", "code"], "leave out --code"),
        (["cell.json", "--to", "onnx", "--code", "code"], "leave out --code"),
        ([str(index), "--to", "faiss", "--check", "x.png"], "--check requires --to onnx"),
        ([str(index), "--to", "parquet", "--root", "/other"], "é.jpg is not in /other; name a folder above it"),
    ):
        if "faiss" in arguments:
            pytest.importorskip("faiss")
        with pytest.raises(SystemExit) as stopped:
            main(["export", *arguments, "-o", str(tmp_path / "out")])
        assert stopped.value.code == 2
        assert says in capsys.readouterr().err
    with pytest.raises(UsageError, match="stores no binary code"):
        StoredCodes({**ABOUT, "codes": {"vector": {"shape": [3]}}}, [], {}).packed_code()
