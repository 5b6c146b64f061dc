"""The time that methods take to fit random features of ten classes; reference methods are left out.

    python benchmarks/speed/fits.py                         # every shallow method of a paper
    python benchmarks/speed/fits.py ssh s3plh --n 5000      # some of them, on fewer features
    python benchmarks/speed/fits.py --deep                  # every deep method

Shallow: 54,000 features of 512 numbers, as a network gives them, 64 bits, two threads; seconds by the clock. The first
fit of a method with compiled loops includes their compilation.

Deep: the shape of the CIFAR-10 board, 5,000 images with 1,280 features and three maps, 64 bits, one thread, and batches
of 64. Two fits of one and three epochs give the processor time of an epoch, printed for 30. The median is that of all
deep methods.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from dataclasses import dataclass

import torch

from hashzoo.backbone import Backbone
from hashzoo.errors import status_of
from hashzoo.registry import zoo
from hashzoo.run import Run
from hashzoo.training.budget import Budget
from hashzoo.training.feature_store import PrecomputedBackbone, StoredFeatures
from hashzoo.types import Features, Setting, Split

CLASSES, EPOCHS = 10, 30
MAPS = ((32, 8), (96, 4), (1280, 2))  # channels and side of the last stages of MobileNetV2 on 64 pixels


class Given(Backbone):
    """The backbone whose features are stored."""

    def __init__(self, dim: int, maps: tuple[tuple[int, int], ...]) -> None:
        super().__init__()
        self.dim, self.map_dims = dim, tuple(channels for channels, _ in maps)

    def forward(self, images: Features) -> Features:
        """The features themselves."""
        return images


@dataclass(frozen=True)
class Task:
    """What the methods fit."""

    split: Split
    backbone: Given
    setting: Setting
    threads: int

    def fit(self, name: str, epochs: int) -> tuple[float, float]:
        """Seconds by the clock and of the processor."""
        run = Run(Budget(threads=self.threads, epochs=epochs), 0)
        backbone = PrecomputedBackbone(self.backbone, maps=bool(self.backbone.map_dims))
        run.features(backbone, self.split)  # not the method's time
        torch.set_num_threads(self.threads)  # here: compiled loops set it when they start
        method = zoo.load_plugins().method(name).factory(self.setting, backbone)
        clock, processor = time.perf_counter(), time.process_time()
        method.fit(self.split, run)
        return time.perf_counter() - clock, time.process_time() - processor


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
    """Processor seconds of ``EPOCHS`` epochs, from the difference of two short fits and what they have in common."""
    _, short, longer = (given.fit(name, epochs)[1] for epochs in (1, 1, 3))  # the first includes what is loaded once
    return short + (EPOCHS - 1) * (longer - short) / 2


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
