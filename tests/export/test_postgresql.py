"""PostgreSQL, with and without pgvector: the neighbors that hashzoo finds, nightly updates, and search by radius."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hashzoo.cli.main import main
from hashzoo.export import postgresql
from hashzoo.hamming.packing import unpack
from hashzoo.retrieval import code_file
from hashzoo.retrieval.code_file import CodeCollector, StoredCodes
from hashzoo.retrieval.vector_encoder import load_vector_encoder
from tests.embedded import FACTOR, K, embed, unit
from tests.export.postgresql_server import SERVERS, has_pgvector
from tests.export.stored import ABOUT, BITS, COUNT, NEAREST, QUERIES, agrees


def test_postgresql_finds_the_same_neighbours_with_the_example_of_the_file(kept, index, psql, tmp_path):
    output = tmp_path / "sql"
    main(["export", str(index), "--to", "pgvector", "-o", str(output)])
    psql(output, "-c", "DROP TABLE IF EXISTS images")
    psql(output, "-f", "postgresql.sql")
    comment = (output / "postgresql.sql").read_text().split("rows:\n")[1]
    example = comment.replace("-- ", "").replace("LIMIT 20", f"LIMIT {NEAREST}").replace("path, ", "")
    for query in QUERIES:
        lines = psql(output, "-c", example.replace("id = 0", f"id = {query}")).splitlines()
        agrees(kept, query, [tuple(map(int, line.split("\t"))) for line in lines])
    first = psql(output, "-c", 'SELECT "code" FROM images WHERE id = 0').strip()
    assert first == "".join(map(str, unpack(kept.arrays["bits.code"][:1], BITS)[0].astype(int)))
    path = psql(output, "-c", f"SELECT path FROM images WHERE id IN (3, {COUNT - 1}) ORDER BY id")
    assert path == f"{kept.paths[3]}\ncaf\\xe9.jpg\n"
    vector = psql(output, "-c", "SELECT vector[1] FROM images WHERE id = 2").strip()
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
        printed = psql(tmp_path, "-c", 'SELECT id, path, "code" FROM images ORDER BY id')
        return [line.split("\t") for line in printed.splitlines()]

    code = lambda row: "".join(map(str, unpack(kept.arrays["bits.code"][row : row + 1], BITS)[0].astype(int)))  # noqa: E731
    psql(tmp_path, "-c", "DROP TABLE IF EXISTS images")
    psql(export(some_rows(kept, slice(0, 3), "/photos/monday"), "first"), "-f", "postgresql.sql")
    psql(export(some_rows(kept, slice(0, 2), "/photos/tuesday"), "second"), "-f", "update.sql")
    psql(tmp_path, "-c", "DELETE FROM images WHERE path = 'monday/1.jpg'")
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
    with pytest.raises(AssertionError, match="images has codes of another trained method: hashzoo k s"):
        psql(export(other, "fourth"), "-f", "update.sql")
    assert rows() == found


def test_the_statements_of_the_page_on_postgresql_run(kept, psql, tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "howto" / "postgresql.md").read_text(encoding="utf-8")
    insert, delete, search, within = re.findall(r"^```sql\n(.*?)^```", page, re.S | re.M)
    one_code = replace(kept, metadata={**kept.metadata, "codes": {"code": kept.metadata["codes"]["code"]}})
    paths = ["2026-11-29/cat.jpg", "2026-11-30/blurred.jpg", "2026-10-01/old.jpg", "2026-11-30/dog.jpg"]
    stored = replace(some_rows(one_code, slice(0, 4), "/photos"), paths=paths)
    postgresql.export(stored, tmp_path / "sql")
    psql(tmp_path, "-c", "DROP TABLE IF EXISTS images")
    psql(tmp_path / "sql", "-f", "postgresql.sql")
    assert " ".join(insert.split()).rstrip(";") in " ".join((tmp_path / "sql" / "update.sql").read_text().split())
    psql(tmp_path, "-c", delete)
    found = [line.split("\t")[0] for line in psql(tmp_path, "-c", search).splitlines()]
    assert (found[0], set(found)) == (paths[0], {paths[0], paths[3]})
    psql(tmp_path / "sql", "-f", "radius.sql")
    assert psql(tmp_path, "-c", within).splitlines()[0] == f"{paths[0]}\t0"
    schema = ["-c", "CREATE SCHEMA dhn", "-c", "SET search_path TO dhn, public"]  # a second table beside the first
    psql(tmp_path / "sql", *schema, "-f", "postgresql.sql", "-f", "update.sql")
    assert psql(tmp_path, "-c", "SELECT count(*) FROM dhn.images").strip() == "4"


@pytest.mark.parametrize("psql", list(filter(has_pgvector, SERVERS)), indirect=True)
def test_pgvector_finds_the_same_neighbours(kept, index, psql, tmp_path):
    output = tmp_path / "sql"
    main(["export", str(index), "--to", "pgvector", "-o", str(output)])
    psql(output, "-c", "DROP TABLE IF EXISTS images")
    psql(output, "-f", "pgvector.sql")
    example = (output / "pgvector.sql").read_text().split("rows:\n")[1].replace("-- ", "").replace("path, ", "")
    for query in QUERIES:
        asked = example.replace("LIMIT 20", f"LIMIT {NEAREST}").replace("id = 0", f"id = {query}")
        agrees(
            kept,
            query,
            [tuple(map(int, map(float, line.split("\t")))) for line in psql(output, "-c", asked).splitlines()],
        )


def test_a_mirror_has_the_images_of_the_last_export_only_and_keeps_their_ids(kept, psql, tmp_path):
    def load(rows: slice, script: str, change: int | None = None) -> None:
        stored = some_rows(kept, rows, "/photos")
        if change is not None:
            stored.arrays["bits.code"][0] = kept.arrays["bits.code"][change]
        postgresql.export(stored, tmp_path / script)
        psql(tmp_path / script, "-f", script)

    psql(tmp_path, "-c", "DROP TABLE IF EXISTS images")
    load(slice(0, 4), "postgresql.sql")
    unchanged = psql(tmp_path, "-c", "SELECT xmin FROM images WHERE id = 3")
    load(slice(2, 6), "mirror.sql", change=9)
    found = psql(tmp_path, "-c", "SELECT id, path FROM images ORDER BY id").splitlines()
    assert found[:2] == ["2\t2.jpg", "3\t3.jpg"]
    assert [line.split("\t")[1] for line in found] == ["2.jpg", "3.jpg", "4.jpg", "5.jpg"]
    assert psql(tmp_path, "-c", "SELECT xmin FROM images WHERE id = 3") == unchanged  # was not written again
    nine = "".join(map(str, unpack(kept.arrays["bits.code"][9:10], BITS)[0].astype(int)))
    assert psql(tmp_path, "-c", 'SELECT "code" FROM images WHERE id = 2').strip() == nine


def test_items_of_an_index_folder_are_known_by_their_ids_and_can_share_a_path(kept, psql, tmp_path):
    stored = replace(some_rows(kept, slice(0, 3), "/photos"), paths=["a.jpg", "a.jpg", "b.jpg"], ids=["x", "y", "z"])
    postgresql.export(stored, tmp_path / "one")
    moved = replace(stored, paths=["a.jpg", "c.jpg", "b.jpg"])
    postgresql.export(moved, tmp_path / "two")
    psql(tmp_path, "-c", "DROP TABLE IF EXISTS images")
    psql(tmp_path / "one", "-f", "postgresql.sql")
    psql(tmp_path / "two", "-f", "update.sql")
    found = psql(tmp_path, "-c", "SELECT id, item, path FROM images ORDER BY id").splitlines()
    assert found == ["0\tx\ta.jpg", "1\ty\tc.jpg", "2\tz\tb.jpg"]
    psql(tmp_path / "two", "-f", "radius.sql")
    near = "SELECT near.item FROM images AS asked, images_within(code, 0) AS near WHERE asked.item = 'y'"
    assert "y" in psql(tmp_path, "-c", near).split()


@pytest.mark.parametrize("bits", [8, 20, 61])
def test_the_indexes_of_parts_find_all_codes_within_a_radius(psql, tmp_path, bits):
    rng = np.random.default_rng(bits)
    codes = rng.integers(0, 2, (300, bits)).astype(bool)
    codes[100:] = codes[:1] ^ (rng.random((200, bits)) < rng.uniform(0, 0.3, (200, 1)))
    collector = CodeCollector()
    collector.add({"code": torch.from_numpy(codes)})
    stored = collector.finish(ABOUT, Path("/photos"), [Path(f"{row}.jpg") for row in range(300)])
    postgresql.export(stored, tmp_path)
    psql(tmp_path, "-c", "DROP TABLE IF EXISTS images")
    psql(tmp_path, "-f", "postgresql.sql", "-f", "radius.sql")
    for query, radius in ((0, 0), (0, 1), (0, 3), (0, 4), (0, 7), (150, 5), (7, bits)):
        line = f"SELECT near.id, distance FROM images AS asked, images_within(code, {radius}) AS near"
        printed = psql(tmp_path, "-c", f"{line} WHERE asked.id = {query}").splitlines()
        apart = (codes ^ codes[query]).sum(1)
        near = sorted(np.flatnonzero(apart <= radius).tolist(), key=lambda row: (apart[row], row))
        assert [tuple(map(int, found.split("\t"))) for found in printed] == [(row, apart[row]) for row in near]
