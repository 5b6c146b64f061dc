"""The scripts of .ci: versions, releases, and the limit of time of a test."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import SLOW_TIMEOUT, TIMEOUT

ROOT = Path(__file__).parents[2]
CI = ROOT / ".ci"
pytestmark = pytest.mark.skipif(not CI.is_dir(), reason="needs the checkout")


def names(requirements: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9-]+)==\S+$", requirements, re.M))


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("name", ["run", "lowest", "system-packages"])
def test_a_shell_script_can_be_run_and_has_no_error_of_syntax(name):
    assert os.access(CI / name, os.X_OK)
    done = subprocess.run(["bash", "-n", str(CI / name)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_constraints_hold_a_version_of_every_dependency_that_ci_installs():
    text = (CI / "constraints.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9-]+==[\w.!]+", line)] == []
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("[project.scripts]")[0]
    needed = set(re.findall(r'"([a-z][\w-]*)(?:\[\w+\])?>=', project.split("dependencies = [", 1)[1]))
    by_hand = {"bandit", "pip-audit", "torchmetrics", "pre-commit"}  # of the extras audit, speed and dev
    assert needed - by_hand - names(text) == set()


def test_the_versions_of_this_environment_are_written_as_constraints_and_compared(tmp_path, capsys):
    freeze = runpy.run_path(str(CI / "freeze.py"))
    assert freeze["main"]([]) == 0
    text = capsys.readouterr().out
    assert {"torch", "numpy", "pytest"} <= names(text)
    assert not {"hashzoo", "pip", "setuptools"} & names(text)
    assert "+" not in text
    (tmp_path / "same.txt").write_text(text)
    freeze["main"](["--compare", str(tmp_path / "same.txt")])
    assert capsys.readouterr().out == f"the same versions as in {tmp_path / 'same.txt'}\n"
    (tmp_path / "older.txt").write_text(re.sub("^numpy==.*", "numpy==1.0", text, flags=re.M))
    freeze["main"](["--compare", str(tmp_path / "older.txt")])
    assert re.fullmatch(r"numpy==\d\S+\n", capsys.readouterr().out)


@pytest.fixture
def released(tmp_path):
    """A project whose version 1.2.3 is ready."""
    (tmp_path / "hashzoo").mkdir()
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\nurls = { Source = "https://a.example" }\n')
    (tmp_path / "hashzoo" / "_version.py").write_text('__version__ = "1.2.3"\n')
    (tmp_path / "CITATION.cff").write_text("version: 1.2.3\n")
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 1.2.3 (2030-01-31)\n\n- It is fast.\n")
    return tmp_path


def test_a_release_that_is_ready_has_no_problem(released):
    assert runpy.run_path(str(CI / "check_release.py"))["problems"]("v1.2.3", released) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        ("CHANGELOG.md", "2030-01-31", "unreleased", "CHANGELOG.md does not name version 1.2.3"),
        ("CITATION.cff", "1.2.3", "1.2.2", "CITATION.cff does not name"),
        ("hashzoo/_version.py", "1.2.3", "1.2.30", "hashzoo/_version.py does not name"),
        ("pyproject.toml", "a.example", "a." + "invalid", "has placeholders"),
    ],
)
def test_a_release_that_is_not_ready_is_refused_with_the_reason(file, old, new, says, released):
    text = (released / file).read_text()
    (released / file).write_text(text.replace(old, new))
    (problem,) = runpy.run_path(str(CI / "check_release.py"))["problems"]("v1.2.3", released)
    assert says in problem


def test_a_tag_of_another_version_is_refused(released):
    (problem,) = runpy.run_path(str(CI / "check_release.py"))["problems"]("v1.2.4", released)
    assert problem == "the tag is v1.2.4, but the version in pyproject.toml is 1.2.3; the tag must be v1.2.3"


def test_this_version_is_the_same_everywhere():
    found = runpy.run_path(str(CI / "check_release.py"))["problems"](f"v{_version()}")
    assert [one for one in found if "CHANGELOG" not in one and "placeholders" not in one] == []


def _version() -> str:
    return runpy.run_path(str(ROOT / "hashzoo" / "_version.py"))["__version__"]


def test_every_test_has_a_limit_of_time(request):
    assert request.node.get_closest_marker("timeout").args == (TIMEOUT,)
    assert TIMEOUT < SLOW_TIMEOUT


@pytest.mark.skipif(sys.platform == "win32", reason="signals differ there")
def test_a_test_that_hangs_fails_alone_and_the_others_run(tmp_path):
    pytest.importorskip("pytest_timeout")
    (tmp_path / "test_two.py").write_text(
        "import time\nimport pytest\n\n\n@pytest.mark.timeout(0.2)\ndef test_hangs():\n    time.sleep(60)\n\n\n"
        "def test_after_it():\n    pass\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "pytest_timeout", str(tmp_path)]
    alone = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=alone, capture_output=True, text=True, check=False)
    assert "1 failed, 1 passed" in done.stdout
    assert "Timeout (>0.2s)" in done.stdout
