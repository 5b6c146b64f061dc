"""Running the command as a person would: in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def hashzoo(
    *arguments: object, cwd: Path, timeout: float = 300, **environment: str
) -> subprocess.CompletedProcess[str]:
    """``hashzoo ARGUMENTS``, its output and its exit code."""
    return subprocess.run(
        [sys.executable, "-c", "from hashzoo.cli import main; main()", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "COLUMNS": "160", **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
