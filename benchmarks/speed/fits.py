"""The time that methods take to fit random features of ten classes; reference methods are left out.

    python benchmarks/speed/fits.py                         # every shallow method of a paper
    python benchmarks/speed/fits.py ssh s3plh --n 5000      # some of them, on fewer features
    python benchmarks/speed/fits.py --deep                  # every deep method

Shallow: 54,000 features of 512 numbers, as a network gives them, 64 bits, two threads; seconds by the clock. The first
fit of a method with compiled loops includes their compilation.

Deep: the shape of the CIFAR-10 board, 5,000 images with 1,280 features and three maps, 64 bits, one thread, and batches
of 64. A fit of three epochs gives the processor time of an epoch and of what precedes and follows all epochs, printed
for 30 epochs. The median is that of the methods asked for.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from hashzoo.backbone import Backbone
from hashzoo.errors import status_of
from hashzoo.execution.processes import keep_freed_memory
from hashzoo.registry import zoo
from hashzoo.run import Run
from hashzoo.training.budget import Budget
from hashzoo.training.feature_store import PrecomputedBackbone, StoredFeatures
from hashzoo.types import Batch, Features, Setting, Split

CLASSES, EPOCHS, MEASURED = 10, 30, 3
MAPS = ((32, 8), (96, 4), (1280, 2))  # channels and side of the last stages of MobileNetV2 on 64 pixels


class Given(Backbone):
    """The backbone whose features are stored."""

    def __init__(self, dim: int, maps: tuple[tuple[int, int], ...]) -> None:
        super().__init__()
        self.dim, self.map_dims = dim, tuple(channels for channels, _ in maps)

    def forward(self, images: Features) -> Features:
        """The features themselves."""
        return images


class TimedRun(Run):
    """A run that notes the processor time when its first epoch begins and its latest one ends."""

    start = end = 0.0

    def batches(self, *args: Any, **kwargs: Any) -> Iterator[Batch]:
        """The batches of a run."""
        self.start = self.start or time.process_time()
        self.report = self.note
        yield from super().batches(*args, **kwargs)

    def note(self, progress: float, values: dict[str, float]) -> None:
        """The callback after an epoch."""
        self.end = time.process_time()


@dataclass(frozen=True)
class Task:
    """What the methods fit."""

    split: Split
    backbone: Given
    setting: Setting
    threads: int

    def fit(self, name: str, epochs: int) -> tuple[float, float, float]:
        """Seconds by the clock, of the processor, and of the processor within epochs."""
        run = TimedRun(Budget(threads=self.threads, epochs=epochs), 0)
        backbone = PrecomputedBackbone(self.backbone, maps=bool(self.backbone.map_dims))
        run.features(backbone, self.split)  # not the method's time
        torch.set_num_threads(self.threads)  # here: compiled loops set it when they start
        method = zoo.load_plugins().method(name).factory(self.setting, backbone)
        clock, processor = time.perf_counter(), time.process_time()
        method.fit(self.split, run)
        return time.perf_counter() - clock, time.process_time() - processor, run.end - run.start


def task(n: int, dim: int, maps: tuple[tuple[int, int], ...], bits: int, threads: int) -> Task:
    """Unit Gaussians around ten centers as far from each other as two of their own points are."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.eye(CLASSES)[torch.arange(n) % CLASSES]
    x = labels @ torch.randn(CLASSES, dim, generator=generator) + torch.randn(n, dim, generator=generator)
    arrays = [x.numpy(), *(torch.rand(n, c, side, side, generator=generator).numpy() for c, side in maps)]
    split = Split(StoredFeatures(arrays), labels, torch.arange(n))
    setting = Setting(bits, CLASSES, False, split.labels.sum(0).long(), n)
    return Task(split, Given(dim, maps), setting, threads)


def fit_shallow(name: str, given: Task) -> float:
    """Seconds of one fit."""
    return given.fit(name, 1)[0]


def fit_deep(name: str, given: Task) -> float:
    """Processor seconds of ``EPOCHS`` epochs."""
    given.fit(name, 1)  # includes what is loaded once
    _, processor, epochs = given.fit(name, MEASURED)
    return processor + (EPOCHS / MEASURED - 1) * epochs


def main() -> None:
    """Fit, and print a row a method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", help="names, or nothing for all")
    parser.add_argument("--deep", action="store_true")
    parser.add_argument("--n", type=int)
    parser.add_argument("--dim", type=int)
    parser.add_argument("--bits", type=int, default=64)
    parser.add_argument("--threads", type=int)
    asked = parser.parse_args()
    keep_freed_memory()  # as cells do
    kind, size, dim, threads, maps = ("deep", 5000, 1280, 1, MAPS) if asked.deep else ("shallow", 54_000, 512, 2, ())
    given = task(asked.n or size, asked.dim or dim, maps, asked.bits, asked.threads or threads)
    known = zoo.load_plugins().methods.items()
    names = asked.methods or sorted(name for name, m in known if m.card.kind == kind and m.card.paper)
    print(f"{platform.machine()}, torch {torch.__version__}, {given.threads} threads")
    print(f"N = {len(given.split)}, D = {given.backbone.dim}, {asked.bits} bits")
    taken: dict[str, float] = {}
    for name in names:
        try:
            taken[name] = (fit_deep if asked.deep else fit_shallow)(name, given)
        except Exception as error:
            print(f"  {name:16} {status_of(error)[1]}", flush=True)
        else:
            print(f"  {name:16} {taken[name]:8.2f} s", flush=True)
    if asked.deep and taken:
        median = statistics.median(taken.values())
        slow = [f"{name} {seconds / median:.1f}" for name, seconds in taken.items() if seconds > 5 * median]
        print(f"median {median:.2f} s; times the median: {', '.join(slow) or 'none above 5'}")


if __name__ == "__main__":
    main()
