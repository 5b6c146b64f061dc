"""`hashzoo encode --shard-rows` beside a bare loop that decodes the same images and runs the same network.

    python benchmarks/speed/encoding.py                                   # the network takes most of the time
    python benchmarks/speed/encoding.py --backbone pixels --images 2000   # decoding does

The bare loop decodes a batch with Pillow in threads while the batch before is encoded, and writes nothing. hashzoo
also lists the collection, packs bits and writes Parquet files with their digests. Sources are image files, a Parquet
table and a tar archive of the same JPEGs. Sides take turns in one process, with one thread of torch; rates are those of
hashzoo divided by those of the bare loop.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import torch
from PIL import Image

from hashzoo.data.transforms import prepare
from hashzoo.export import shards
from hashzoo.export.code_folder import CodeFolder
from hashzoo.export.items import items_of
from hashzoo.retrieval.encoder import BATCH_SIZE, DECODER_THREADS, Encoder, load_encoder
from tests.measured import cell_of

SIDE = 320


def draw(folder: Path, count: int) -> list[Path]:
    """JPEGs of smooth noise, about as large as photographs of the same size."""
    folder.mkdir()
    rng, files = np.random.default_rng(0), []
    for row in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).resize(
            (SIDE, SIDE), Image.Resampling.BICUBIC
        )
        fine = rng.normal(0, 6, (SIDE, SIDE, 1))
        pixels = np.clip(np.asarray(coarse, np.float32) + fine, 0, 255).astype(np.uint8)
        files.append(folder / f"{row:05}.jpg")
        Image.fromarray(pixels).save(files[-1], quality=90)
    return files


def bare(encoder: Encoder, files: Sequence[Path]) -> np.ndarray:
    """Bits of the files, by a loop as a user would write it."""
    trained = encoder.trained

    def decode(file: Path) -> torch.Tensor:
        return prepare(trained.to_tensor(Image.open(file).convert("RGB")), trained.input)

    found, batches = [], [files[start : start + BATCH_SIZE] for start in range(0, len(files), BATCH_SIZE)]
    with ThreadPoolExecutor(min(DECODER_THREADS, os.cpu_count() or 1)) as pool, torch.no_grad():
        ahead = [pool.submit(decode, file) for file in batches[0]]
        for number in range(len(batches)):
            decoded = [future.result() for future in ahead]
            ahead = [pool.submit(decode, file) for file in batches[number + 1]] if number + 1 < len(batches) else []
            found.append(trained.method.encode(encoder.batch(torch.stack(decoded)))["code"].numpy())
    return np.packbits(np.concatenate(found), axis=1)


def sharded(encoder: Encoder, sources: Sequence[Path], folder: Path) -> np.ndarray:
    """Packed codes of sources, by hashzoo."""
    shutil.rmtree(folder, ignore_errors=True)
    shards.encode(encoder, items_of(encoder, sources), folder, 250)
    return np.concatenate([part.packed_code().rows for part in CodeFolder(folder).parts()])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--backbone", default="efficientnet-lite0")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        encoder = load_encoder(cell_of(folder / "r", "itq", backbone=given.backbone))
        files = draw(folder / "photos", given.images)
        table, archive = folder / "photos.parquet", folder / "photos.tar"
        pyarrow.parquet.write_table(
            pyarrow.table({"image": [file.read_bytes() for file in files]}), table, row_group_size=100
        )
        with tarfile.open(archive, "w") as tar:
            for file in files:
                tar.add(file, file.name)
        sides: dict[str, Callable[[], np.ndarray]] = {
            "bare loop": lambda: bare(encoder, files),
            "image files": lambda: sharded(encoder, [folder / "photos"], folder / "codes"),
            "Parquet table": lambda: sharded(encoder, [table], folder / "codes"),
            "tar archive": lambda: sharded(encoder, [archive], folder / "codes"),
        }
        expected = sides["image files"]()
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(given.rounds):
            for name, side in sides.items():
                start = time.perf_counter()
                found = side()
                rates[name].append(len(files) / (time.perf_counter() - start))
                if name != "bare loop" and not np.array_equal(found, expected):
                    raise RuntimeError(f"{name}: the codes differ from those of image files")
        size = sum(file.stat().st_size for file in files) / len(files)
        what = f"{given.backbone}, {len(files)} JPEGs of {SIDE} pixels, {size / 1000:.0f} kB each"
        print(f"{platform.machine()}, {os.cpu_count()} cores; {what}")
        for name, found_rates in rates.items():
            ratios = [one / base for one, base in zip(found_rates, rates["bare loop"], strict=True)]
            rate, ratio = statistics.median(found_rates), statistics.median(ratios)
            print(f"{name:14} {rate:7.1f} images/s  ratio {ratio:.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main()
