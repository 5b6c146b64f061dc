"""Commands work where the terminal, the language, the streams or the disk are not what a developer has."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.cli.command import ALONE

ROOT = Path(__file__).parents[2]
COMMANDS = {
    "list": ("list", "methods"),
    "show": ("show", str(ROOT / "results" / "cifar10"), "--bits", "32"),
    "compare": ("compare", str(ROOT / "results" / "cifar10"), "--between", "itq,lsh"),
    "cite": ("cite", "imh"),  # an author whose name is not ASCII
    "dry run": ("bench", "first", "--dry-run"),
    "error": ("bench", "no-such-\u2603"),
}
#: Settings of the environment, and redirections of a shell.
SURROUNDINGS = {
    "ASCII": ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}, ""),
    "a code page of Windows": ({"PYTHONIOENCODING": "cp1252"}, ""),
    "no TERM": ({"TERM": None}, ""),
    "no home": ({"HOME": None, "XDG_CACHE_HOME": None}, ""),
    "closed output": ({}, ">&-"),
    "closed input": ({}, "<&-"),
    "all closed": ({}, "<&- >&- 2>&-"),
    "a full disk": ({}, ">/dev/full"),
}


#: Each takes the start of an interpreter; the others are slow tests.
QUICK = {("show", where) for where in SURROUNDINGS} | {("error", "ASCII"), ("cite", "ASCII"), ("error", "all closed")}


@pytest.mark.parametrize(
    ("what", "where"),
    [
        pytest.param(what, where, marks=[] if (what, where) in QUICK else pytest.mark.slow)
        for what in COMMANDS
        for where in SURROUNDINGS
    ],
)
def test_a_command_ends_with_its_code_and_without_a_traceback(what, where, tmp_path):
    settings, redirection = SURROUNDINGS[where]
    environment = {name: value for name, value in {**os.environ, **settings}.items() if value is not None}
    done = subprocess.run(
        ["/bin/sh", "-c", f'"$@" {redirection}', "sh", *ALONE, *COMMANDS[what]],
        cwd=tmp_path, env=environment, capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    error = done.stderr.decode("utf-8", "replace")
    assert "Traceback" not in error
    if what == "error":
        assert done.returncode == 2
    elif where == "a full disk":
        assert (done.returncode, "No space left on device" in error) == (3, True)
    else:
        assert done.returncode == 0, error
        assert done.stdout or "closed" in where
