"""Hours that each benchmark of benchmarks/finetune takes on one GPU, worked out from FLOPs; nothing is trained.

Run: python benchmarks/speed/finetune_hours.py

A cell trains on its training images for its epochs, at three times the FLOPs of a forward pass, and encodes database
and queries once; methods that train on two views of an image take up to twice as long. The GPUs are assumed to sustain
what convolutional networks in bf16 reach, a small part of their peak. Decoding images is not counted: with JPEG files,
the processor can be the limit.
"""

from __future__ import annotations

import functools
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from hashzoo.api import Request, dry_run
from hashzoo.registry.build import build_backbone
from hashzoo.registry.zoo import load_plugins

FOLDER = Path(__file__).parents[1] / "finetune"

#: FLOP/s that are assumed, by GPU.
SUSTAINED = {"an H100-class card": 60e12, "a 24 GB card": 15e12}

#: Databases whose sizes the datasets do not declare before their lists are read.
DATABASES = {"imagenet100.csq": 128_503, "coco.csq": 117_218, "nus-wide-21.csq": 149_685}


@functools.cache
def forward_flops(name: str) -> float:
    """The FLOPs of a backbone for one image."""
    backbone = build_backbone(load_plugins(), name, (3, 224, 224), {"weights": "random"}, 0).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        backbone(torch.zeros(1, 3, backbone.input.size or 224, backbone.input.size or 224))
    return float(counter.get_total_flops())


def flops(file: Path) -> float:
    """The FLOPs of all cells of a benchmark."""
    request = Request(str(file))
    forward = forward_flops(request.file.backbone or "")
    total = 0.0
    for preview in dry_run(request).previews:
        sizes = preview.outline
        database = sizes.database or DATABASES[preview.dataset]
        encoded = database + (sizes.query or 0)
        trained = 3 * request.file.train.epochs * (sizes.train or 0)
        total += forward * sum(encoded + (trained if cell.kind == "deep" else 0) for cell in preview.cells)
    return total


def sentence(file: Path) -> str:
    """The hours on each GPU, as the head of the file says them.

    Shallow methods read stored features of the frozen network: they are counted as one pass each.
    """
    work = flops(file)
    return ", ".join(f"{work / rate / 3600:.1f} h on {gpu}" for gpu, rate in SUSTAINED.items())


if __name__ == "__main__":
    for file in sorted(FOLDER.glob("*.toml")):
        print(f"{file.stem}: {sentence(file)}")
