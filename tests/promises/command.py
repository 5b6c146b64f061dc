"""Running the command as a person would: in a process of its own.

Loading torch and what goes with it takes most of a short command, so it is done once: a process that has imported them,
and run nothing, forks one for each command. Where there is no fork, and with ``fresh``, a new interpreter is started.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from functools import cache
from pathlib import Path

ALONE = [sys.executable, "-c", "from hashzoo.cli import main; main()"]
LOADER = """
import json, os, sys
import hashzoo.launch, hashzoo.leaderboard, hashzoo.sweep, hashzoo.tables, hashzoo.zoo, sklearn.datasets
hashzoo.zoo.load()
from hashzoo.cli import main
for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if child:
        print(child, flush=True)
        ended, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
        continue
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    for number, name in enumerate([os.devnull, asked["out"], asked["err"]]):
        os.dup2(os.open(name, os.O_RDWR | os.O_APPEND), number)
    sys.stdin, sys.path[0] = open(os.devnull), ""
    sys.argv, sys.orig_argv = ["-c", *asked["command"][3:]], asked["command"]
    main()
    break
"""


def hashzoo(
    *arguments: object, cwd: Path, timeout: float = 300, fresh: bool = False, **environment: str
) -> subprocess.CompletedProcess[str]:
    """``hashzoo ARGUMENTS``, its output and its exit code."""
    command = [*ALONE, *map(str, arguments)]
    surroundings = {**os.environ, "COLUMNS": "160", **environment}
    early = any(name.startswith(("PYTHON", "NUMBA")) for name in environment)  # read while an interpreter starts
    if fresh or early or sys.platform != "linux":
        return subprocess.run(
            command, cwd=cwd, env=surroundings, capture_output=True, text=True, timeout=timeout, check=False
        )
    with tempfile.TemporaryDirectory() as folder:
        out, err = (Path(folder) / name for name in ("out", "err"))
        for file in (out, err):
            file.touch()
        asked = {"command": command, "cwd": str(cwd), "environment": surroundings, "out": str(out), "err": str(err)}
        code = _forked(asked, timeout)
        if code is None:
            raise subprocess.TimeoutExpired(command, timeout, out.read_text(), err.read_text())
        return subprocess.CompletedProcess(command, code, out.read_text(), err.read_text())


@cache
def _loader() -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", LOADER], cwd=Path(__file__).parents[2], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    atexit.register(process.kill)
    return process


def _forked(asked: dict[str, object], timeout: float) -> int | None:
    """The exit code of a command that is run by a fork of the loader; None where it had to be ended."""
    loader = _loader()
    loader.stdin.write(json.dumps(asked) + "\n")
    loader.stdin.flush()
    child = int(loader.stdout.readline())
    late = threading.Timer(timeout, os.kill, (child, signal.SIGKILL))
    late.start()
    code = int(loader.stdout.readline())
    in_time = late.is_alive()
    late.cancel()
    return code if in_time else None
