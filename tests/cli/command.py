"""Running the command as a person would: in a process of its own.

Loading torch and what goes with it takes most of a short command, so it is done once: a process that has imported them,
and run nothing, forks one for each command. Where there is no fork, and with ``fresh``, a new interpreter is started.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

ALONE = [sys.executable, "-c", "from hashzoo.cli.main import main; main()"]
LOADER = """
import json, os, socket, sys
import hashzoo.execution.scheduler, hashzoo.results.leaderboard, hashzoo.execution.sweep
import hashzoo.results.render, hashzoo.registry.zoo, sklearn.datasets
hashzoo.registry.zoo.load_plugins()
from hashzoo.cli.main import main
line = socket.socket(fileno=int(sys.argv[1]))
while True:
    said, (out, err), *_ = socket.recv_fds(line, 1 << 18, 2)
    child = os.fork()
    if child:
        os.close(out), os.close(err)
        line.send(str(child).encode())
        line.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())
        continue
    line.close()
    command, folder, environment = json.loads(said)
    for number, given in enumerate([os.open(os.devnull, os.O_RDONLY), out, err]):
        os.dup2(given, number)
        os.close(given)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[0], sys.argv, sys.orig_argv = "", ["-c", *command[3:]], command
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
    line = _loader()[1]
    pipes = [os.pipe(), os.pipe()]
    asked = json.dumps([command, str(cwd), surroundings]).encode()
    try:
        socket.send_fds(line, [asked], [write for _, write in pipes])
    finally:
        for _, write in pipes:
            os.close(write)
    child = int(line.recv(64))
    late = threading.Timer(timeout, os.kill, (child, signal.SIGKILL))
    late.start()
    with ThreadPoolExecutor(2) as pool:  # to the end of what all say that the command has started, as with a pipe
        out, err = pool.map(_all, [read for read, _ in pipes])
    code = int(line.recv(64))
    in_time = late.is_alive()
    late.cancel()
    if not in_time:
        raise subprocess.TimeoutExpired(command, timeout, out, err)
    return subprocess.CompletedProcess(command, code, out, err)


def _all(pipe: int) -> str:
    with open(pipe, encoding="utf-8") as file:
        return file.read()


@cache
def _loader() -> tuple[subprocess.Popen[bytes], socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = subprocess.Popen(
        [sys.executable, "-c", LOADER, str(theirs.fileno())], cwd=Path(__file__).parents[2], pass_fds=[theirs.fileno()]
    )
    theirs.close()
    atexit.register(process.wait)
    atexit.register(process.kill)
    atexit.register(ours.close)
    return process, ours
