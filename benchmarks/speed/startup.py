"""The processor time of short commands, beside that of importing torch.

    python benchmarks/speed/startup.py               # 7 rounds, about three minutes
    python benchmarks/speed/startup.py --rounds 3

Every command runs in a process of its own, one after the other, in several rounds. What counts is the time in user and
system mode of the whole tree of processes, not the time on the clock, since other work on the machine changes it less.
Each command runs once before the rounds: Python then has its bytecode and the results are there, so that the benchmark
in the table is one that is resumed and has nothing left to do.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

HASHZOO = (sys.executable, "-c", "from hashzoo.cli.main import main; main()")
TORCH = "python -c 'import torch'"
LIMITS = {"hashzoo list methods": 1.5, "hashzoo bench, resumed": 1.5, "hashzoo search": 2.0}


def processor_seconds(command: Sequence[str], folder: Path) -> float:
    """Seconds in user and system mode of a command and all its processes."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def commands(folder: Path) -> dict[str, tuple[str, ...]]:
    """The commands by the name that the table gives them, after what they need was made in ``folder``."""
    bench = (*HASHZOO, "bench", "digits", "--quick", "--methods", "lsh,itq", "--results", "board", "--save-weights")
    processor_seconds(bench, folder)
    (folder / "images").mkdir()
    for shade in range(32):
        Image.new("L", (8, 8), 8 * shade).save(folder / "images" / f"{shade}.png")
    cell = next((folder / "board" / "cells").rglob("*.itq.*.json"))
    build = ("index", "build", str(cell), "images", "-o", "my.index")
    processor_seconds((*HASHZOO, *build), folder)
    return {
        TORCH: (sys.executable, "-c", "import torch"),
        "hashzoo --help": (*HASHZOO, "--help"),
        "hashzoo list methods": (*HASHZOO, "list", "methods"),
        "hashzoo show": (*HASHZOO, "show", "board"),
        "hashzoo data show": (*HASHZOO, "data", "show", "digits.small"),
        "hashzoo bench, resumed": bench,
        "hashzoo search": (*HASHZOO, "search", "my.index", "images/7.png"),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; Python {platform.python_version()}")
    print(f"load of the machine before: {os.getloadavg()[0]:.2f}")
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as place:
        listed = commands(Path(place))
        for number in range(rounds + 1):
            for name, command in listed.items():
                taken = processor_seconds(command, Path(place))
                if number:  # the first round writes bytecode and fills caches
                    seconds.setdefault(name, []).append(taken)
    base = statistics.median(seconds[TORCH])
    print(f"processor time, medians of {rounds} rounds in turn; ratio to {TORCH}")
    for name, times in seconds.items():
        limit = f"  at most {LIMITS[name]}" if name in LIMITS else ""
        print(f"  {name:<26}{statistics.median(times):6.2f} s  ratio {statistics.median(times) / base:.2f}{limit}")


if __name__ == "__main__":
    main()
