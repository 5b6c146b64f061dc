"""What Linux alone has, hidden: the commands work without it, as on macOS and Windows."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

#: Python runs this at its start, in every process of a test.
HIDES = textwrap.dedent("""
    import ctypes, multiprocessing, os, signal, sys
    from multiprocessing import context
    import platformdirs, psutil  # have code of their own for each system

    for name in ("fcntl", "resource", "grp", "pwd", "termios", "pty"):
        sys.modules[name] = None
    for name in ("killpg", "setpgid", "getpgid", "setsid", "fork", "posix_fallocate", "sched_getaffinity"):
        if hasattr(os, name):
            delattr(os, name)
    for name in ("fork", "forkserver"):
        context._concrete_contexts.pop(name)
    multiprocessing.get_all_start_methods = lambda: ["spawn"]
    multiprocessing.set_start_method("spawn")

    class Library(ctypes.CDLL):
        def __init__(self, name, *more, **options):
            if name is None:
                raise TypeError("as on Windows")
            super().__init__(name, *more, **options)

    ctypes.CDLL = Library
    """)


@pytest.fixture
def elsewhere(tmp_path):
    """Runs the command in a folder, with what Linux alone has hidden."""
    (tmp_path / "hides").mkdir()
    (tmp_path / "hides" / "sitecustomize.py").write_text(HIDES)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "hides"), *sys.path[1:]])}

    def start(*arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", "from hashzoo.cli.main import main; main()", *map(str, arguments)],
            cwd=tmp_path, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    return start


PLUGIN = """
import os, subprocess, sys, time
import torch
from hashzoo import Card, Method, bits, hookimpl

class Starts(Method):
    card = Card("shallow", "none")

    def __init__(self, setting, backbone):
        super().__init__()
        self.backbone, self.bits = backbone, setting.bits

    def fit(self, train, run):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
        open("pids", "w").write(f"{os.getpid()} {child.pid}")
        time.sleep(1000)

    def encode(self, batch):
        return {"code": bits(self.backbone(batch.images).pooled[:, : self.bits])}

@hookimpl
def hashzoo_methods():
    return {"starts": Starts}
"""


def said(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def test_a_board_is_measured_resumed_and_reported_with_processes_that_read_images(elsewhere, tmp_path):
    bench = ("bench", "digits", "--quick", "--no-baselines", "--methods", "dhn", "--bits", 8, "--results", "r")
    bench += ("--epochs", 1, "--set", "train.augment=shift", "--save-weights", "--workers", 1)
    assert "[1/1] dhn" in said(elsewhere(*bench))
    assert "[1/1]" not in said(elsewhere(*bench))  # it is there
    assert not list((tmp_path / "r" / "cells").glob("*.log"))
    assert not list((tmp_path / "r" / "cells").glob("*.lease"))


def began(folder: Path, process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The process of the cell and the one that it started."""
    for _ in range(1200):
        if (folder / "pids").exists() and (pids := (folder / "pids").read_text().split()):
            return [psutil.Process(int(pid)) for pid in pids]
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise AssertionError("the cell did not start")


def ends(process: psutil.Process) -> bool:
    for _ in range(200):
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.1)
    return False


def test_an_interrupted_sweep_ends_its_cells_and_what_they_started(elsewhere, tmp_path):
    (tmp_path / "plugin.py").write_text(PLUGIN)
    process = elsewhere(
        *("bench", "digits", "--quick", "--no-baselines", "--plugin", "plugin.py", "--methods", "starts"),
        *("--bits", 8, "--results", "r"),
    )
    cell, child = began(tmp_path, process)
    process.terminate()
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 130, output
    assert ends(cell)
    assert ends(child)


def test_a_cell_ends_with_its_sweep(elsewhere, tmp_path):
    (tmp_path / "plugin.py").write_text(PLUGIN)
    process = elsewhere(
        *("bench", "digits", "--quick", "--no-baselines", "--plugin", "plugin.py", "--methods", "starts"),
        *("--bits", 8, "--results", "r"),
    )
    cell, child = began(tmp_path, process)
    process.kill()
    process.communicate()
    try:
        assert ends(cell)
    finally:
        child.kill()  # without process groups, nothing is left that knows of it
