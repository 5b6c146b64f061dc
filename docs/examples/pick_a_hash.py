"""Which hash for my folder of photos? Measures a few methods on it and names the shortest code that is good enough.

    python docs/examples/pick_a_hash.py IMAGES

IMAGES holds a folder of images for each class, or is a table (docs/reference/image-folders.md). No network weights are
needed, so scores reflect textures and shapes, not objects; docs/howto/choose-hash.md says how to do better. It takes
minutes for a thousand images.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from hashzoo.cli.main import main

parser = argparse.ArgumentParser(description="Which hash for my folder of photos?")
parser.add_argument("images", type=Path)
parser.add_argument("--methods", default="itq,ksh,sdh,csq")
parser.add_argument("--bits", default="16,32,64")
parser.add_argument("--keep", type=float, default=0.95, help="share of the best score that is good enough")
parser.add_argument("--results", type=Path, default=Path("hashzoo-results/my-photos"))
asked = parser.parse_args()

main([
    "bench", "folder", "--root", str(asked.images), "--on-bad-image", "skip", "--metrics", "map@all,p@1",
    "--methods", asked.methods, "--bits", asked.bits, "--results", str(asked.results),
])  # fmt: skip

with (asked.results / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
    rows = [row for row in csv.DictReader(file) if row["status"] == "ok"]
score = {(row["method"], int(row["bits"])): float(row["map@all"]) for row in rows if row["role"] != "control"}
control = {row["method"]: float(row["map@all"]) for row in rows if row["role"] == "control"}
best = max(score.values())
method, bits = min((key for key in score if score[key] >= asked.keep * best), key=lambda key: (key[1], -score[key]))

print(f"\ntake {method} at {bits} bits: map@all {score[method, bits]:.3f}, the best of all is {best:.3f}")
print(f"a million images take {bits * 10**6 / 8 / 2**20:.1f} MiB")
print(f"knowing nothing scores {control['chance']:.3f}, the features themselves {control['unquantized']:.3f}")
