"""A process that dies, or a disk that fails, at any moment of a change of an index folder: the old state or the new."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hashzoo.errors import HashzooError, UsageError
from hashzoo.retrieval.index_folder import IndexFolder
from tests.faults.index_changes import changed, changes_of, make, work
from tests.retrieval.folders import folder_of, held

CONTENTS = {f"{row}.jpg": row for row in range(100)}
CHANGES = {
    "create": ["create", None],
    "put": ["put", {f"{row}.jpg": row + 7 for row in range(90, 140)}],
    "remove": ["remove", [f"{row}.jpg" for row in range(30)]],
    "compact": ["compact", None],
    "describe": ["describe", 2026],
}


def problem(path: Path, states: list[dict[str, int]]) -> str:
    """What is wrong with an index that must be in one of some states, and can be changed at once; empty for nothing."""
    try:
        folder = IndexFolder(path)
        found, images = held(folder), folder.info()["images"]
        if list(found.items()) not in [list(state.items()) for state in states] or images != len(found):
            return "neither the old nor the new state"
        with folder.writing() as writer:  # a lock that is left would be an error
            writer.begin()
        listed, files = folder.info()["segments"], len(list((path / "segments").iterdir()))
    except HashzooError as error:
        return str(error)
    return "" if files <= listed else f"{files} files of {listed} segments"


def test_kills_of_a_writer(whole, tally, tmp_path):
    """kill -9 of a writer of an index folder at random moments of add, update, remove and compact"""
    path, contents, seed, lots = tmp_path / "my.index", dict(CONTENTS), 0, random.Random(0)
    folder_of(path, contents)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.faults.index_changes"])
    for _ in range(200 if whole else 10):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(path, range(seed, seed + 1000), contents, theirs))
        process.start()
        theirs.close()
        done = lots.randrange(4)
        for _ in range(done):
            ours.recv()
        time.sleep(lots.uniform(0, 0.08))
        process.kill()
        process.join()
        while ours.poll():
            try:
                ours.recv()
            except EOFError:
                break
            done += 1
        for number in range(seed, seed + done):
            contents = changed(contents, changes_of(number, contents))
        seed += done
        later = changed(contents, changes_of(seed, contents))
        tally.case(problem(path, [contents, later]))
        contents = held(IndexFolder(path))
        seed += 1


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """The library that makes a disk fail."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("needs Linux and a C compiler")
    library = tmp_path_factory.mktemp("disk") / "disk.so"
    source = Path(__file__).with_name("disk.c")
    built = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    subprocess.run(built, check=True)
    return library


def attempt(disk: Path, path: Path, change: list, at: int, kind: str) -> tuple[list | None, int]:
    """What a change printed on a disk that fails at a step, None if the process ended; and the number of steps."""
    count = path.with_name("count")
    count.write_text("0")
    surroundings = {
        "LD_PRELOAD": str(disk), "FAULT_FOLDER": str(path), "FAULT_AT": str(at), "FAULT_KIND": kind,
        "FAULT_COUNT": str(count),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.index_changes", str(path), json.dumps(change)],
        env={**os.environ, **surroundings}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode and kind != "crash":
        return [done.returncode, done.stderr], 0
    return (json.loads(done.stdout) if done.stdout else None), int(count.read_text() or 0)


def verdict(disk: Path, path: Path, name: str, at: int, kind: str) -> str:
    """What is wrong after a change on a disk that failed at a step."""
    change = CHANGES[name]
    shutil.rmtree(path, ignore_errors=True)
    if name != "create":
        folder_of(path, CONTENTS)
        if name == "compact":
            make(path, ["remove", ["5.jpg"]])
    old = (
        {}
        if name == "create"
        else {one: value for one, value in CONTENTS.items() if name != "compact" or one != "5.jpg"}
    )
    told, _ = attempt(disk, path, change, at, kind)
    case = f"{name}, {kind} at step {at}: {told}"
    if told is not None and told[0] not in (0, 3):
        return case
    if told and told[0] == 3 and ("\n" in told[1] or str(path) not in told[1]):
        return f"{case}: not one line that names the index"
    if name == "create":
        try:
            IndexFolder(path).info()
        except UsageError:
            if told and told[0] == 0:
                return f"{case}: said to be done and is not"
            make(path, change)
        wrong = problem(path, [old])
    else:
        new = changed(old, change)
        wrong = problem(path, [new] if told and told[0] == 0 else [old, new])
        if not wrong and (held(IndexFolder(path)) == old or name == "describe"):
            make(path, change)
            wrong = problem(path, [new])
    return f"{case}: {wrong}" if wrong else ""


def test_every_step_of_every_change(whole, tally, disk, tmp_path):
    """A crash, ENOSPC, EIO or a full disk at every step of each change of an index folder"""
    kinds = ["crash", str(errno.ENOSPC), "full", str(errno.EIO)]
    path = tmp_path / "my.index"
    for name in CHANGES:
        shutil.rmtree(path, ignore_errors=True)
        if name != "create":
            folder_of(path, CONTENTS)
            make(path, ["remove", ["50.jpg"]])
        told, steps = attempt(disk, path, CHANGES[name], 10**6, "crash")
        assert told == [0, ""]
        assert steps >= 8, (name, steps)
        cases = [(at, kind) for at in range(steps) for kind in kinds]
        for at, kind in cases if whole else random.Random(name).sample(cases, 2):
            tally.case(verdict(disk, path, name, at, kind))
