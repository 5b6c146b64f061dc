"""Queries a second of the exact search, beside faiss, and images a second of encoding, beside the network alone.

# Command: python benchmarks/speed/search.py [--quick] [--photos DIR --weights FILE]

A million codes of 64 bits, the 100 nearest, two threads, all in one process and taking turns. Random codes have few
ties; clustered ones stand for learned ones: 100 random centers, as of classes, in each of which a bit is turned with
probability 0.1. faiss is asked in four ways and the fastest counts: by heap and by counting, with its own threads and
in two threads of one each, since its own wait for each other by spinning. Lists (``IndexBinaryIVF``) are those that
``hashzoo index build --engine faiss-ivf`` makes; their recall is that of queries that they do not hold, where an item
as near as the exact hundredth counts as found.

With ``--photos``, the images of a folder are encoded by a hash of mobilenet_v2's features; the network's time is that
of its forward pass on the same batches, decoding and resizing that of the same images in as many threads. torch has
one thread there, whose time on the processor is given too: several wait by spinning where other work keeps a core.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import numpy as np
import torch

from hashzoo.data import image_paths
from hashzoo.data.transforms import prepare
from hashzoo.hamming.distances import nearest
from hashzoo.hamming.packing import pack, set_threads
from hashzoo.registry import zoo
from hashzoo.registry.build import build_backbone
from hashzoo.registry.saved_method import TrainedMethod
from hashzoo.results.cell import Cell, Identity
from hashzoo.retrieval import engines
from hashzoo.retrieval.encoder import BATCH_SIZE, DECODER_THREADS, Encoder
from hashzoo.run import Run
from hashzoo.training.budget import Budget
from hashzoo.training.process_state import limit_threads
from hashzoo.types import Setting

BITS, K, THREADS = 64, 100, 2
CLASSES, TURNED = 100, 0.1


def random_codes(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, 8) bytes, every code as likely."""
    return rng.integers(0, 256, (count, BITS // 8), dtype=np.uint8)


def clustered(rng: np.random.Generator, count: int, centers: np.ndarray) -> np.ndarray:
    """(count, 8) codes around centers (C, 64)."""
    parts = []
    for start in range(0, count, 1 << 16):
        size = min(1 << 16, count - start)
        own = centers[rng.integers(0, len(centers), size)]
        parts.append(pack(own ^ (rng.random((size, BITS)) < TURNED)))
    return np.concatenate(parts)


def in_turn(
    tasks: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """The median seconds of each task; all take turns, so that what else the machine does hits all."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            started = clock()
            task()
            seconds[name].append(clock() - started)
    return {name: statistics.median(times) for name, times in seconds.items()}


def searched(what: str, database: np.ndarray, queries: np.ndarray, rounds: int) -> None:
    """One table: queries a second of each way, and how they compare."""
    flat = faiss.IndexBinaryFlat(BITS)
    flat.add(database)
    apart = engines.FlatEngine(database)
    _, distances = nearest(queries, database, K)  # compiles, too
    few = queries[: max(1, len(queries) // 10)]  # of what is slow

    def heap(use: bool) -> None:
        flat.use_heap = use
        flat.search(few, K)

    def each(use: bool) -> None:
        apart._index.use_heap = use
        apart.search(few, K)

    tasks: dict[str, Callable[[], object]] = {
        "hashzoo, exact": lambda: nearest(queries, database, K),
        "faiss flat, heap, its threads": lambda: heap(True),
        "faiss flat, counting, its threads": lambda: heap(False),
        "faiss flat, heap, a thread each": lambda: each(True),
        "faiss flat, counting, a thread each": lambda: each(False),
    }
    recall = None
    if what == "clustered":
        started = time.perf_counter()
        lists = engines.build_lists(database)
        took = time.perf_counter() - started
        listed = engines.IVFEngine(database, lists)
        recall = float((listed.search(queries, K)[1] <= distances[:, -1:]).mean())
        tasks["faiss IVF"] = lambda: listed.search(queries, K)
        print(f"  {len(lists.centers)} lists made in {took:.1f} s, {lists.probes} looked into, recall {recall:.4f}")
    assert np.array_equal(apart.search(few, K)[1], distances[: len(few)]), "faiss has other neighbors"
    median = in_turn(tasks, rounds)
    rate = {name: (len(few) if "flat" in name else len(queries)) / took for name, took in median.items()}
    for name, value in rate.items():
        print(f"  {name:36}{value:10.0f} queries/s")
    best = max(value for name, value in rate.items() if "flat" in name)
    print(f"  exact / the fastest of faiss flat: {rate['hashzoo, exact'] / best:.2f}")
    if recall is not None:
        print(f"  IVF / exact: {rate['faiss IVF'] / rate['hashzoo, exact']:.2f}", flush=True)


def encoder_of(weights: Path | None) -> Encoder:
    """A hash of mobilenet_v2's features, not fitted, since its codes do not matter here."""
    house, name, setting = (
        zoo.load_plugins(),
        "torchvision/mobilenet_v2",
        Setting(BITS, 2, False, torch.tensor([1, 1]), 2),
    )
    given = {"weights": str(weights), "allow_missing": ("classifier.1.*",)} if weights else {"weights": "random"}
    backbone = build_backbone(house, name, (3, 224, 224), given, 0)
    method = house.method("lsh").factory(setting, backbone).eval()
    method.projection = torch.randn(backbone.dim, BITS)
    identity = Identity(
        dataset="none", dataset_options={}, backbone=name, backbone_options={}, method="lsh", hyperparameters={},
        bits=BITS, seed=0, budget={}, protocol=1, code="", data="",
    )  # fmt: skip
    cell = Cell(identity=identity, benchmark="speed", status="ok")
    trained = TrainedMethod(
        cell, method, Run(Budget(), 0, to=backbone.input), ("a", "b"), (3, 224, 224), backbone.input
    )
    return Encoder(trained, Path("none.json"))


def encoded(photos: Path, weights: Path | None, count: int, rounds: int) -> None:
    """Images a second of ``encode``, of the network alone, and of decoding alone."""
    encoder = encoder_of(weights)
    of = encoder.trained
    found = image_paths.find_images([photos])
    root, relative = found.root, found.images
    files: Sequence[Path] = [root / path for path in relative[:count]]

    def decoded() -> list[torch.Tensor]:
        with ThreadPoolExecutor(min(DECODER_THREADS, os.cpu_count() or 1)) as pool:
            return list(pool.map(lambda f: prepare(of.to_tensor(image_paths.open_image(f)), of.input), files))

    ready = torch.stack(decoded())

    def forward() -> None:
        with torch.no_grad():
            for some in torch.split(ready, BATCH_SIZE):
                of.method.backbone(some)

    limit_threads(1)
    tasks: dict[str, Callable[[], object]] = {
        "decode": decoded,
        "forward": forward,
        "encode": lambda: encoder.encode(files),
    }
    print(f"Encoding {len(files)} images of {photos.name}, mobilenet_v2 at 224 pixels, one thread of torch")
    for what, clock in (("the clock", time.perf_counter), ("the processor", time.process_time)):
        median = in_turn(tasks, rounds, clock)
        print(
            f"  by {what}: "
            + ", ".join(f"{name} {len(files) / took:.1f}" for name, took in median.items())
            + " a second"
        )
        apart = median["decode"] + median["forward"]
        print(f"  encode / (decode + forward): {median['encode'] / apart:.3f} of the time")


def main() -> None:
    """Print all of it."""
    reader = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    reader.add_argument("--quick", action="store_true", help="a tenth of the sizes, to see that it runs")
    reader.add_argument("--photos", type=Path, help="a folder of images to encode")
    reader.add_argument("--weights", type=Path, help="of mobilenet_v2's features; random ones take as long")
    asked = reader.parse_args()
    shrink = 10 if asked.quick else 1
    items, queries, rounds = 10**6 // shrink, 1000 // shrink, 5
    limit_threads(THREADS)
    set_threads(THREADS)
    faiss.omp_set_num_threads(THREADS)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, load before {os.getloadavg()[0]:.2f}; faiss {faiss.__version__}"
    )
    rng = np.random.default_rng(0)
    centers = rng.integers(0, 2, (CLASSES, BITS)).astype(bool)
    print(f"{items:,} codes of {BITS} bits, the {K} nearest, {THREADS} threads, medians of {rounds} rounds in turn")
    print("random", flush=True)
    searched("random", random_codes(rng, items), random_codes(rng, queries), rounds)
    print("clustered", flush=True)
    searched("clustered", clustered(rng, items, centers), clustered(rng, queries, centers), rounds)
    if asked.photos:
        encoded(asked.photos, asked.weights, 256 // shrink, 5)


if __name__ == "__main__":
    main()
