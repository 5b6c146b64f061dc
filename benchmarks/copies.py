"""Recall and precision of ``hashzoo dedup``: copies of every kind are planted among images, and looked for.

    python benchmarks/copies.py FOLDER --planted 100

Prints a table by kind, and the pairs of unplanted images that were taken for copies, which can be real ones.
"""

from __future__ import annotations

import argparse
import io
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from hashzoo.data.copies import find_pairs, print_images
from hashzoo.data.image_paths import find_images, open_image

Change = Callable[[Image.Image, np.random.Generator], Image.Image]


def cropped(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Nine tenths of each side, at a random place."""
    width, height = image.size
    left, top = rng.uniform(0, 0.1, 2)
    return image.crop(
        (round(left * width), round(top * height), round((left + 0.9) * width), round((top + 0.9) * height))
    )


def marked(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A light box with text over a twentieth of the image."""
    mark = Image.new("RGBA", image.size, (0, 0, 0, 0))
    width, height = image.size
    draw = ImageDraw.Draw(mark)
    draw.rectangle((width * 0.55, height * 0.85, width * 0.98, height * 0.97), fill=(255, 255, 255, 150))
    draw.text((width * 0.6, height * 0.88), "(c) Somebody 2026", fill=(0, 0, 0, 220))
    return Image.alpha_composite(image.convert("RGBA"), mark).convert("RGB")


#: What is planted, and the quality of the JPEG that it is saved as.
KINDS: dict[str, tuple[Change, int]] = {
    "recompressed (quality 30)": (lambda image, rng: image, 30),
    "resized to 40 % x 60 %": (lambda image, rng: image.resize((image.width * 2 // 5, image.height * 3 // 5)), 85),
    "cropped to 90 % of each side": (cropped, 85),
    "gray": (lambda image, rng: image.convert("L").convert("RGB"), 85),
    "marked": (marked, 85),
    "mirrored": (lambda image, rng: ImageOps.mirror(image), 85),
}


def planted(image: Image.Image, kind: str, rng: np.random.Generator) -> Image.Image:
    """A copy of a kind."""
    change, quality = KINDS[kind]
    buffer = io.BytesIO()
    change(image, rng).save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def main() -> None:
    """Plant, look, count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--planted", type=int, default=100, help="copies of each kind")
    parser.add_argument("--images", type=int, default=None, help="images to use, drawn by the seed")
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    listed = find_images([given.folder])
    files = [listed.root / listed.images[row] for row in rng.permutation(len(listed.images))[: given.images]]
    copies = [(row, kind) for k, kind in enumerate(KINDS) for row in range(k * given.planted, (k + 1) * given.planted)]
    made = [planted(open_image(files[row]), kind, rng) for row, kind in copies]
    started, count = time.process_time(), len(files)
    prints = print_images(count + len(made), lambda i: open_image(files[i]) if i < count else made[i - count], 2)
    read = time.process_time()
    pairs = find_pairs(prints, flips=True)
    compared = time.process_time()
    found, others = Counter[str](), list[str]()
    for pair in pairs:
        low, high = sorted((pair.first, pair.second))
        if high >= count and copies[high - count][0] == low:
            found[copies[high - count][1]] += 1
        elif high < count:
            others.append(f"{files[low]} {files[high]} correlation {pair.correlation:.2f}")
    print("| copy | found |\n|---|---|")
    for kind in KINDS:
        print(f"| {kind} | {found[kind]} of {given.planted} |")
    right = sum(found.values())
    print(f"\n{count} images: {right} planted pairs and {len(others)} pairs of unplanted images found")
    print(f"read {read - started:.1f} s, compared {compared - read:.1f} s of processor time")
    print("\n".join(others))


if __name__ == "__main__":
    main()
