"""Leases: one living owner per cell."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hashzoo.execution import leases
from hashzoo.execution.leases import Leases


def ended_process() -> int:
    """The process id of an ended process."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_only_one_process_holds_a_lease(tmp_path):
    with Leases(tmp_path) as mine, Leases(tmp_path) as other:
        assert mine.acquire("a.lease")
        assert not other.acquire("a.lease")
        mine.release("a.lease")
        assert other.acquire("a.lease")
    assert not list(tmp_path.glob("*.lease"))


def test_a_lease_expires_when_its_owner_on_this_machine_ends(tmp_path):
    for pid, started in ((ended_process(), "1"), (os.getpid(), "1")):  # ended; and a pid that another process reuses
        (tmp_path / "a.lease").write_text(json.dumps({"owner": f"{leases.machine_id()} {pid} {started} 00"}))
        with Leases(tmp_path) as mine:
            assert mine.acquire("a.lease")


@pytest.mark.parametrize("content", ['{"owner": "elsewhere 1 1 00"}', "", '{"own', "\x00\xff", "[]", '{"owner": 7}'])
def test_a_lease_of_another_machine_or_an_unreadable_one_expires_when_it_is_not_touched(tmp_path, content):
    file = tmp_path / "a.lease"
    file.write_text(content)
    with Leases(tmp_path) as mine:
        assert not mine.acquire("a.lease")
        os.utime(file, (time.time() - 61, time.time() - 61))
        assert mine.acquire("a.lease")


def test_a_lease_is_touched_while_its_owner_lives(tmp_path):
    with Leases(tmp_path, heartbeat=0.05) as mine:
        mine.acquire("a.lease")
        os.utime(tmp_path / "a.lease", (0, 0))
        for _ in range(100):
            if (tmp_path / "a.lease").stat().st_mtime > 1:
                return
            time.sleep(0.05)
        pytest.fail("the lease was not touched")


def test_an_owner_does_not_release_a_lease_that_was_taken_over(tmp_path):
    with Leases(tmp_path) as successor:
        with Leases(tmp_path) as sleeping:
            sleeping.acquire("a.lease")
            (tmp_path / "a.lease").write_text('{"owner": "elsewhere 1 1 00"}')
            os.utime(tmp_path / "a.lease", (0, 0))
            assert successor.acquire("a.lease")
        assert (tmp_path / "a.lease").exists()


def test_clean_up_deletes_the_files_of_ended_processes_only(tmp_path):
    for name, pid in (("ended", ended_process()), ("running", os.getpid())):
        started = leases.process_start(os.getpid())
        (tmp_path / f"{name}.lease").write_text(json.dumps({"owner": f"{leases.machine_id()} {pid} {started} 00"}))
        (tmp_path / f"{name}.log").touch()
    for name in (".clock-1-aa", ".1-aa.tmp", ".2-aa.tmp"):
        (tmp_path / name).touch()
    for name in (".clock-1-aa", ".1-aa.tmp"):
        os.utime(tmp_path / name, (0, 0))
    with Leases(tmp_path) as mine:
        mine.clean_up()
    assert {file.name for file in tmp_path.iterdir()} == {"running.lease", "running.log", ".2-aa.tmp", leases.LOCK}


def race(folder: Path, name: str, gate: object, won: object) -> None:
    gate.wait()
    if Leases(folder).acquire(name):
        won.put(os.getpid())
    gate.wait()  # no process ends, which would free its lease, before all have tried


@pytest.mark.parametrize("kind", ["free", "stale"])
def test_of_several_concurrent_processes_one_acquires_the_lease(tmp_path, kind):
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    rounds, many = 10, 4
    for number in range(rounds):
        name = f"{number}.lease"
        if kind == "stale":
            (tmp_path / name).write_text('{"owner": "elsewhere 1 1 00"}')
            os.utime(tmp_path / name, (0, 0))
        gate, won = context.Barrier(many), context.Queue()
        processes = [context.Process(target=race, args=(tmp_path, name, gate, won)) for _ in range(many)]
        for process in processes:
            process.start()
        winner = won.get(timeout=30)
        for process in processes:
            process.join()
        assert won.empty(), f"{winner} is not alone"
