"""A disk that fails, or a process that dies, at any step of any write leaves what was there or what was to be there."""

from __future__ import annotations

import csv
import multiprocessing
import os
import shutil
import subprocess
import sys
import textwrap

import pytest

from hashzoo.execution.processes import PRELOAD
from tests.cli.command import hashzoo
from tests.faults.breaking import FAULTS
from tests.faults.targets import TARGETS, broken

NEEDED = {"cell": 14, "CSV": 14, "split": 7, "trained weights": 7, "features": 20}  # steps, at least


def attempt(name, folder, at=-1, fault="crash"):
    """The exit code, the error and the steps of a write in a process of its own; None of one that died."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*PRELOAD, "tests.faults.targets"])
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=broken, args=(name, folder, at, fault, theirs))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        return None
    finally:
        process.join()
        ours.close()


def fresh(name, folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    TARGETS[name].write(folder, 0)


def verdict(name, folder, at, fault, step, old, new):
    """What is bad about a case; empty where all is well."""
    target, case = TARGETS[name], f"{name}, {fault} at step {at} ({step})"
    fresh(name, folder)
    ended = attempt(name, folder, at, fault)
    if (ended is None) != (fault == "crash"):
        return f"{case}: {ended}"
    if ended:
        code, error, _ = ended
        named = code == 3 and "\n" not in error and os.strerror(getattr(__import__("errno"), fault)) in error
        if not named and (code, error) != (0, ""):
            return f"{case}: exit {code}, {error!r}"
    state = target.read(folder)
    if not all(found in (before, after) for found, before, after in zip(state, old, new, strict=True)):
        return f"{case}: torn"
    if ended and ended[0] == 0 and state != new:
        return f"{case}: said to be done and is not"
    again = attempt(name, folder)
    if again is None or again[0] != 0 or target.read(folder) != new:
        return f"{case}: does not go on: {again}"
    return ""


def test_every_step_of_every_write(tally, whole, tmp_path, monkeypatch):
    """A crash, ENOSPC, EIO, EROFS or EACCES at every step of every write"""
    monkeypatch.setenv("HASHZOO_CACHE", str(tmp_path / "x"))
    folder = tmp_path / "x"
    for name, target in TARGETS.items():
        fresh(name, folder)
        old = target.read(folder)
        code, error, steps = attempt(name, folder)
        assert (code, error) == (0, "")
        assert len(steps) >= NEEDED[name], steps
        new = target.read(folder)
        assert new != old
        cases = [(at, fault) for at in range(len(steps)) for fault in FAULTS]
        for at, fault in cases if whole else cases[::15]:
            tally.case(verdict(name, folder, at, fault, steps[at], old, new))


# --- through the real command line ---

ASKED = ("bench", "digits", "--quick", "--methods", "lsh", "--no-baselines", "--jobs", 1, "--results", "r")
PLUGIN = textwrap.dedent("""
    import multiprocessing, os
    from pathlib import Path
    from hashzoo import hookimpl
    from tests.faults.breaking import Disk

    where, at, fault = os.environ.get("HASHZOO_FAULT", "none 0 crash").split()
    mine = "cell" if multiprocessing.parent_process() else "sweep"
    if where == mine:
        del os.environ["HASHZOO_FAULT"]  # a sweep loads its plugins more than once
        Disk(Path.cwd() / "r", int(at), fault).broken_in()

    @hookimpl
    def hashzoo_methods():
        return {}
    """)
TIMES = ("fit_seconds", "encode_per_second", "search_per_second")


def scores(folder):
    """The rows of both CSVs but for what they say about time."""
    found = []
    for name in ("leaderboard.csv", "cells.csv"):
        with (folder / name).open(encoding="utf-8", newline="") as file:
            found.append([{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)])
    return found


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    done = hashzoo(*ASKED, cwd=folder, timeout=1200)
    assert done.returncode == 0, done.stderr
    return scores(folder / "r")


def test_the_command_says_it_and_goes_on(tally, whole, tmp_path, sound):
    """The same through the command line: exit 3, one line, and the same command completes"""
    cases = [("cell", 9, "ENOSPC")]
    if whole:
        cases += [("sweep", 30, "EIO"), ("sweep", 0, "EACCES"), ("cell", 3, "EROFS")]
        cases += [("sweep", 14, "crash"), ("cell", 12, "crash")]
    for number, (where, at, fault) in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "faulty.py").write_text(PLUGIN)
        asked = (*ASKED, "--plugin", "faulty.py")
        first = hashzoo(*asked, cwd=folder, timeout=1200, HASHZOO_FAULT=f"{where} {at} {fault}")
        case = f"{where} {at} {fault}: exit {first.returncode}: {first.stderr[-300:]}"
        expected = {"crash": -9 if where == "sweep" else 1}.get(fault, 3)
        if first.returncode != expected or "Traceback" in first.stderr:
            tally.case(case)
            continue
        if expected == 3 and len(first.stderr.strip().splitlines()) != 1:
            tally.case(case)
            continue
        again = hashzoo(*asked, "--rerun", "failed", cwd=folder, timeout=1200)
        same = again.returncode == 0 and scores(folder / "r") == sound
        tally.case("" if same else f"{case}; then exit {again.returncode}: {again.stderr[-300:]}")


# --- a disk that is really full ---

FULL = """
set -e
mount -t tmpfs -o size={size}k none {folder}
cd {folder}
set +e
HASHZOO_CACHE={folder}/cache {python} -c 'from hashzoo.cli.main import main; main()' {asked} >{said} 2>&1
echo $?
mount -o remount,size=64m {folder}
HASHZOO_CACHE={folder}/cache {python} -c 'from hashzoo.cli.main import main; main()' {asked} >{said}.2 2>&1
echo $?
cp -r r {said}.r
"""


def can_mount():
    if sys.platform != "linux" or shutil.which("unshare") is None:
        return False
    asked = ["unshare", "-rm", "mount", "-t", "tmpfs", "-o", "size=64k", "none", "/mnt"]
    return subprocess.run(asked, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not can_mount(), reason="needs the right to mount a small disk")
def test_a_full_disk(tally, whole, tmp_path, sound):
    """A disk that is really full, of many sizes: exit 3, and the same command completes once there is room"""
    frozen = ["--set", "train.backbone=frozen", "--methods", "itq", "--backbone", "tiny"]
    cases = [(size, []) for size in ((4, 12, 20) if whole else (4,))]
    cases += [(size, frozen) for size in ((200,) if whole else ())]
    expected = {0: sound}
    for number, (size, more) in enumerate(cases):
        folder, said = tmp_path / f"disk{number}", tmp_path / f"said{number}"
        folder.mkdir()
        asked = " ".join(map(str, [*ASKED, *more]))
        script = FULL.format(size=size, folder=folder, said=said, asked=asked, python=sys.executable)
        done = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, check=False)
        first, *rest = done.stdout.split() or ["none"]
        text = said.read_text() if said.exists() else done.stderr
        if len(more) and len(expected) == 1:
            whole_run = tmp_path / "whole"
            whole_run.mkdir()
            hashzoo(*ASKED, *more, cwd=whole_run, timeout=1200)
            expected[1] = scores(whole_run / "r")
        same = rest == ["0"] and scores(tmp_path / f"said{number}.r") == expected[bool(more)]
        good = first == "3" and "No space left" in text and "Traceback" not in text and same
        tally.case("" if good else f"{size} kB {more}: {first}, then {rest}: {text[-300:]}")
