"""Pitfalls of the field, each shown by two figures on scanned digits: what people did, and what is right.

    python docs/examples/pitfalls.py

prints the table of docs/pitfalls.md. It takes about half a minute on two cores.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from hashzoo import Budget, Run, encode
from hashzoo.evaluation.metrics import evaluate, score
from hashzoo.hamming.counting import distance_counts
from hashzoo.hamming.packing import set_threads
from hashzoo.hamming.relevance import relevance
from hashzoo.registry import zoo
from hashzoo.types import Split, Splits

set_threads(1)  # small images: more threads would only wait for each other
torch.set_num_threads(1)
HOUSE = zoo.load_plugins()
DATA: Splits = HOUSE.dataset("digits.standard").factory()


def trained(name: str, backbone: str, bits: int, data: Splits = DATA, seed: int = 0, epochs: int = 15, look=None):
    """A method fitted on digits; ``look(method, run)`` is called after each epoch."""
    torch.manual_seed(seed)
    network = HOUSE.backbone(backbone).factory((1, 8, 8))
    method = HOUSE.method(name).factory(data.setting(bits), network)
    run = Run(Budget(epochs=epochs, batch=64, lr=3e-3, schedule="constant"), seed, to=network.input)
    if look:
        run.after_epoch = lambda: (look(method, run), method.train())
    method.train()
    method.fit(data.train, run)
    return method, run


def measured(query, database, metrics, data: Splits = DATA, stored: Split | None = None) -> dict[str, float]:
    """Means over the queries, of codes (Q, K) and (N, K) bool."""
    wanted, there = data.query.labels.argmax(1).numpy(), (stored or data.database).labels.argmax(1).numpy()
    return evaluate(query.numpy(), database.numpy(), wanted, there, metrics).means


def sorted_ap(distances: np.ndarray, relevant: np.ndarray) -> float:
    """Mean average precision by a stable sort of distances (Q, N), as most public code has it."""
    order = distances.argsort(1, kind="stable")
    hits = np.take_along_axis(relevant, order, 1)  # (Q, N)
    precision = hits.cumsum(1) / np.arange(1, hits.shape[1] + 1)
    return float(((precision * hits).sum(1) / hits.sum(1)).mean())


def ties() -> tuple[float, float]:
    """A database stored class by class, ranked by 8 bits: stable sort, and the expectation over orders of ties."""
    stored = DATA.database.take(DATA.database.labels.argmax(1).sort(stable=True).indices)
    method, run = trained("lsh", "pixels", 8)
    query, database = (encode(run, method, part)["code"] for part in (DATA.query, stored))
    distances = (query[:, None] != database[None]).sum(2).numpy()
    relevant = (DATA.query.labels @ stored.labels.T).numpy()
    return sorted_ap(distances, relevant), measured(query, database, ["map@all"], stored=stored)["map@all"]


def divisor() -> tuple[float, float]:
    """map@100 of ITQ divided by the hits among the first 100, and by what could have been found there."""
    method, run = trained("itq", "pixels", 16)
    query, database = (encode(run, method, part)["code"] for part in (DATA.query, DATA.database))
    found = measured(query, database, ["map@100:hits", "map@100"])
    return found["map@100:hits"], found["map@100"]


def epoch() -> tuple[float, float]:
    """DHN on few images: its best epoch on the queries, and its last one; means over five seeds."""
    data: Splits = HOUSE.dataset("digits.small").factory()
    best, last = [], []
    for seed in range(5):
        seen: list[float] = []

        def look(method, run, seen=seen):
            query, database = (encode(run, method, part)["code"] for part in (data.query, data.database))
            seen.append(measured(query, database, ["map@all"], data)["map@all"])

        trained("dhn", "tiny", 16, data, seed, epochs=20, look=look)
        best.append(max(seen))
        last.append(seen[-1])
    return float(np.mean(best)), float(np.mean(last))


def zeros() -> tuple[float, float]:
    """Differences of pixels, many of them exactly 0: by torch.sign, which gives three values, and by bits."""
    draw = torch.Generator().manual_seed(0)
    one, other = torch.randint(64, (2, 32), generator=draw)

    def differences(part: Split) -> torch.Tensor:
        x = part.images.flatten(1).float()  # (N, 64)
        return x[:, one] - x[:, other]  # (N, 32)

    query, database = differences(DATA.query), differences(DATA.database)
    prepared = relevance(DATA.query.labels.numpy(), DATA.database.labels.numpy())
    halves = (32 - query.sign() @ database.sign().T) / 2  # (Q, N) half-integers where a value is 0
    wrong = float(score(distance_counts(halves.numpy(), prepared), ["map@all"])["map@all"].mean())
    return wrong, measured(query >= 0, database >= 0, ["map@all"])["map@all"]


def leak() -> tuple[float, float]:
    """Precision of the first place, where the queries are in the database, and where they are not."""
    method, run = trained("lsh", "pixels", 32)
    query, database = (encode(run, method, part)["code"] for part in (DATA.query, DATA.database))
    both = replace(DATA.database, images=torch.cat([DATA.database.images, DATA.query.images]),
                   labels=torch.cat([DATA.database.labels, DATA.query.labels]),
                   ids=torch.cat([DATA.database.ids, DATA.query.ids]))  # fmt: skip
    wrong = measured(query, torch.cat([database, query]), ["p@1"], stored=both)["p@1"]
    return wrong, measured(query, database, ["p@1"])["p@1"]


def inside() -> tuple[float, float]:
    """CSQ with the images it was trained on in the database, and without."""
    data: Splits = HOUSE.dataset("digits.inside").factory()
    found = []
    for one in (data, DATA):
        method, run = trained("csq", "tiny", 16, one, epochs=10)
        query, database = (encode(run, method, part)["code"] for part in (one.query, one.database))
        found.append(measured(query, database, ["map@all"], one)["map@all"])
    return found[0], found[1]


def mates() -> tuple[float, float]:
    """Batch normalization left in training mode, queries encoded class by class; and in evaluation mode."""
    method, run = trained("norm-tanh+dhn", "tiny", 16)
    by_class = DATA.query.take(DATA.query.labels.argmax(1).sort(stable=True).indices)
    data = replace(DATA, query=by_class)
    query, database = (encode(run, method, part)["code"] for part in (by_class, DATA.database))
    right = measured(query, database, ["map@all"], data)["map@all"]
    method.train()
    with torch.no_grad():
        codes = [
            torch.cat([method.encode(batch)["code"] for batch in run.blank(part, size=32)])
            for part in (by_class, DATA.database)
        ]
    return measured(*codes, ["map@all"], data)["map@all"], right


def balls() -> tuple[float, float]:
    """Precision within radius 2 of 32 bits, with queries that find nothing left out, and counted as 0."""
    method, run = trained("lsh", "pixels", 32)
    query, database = (encode(run, method, part)["code"] for part in (DATA.query, DATA.database))
    found = measured(query, database, ["p@h2", "empty@h2"])
    return found["p@h2"] / (1 - found["empty@h2"]), found["p@h2"]


PITFALLS = {
    "ties in the order of the database": ("`lsh`, 8 bits, `map@all`", ties),
    "average precision divided by the hits": ("`itq`, 16 bits, `map@100`", divisor),
    "the epoch chosen on the queries": ("`dhn`, 16 bits, `map@all`", epoch),
    "sgn(0) = 0": ("differences of pixels, 32 bits, `map@all`", zeros),
    "queries in the database": ("`lsh`, 32 bits, `p@1`", leak),
    "training images in the database": ("`csq`, 16 bits, `map@all`", inside),
    "encoding in training mode": ("`norm-tanh+dhn`, 16 bits, `map@all`", mates),
    "empty balls left out": ("`lsh`, 32 bits, `p@h2`", balls),
}

if __name__ == "__main__":
    print("| pitfall | measured on | with it | without | differs by |\n|---|---|---|---|---|")
    for name, (where, measure) in PITFALLS.items():
        wrong, right = measure()
        print(f"| {name} | {where} | {wrong:.3f} | {right:.3f} | {wrong - right:+.3f} |", flush=True)
