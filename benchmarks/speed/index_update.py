"""An index folder of many codes: a nightly update, a search in a new process, and the memory of both.

    python benchmarks/speed/index_update.py               # some minutes; 10^6 and 10^7 codes, 2 GB of disk
    python benchmarks/speed/index_update.py --items 1e5

The codes are made, so that the figures are those of the index and not of an encoder: 64 random bits each, under paths
of 30 characters. An update adds 5,000 images, replaces 4,000 and removes 1,000, each update in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hashzoo.hamming.packing import BIT_ORDER
from hashzoo.retrieval.index_folder import IndexFolder
from hashzoo.retrieval.index_writer import Item

BITS, AT_ONCE = 64, 1 << 18
ADDED, REPLACED, REMOVED = 5000, 4000, 1000
METADATA = {
    "method": "made", "hyperparameters": {}, "bits": BITS, "seed": 0, "dataset": "none", "backbone": "none",
    "preprocessing": {}, "run": {"cell": "/none.json", "key": "key", "state": "state"}, "made_with": {},
    "root": "/photos", "codes": {"code": {"bits": BITS, "bytes": BITS // 8, "order": BIT_ORDER}}, "ranks_by": "code",
}  # fmt: skip


def items(rows: Iterator[int]) -> list[Item]:
    """Items of rows, with digests, sizes and times."""
    return [Item(f"{row % 1000:03}/photograph-{row:011}.jpg", None, row.to_bytes(16, "big"), row, row) for row in rows]


def build(path: Path, count: int) -> None:
    """Write an index of a number of codes."""
    rng = np.random.default_rng(0)
    folder = IndexFolder.create(path, METADATA)
    with folder.writing() as writer:
        for start in range(0, count, AT_ONCE):
            rows = range(start, min(start + AT_ONCE, count))
            writer.put(items(iter(rows)), {"bits.code": rng.integers(0, 256, (len(rows), BITS // 8), np.uint8)})
        writer.compact()


def update(path: Path, count: int, night: int) -> None:
    """Ten thousand changes."""
    rng = np.random.default_rng(night)
    chosen = rng.permutation(count // 8)[: REPLACED + REMOVED] * 8 + night % 8  # each of eight nights removes others
    with IndexFolder(path).writing() as writer:
        rows = [*range(count + night * ADDED, count + (night + 1) * ADDED), *chosen[:REPLACED].tolist()]
        known = [writer.find(item.id) for item in items(iter(rows))]  # as an update compares files
        assert sum(item is None for item in known) == ADDED
        writer.put(items(iter(rows)), {"bits.code": rng.integers(0, 256, (len(rows), BITS // 8), np.uint8)})
        writer.remove([item.id for item in items(iter(chosen[REPLACED:].tolist()))])


def compact(path: Path, *_: int) -> None:
    """One segment."""
    with IndexFolder(path).writing() as writer:
        assert writer.compact()


def search(path: Path, *_: int) -> None:
    """The 20 nearest of one code."""
    with IndexFolder(path).snapshot() as state:
        (hits,) = state.search(np.zeros((1, BITS // 8), np.uint8), 20)
    assert len(hits) == 20


def apart(name: str, path: Path, count: int, night: int = 0) -> tuple[float, float, float]:
    """Seconds, seconds of the processor, and MiB at the peak of a function in a process of its own, once imported."""
    command = [sys.executable, __file__, "--one", name, str(path), str(count), str(night)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    seconds, processor, peak = json.loads(done.stdout)
    return seconds, processor, peak


def cold(path: Path, rounds: int, where: str = "") -> str:
    """Seconds of ``hashzoo search`` with a code, from start to end of its process, and of the processor."""
    np.save(path.with_suffix(".npy"), np.zeros((1, BITS // 8), np.uint8))
    command = [sys.executable, "-c", "from hashzoo.cli.main import main; main()", "search", str(path)]
    command += ["--codes", str(path.with_suffix(".npy")), "--top", "20", *(["--where", where] if where else [])]
    times = []
    for _ in range(rounds):
        started, used = time.perf_counter(), _children()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr)
        times.append((time.perf_counter() - started, _children() - used))
    clock, processor = (statistics.median(column) for column in zip(*times, strict=True))
    return f"{clock:.2f} s by the clock, {processor:.2f} s of the processor"


def _children() -> float:
    """Seconds of the processor that child processes took."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def told(name: str, path: Path, count: int, nights: int = 1) -> None:
    """Print the medians of a function."""
    runs = [apart(name, path, count, night) for night in range(nights)]
    clock, processor, peaks = zip(*runs, strict=True)
    print(
        f"  {name:<8} {statistics.median(clock):7.2f} s by the clock, {statistics.median(processor):6.2f} s of the "
        f"processor, peak {max(peaks):.0f} MiB",
        flush=True,
    )


def measured(count: int, rounds: int, folder: Path) -> None:
    """The figures of one size."""
    path = folder / f"{count}.index"
    print(f"{count:,} codes of {BITS} bits; updates of {ADDED + REPLACED + REMOVED:,}", flush=True)
    told("build", path, count)
    print(f"  {IndexFolder(path).info(verify=False)['bytes'] >> 20} MiB on disk", flush=True)
    told("update", path, count, rounds)
    told("search", path, count, rounds)
    few = "id LIKE '00%'"
    print(f"  hashzoo search --codes: {cold(path, rounds)}")
    print(f'  the same with --where "{few}": {cold(path, rounds, few)}', flush=True)
    told("compact", path, count)


def main() -> None:
    """Print the figures, or do one thing for a process of its own."""
    if sys.argv[1:2] == ["--one"]:
        name, path, count, night = sys.argv[2:6]
        started, used = time.perf_counter(), time.process_time()
        if name == "build":
            build(Path(path), int(count))
        else:
            {"update": update, "compact": compact, "search": search}[name](Path(path), int(count), int(night))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps([time.perf_counter() - started, time.process_time() - used, peak]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", default="1e6,1e7", help="numbers of codes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the indexes are written; by default a temporary folder")
    asked = parser.parse_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, load before {os.getloadavg()[0]:.2f}; "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    )
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        for count in asked.items.split(","):
            measured(int(float(count)), asked.rounds, Path(folder))


if __name__ == "__main__":
    main()
