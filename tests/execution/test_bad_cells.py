"""What a method does to its own process, it does to no other cell."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from pathlib import Path

import pytest

from hashzoo.results import store
from tests.cli.command import hashzoo

PLUGIN = textwrap.dedent("""
    import multiprocessing, os, signal, sys, time
    import torch
    from hashzoo import Card, Method, bits, hookimpl

    class Base(Method):
        card = Card("shallow", "none")

        def __init__(self, setting, backbone):
            super().__init__()
            self.backbone, self.bits = backbone, setting.bits
            self.register_buffer("w", torch.zeros(backbone.dim, setting.bits))

        def fit(self, train, run):
            self.w = torch.randn(self.w.shape, generator=run.generator)

        def encode(self, batch):
            return {"code": bits(self.backbone(batch.images).pooled @ self.w)}

    def bad(name, act):
        def fit(self, train, run):
            Base.fit(self, train, run)
            act(self, train, run)
        return type(name, (Base,), {"fit": fit})

    def nan(self, train, run):
        self.w = self.w * float("nan")

    def explode(self, train, run):
        layer = torch.nn.Linear(2, 2)
        run.step(run.optimizer(layer), {"good": layer.weight.sum(), "bad term": layer.weight.sum() / 0})

    def raises(self, train, run):
        raise RuntimeError("deliberate")

    def memory(self, train, run):
        raise MemoryError

    def shouts(self, train, run):
        for _ in range(1024):
            os.write(1, b"x" * (1 << 20))

    def storms(self, train, run):
        try:
            for _ in range(300):
                if os.fork() == 0:
                    time.sleep(1000)
                    os._exit(0)
        except OSError as error:
            raise RuntimeError(f"no more processes: {error}")

    def meddles(self, train, run):
        os.chdir("/")
        os.environ.clear()
        torch.manual_seed(0)
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(2)

    def hangs(self, train, run):
        held = multiprocessing.Lock()  # as libraries hold some
        time.sleep(1000)

    def encoded(name, code):
        return type(name, (Base,), {"encode": lambda self, batch: {"code": code(self, batch)}})

    @hookimpl
    def hashzoo_methods():
        shapes = {
            "short": encoded("short", lambda self, batch: torch.ones(len(batch) - 1, self.bits, dtype=torch.bool)),
            "whole": encoded("whole", lambda self, batch: torch.ones(len(batch), self.bits, dtype=torch.int64)),
        }
        acts = {
            "raises": raises, "exits": lambda *a: sys.exit(3), "vanishes": lambda *a: os._exit(0),
            "killed": lambda *a: os.kill(os.getpid(), signal.SIGKILL),
            "segfaults": lambda *a: os.kill(os.getpid(), signal.SIGSEGV),
            "hangs": hangs, "nan": nan, "explodes": explode, "memory": memory,
            "cuda": lambda *a: (_ for _ in ()).throw(RuntimeError("CUDA out of memory. Tried")),
            "interrupts": lambda *a: (_ for _ in ()).throw(KeyboardInterrupt()),
            "meddles": meddles, "shouts": shouts, "storms": storms,
        }
        return {"sound": Base} | shapes | {name: bad(name, act) for name, act in acts.items()}
    """)

EXPECTED = {
    "raises": "failed",
    "exits": "failed",
    "vanishes": "crashed",
    "killed": "crashed",
    "segfaults": "crashed",
    "hangs": "timeout",
    "nan": "nan",
    "explodes": "nan",
    "memory": "oom",
    "cuda": "oom",
    "interrupts": "failed",
    "short": "failed",
    "whole": "failed",
    "shouts": "ok",
    "storms": "ok",
    "meddles": "failed",
    "sound": "ok",
}


def rows(path: Path) -> dict[str, dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return {row["method"]: row for row in csv.DictReader(file)}


def living(folder: Path) -> list[str]:
    """The processes that were started in a folder and have not ended."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cwd").readlink() == folder and " Z " not in (process / "stat").read_text():
                found.append(process.name)
    return found


def test_every_kind_of_bad_cell_gets_its_status_and_the_good_ones_are_unharmed(tmp_path):
    (tmp_path / "bad.py").write_text(PLUGIN)
    # the one that hangs has a sweep of its own: the others may take longer than one needs to wait for it
    for names, more in ((["hangs"], ("--timeout", "8")), ([name for name in EXPECTED if name != "hangs"], ())):
        result = hashzoo(
            "bench", "digits", "--quick", "--no-baselines", "--plugin", "bad.py", "--methods", ",".join(names),
            "--bits", "8", *more, "--results", "r", cwd=tmp_path,
        )  # fmt: skip
        assert result.returncode == 1
    found = rows(tmp_path / "r" / "leaderboard.csv")
    assert {name: row["status"] for name, row in found.items()} == EXPECTED
    assert found["killed"]["reason"].startswith("the process was ended by SIGKILL")
    assert "deliberate" in found["raises"]["reason"]
    assert "bad term" in found["explodes"]["reason"]
    assert found["hangs"]["reason"] == "no result within 8 s"
    assert found["whole"]["reason"].startswith("ValueError: 'code' is compared bit by bit and encode gave int64")
    (log,) = (tmp_path / "r" / "cells").glob("digits.shouts.*.log")
    assert log.stat().st_size < 1 << 25
    assert living(tmp_path) == []
    made = {cell.identity.method: cell.provenance for cell in store.read_all(tmp_path / "r")[0]}
    for name, known in made.items():
        assert "--plugin bad.py" in known["command"], name
        assert known["versions"]["torch"], name
        assert known["seconds"] >= 0, name
    assert made["hangs"]["seconds"] >= 8
    assert made["raises"]["peak_memory"] > 50 * 2**20
    again = hashzoo(
        "bench", "digits", "--quick", "--no-baselines", "--plugin", "bad.py", "--methods", "raises,sound",
        "--bits", "8", "--results", "r", "--rerun", "failed", cwd=tmp_path,
    )  # fmt: skip
    assert "[1/1]" in again.stdout  # sound is there already


@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_or_a_kill_ends_the_children_keeps_finished_cells_and_exits_130(tmp_path, ended_by):
    (tmp_path / "bad.py").write_text(PLUGIN)
    process = subprocess.Popen(
        [sys.executable, "-c", "from hashzoo.cli.main import main; main()", "bench", "digits", "--quick",
         "--no-baselines", "--plugin", "bad.py", "--methods", "sound,hangs", "--bits", "8", "--results", "r",
         "--jobs", "1"],
        cwd=tmp_path, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    )  # fmt: skip
    cells = tmp_path / "r" / "cells"
    for _ in range(2400):  # a busy machine takes minutes
        if list(cells.glob("digits.sound.*.json")) and list(cells.glob("digits.hangs.*.log")):
            break
        time.sleep(0.1)
    time.sleep(0.5)
    (os.killpg if ended_by == signal.SIGINT else os.kill)(process.pid, ended_by)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert rows(tmp_path / "r" / "leaderboard.csv")["sound"]["status"] == "ok"
    assert "Traceback" not in errors
    assert "resource_tracker" not in errors  # Python's news of the lock that the ended cell held

    def alive() -> str:
        return subprocess.run(["pgrep", "-s", str(process.pid)], capture_output=True, text=True, check=False).stdout

    for _ in range(100):  # the server that children are forked from ends by itself once we are gone
        if not alive():
            break
        time.sleep(0.1)
    assert alive() == ""


SLOW = """
import time
from hashzoo import Card, Method, hookimpl

class Slow(Method):
    card = Card("shallow", "none")
    def __init__(self, setting, backbone):
        super().__init__()
        self.backbone = backbone
    def fit(self, train, run):
        for _ in run.batches(train, epochs=200):
            time.sleep(0.1)
    def encode(self, batch):
        return {"code": batch.images.flatten(1)[:, :8] > 0}

@hookimpl
def hashzoo_methods():
    return {"slow": Slow}
"""


def test_a_cell_ends_with_the_sweep_that_is_killed_and_the_next_one_clears_away_its_traces(tmp_path):
    (tmp_path / "slow.py").write_text(SLOW)
    asked = ["bench", "digits", "--quick", "--no-baselines", "--plugin", "slow.py", "--bits", "8", "--results", "r"]
    process = subprocess.Popen(
        [sys.executable, "-c", "from hashzoo.cli.main import main; main()", *asked, "--methods", "slow"],
        cwd=tmp_path, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    cells = tmp_path / "r" / "cells"
    for _ in range(2400):  # a busy machine takes minutes
        if list(cells.glob("*.log")):
            break
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    for _ in range(100):
        if not subprocess.run(["pgrep", "-s", str(process.pid)], capture_output=True, check=False).stdout:
            break
        time.sleep(0.1)
    else:
        pytest.fail("a process of the sweep lives on")
    assert list(cells.glob("*.lease"))
    assert hashzoo(*asked, "--methods", "lsh", cwd=tmp_path).returncode == 0
    left = {file.name.split(".")[1] for file in cells.iterdir() if not file.name.startswith(".")}
    assert left == {"lsh"}


def test_a_cache_that_cannot_be_written_is_no_cells_fault_and_the_same_command_goes_on(tmp_path):
    asked = ("bench", "digits", "--quick", "--no-baselines", "--methods", "itq", "--backbone", "tiny")
    asked += ("--set", "train.backbone=frozen", "--results", "r")
    (tmp_path / "file").touch()
    first = hashzoo(*asked, cwd=tmp_path, HASHZOO_CACHE=str(tmp_path / "file"))
    assert first.returncode == 3
    assert len(first.stderr.splitlines()) == 1
    assert "set HASHZOO_CACHE to another folder" in first.stderr
    assert not list((tmp_path / "r" / "cells").glob("*.json"))
    assert hashzoo(*asked, cwd=tmp_path).returncode == 0
