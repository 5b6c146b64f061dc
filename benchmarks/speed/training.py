"""A training step through Run beside the same step in a bare PyTorch loop, in turn, in one process.

    python benchmarks/speed/training.py

One linear layer of 512 features to 64 bits on stored features, batch 64, Adam, cosine schedule, one thread: the
smallest step there is, so what Run adds shows the most.
"""

from __future__ import annotations

import argparse
import math
import platform
import statistics
import time

import numpy as np
import torch
from hashzoo_plugins.pairwise.dhn import DHN
from torch import nn

from hashzoo.backbone import Backbone
from hashzoo.method import Output
from hashzoo.run import Run
from hashzoo.training.budget import Budget
from hashzoo.training.feature_store import PrecomputedBackbone, StoredFeatures
from hashzoo.types import Batch, Features, Setting, Split

N, D, K, BATCH = 4096, 512, 64, 64


class Nothing(Backbone):
    """Stands for the backbone whose features are stored."""

    dim = D

    def forward(self, images: Features) -> Features:
        """What it is given."""
        return images


def bare(x: torch.Tensor, labels: torch.Tensor, loss: nn.Module, epochs: int) -> float:
    """Seconds a step of a loop as one writes it by hand, schedule and finite check included."""
    generator = torch.Generator().manual_seed(0)
    head = nn.Linear(D, K)
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * N // BATCH)
    ids, steps, started = torch.arange(N), 0, time.perf_counter()
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(N, generator=generator), BATCH):
            code = torch.tanh(head(x[rows]))
            total = sum(loss(Output(code), Batch((None,), labels[rows], ids[rows])).values())
            if not math.isfinite(total.item()):
                raise ArithmeticError
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            optimizer.step()
            schedule.step()
            steps += 1
    return (time.perf_counter() - started) / steps


def through_run(split: Split, loss: nn.Module, epochs: int) -> float:
    """Seconds a step of the same through Run."""
    run = Run(Budget(epochs=epochs, batch=BATCH, lr=1e-3, threads=1), 0)
    backbone, head = PrecomputedBackbone(Nothing(), maps=False), nn.Linear(D, K)
    optimizer = run.optimizer(backbone, head)
    steps, started = 0, time.perf_counter()
    for batch in run.batches(split):
        code = torch.tanh(head(backbone(batch.images).pooled))
        run.step(optimizer, loss(Output(code), batch))
        steps += 1
    return (time.perf_counter() - started) / steps


def main() -> None:
    """Measure, and print the ratio of medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    x, labels = torch.randn(N, D), torch.eye(10)[torch.arange(N) % 10]
    split = Split(StoredFeatures([x.numpy().astype(np.float32)]), labels, torch.arange(N))
    loss = DHN(Setting(K, 10, False, labels.sum(0), N))
    pairs = [(through_run(split, loss, 3), bare(x, labels, loss, 3)) for _ in range(rounds + 1)][1:]
    ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratios = sorted(a / b for a, b in pairs)
    print(f"{platform.machine()}, torch {torch.__version__}, one thread, {rounds} rounds in turn")
    print(f"through Run {ours * 1e6:.0f} us a step, bare loop {theirs * 1e6:.0f} us a step, medians")
    print(f"ratio {statistics.median(ratios):.3f} (of pairs: {ratios[0]:.3f} to {ratios[-1]:.3f})")


if __name__ == "__main__":
    main()
