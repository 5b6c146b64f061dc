"""`hashzoo new-plugin`: what it writes keeps the contract and stands on a board as it is, for every kind."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hashzoo.cli.develop import CHECKED
from hashzoo.cli.main import main
from hashzoo.registry import scaffold, zoo
from tests.cli.command import hashzoo
from tests.registry.test_new_users import built, installed

ROOT = Path(__file__).parents[2]
KINDS = sorted(CHECKED)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A package my-KIND and a file own_KIND.py of every kind."""
    place = tmp_path_factory.mktemp("written")
    for kind in KINDS:
        scaffold.new(f"my-{kind}", kind, False, place)
        scaffold.new(f"own-{kind}", kind, True, place)
    return place


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_of_each_kind_passes_the_check(kind, written, capsys):
    main(["check", str(written / f"own_{kind}.py")])
    told = capsys.readouterr().out
    assert told.startswith(f"{kind} own-{kind}")
    assert told.count("ok") >= 4
    assert "FAILED" not in told


def test_files_of_all_kinds_stand_on_one_board_as_they_are(written, tmp_path):
    files = [word for kind in KINDS for word in ("--plugin", str(written / f"own_{kind}.py"))]
    done = hashzoo(
        *("bench", "digits", "--quick", "--no-baselines", "--dataset", "own-dataset.standard", *files),
        *("--backbone", "own-backbone", "--methods", "tanh+own-loss,own-head+own-loss,own-method,lsh"),
        *("--results", "r"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    found = {row["method"]: row for row in rows(tmp_path / "r" / "leaderboard.csv")}
    assert set(found) == {"tanh+own-loss", "own-head+own-loss", "own-method", "lsh"}
    assert {(row["dataset"], row["backbone"]) for row in found.values()} == {("own-dataset.standard", "own-backbone")}
    score = {name: float(row["map@all"]) for name, row in found.items()}
    assert score["tanh+own-loss"] > score["lsh"] > 0.12  # chance is .1
    assert score["own-head+own-loss"] > score["lsh"]


def test_packages_of_all_kinds_pass_their_own_tests(written):
    folders = [str(written / f"my-{kind}" / "tests") for kind in KINDS]
    sources = [str(written / f"my-{kind}" / "src") for kind in KINDS]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(written), *folders],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*sources, os.environ.get("PYTHONPATH", "")])},
        cwd=written, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "10 passed" in done.stdout


@pytest.mark.skipif(shutil.which("ruff") is None, reason="ruff is not installed")
def test_what_is_written_is_formatted_and_passes_the_linter(written):
    def ruff(*arguments: str, cwd: Path = written) -> None:
        done = subprocess.run(["ruff", *arguments], cwd=cwd, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    house = ["--config", str(ROOT / "pyproject.toml"), "--ignore", "I001"]  # to a stranger hashzoo is no first party
    for kind in KINDS:
        ruff("check", "--no-cache", ".", cwd=written / f"my-{kind}")
        ruff("format", "--no-cache", "--check", ".", cwd=written / f"my-{kind}")
    files = [f"own_{kind}.py" for kind in KINDS] + [f"my-{kind}/src" for kind in KINDS]
    ruff("check", "--no-cache", *house, *files)


def test_a_package_is_built_installed_and_found_by_its_entry_point(written, tmp_path, monkeypatch):
    site = installed(built(tmp_path / "wheels", written / "my-loss"), tmp_path / "site")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delenv("HASHZOO_PLUGINS")
    entry = zoo.load_plugins().losses["my-loss"]
    assert (entry.plugin, entry.version) == ("my-loss:my-loss", "0.1.0")
    assert (
        entry.doc == "Pull codes of similar images together, push others to opposite signs, and all values to -1 or +1."
    )


def test_the_command_says_what_it_wrote_and_what_to_try(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["new-plugin", "sharp-edges", "--kind", "head"])
    told = capsys.readouterr().out.splitlines()
    files = [line.removeprefix("wrote ") for line in told if line.startswith("wrote ")]
    assert sorted(files) == sorted(str(p) for p in Path("sharp-edges").rglob("*") if p.is_file())
    assert told[-4:] == [
        "  pip install -e ./sharp-edges",
        "  hashzoo check sharp-edges",
        "  hashzoo bench digits --quick --methods sharp-edges+dhn",
        "  pytest sharp-edges",
    ]
    main(["new-plugin", "sharp-edges", "--kind", "dataset", "--file", "--into", "in a folder"])
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "wrote in a folder/sharp_edges.py"
    assert told[2] == "  hashzoo check 'in a folder/sharp_edges.py'"


@pytest.mark.parametrize(
    ("name", "kind", "says"),
    [
        ("My Loss", "loss", "lower-case letters and digits, joined by hyphens; try 'my-loss'"),
        ("../escape", "loss", "try 'escape'"),
        ("7bits", "loss", "try 'bits'"),
        ("a.b", "dataset", "try 'a-b'"),
        ("", "loss", "joined by hyphens"),
        ("class", "loss", "import class imports other code; try class-loss"),
        ("json", "head", "import json imports other code; try json-head"),
        ("torch", "backbone", "try torch-backbone"),
        ("output", "head", "its class would hide Output; try output-head"),
        ("dhn", "loss", "the loss 'dhn' of hashzoo exists; choose another name"),
        ("two-level-cam", "method", "the method 'two-level-cam' of hashzoo exists"),
    ],
)
def test_a_name_that_cannot_be_is_refused_and_nothing_is_written(name, kind, says, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["new-plugin", name, "--kind", kind, "--into", str(tmp_path)])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("one_file", [False, True])
def test_what_exists_is_named_and_left_as_it_is(one_file, tmp_path, capsys):
    there = tmp_path / ("mine.py" if one_file else "mine")
    there.write_text("precious") if one_file else there.mkdir()
    with pytest.raises(SystemExit) as ended:
        main(["new-plugin", "mine", "--into", str(tmp_path), *(["--file"] if one_file else [])])
    assert ended.value.code == 2
    assert f"{there} exists; choose another name or folder (--into), or remove it" in capsys.readouterr().err
    assert list(tmp_path.rglob("*")) == [there]
    assert not one_file or there.read_text() == "precious"


def test_a_place_that_cannot_be_written_is_one_line_and_leaves_nothing(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as ended:
        main(["new-plugin", "mine", "--into", str(tmp_path / "file" / "below")])
    assert ended.value.code == 3
    assert "Not a directory; choose another folder with --into" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.slow
def test_packages_of_all_kinds_install_in_a_fresh_environment_pass_the_check_and_stand_on_a_board(written, tmp_path):
    """As a stranger does it, with nothing but Python and pip: it downloads torch, and takes minutes."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    script = tmp_path / "venv" / "bin"
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "HASHZOO_PLUGINS")}

    def run(*command: object) -> str:
        given = [str(word) for word in command]
        done = subprocess.run(given, cwd=tmp_path, env=clean, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (given, done.stdout, done.stderr)
        return done.stdout

    wheel = built(tmp_path / "wheels", ROOT)
    packages = [written / f"my-{kind}" for kind in KINDS]
    run(script / "pip", "install", "--quiet", "pytest", wheel, *packages)
    bench = (script / "hashzoo", "bench", "digits", "--quick", "--results")
    for kind, package in zip(KINDS, packages, strict=True):
        offered = f"my-{kind}.standard" if kind == "dataset" else f"my-{kind}"
        assert f"{kind} {offered}" in run(script / "hashzoo", "check", offered)
        run(script / "pytest", package)
        line = next(x for x in (package / "README.md").read_text().splitlines() if "bench digits --quick" in x)
        run(*bench, kind, *line.split("--quick ")[1].split())
        board = rows(tmp_path / kind / "leaderboard.csv")
        assert {row["status"] for row in board} == {"ok"}
        mine = [row for row in board if offered in (row["dataset"], row["backbone"], *row["method"].split("+"))]
        assert mine
        assert all(float(row["map@all"]) > 0.2 for row in mine if row["method"] not in ("chance", "lsh"))
        print(kind, {row["method"]: row["map@all"] for row in board})
