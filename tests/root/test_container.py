"""The Dockerfile builds from files, extras and commands that exist. No engine is needed to check that."""

from __future__ import annotations

import fnmatch
import re
import shlex
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not (ROOT / "Dockerfile").is_file(), reason="needs the checkout")

#: What a RUN line may use: commands of the base image.
COMMANDS = {"pip", "mkdir"}


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile and what follows each, with continued lines joined."""
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines)]


def values(name: str) -> list[str]:
    return [rest for instruction, rest in instructions() if instruction == name]


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def copied() -> list[str]:
    return [source for line in values("COPY") for source in shlex.split(line)[:-1]]


def ignored(name: str) -> bool:
    """Whether .dockerignore leaves a file or folder out: the last line that matches decides."""
    out = False
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#") and fnmatch.fnmatch(name, line.lstrip("!").removeprefix("**/")):
            out = not line.startswith("!")
    return out


def test_the_instructions_are_known_and_begin_with_a_python_that_the_project_supports():
    known = {"FROM", "ARG", "COPY", "RUN", "ENV", "WORKDIR", "ENTRYPOINT", "CMD"}
    assert {name for name, _ in instructions()} <= known
    (base,) = values("FROM")
    (version,) = re.findall(r"^python:(3\.\d+)-slim", base)
    assert f"Programming Language :: Python :: {version}" in project()["classifiers"]
    assert instructions()[0][0] == "FROM"


def test_every_copied_file_exists_and_is_not_ignored():
    assert copied()
    assert [name for name in copied() if not (ROOT / name).exists()] == []
    assert [name for name in copied() if ignored(name)] == []
    assert [name for name in ("tests", "results", ".git", ".venv", "__pycache__") if not ignored(name)] == []


def test_all_that_the_build_of_the_wheel_reads_is_copied():
    text = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = text["tool"]["hatch"]["build"]["targets"]["wheel"]
    read = {*wheel["packages"], *wheel["force-include"], *project()["license-files"], project()["readme"]}
    assert [name for name in read if not any(name == one or name.startswith(f"{one}/") for one in copied())] == []


def test_run_lines_use_commands_of_the_base_image_and_extras_of_the_project():
    lines = [part for line in values("RUN") for part in re.split(r"\s*&&\s*", line)]
    assert {shlex.split(line)[0] for line in lines} == COMMANDS
    (extras,) = re.findall(r"/src\[([\w,]+)\]", "\n".join(lines))
    assert {*extras.split(",")} <= {*project()["optional-dependencies"]}
    arguments = {line.partition("=")[0] for line in values("ARG")}
    assert set(re.findall(r"\$\{?(\w+)", "\n".join(lines))) == arguments


def test_the_container_starts_the_command_that_the_project_installs():
    (entry,) = values("ENTRYPOINT")
    assert re.fullmatch(r'\["(\w+)"\]', entry)[1] in project()["scripts"]


def test_the_caches_are_where_any_user_may_write():
    (made,) = re.findall(r"mkdir -m 1777 (\S+)", "\n".join(values("RUN")))
    settings = dict(one.split("=") for line in values("ENV") for one in line.split())
    assert {"HASHZOO_CACHE", "NUMBA_CACHE_DIR"} <= {*settings}
    assert all(folder.startswith(f"{made}/") for folder in settings.values())
