"""What large sets take: the memory of encoding as it grows with the images, ten million codes evaluated, and a million
vectors of 768 numbers from a file to a measured code.

    python benchmarks/speed/scale.py [--quick]

Each line is measured in a process of its own. ``encode`` streams memory-mapped features through ``lsh`` into an index;
``planted`` makes random codes in which some items lie near a query, evaluates and searches them, and checks the result
against what was planted and against plain NumPy. ``vectors`` checks a file, finds the exact neighbors of 1,000 queries,
and measures ``itq`` as ``hashzoo quantize`` does.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from hashzoo.api.bench import Request, prepare
from hashzoo.backbone import Backbone
from hashzoo.bench.job import load_job_data
from hashzoo.bench.measure import measure, split_facts
from hashzoo.bench.truth import truth_for
from hashzoo.evaluation.metrics import evaluate
from hashzoo.evaluation.scoring import encode_batches
from hashzoo.execution.base import Silent
from hashzoo.hamming.counting import hamming_counts
from hashzoo.hamming.distances import nearest
from hashzoo.hamming.packing import set_threads
from hashzoo.hamming.relevance import relevance
from hashzoo.registry import zoo
from hashzoo.results.choices import metrics_of
from hashzoo.run import Run
from hashzoo.training.budget import Budget
from hashzoo.training.feature_store import StoredFeatures
from hashzoo.training.process_state import limit_threads
from hashzoo.types import Features, Input, Split, Splits

BITS, CLASSES, TRAIN = 64, 10, 1000
QUERIES, PLANTED, FARTHEST = 1000, 100, 16  # each query has so many items at a distance of FARTHEST at most
METRICS = ("map@all", "map@1000", "p@h2")
CHECKED = 3  # queries whose counts and neighbors are compared with those of NumPy


def held(field: str) -> int:
    """Bytes that this process holds, by a name of /proc/self/status.

    ``VmHWM`` is the most it ever held, ``RssAnon`` what is its own now, ``RssFile`` what is mapped of files now. The
    last is a copy of what is on disk, which the system takes back when it needs the room. ``ru_maxrss`` would not do:
    a child begins with that of its parent.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


class Stored(Backbone):
    """Stands for the network whose features were stored: features in, the same features out."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim, self.map_dims, self.input = dim, (), Input()

    def forward(self, images: Features) -> Features:
        """The stored features themselves."""
        return images


def write_features(file: Path, count: int, dim: int) -> None:
    """Random features (count, dim) float32, a part at a time."""
    rng = np.random.default_rng(0)
    array = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=(count, dim))
    for start in range(0, count, 1 << 14):
        array[start : start + (1 << 14)] = rng.standard_normal((min(1 << 14, count - start), dim), dtype=np.float32)
    array.flush()


def encode(file: Path, count: int) -> dict[str, float]:
    """Stream ``count`` stored images into an index, and what that took beyond the data itself."""
    limit_threads(1)
    features = np.load(file, mmap_mode="r")

    def part(first: int, last: int) -> Split:
        labels = torch.zeros(last - first, CLASSES)
        labels[torch.arange(last - first), torch.arange(first, last) % CLASSES] = 1
        return Split(StoredFeatures([features], np.arange(first, last)), labels, torch.arange(first, last))

    names = tuple(map(str, range(CLASSES)))
    data = Splits(part(0, TRAIN), part(0, count), part(0, 64), False, names)
    run = Run(Budget(epochs=1), 0)
    method = zoo.load_plugins().method("lsh").factory(data.setting(BITS), Stored(features.shape[1]))
    method.fit(data.train, run)
    for _ in range(3):  # whatever is set up once is set up
        list(encode_batches(run, method, data.query, "query"))
    split_facts(Splits(part(0, 64), part(0, 64), part(0, 64), False, names))
    before = held("RssAnon")
    most = before
    index = method.index()
    started = time.perf_counter()
    for codes in encode_batches(run, method, data.database, "database"):
        index.add(codes)
        most = max(most, held("RssAnon"))
    seconds = time.perf_counter() - started
    split_facts(data)
    most = max(most, held("RssAnon"))
    return {
        "items": count,
        "grown": most - before,
        "codes": index.nbytes(),
        "data": 8 * count + 4 * CLASSES * count + 8 * count,  # ids, labels, rows
        "mapped": held("RssFile"),
        "per_second": count / seconds,
    }


@dataclass(frozen=True)
class Task:
    """Packed codes (Q, 8) and (N, 8), the class of each side, and the rows (Q, P) and flips (Q, P) of planted items."""

    queries: np.ndarray
    database: np.ndarray
    query_labels: np.ndarray
    labels: np.ndarray
    rows: np.ndarray
    flips: np.ndarray


def planted(count: int, queries: int = QUERIES, each: int = PLANTED, seed: int = 0) -> Task:
    """Random codes; ``each`` items of every query are its own code with some bits flipped, ``FARTHEST`` at most."""
    rng = np.random.default_rng(seed)
    asked = rng.integers(0, 2**64, queries, dtype=np.uint64)
    database = rng.integers(0, 2**64, count, dtype=np.uint64)
    rows = rng.choice(count, (queries, each), replace=False)
    least = rng.integers(1, 8, (queries, 1))  # so that not every query finds something within two bits
    flips = rng.integers(least, FARTHEST + 1, (queries, each))
    turned = rng.random((queries, each, BITS)).argsort(axis=2) < flips[:, :, None]  # so many ones, anywhere
    database[rows] = asked[:, None] ^ np.packbits(turned, axis=2).view(np.uint64)[:, :, 0]
    labels = np.full(count, queries)
    labels[rows] = np.arange(queries)[:, None]
    packed = (codes.view(np.uint8).reshape(-1, BITS // 8) for codes in (asked, database))
    return Task(*packed, np.arange(queries), labels, rows, flips)


def large(count: int, threads: list[int], queries: int = QUERIES) -> dict[str, float]:
    """Evaluate and search a database with planted items, check both, and say how long each took."""
    task = planted(count, queries)
    found: dict[str, float] = {"items": count, "queries": queries}
    evaluate(task.queries[:2], task.database[:999], [0, queries], task.labels[:999], METRICS, BITS)
    nearest(task.queries[:2], task.database[:999], 9)  # both are compiled now
    for number in threads:
        found[f"threads {number}"] = set_threads(number)
        started = time.perf_counter()
        scores = evaluate(task.queries, task.database, task.query_labels, task.labels, METRICS, BITS)
        found[f"evaluate {number}"] = time.perf_counter() - started
        started = time.perf_counter()
        rows, distances = nearest(task.queries, task.database, PLANTED)
        found[f"search {number}"] = time.perf_counter() - started
        started = time.perf_counter()
        nearest(task.queries[:1], task.database, PLANTED)
        found[f"one {number}"] = time.perf_counter() - started
    check(task, rows, distances, scores.per_query["p@h2"])
    mine = [np.isin(of, at).mean() for of, at in zip(task.rows, rows, strict=True)]
    return found | scores.means | {"recall of planted": float(np.mean(mine)), "peak": held("VmHWM")}


def check(task: Task, rows: np.ndarray, distances: np.ndarray, precision: np.ndarray) -> None:
    """What was planted is found, and what is found is what NumPy finds."""
    for q, (of, flips) in enumerate(zip(task.rows, task.flips, strict=True)):
        assert np.isin(of[flips < distances[q, -1]], rows[q]).all(), f"query {q} lost a planted item"
    assert np.array_equal(precision, (task.flips <= 2).any(axis=1)), "no random code lies within two bits"
    few = slice(0, CHECKED)
    pairs = relevance(task.query_labels, task.labels)[few]
    counts = hamming_counts(task.queries[few], task.database, BITS, pairs)
    for q in range(CHECKED):
        distance = np.bitwise_count(task.database.view(np.uint64)[:, 0] ^ task.queries[q].view(np.uint64)[0])
        relevant = task.labels == task.query_labels[q]
        assert np.array_equal(counts.items[q], np.bincount(distance, minlength=BITS + 1))
        assert np.array_equal(counts.relevant[q], np.bincount(distance[relevant], minlength=BITS + 1))
        order = np.argsort(distance, kind="stable")[: rows.shape[1]]
        assert np.array_equal(rows[q], order), f"query {q} has other neighbors"
        assert np.array_equal(distances[q], distance[order])


def write_vectors(file: Path, count: int, dim: int) -> None:
    """Vectors (count, dim) float16 that vary in 128 directions, and a little in all, a part at a time."""
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((128, dim), dtype=np.float32) / np.arange(1, 129, dtype=np.float32)[:, None] ** 0.5
    array = np.lib.format.open_memmap(file, mode="w+", dtype=np.float16, shape=(count, dim))
    for start in range(0, count, 1 << 14):
        some = min(1 << 14, count - start)
        few, noise = (rng.standard_normal((some, width), dtype=np.float32) for width in (128, dim))
        array[start : start + some] = few @ directions + noise / 4
    array.flush()


def vectors(file: Path) -> dict[str, float]:
    """Check a file of vectors, find the exact neighbors and measure a code: seconds, by processor and by clock."""
    found: dict[str, float] = {}
    clocks = time.perf_counter(), time.process_time()

    def lap(name: str) -> None:
        nonlocal clocks
        now = time.perf_counter(), time.process_time()
        found[name], found[f"{name}, processor"] = (after - before for after, before in zip(now, clocks, strict=True))
        clocks = now

    settings = {"vectors": {"train": 10_000}}
    asked = Request("quantize", methods=["itq"], bits=[256], root=file, metrics=metrics_of(10, 0.95), settings=settings)
    plan = prepare(asked, Silent())
    (job,) = plan.jobs
    lap("checks")
    data, inspection = load_job_data(job, plan.zoo)
    truth = truth_for(data, inspection, Stored(data.train.images.dim), 10, Run(Budget(), 0))
    assert truth is not None
    lap("neighbors")
    cell, _ = measure(job)
    lap("cell")
    return found | cell.metrics | cell.timings | {"items": len(data.database), "peak": held("VmHWM")}


def child(*arguments: object) -> dict[str, float]:
    """What one measurement says, made by a process of its own."""
    command = [sys.executable, __file__, *map(str, arguments)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    answer: dict[str, float] = json.loads(out.splitlines()[-1])
    return answer


def table_of_encoding(sizes: list[int], dim: int) -> None:
    """Memory by number of images."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "features.npy"
        write_features(file, sizes[-1], dim)
        print(f"Streaming encode, {dim} memory-mapped features, lsh, {BITS} bits, one thread")
        names = ("images", "grown MiB", "codes MiB", "data MiB", "mapped MiB", "images/s")
        print(" ".join(f"{name:>11}" for name in names))
        for size in sizes:
            one = child("encode", file, size)
            sides = [one[name] / 2**20 for name in ("grown", "codes", "data", "mapped")]
            print(
                "  {:10d}{:11.1f}{:13.1f}{:10.1f}{:12.1f}{:12.0f}".format(size, *sides, one["per_second"]), flush=True
            )


def table_of_search(sizes: list[int]) -> None:
    """Seconds and rates by size of the database."""
    print(f"\n{QUERIES} queries with {PLANTED} planted items each, {BITS} bits; evaluated by {', '.join(METRICS)}")
    names = ("items", "threads", "evaluate s", "pairs/s", "search s", "queries/s", "1 query ms")
    print(" ".join(f"{name:>11}" for name in names))
    for size in sizes:
        one = child("planted", size, "--threads", 1, 2)
        for number in (1, 2):
            seconds, search, alone = (one[f"{what} {number}"] for what in ("evaluate", "search", "one"))
            sides = [seconds, QUERIES * size / seconds, search, QUERIES / search, 1e3 * alone]
            print(" ".join(f"{side:11.4g}" for side in (size, number, *sides)))
        scores = ", ".join(f"{name} {one[name]:.4f}" for name in (*METRICS, "recall of planted"))
        print(f"            {scores}; peak of the process {one['peak'] / 2**20:.0f} MiB", flush=True)


def table_of_vectors(size: int, dim: int) -> None:
    """Seconds and memory from a file of vectors to a measured code."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "vectors.npy"
        write_vectors(file, size, dim)
        one = child("vectors", file)
    print(f"\n{size} x {dim} float16 on disk: itq, 256 bits, learned from 10,000")
    for name in ("checks", "neighbors", "cell"):
        print(f"{name:>11}{one[name]:11.1f} s, of the processor {one[name + ', processor']:.1f} s")
    print(
        f"            recall@10 {one['recall@10']:.4f}, of real queries {one['recall@10/asym']:.4f}; encoded by", end=""
    )
    print(f" {one['encode_per_second']:.0f} a second; peak of the process {one['peak'] / 2**20:.0f} MiB", flush=True)


def main() -> None:
    """Print everything, or what one measurement says."""
    reader = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    reader.add_argument("--quick", action="store_true", help="a tenth of the sizes, to see that it runs")
    parts = reader.add_subparsers(dest="part")
    one = parts.add_parser("encode", help="one line of the first table")
    one.add_argument("file", type=Path)
    one.add_argument("items", type=int)
    two = parts.add_parser("planted", help="one size of the second table")
    two.add_argument("items", type=int)
    two.add_argument("--queries", type=int, default=QUERIES)
    two.add_argument("--threads", type=int, nargs="+", default=[1])
    parts.add_parser("vectors", help="the third table, of a file").add_argument("file", type=Path)
    parts.add_parser("million", help="the third table alone")
    asked = reader.parse_args()
    if asked.part == "encode":
        print(json.dumps(encode(asked.file, asked.items)))
    elif asked.part == "planted":
        print(json.dumps(large(asked.items, asked.threads, asked.queries)))
    elif asked.part == "vectors":
        print(json.dumps(vectors(asked.file)))
    elif asked.part == "million":
        table_of_vectors(10**5 if asked.quick else 10**6, 768)
    else:
        shrink = 10 if asked.quick else 1
        print(f"load of the machine before: {os.getloadavg()[0]:.2f}, {os.cpu_count()} cores")
        table_of_encoding([size // shrink for size in (10**4, 10**5, 10**6)], 512)
        table_of_search([size // shrink for size in (10**6, 10**7)])
        table_of_vectors(10**6 // shrink, 768)


if __name__ == "__main__":
    main()
