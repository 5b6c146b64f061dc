"""A cell has one owner at a time, and none that is dead."""

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


def dead() -> int:
    """The number of a process that has been."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_lease_that_is_held_is_given_to_nobody_else(tmp_path):
    with Leases(tmp_path) as mine, Leases(tmp_path) as other:
        assert mine.take("a.lease")
        assert not other.take("a.lease")
        mine.give_back("a.lease")
        assert other.take("a.lease")
    assert not list(tmp_path.glob("*.lease"))


def test_what_a_process_of_this_machine_held_is_free_the_moment_it_ends(tmp_path):
    for pid, began in ((dead(), "1"), (os.getpid(), "1")):  # ended; and its number given to another since
        (tmp_path / "a.lease").write_text(json.dumps({"owner": f"{leases.machine()} {pid} {began} 00"}))
        with Leases(tmp_path) as mine:
            assert mine.take("a.lease")


@pytest.mark.parametrize("content", ['{"owner": "elsewhere 1 1 00"}', "", '{"own', "\x00\xff", "[]", '{"owner": 7}'])
def test_what_another_machine_held_or_nobody_can_read_is_free_when_it_has_not_been_touched_for_long(tmp_path, content):
    file = tmp_path / "a.lease"
    file.write_text(content)
    with Leases(tmp_path) as mine:
        assert not mine.take("a.lease")
        os.utime(file, (time.time() - 61, time.time() - 61))
        assert mine.take("a.lease")


def test_a_lease_is_touched_while_its_owner_lives(tmp_path):
    with Leases(tmp_path, beat=0.05) as mine:
        mine.take("a.lease")
        os.utime(tmp_path / "a.lease", (0, 0))
        for _ in range(100):
            if (tmp_path / "a.lease").stat().st_mtime > 1:
                return
            time.sleep(0.05)
        pytest.fail("nobody touched it")


def test_an_owner_that_slept_through_a_takeover_leaves_the_lease_to_its_heir(tmp_path):
    with Leases(tmp_path) as heir:
        with Leases(tmp_path) as sleeper:
            sleeper.take("a.lease")
            (tmp_path / "a.lease").write_text('{"owner": "elsewhere 1 1 00"}')
            os.utime(tmp_path / "a.lease", (0, 0))
            assert heir.take("a.lease")
        assert (tmp_path / "a.lease").exists()


def test_traces_of_the_dead_are_cleared_away_and_those_of_the_living_are_not(tmp_path):
    for name, pid in (("dead", dead()), ("alive", os.getpid())):
        began = leases.began(os.getpid())
        (tmp_path / f"{name}.lease").write_text(json.dumps({"owner": f"{leases.machine()} {pid} {began} 00"}))
        (tmp_path / f"{name}.log").touch()
    for name in (".clock-1-aa", ".1-aa.tmp", ".2-aa.tmp"):
        (tmp_path / name).touch()
    for name in (".clock-1-aa", ".1-aa.tmp"):
        os.utime(tmp_path / name, (0, 0))
    with Leases(tmp_path) as mine:
        mine.tidy()
    assert {file.name for file in tmp_path.iterdir()} == {"alive.lease", "alive.log", ".2-aa.tmp", leases.LOCK}


def race(folder: Path, name: str, gate: object, won: object) -> None:
    gate.wait()
    if Leases(folder).take(name):
        won.put(os.getpid())
    gate.wait()  # nobody's end frees a lease before all have asked


@pytest.mark.parametrize("kind", ["free", "stale"])
def test_of_many_that_ask_at_once_one_gets_the_lease(tmp_path, kind):
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
