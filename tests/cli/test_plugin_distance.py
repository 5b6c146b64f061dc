"""A method of a plugin whose index compares codes by a distance of the plugin, measured and searched by the command."""

from __future__ import annotations

import csv

import pytest

from tests.cli.command import hashzoo

PLUGIN = """
import torch
import hashzoo
from hashzoo import Card, Method, PackedDistance, Scan, bits, weighted_distances, pack


class Weighted(PackedDistance):
    def __init__(self, name, weights):
        super().__init__(name)
        self.weights = weights

    def largest(self, bits):
        return int(self.weights.sum())

    def packed(self, query, database):
        return torch.from_numpy(weighted_distances(pack(query[self.name].numpy()), self.weights.numpy(), database))


class Planes(Method):
    \"\"\"Random hyperplanes, drawn as those of lsh are, whose bits have weights.\"\"\"

    card = Card("shallow", "none")

    first, last = 1, 1  # the weight of each bit in the two halves of a code

    def __init__(self, setting, backbone):
        super().__init__()
        self.backbone, self.bits, half = backbone, setting.bits, setting.bits // 2
        self.weights = torch.tensor([self.first] * half + [self.last] * (self.bits - half))
        self.register_buffer("mean", torch.zeros(backbone.dim))
        self.register_buffer("planes", torch.zeros(backbone.dim, setting.bits))

    def fit(self, train, run):
        x = run.features(self.backbone, train).pooled
        self.mean = x.mean(0)
        self.planes = torch.randn(x.shape[1], self.bits, generator=run.generator)

    def encode(self, batch):
        return {"code": bits((self.backbone(batch.images).pooled - self.mean) @ self.planes)}

    def index(self):
        return Scan(Weighted("code", self.weights))


class Twos(Planes):
    first, last = 2, 2


class Zeros(Planes):
    first, last = 0, 3


class LastBits(Planes):
    \"\"\"The last half of the bits by Hamming distance.\"\"\"

    def encode(self, batch):
        return {"code": super().encode(batch)["code"][:, self.bits // 2 :]}

    def index(self):
        return Scan(hashzoo.Hamming("code"))


@hashzoo.hookimpl
def hashzoo_methods():
    return {"ones": Planes, "twos": Twos, "zeros": Zeros, "last-bits": LastBits}
"""

BENCHMARK = """
name = "weights"
dataset = "digits.small"
methods = ["lsh", "ones", "twos", "zeros", "last-bits"]
bits = [16]
metrics = ["map@all", "map@100"]

[backbones]
shallow = "pixels"
"""


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    """The scores of each method, by metric."""
    folder = tmp_path_factory.mktemp("weights")
    (folder / "weighted.py").write_text(PLUGIN)
    (folder / "weights.toml").write_text(BENCHMARK)
    run = hashzoo("bench", "weights.toml", "--plugin", "weighted.py", "--results", "runs", cwd=folder)
    assert run.returncode == 0, run.stderr
    with (folder / "runs" / "leaderboard.csv").open(newline="", encoding="utf-8") as file:
        return {row["method"]: (row["map@all"], row["map@100"]) for row in csv.DictReader(file)}


def test_equal_weights_give_the_scores_of_hamming_distance(scores):
    assert scores["ones"] == scores["twos"] == scores["lsh"]


def test_bits_of_weight_zero_do_not_count(scores):
    assert scores["zeros"] == scores["last-bits"] != scores["lsh"]
