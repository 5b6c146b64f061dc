"""Reproduce a paper's table, reduced to a minute on a CPU: DHN and its variants (Zhu et al., AAAI 2016).

    python docs/examples/reproduce_a_table.py

The paper trains AlexNet, which knows ImageNet, on CIFAR-10 for mAP at 12 to 48 bits. ``hashzoo bench paper/dhn`` does
that, and wants a GPU and hours. Here a network of three layers learns 500 scanned digits. What can be compared is the
order of the rows, and no number: real values (DHN-B) above bits, and cross-entropy (DHN) above squared error (DHN-E).
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from hashzoo.cli.main import main

RESULTS = Path("hashzoo-results/dhn-reduced")
VARIANTS = {"dhn": "DHN", "dhn-b": "DHN-B, no sign", "dhn-q": "DHN-Q, no quantization", "dhn-e": "DHN-E, squared error"}

main([
    "bench", "paper/dhn", "--dataset", "digits.standard", "--backbone", "tiny", "--methods", ",".join(VARIANTS),
    "--no-baselines", "--bits", "12,24", "--seeds", "0,1,2", "--epochs", "15", "--results", str(RESULTS),
    "--set", "train.optimizer=adam", "--set", "train.lr=0.003", "--set", "train.backbone_lr=1.0",
    "--set", "train.weight_decay=0.0", *sys.argv[1:],
])  # fmt: skip

with (RESULTS / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
    found = {(row["method"], row["bits"]): row for row in csv.DictReader(file)}
lengths = sorted({bits for _, bits in found}, key=int)
print("\nmAP, mean and standard deviation over seeds; reduced: digits and a small network, not CIFAR-10 and AlexNet")
print(f"{'':24}" + "".join(f"{bits + ' bits':>16}" for bits in lengths))
for method, label in VARIANTS.items():
    scores = [found[method, bits] for bits in lengths]
    print(f"{label:24}" + "".join(f"{float(r['map@all']):9.3f} ±{float(r['map@all_std'] or 0):.3f}" for r in scores))
