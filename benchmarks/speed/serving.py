"""`hashzoo serve` under load: clients that search without a pause while items are added.

    python benchmarks/speed/serving.py                                  # a minute; 50 clients, 10^6 codes
    python benchmarks/speed/serving.py --clients 10 --items 1e5 --seconds 20

The server is a process of its own. Each client asks for the 50 nearest of a code of the index, checks that the answer
is exact (one of 20 against all codes), and asks again; one more client adds an item, and checks that a search finds it,
twenty times a second at most. Clients and server share the machine.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from hashzoo import load_encoder
from hashzoo.retrieval.image_index import encode_files
from hashzoo.retrieval.index_folder import IndexFolder
from hashzoo.retrieval.index_writer import Item
from tests.measured import cell_of
from tests.serve.conftest import png
from tests.serve.load import TOKEN, call, run

AT_ONCE = 1 << 18


def index_of(folder: Path, items: int) -> tuple[Path, list[str], np.ndarray]:
    """An index of made codes of 16 bits, of a method that was learned on digits."""
    cell = cell_of(folder / "r", "itq", backbone="pixels")
    encoder = load_encoder(cell)
    (folder / "one.png").write_bytes(png(0))
    described = encode_files(encoder, [folder / "one.png"], ["code"])[0].metadata
    metadata = {name: value for name, value in described.items() if name != "count"}
    index = IndexFolder.create(folder / "made.index", {**metadata, "ranks_by": "code"})
    ids = [f"{row % 1000:03}/photograph-{row:011}.jpg" for row in range(items)]
    codes = np.random.default_rng(0).integers(0, 256, (items, 2), np.uint8)
    with index.writing() as writer:
        for start in range(0, items, AT_ONCE):
            part = slice(start, start + AT_ONCE)
            writer.put([Item(one) for one in ids[part]], {"bits.code": codes[part]})
        writer.compact()
    return index.path, ids, codes


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--items", type=lambda text: int(float(text)), default=1_000_000)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hashzoo-serving-") as name:
        path, ids, codes = index_of(Path(name), arguments.items)
        line = [sys.executable, "-c", "from hashzoo.cli.main import main; main()", "serve", str(path), "--port", "0"]
        environment = {**os.environ, "HASHZOO_TOKEN": TOKEN, "PYTHONUNBUFFERED": "1"}
        started = time.perf_counter()
        with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=environment) as process:
            try:
                assert process.stdout is not None
                found = re.match(r"http://127\.0\.0\.1:(\d+)", process.stdout.readline())
                assert found
                port, ready = int(found[1]), time.perf_counter() - started
                call(port, "POST", "/v1/search", {"codes": ["0000"]})
                resident = psutil.Process(process.pid).memory_info
                print(
                    f"{platform.machine()}, {os.cpu_count()} cores; {arguments.items:,} codes, ready in {ready:.1f} s"
                )
                for number in (1, 2):
                    before = resident().rss
                    load = run(port, ids, codes, arguments.clients, arguments.seconds / 2, 20)
                    p50, p99 = np.percentile(1000 * np.array(load.seconds), [50, 99])
                    rate = len(load.seconds) / (arguments.seconds / 2)
                    print(
                        f"  half {number}: {len(load.seconds):,} searches by {arguments.clients} clients, {rate:.0f} a "
                        f"second, p50 {p50:.1f} ms, p99 {p99:.1f} ms; {load.added} items added, p50 "
                        f"{1000 * np.median(load.adds or [np.nan]):.0f} ms; {len(load.wrong)} wrong"
                        f"; memory {before / 2**20:.0f} to {resident().rss / 2**20:.0f} MiB"
                    )
                    print("".join(f"    {line}\n" for line in load.wrong[:5]), end="")
            finally:
                process.terminate()


if __name__ == "__main__":
    main()
