"""How fast and how small evaluation is, beside what is used elsewhere, measured in one run.

    python benchmarks/speed/evaluation.py [--quick]

The contestants compute AP over the whole ranking of each query, and take turns. Those that sort are given
some of the queries and their time a query is multiplied up; what they prepare once is left out of it. hashzoo is
given all queries and prepares inside the time.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import faiss
import numpy as np
import torch
from torchmetrics.retrieval import RetrievalMAP

from hashzoo.evaluation.metrics import evaluate
from hashzoo.hamming.packing import pack, set_threads

THREADS = 2
ROUNDS = 5


@dataclass(frozen=True)
class Task:
    """Codes (Q, K) and (N, K) bool, labels multi-hot (Q, C) and (N, C)."""

    queries: np.ndarray
    database: np.ndarray
    query_labels: np.ndarray
    labels: np.ndarray

    def first(self, queries: int, items: int | None = None) -> Task:
        """The task of the first queries, against the first items."""
        return Task(self.queries[:queries], self.database[:items], self.query_labels[:queries], self.labels[:items])


def coco_like(Q: int, N: int, bits: int = 64, classes: int = 80) -> Task:
    """Labels about as many and as uneven as those of COCO, and codes that follow them with noise."""
    rng = np.random.default_rng(0)
    rate = 1 / np.arange(3, classes + 3)
    labels = rng.random((Q + N, classes)) < 2.9 * rate / rate.sum()
    return _encoded(labels, bits, Q, rng)


def cifar_like(Q: int, N: int, bits: int = 64, classes: int = 10) -> Task:
    """One of ten classes each."""
    rng = np.random.default_rng(0)
    return _encoded(np.eye(classes, dtype=bool)[rng.integers(0, classes, Q + N)], bits, Q, rng)


def _encoded(labels: np.ndarray, bits: int, Q: int, rng: np.random.Generator) -> Task:
    projected = labels.astype(np.float32) @ rng.standard_normal((labels.shape[1], bits), dtype=np.float32)
    codes = projected + rng.standard_normal(projected.shape, dtype=np.float32) >= 0
    return Task(codes[:Q], codes[Q:], labels[:Q].astype(np.float32), labels[Q:].astype(np.float32))


def without_ties(bits: int = 64) -> Task:
    """One item at each distance from the query, so that every contestant must give the same AP."""
    database = np.tril(np.ones((bits + 1, bits), bool), -1)
    labels = np.random.default_rng(1).random((bits + 1, 5)) < 0.3
    return Task(database[:1], database, np.ones((1, 5), np.float32), labels.astype(np.float32))


#: Prepares a task, and gives what then computes the AP of each query.
Contestant = Callable[[Task], Callable[[], np.ndarray]]


def by_counting(task: Task) -> Callable[[], np.ndarray]:
    """hashzoo: expected over the orders of ties. Nothing is prepared; the call does it all."""

    def run() -> np.ndarray:
        found = evaluate(task.queries, task.database, task.query_labels, task.labels, ["map@all"])
        return found.per_query["map@all"]

    return run


def by_argsort(task: Task) -> Callable[[], np.ndarray]:
    """As public toolkits do it: for each query +-1 inner products, argsort, cumulative hits."""
    codes, queries = (np.where(side, 1, -1).astype(np.float32) for side in (task.database, task.queries))

    def ranked(query: np.ndarray, label: np.ndarray) -> np.ndarray:
        distance = 0.5 * (codes.shape[1] - codes @ query)
        return (task.labels @ label > 0)[np.argsort(distance)]

    def run() -> np.ndarray:
        pairs = zip(queries, task.query_labels, strict=True)
        return np.array([_average_precision(ranked(*pair)) for pair in pairs])

    return run


def _average_precision(ranked: np.ndarray) -> float:
    places = np.flatnonzero(ranked) + 1
    return float((np.arange(1, len(places) + 1) / places).mean()) if len(places) else float("nan")


def by_faiss(heap: bool) -> Contestant:
    """A full ranking from IndexBinaryFlat, then cumulative hits."""

    def prepare(task: Task) -> Callable[[], np.ndarray]:
        index = faiss.IndexBinaryFlat(task.database.shape[1])
        index.use_heap = heap
        index.add(pack(task.database))

        def run() -> np.ndarray:
            _, rows = index.search(pack(task.queries), len(task.database))
            shared = (task.labels @ label > 0 for label in task.query_labels)
            return np.array([_average_precision(hit[row]) for hit, row in zip(shared, rows, strict=True)])

        return run

    return prepare


def by_torchmetrics(task: Task) -> Callable[[], np.ndarray]:
    """RetrievalMAP of torchmetrics; its mean, once for each query.

    The score is the number of equal bits and one: it takes no item of score 0 or below for relevant.
    """
    bits = task.database.shape[1]
    codes, queries = (2 * torch.from_numpy(side).float() - 1 for side in (task.database, task.queries))
    labels, asked = torch.from_numpy(task.labels), torch.from_numpy(task.query_labels)

    def run() -> np.ndarray:
        metric = RetrievalMAP(empty_target_action="skip")
        for q, query in enumerate(queries):
            row = torch.full((len(codes),), q)
            metric.update((codes @ query + bits) / 2 + 1, labels @ asked[q] > 0, row)
        return np.full(len(queries), float(metric.compute()))

    return run


PEERS: dict[str, Contestant] = {
    "NumPy argsort": by_argsort,
    "faiss IndexBinaryFlat, heap": by_faiss(True),
    "faiss IndexBinaryFlat, counting": by_faiss(False),
    "torchmetrics RetrievalMAP": by_torchmetrics,
}


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock time."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(title: str, task: Task, some: int) -> None:
    """Time every contestant, by turns."""
    Q, N = len(task.queries), len(task.database)
    print(f"\n{title}: Q = {Q}, N = {N}, K = 64, AP over all ranks; {ROUNDS} rounds in turn, medians")
    everyone = {"hashzoo": (by_counting(task), Q)}
    everyone |= {name: (peer(task.first(some)), some) for name, peer in PEERS.items()}
    times: dict[str, list[float]] = {name: [] for name in everyone}
    for _ in range(ROUNDS):
        for name, (run, queries) in everyone.items():
            times[name].append(seconds(run) / queries)
    ours = float(np.median(times["hashzoo"]))
    print(f"  {'':34}{'ms a query':>12}{'s for all Q':>13}{'times hashzoo':>15}   queries timed")
    for name, taken in times.items():
        each = float(np.median(taken))
        print(f"  {name:34}{each * 1e3:12.4f}{each * Q:13.3f}{each / ours:15.1f}   {everyone[name][1]}")


def agree(task: Task, some: int) -> None:
    """Check that all measure the same thing."""
    flat = without_ties()
    expected = by_counting(flat)()
    for name, peer in PEERS.items():
        assert np.allclose(peer(flat)(), expected, atol=1e-6), name
    print(f"\nwithout ties all contestants give AP {expected[0]:.6f}")
    subset = task.first(some)
    names = ["map@all", "map@all:worst", "map@all:best"]
    found = evaluate(subset.queries, subset.database, subset.query_labels, subset.labels, names)
    means = found.means
    print(
        f"with ties, mean AP of {some} queries: hashzoo {means['map@all']:.6f}, "
        f"band {means['map@all:worst']:.6f} to {means['map@all:best']:.6f}"
    )
    for name, peer in PEERS.items():
        values = peer(subset)()
        if peer is by_torchmetrics:
            inside = means["map@all:worst"] - 1e-6 <= values[0] <= means["map@all:best"] + 1e-6
        else:
            seen = ~np.isnan(values)
            low, high = found.per_query["map@all:worst"][seen], found.per_query["map@all:best"][seen]
            inside = bool(((low - 1e-6 <= values[seen]) & (values[seen] <= high + 1e-6)).all())
        print(f"  {name:34}{np.nanmean(values):.6f}  {'inside' if inside else 'OUTSIDE'} the band")


def slope(sizes: list[int], work: Callable[[int], object]) -> str:
    """The exponent of time as a power of size."""
    work(sizes[0])
    taken = [min(seconds(lambda size=size: work(size)) for _ in range(5)) for size in sizes]
    fit = float(np.polyfit(np.log(sizes), np.log(taken), 1)[0])
    points = ", ".join(f"{size}: {t * 1e3:.1f} ms" for size, t in zip(sizes, taken, strict=True))
    return f"slope {fit:.3f}  ({points})"


def scaling(task: Task) -> None:
    """Time a call with parts of the task."""
    Q, N = len(task.queries), len(task.database)
    print("\nTime against size, log-log fit, best of 5")
    print(f"  in N at Q = {Q}: {slope([N // 8, N // 4, N // 2, N], lambda n: by_counting(task.first(Q, n))())}")
    print(f"  in Q at N = {N}: {slope([Q // 8, Q // 4, Q // 2, Q], lambda q: by_counting(task.first(q))())}")


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def peak(Q: int, N: int) -> None:
    """In a process of its own: resident memory before the call, and the most during it."""
    set_threads(THREADS)
    task = coco_like(Q, N)
    by_counting(task.first(64, 4096))()  # compiled code is loaded, and is not part of what a call takes
    ctypes.CDLL(None).malloc_trim(0)  # memory kept from making the task would hide what the call takes
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from here
    before = _status("VmRSS")
    by_counting(task)()
    print(f"{_status('VmHWM') - before:.1f}")


def memory(Q: int, N: int) -> None:
    """Have another process measure itself."""
    command = [sys.executable, __file__, "--peak", str(Q), str(N)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    print(f"\nPeak extra resident memory of one call, Q = {Q}, N = {N}: {out.strip()} MiB (a child process)")


def machine() -> str:
    """What it ran on."""
    cpu = platform.processor() or "unknown processor"
    info = Path("/proc/cpuinfo")
    if info.exists():
        named = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = named[0].partition(":")[2].strip() if named else cpu
    versions = ", ".join(f"{p} {version(p)}" for p in ("numpy", "numba", "faiss-cpu", "torch", "torchmetrics"))
    return f"{cpu}, {os.cpu_count()} cores, {THREADS} threads; Python {platform.python_version()}, {versions}"


def main() -> None:
    """Print everything."""
    reader = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    reader.add_argument("--quick", action="store_true", help="a tenth of the sizes, to see that it runs")
    reader.add_argument("--peak", nargs=2, type=int, metavar=("Q", "N"), help=argparse.SUPPRESS)
    asked = reader.parse_args()
    if asked.peak:
        peak(*asked.peak)
        return
    shrink, some = (10, 5) if asked.quick else (1, 40)
    set_threads(THREADS)
    torch.set_num_threads(THREADS)
    faiss.omp_set_num_threads(THREADS)
    print(f"{machine()}\nload of the machine before: {os.getloadavg()[0]:.2f}")
    coco, cifar = coco_like(5000 // shrink, 117_218 // shrink), cifar_like(1000 // shrink, 54_000 // shrink)
    for task in (coco.first(10, 1000), cifar.first(10, 1000)):
        for contestant in (by_counting, *PEERS.values()):
            contestant(task)()  # hashzoo compiles here, once
    compare("COCO-like, 80 labels", coco, some)
    compare("CIFAR-like, 10 classes", cifar, some)
    agree(coco, some)
    scaling(coco)
    memory(5000 // shrink, 117_218 // shrink)


if __name__ == "__main__":
    main()
