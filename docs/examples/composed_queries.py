"""Composed queries: ask with two images for what shows both of their things, and see what operators of codes bring.

    python docs/examples/composed_queries.py

A query is a pair of images with an operation. ``dcoh`` learns operators of its own; for any other method the codes
are joined bit by bit. ``/first`` asks with one image alone: an operator that does not beat it has done nothing.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from hashzoo.cli.main import main

RESULTS = Path("hashzoo-results/composed")
PARTS = ("", "/bitwise", "/first", "/second")

main([
    "bench", "source-methods", "--dataset", "scenes.union", "--methods", "dcoh,dhn", "--no-baselines", "--seeds", "0",
    "--metrics", ",".join(f"ndcg@100{part}" for part in PARTS), "--results", str(RESULTS), *sys.argv[1:],
])  # fmt: skip

with (RESULTS / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
    rows = list(csv.DictReader(file))
print("\nndcg@100 of unions of two images' labels")
for row in rows:
    told = {"": "its operator", "/bitwise": "bit by bit", "/first": "first alone", "/second": "second alone"}
    print(f"{row['method']:8}" + "  ".join(f"{told[part]} {float(row[f'ndcg@100{part}'] or 0):.3f}" for part in PARTS))
