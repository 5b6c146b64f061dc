"""Sweeps over a Ray cluster whose nodes die, and sweeps that are ended."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cli.command import hashzoo

pytestmark = pytest.mark.slow
pytest.importorskip("ray", reason="needs the extra ray")

SEEDS = ",".join(map(str, range(8)))
SLOW = """
import time
from hashzoo import hookimpl
from hashzoo_plugins.shallow.lsh import LSH

class Slow(LSH):
    '''LSH that takes a while.'''
    def fit(self, train, run):
        time.sleep(%s)
        super().fit(train, run)

@hookimpl
def hashzoo_methods():
    return {"slow": Slow}
"""
#: A cluster of this machine alone, with its own folder; Ray reads the second where it is imported.
ALONE = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "disabled"}
NODE = """
import sys, time
from ray._private.node import Node
from ray._private.parameter import RayParams
from ray._private.ray_constants import env_bool
address, place = sys.argv[1:]
given = dict(num_cpus=1, include_dashboard=False, node_ip_address="127.0.0.1", temp_dir=place)
if address == "head":
    node = Node(RayParams(**given), head=True)
else:
    node = Node(RayParams(gcs_address=address, **given), head=False)
print(node.gcs_address, flush=True)
sys.stdin.read()  # until who started us lets go
"""


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "cells.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def node(address: str, place: Path) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, "-c", NODE, address, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, **ALONE}, start_new_session=True,
    )  # fmt: skip
    return process, process.stdout.readline().strip()


def started(folder: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", "from hashzoo.cli.main import main; main()", "bench", "digits", "--quick",
         "--no-baselines", "--plugin", "slow.py", "--methods", "slow", "--bits", "8", "--seeds", SEEDS, "--jobs", "2",
         "--results", "r", "--launcher", "ray", *options],
        cwd=folder, env={**os.environ, **ALONE}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def until(what, seconds=900.0):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.2)


def of_session(number: int) -> str:
    return subprocess.run(["pgrep", "-s", str(number)], capture_output=True, text=True, check=False).stdout


def cells_of(sweep: subprocess.Popen[str]) -> list[str]:
    """The servers that cells are forked from, and the cells."""
    table = subprocess.run(["ps", "-s", str(sweep.pid), "-o", "args"], capture_output=True, text=True, check=False)
    return [line for line in table.stdout.splitlines() if "forkserver" in line]


def end_session(process: subprocess.Popen[str]) -> None:
    for pid in of_session(process.pid).split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


def cleared(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        end_session(process)
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe:
                pipe.close()


def test_a_sweep_over_two_nodes_of_which_one_is_killed_measures_every_cell_once(tmp_path):
    (tmp_path / "slow.py").write_text(SLOW % 5)
    place = Path(tempfile.mkdtemp(prefix="hz-", dir="/tmp"))  # the paths of sockets may have 107 letters
    head, address = node("head", place)
    other, _ = node(address, place)
    sweep = started(tmp_path, "--set", f"ray.address={address}")
    try:
        done = tmp_path / "r" / "cells"
        until(lambda: len(list(done.glob("*.json"))) >= 2 or sweep.poll() is not None)
        end_session(other)  # with a cell on it
        said, errors = sweep.communicate(timeout=1800)
    finally:
        cleared(sweep, head, other)
        shutil.rmtree(place, ignore_errors=True)
    assert sweep.returncode == 0, said + errors
    assert Counter(row["seed"] for row in rows(tmp_path / "r")) == Counter(SEEDS.split(","))
    assert {row["status"] for row in rows(tmp_path / "r")} == {"ok"}
    assert not list(done.glob("*.lease"))


@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_sweep_that_is_ended_leaves_no_process_behind(tmp_path, ended_by):
    (tmp_path / "slow.py").write_text(SLOW % 300)
    before = set(Path("/").glob("tmp/hashzoo-*"))
    sweep = started(tmp_path)
    try:
        until(lambda: cells_of(sweep))
        time.sleep(20)
        (os.killpg if ended_by == signal.SIGINT else os.kill)(sweep.pid, ended_by)
        _, errors = sweep.communicate(timeout=120)
        assert sweep.returncode == (-9 if ended_by == signal.SIGKILL else 130), errors
        assert "Traceback" not in errors
        until(lambda: not cells_of(sweep), 60)
        until(lambda: not of_session(sweep.pid), 300)  # two helpers of Ray look but once a minute who is left
        left = set(Path("/").glob("tmp/hashzoo-*")) - before
        assert ended_by == signal.SIGKILL or not left
    finally:
        cleared(sweep)


def test_an_address_where_no_cluster_is_is_one_line(tmp_path):
    result = hashzoo(
        "bench", "digits", "--quick", "--no-baselines", "--methods", "lsh", "--bits", "8", "--results", "r",
        "--launcher", "ray", "--set", "ray.address=127.0.0.1:9", cwd=tmp_path, timeout=1800,
    )  # fmt: skip
    assert result.returncode == 3
    assert "no Ray cluster at 127.0.0.1:9" in result.stderr
    assert "Traceback" not in result.stderr
