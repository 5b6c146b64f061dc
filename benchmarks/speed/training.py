"""Training through Run beside the same training in a bare PyTorch loop, in turn, in one process.

    python benchmarks/speed/training.py [--rounds 15] [--only head resnet18 mobilenet]

``head`` is one linear layer of 512 features to 64 bits on stored features, batch 64: the smallest step there is, so
what Run adds shows the most. ``resnet18`` at 64 pixels and ``mobilenet`` at 224 are trained end to end on images, with
a random flip. Both sides have Adam, a cosine schedule, a check that the loss is finite, and one thread.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from hashzoo_plugins.backbones.torchvision import build
from hashzoo_plugins.pairwise.dhn import DHN
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from hashzoo.backbone import Backbone
from hashzoo.method import Output
from hashzoo.run import Run
from hashzoo.training.budget import Budget
from hashzoo.training.feature_store import PrecomputedBackbone, StoredFeatures
from hashzoo.types import Batch, Features, Input, Setting, Split

D, K = 512, 64


@dataclass(frozen=True)
class Task:
    """What both sides train: a network from inputs to features (B, dim), and N inputs with labels (N, C)."""

    split: Split
    to: Input
    batch: int
    epochs: int
    network: Callable[[], tuple[Backbone, int]]

    @property
    def steps(self) -> int:
        """Steps of one training."""
        return self.epochs * len(self.split) // self.batch

    def loss(self) -> nn.Module:
        """The loss of both sides."""
        return DHN(Setting(K, 10, False, self.split.labels.sum(0), len(self.split)))


class Identity(Backbone):
    """The backbone whose features are stored."""

    dim = D

    def forward(self, images: Features) -> Features:
        """The features themselves."""
        return images


def head() -> Task:
    """A linear layer on stored features."""
    features = torch.randn(4096, D).numpy().astype(np.float32)
    split = Split(StoredFeatures([features]), labels(4096), torch.arange(4096))
    return Task(split, Input(), 64, 3, lambda: (PrecomputedBackbone(Identity(), maps=False), D))


def images(name: str, size: int, count: int, batch: int) -> Task:
    """A network of torchvision on images of its size."""

    def network() -> tuple[Backbone, int]:
        backbone = build(name, (3, size, size), weights="random", size=size)
        return backbone, backbone.dim

    pixels = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)
    return Task(Split(pixels, labels(count), torch.arange(count)), network()[0].input, batch, 1, network)


def labels(count: int) -> Tensor:
    """(count, 10) one of ten classes each."""
    return torch.eye(10)[torch.arange(count) % 10]


class Flipped(Dataset[Tensor]):
    """Images as one prepares them by hand."""

    def __init__(self, pixels: Tensor, to: Input) -> None:
        self.pixels, self.flip = pixels, v2.RandomHorizontalFlip()
        self.mean, self.std = (torch.tensor(value).view(-1, 1, 1) for value in (to.mean, to.std))

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, row: int) -> Tensor:
        prepared: Tensor = (self.flip(self.pixels[row]).float() / 255 - self.mean) / self.std
        return prepared


def inputs(task: Task, order: Tensor) -> Iterator[Tensor]:
    """The inputs of an epoch for the bare loop, in batches."""
    if isinstance(task.split.images, StoredFeatures):
        stored = torch.from_numpy(task.split.images.arrays[0])
        yield from (stored[rows] for rows in torch.split(order, task.batch))
        return
    loader = DataLoader(Flipped(task.split.images, task.to), batch_size=task.batch, sampler=order.tolist())
    yield from loader


def bare(task: Task) -> Iterator[None]:
    """A loop as one writes it by hand, schedule and finite check included; yields after every step."""
    generator = torch.Generator().manual_seed(0)
    (backbone, dim), loss = task.network(), task.loss()
    head = nn.Linear(dim, K)
    stored = isinstance(task.split.images, StoredFeatures)
    optimizer = torch.optim.Adam([*backbone.parameters(), *head.parameters()], lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, task.steps)
    ids, known = torch.arange(len(task.split)), task.split.labels
    for _ in range(task.epochs):
        order = torch.randperm(len(task.split), generator=generator)
        for x, rows in zip(inputs(task, order), torch.split(order, task.batch), strict=True):
            code = torch.tanh(head(x if stored else backbone(x).pooled))
            total = sum(loss(Output(code), Batch((None,), known[rows], ids[rows])).values())
            if not math.isfinite(total.item()):
                raise ArithmeticError
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            optimizer.step()
            schedule.step()
            yield


def through_run(task: Task) -> Iterator[None]:
    """The same through Run; yields after every step."""
    run = Run(Budget(epochs=task.epochs, batch=task.batch, lr=1e-3, threads=1, augment="flip"), 0, to=task.to)
    (backbone, dim), loss = task.network(), task.loss()
    head = nn.Linear(dim, K)
    optimizer = run.optimizer(backbone, head)
    for batch in run.batches(task.split):
        code = torch.tanh(head(backbone(batch.images).pooled))
        run.step(optimizer, loss(Output(code), batch))
        yield


@dataclass(frozen=True)
class Measured:
    """Of one training: the time of a step on the clock and of the processor, the time to the first step, in seconds."""

    clock: float
    processor: float
    first: float


def measure(side: Callable[[Task], Iterator[None]], task: Task) -> Measured:
    """Train once."""
    started, used = time.perf_counter(), time.process_time()
    steps = side(task)
    next(steps)
    first = time.perf_counter() - started
    count = 1 + sum(1 for _ in steps)
    return Measured((time.perf_counter() - started) / count, (time.process_time() - used) / count, first)


def peak(side: Callable[[Task], Iterator[None]], task: Task) -> float:
    """MiB that a training adds to the resident memory, at most."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from here

    def status(field: str) -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024

    before = status("VmRSS")
    for _ in side(task):
        pass
    return status("VmHWM") - before


def report(name: str, task: Task, rounds: int) -> None:
    """Print the ratios of a task: medians of pairs that were measured in turn."""
    pairs = [(measure(through_run, task), measure(bare, task)) for _ in range(rounds + 1)][1:]
    unit = 1e6 / (1 if name == "head" else 1000)
    ours, theirs = (statistics.median(m.clock for m in side) for side in zip(*pairs, strict=True))
    print(f"{name}: {rounds} rounds in turn, {task.steps} steps of {task.batch}")
    print(f"  through Run {ours * unit:.0f} {'us' if name == 'head' else 'ms'} a step, bare loop {theirs * unit:.0f}")
    for what in ("clock", "processor", "first"):
        ratios = sorted(getattr(b, what) / getattr(a, what) for a, b in pairs)
        label = {"clock": "speed by the clock", "processor": "speed by the processor", "first": "to the first step"}
        print(f"  {label[what]}: {statistics.median(ratios):.3f} (pairs: {ratios[0]:.3f} to {ratios[-1]:.3f})")
    if name != "head":
        memory = [peak(side, task) for side in (through_run, bare)]
        print(f"  peak memory: {memory[0]:.0f} MiB through Run, {memory[1]:.0f} MiB in the bare loop")


def main() -> None:
    """Measure the tasks, and print speeds of Run divided by those of the bare loop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", nargs="+", choices=["head", "resnet18", "mobilenet"])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    print(
        f"{platform.machine()}, torch {torch.__version__}, one thread, load before {load:.2f}; speed of Run / bare loop"
    )
    tasks = {
        "head": head,
        "resnet18": lambda: images("resnet18", 64, 512, 64),
        "mobilenet": lambda: images("mobilenet_v2", 224, 96, 16),
    }
    for name in asked.only or tasks:
        report(name, tasks[name](), asked.rounds if name == "head" else max(1, asked.rounds // 3))


if __name__ == "__main__":
    main()
