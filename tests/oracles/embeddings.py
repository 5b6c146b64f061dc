"""Vectors as splits, and methods fitted to them."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from hashzoo_plugins.backbones.identity import Identity

from hashzoo import Split, Splits
from hashzoo.data.vector_files import read_vectors
from hashzoo.data.vectors import ArrayMatrix, Vectors
from hashzoo.evaluation.metrics import score
from hashzoo.evaluation.scoring import encode
from hashzoo.evaluation.truth import exact_neighbours
from hashzoo.registry.zoo import load_plugins
from hashzoo.run import Run
from hashzoo.training.budget import Budget
from tests.shared_data import SHARED

HOUSE = load_plugins()


def split(images, start=0):
    return Split(images, torch.zeros(len(images), 0), start + torch.arange(len(images)))


def splits(database, query, metric="cosine"):
    """Vectors (N, D) and queries (Q, D); all of the database is learned from."""
    sides = [Vectors(ArrayMatrix(side, "x"), unit=metric == "cosine") for side in (database, query)]
    rows = split(sides[0])
    return Splits(rows, rows, split(sides[1], len(database)), multilabel=False, class_names=(), metric=metric)


@cache
def gaussian(metric="cosine", count=600, dim=16):
    """Splits of vectors around a few centers, with unequal variances."""
    rng = np.random.default_rng(0)
    spread = np.linspace(2, 0.3, dim)
    rows = rng.normal(size=(8, dim))[rng.integers(0, 8, count + 30)] + rng.normal(size=(count + 30, dim)) * spread
    rows = rows.astype(np.float32)
    return splits(rows[:count], rows[count:], metric)


@cache
def minilm(queries, every=1):
    """Splits of sentence embeddings: the first 40,000 rows, or each ``every``-th of them, and so many of the rest."""
    rows = read_vectors(SHARED / "data" / "minilm_41k.npy").matrix.read(np.arange(41000)).astype(np.float32)
    return splits(rows[:40000:every], rows[40000 : 40000 + queries])


def fit(name, data, bits, *, seed=0, epochs=1, **options):
    """A method fitted to the training split, its index of the database, and the codes of the queries."""
    torch.manual_seed(seed)
    run = Run(Budget(epochs=epochs, lr=3e-3), seed)
    method = HOUSE.method(name).factory(data.setting(bits), Identity((data.train.images.dim, 1, 1)), **options)
    method.fit(data.train, run)
    index = method.eval().index()
    index.add(encode(run, method, data.database))
    return method, index, encode(run, method, data.query)


def truth(data, k=10):
    return truth_of(data.query.images, data.database.images, k, data.metric)


truth_of = cache(exact_neighbours)


def recalls(data, index, query, factors=(1,), k=10):
    """The mean expected recall at each number of candidates."""
    names = [f"recall@{k}:f{factor}" for factor in factors]
    found = score(index.counts(query, truth(data, k).nearest(k)), names)
    return np.array([found[name].mean() for name in names])


def recall_of(data, rows, k=10):
    """The mean share of the exact neighbors among rows (Q, R)."""
    return np.mean([np.isin(true, mine).mean() for true, mine in zip(truth(data, k).rows, rows, strict=True)])


def numbers(images):
    return images[np.arange(len(images))].numpy()
