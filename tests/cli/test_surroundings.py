"""Commands work where the terminal, the language, the streams or the disk are not what a developer has."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.cli.command import ALONE, hashzoo

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


#: A user id without an entry in the user database, who can read everything and write nothing of root.
STRANGER = [
    *("setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups"),
    *("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"),
]
NO_NETWORK = ["unshare", "--net"]
#: Without a home folder, with one that cannot be written, and with one that cannot be looked at.
HOMES = {"no home": None, "the home of docker": "/", "no such home": "/nonexistent", "a closed home": "/proc/1/root"}
CELL, PICTURE = "r/cells/lsh.json", "pics/a/0.png"
#: Commands of a user, and whether each takes the start of an interpreter only.
OF_A_STRANGER = {
    "list": (["list", "methods"], True),
    "evaluate": (["evaluate", "codes.npz"], True),
    "plot": (["plot", "bits", str(ROOT / "results" / "zoo"), "-o", "bits.png"], True),
    "plot of scores": (["plot", "pr", "r", "-o", "pr.png"], False),
    "list of plugins": (["list", "plugins"], False),
    "report": (["report", "r", "-o", "report.html"], False),
    "bench": (["bench", "digits", "--quick", "--methods", "lsh,csq", "--bits", "8", "--results", "new"], False),
    "data check": (["data", "check", "folder", "--root", "pics"], False),
    "encode": (["encode", CELL, "pics", "-o", "codes"], False),
    "index": (["index", "build", CELL, "pics", "-o", "my.index"], False),
    "explain": (["explain", PICTURE, "--run", CELL.replace("lsh", "csq"), "-o", "looks.png"], False),
    "check": (["check", "itq"], False),
    "new plugin": (["new-plugin", "mine"], False),
}


def runs(prefix):
    """Whether a program and its options work here, which takes root on Linux."""
    try:
        return subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.fixture(scope="module")
def results(folder):
    """Results with weights in the folder."""
    quick = ("bench", "digits", "--quick", "--methods", "lsh,csq", "--bits", 8, "--no-baselines", "--epochs", 1)
    assert hashzoo(*quick, "--save-weights", "--results", "r", cwd=folder).returncode == 0
    for file in folder.glob("r/cells/digits.*"):
        if file.suffix in (".json", ".safetensors"):
            file.with_name(f"{file.name.split('.')[1]}{file.suffix}").write_bytes(file.read_bytes())
    open_to_all(folder)


def open_to_all(folder):
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o777)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with codes and images, which any user can write."""
    folder = tmp_path_factory.mktemp("measured")
    rng = np.random.default_rng(0)
    sides = {f"{side}_codes": rng.random((30, 16)) < 0.5 for side in ("query", "database")}
    np.savez(folder / "codes.npz", **sides, **{f"{side}_labels": np.arange(30) % 3 for side in ("query", "database")})
    from PIL import Image

    for name in "abc":
        (folder / "pics" / name).mkdir(parents=True)
        for number in range(4):
            pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "pics" / name / f"{number}.png")
    open_to_all(folder)
    return folder


@pytest.mark.skipif(not runs(STRANGER), reason="needs root, and setpriv of util-linux")
@pytest.mark.parametrize(
    ("what", "home"),
    [
        pytest.param(what, home, marks=[] if quick and home == "no home" else pytest.mark.slow)
        for what, (_, quick) in OF_A_STRANGER.items()
        for home in HOMES
    ],
)
def test_an_unknown_user_who_can_write_neither_the_installation_nor_a_home_runs_every_command(
    what, home, folder, request
):
    command = OF_A_STRANGER[what][0]
    if {"r", CELL, CELL.replace("lsh", "csq")} & set(command):
        request.getfixturevalue("results")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HOME", "XDG", "HASHZOO_CACHE"))}
    environment = kept | ({} if HOMES[home] is None else {"HOME": HOMES[home]})
    done = subprocess.run(
        [*STRANGER, *ALONE, *command],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout
    for strange in ("Traceback", "Warning", "Matplotlib", "mkdir"):
        assert strange not in done.stderr
    if what == "list":
        assert {"lsh", "itq", "csq", "dhn"} <= {line.split()[0] for line in done.stdout.splitlines() if line.strip()}


@pytest.mark.slow
@pytest.mark.skipif(not runs(NO_NETWORK), reason="needs root, and unshare of util-linux")
@pytest.mark.parametrize(
    "command",
    [
        *(["data", "show", name] for name in ("cifar10.official", "mnist.official", "imagenette.standard")),
        ["bench", "cifar10", "--methods", "lsh", "--bits", "16", "--no-baselines"],
        ["data", "check", "mirflickr.standard"],
        ["bench", "digits", "--quick", "--methods", "lsh", "--backbone", "torchvision/squeezenet1_1"],
        ["bench", "digits", "--quick", "--methods", "lsh", "--backbone", "timm/resnet10t"],
    ],
    ids=" ".join,
)
def test_a_command_that_needs_the_network_ends_in_one_line_without_it(command, tmp_path):
    environment = {**os.environ, "HOME": str(tmp_path), "HASHZOO_CACHE": str(tmp_path), "HASHZOO_DATA": str(tmp_path)}
    done = subprocess.run(
        [*NO_NETWORK, *ALONE, *command],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    lines = done.stderr.splitlines()
    assert (done.returncode, len(lines)) == (3, 1), done.stderr
    assert lines[0].startswith("hashzoo: cannot download")


@pytest.mark.slow
@pytest.mark.skipif(not runs(NO_NETWORK), reason="needs root, and unshare of util-linux")
@pytest.mark.parametrize("what", OF_A_STRANGER)
def test_a_command_that_needs_no_network_works_without_it(what, folder, results):
    done = subprocess.run(
        [*NO_NETWORK, *ALONE, *OF_A_STRANGER[what][0]],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
