"""The time that each shallow method takes to fit random features of ten classes; the controls are left out.

    python benchmarks/speed/solvers.py                         # every shallow method of a paper
    python benchmarks/speed/solvers.py ssh s3plh --n 5000      # some of them, on fewer features

54,000 features of 512 numbers, as a network gives them, 64 bits, two threads. One row a method: seconds, or the reason
why it does not fit. The very first fit of a method with compiled loops includes their compilation.
"""

from __future__ import annotations

import argparse
import platform
import time

import torch

from hashzoo.backbone import Backbone
from hashzoo.errors import status_of
from hashzoo.registry import zoo
from hashzoo.run import Run
from hashzoo.training.budget import Budget
from hashzoo.training.feature_store import PrecomputedBackbone, StoredFeatures
from hashzoo.types import Features, Setting, Split

CLASSES = 10


class Given(Backbone):
    """Stands for the backbone whose features are stored."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, images: Features) -> Features:
        """What it is given."""
        return images


def features(n: int, dim: int) -> Split:
    """Unit Gaussians around ten centers as far from each other as two of their own points are."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.eye(CLASSES)[torch.arange(n) % CLASSES]
    x = labels @ torch.randn(CLASSES, dim, generator=generator) + torch.randn(n, dim, generator=generator)
    return Split(StoredFeatures([x.numpy()]), labels, torch.arange(n))


def main() -> None:
    """Fit, and print a row a method."""
    catalogue = zoo.load_plugins()
    shallow = sorted(
        name for name, entry in catalogue.methods.items() if entry.card.kind == "shallow" and entry.card.year
    )
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", default=shallow, help="names, or nothing for all")
    parser.add_argument("--n", type=int, default=54_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--bits", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    split = features(asked.n, asked.dim)
    setting = Setting(asked.bits, CLASSES, False, split.labels.sum(0).long(), asked.n)
    print(f"{platform.machine()}, torch {torch.__version__}, {asked.threads} threads")
    print(f"N = {asked.n}, D = {asked.dim}, {asked.bits} bits")
    for name in asked.methods:
        run = Run(Budget(threads=asked.threads), 0)
        backbone = PrecomputedBackbone(Given(asked.dim), maps=False)
        run.features(backbone, split)  # not the solver's time
        torch.set_num_threads(asked.threads)  # here: compiled loops set it when they start
        started = time.perf_counter()
        try:
            catalogue.method(name).factory(setting, backbone).fit(split, run)
        except Exception as error:
            print(f"  {name:16} {status_of(error)[1]}", flush=True)
        else:
            print(f"  {name:16} {time.perf_counter() - started:8.2f} s", flush=True)


if __name__ == "__main__":
    main()
