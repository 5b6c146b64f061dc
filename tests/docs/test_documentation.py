"""What the documentation tells people to type: it is run, or, where it needs what is not here, read by the command."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import tomllib
from contextlib import suppress
from pathlib import Path

import click
import pytest
from PIL import Image

from hashzoo import hookspecs
from hashzoo.bench.benchmark_file import checked, shipped
from hashzoo.cli.main import main

ROOT = Path(__file__).parents[2]
DOCS, EXAMPLES = ROOT / "docs", ROOT / "docs" / "examples"
MADE = ("methods", "modules.md", "_build")  # by a build
WRITTEN = sorted(page for page in DOCS.rglob("*.md") if page.relative_to(DOCS).parts[0] not in MADE)
PAGES = [*WRITTEN, ROOT / "README.md", ROOT / "results" / "README.md"]
FILE = re.compile(
    r"`(\w+\.(?:py|toml))`[^`]*?\n\n```(?:python|toml)\n(.*?)```", re.S
)  # a page names a file, then shows it
#: A word that a reader searches for, and the page that answers.
SEARCHED = {
    "fine-tune": "howto/fine-tune",
    "Optuna": "howto/compare-fairly",
    "early stopping": "howto/early-stopping",
    "diverge": "howto/training-curves",
    "training curve": "howto/training-curves",
    "incremental": "howto/update-index",
    "delete": "howto/update-index",
    "nightly": "howto/update-index",
    "embedding": "howto/embeddings",
    "oversample": "howto/long-tail",
    "LaTeX": "howto/figures",
    "Docker": "howto/docker",
    "Windows": "howto/windows",
    "PostgreSQL": "howto/postgresql",
    "insert": "howto/postgresql",
}
MOST_WORDS = 520  # of a how-to page: a screen and a half
#: Runs commands and scripts one after another in one process, as starting each anew would take most of the time.
RUNNER = """
import contextlib, io, json, runpy, sys, time
from hashzoo.cli.main import main
for line in sys.stdin:
    words, out, code = json.loads(line), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            if words[0].endswith(".py"):
                sys.argv = words
                runpy.run_path(words[0], run_name="__main__")
            else:
                main(words)
        except SystemExit as ended:
            code = ended.code or 0
    print(json.dumps([code, out.getvalue()]), flush=True)
"""


def run_all(steps: list[list[str]], folder: Path) -> list[tuple[int, str]]:
    """The exit code and the output of each step, in ``folder``."""
    done = subprocess.run(
        [sys.executable, "-c", RUNNER], input="".join(json.dumps(step) + "\n" for step in steps), cwd=folder,
        env={**os.environ, "COLUMNS": "160"}, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def commands(text: str) -> list[list[str]]:
    """The words of each indented line that begins with ``hashzoo``, lines that end in a backslash joined."""
    joined = text.replace("\\\n", " ")
    found = re.findall(r"^ {4}(?:pip [^\n]*&& )?hashzoo( [^\n]*)?$", joined, re.M)
    return [shlex.split(line, comments=True) for line in found]


def test_the_tutorial_runs_as_it_stands_and_prints_what_it_says(tmp_path):
    text = (DOCS / "start" / "own-method.md").read_text()
    steps, places = [], []
    for part in re.split(r"(?=^```python|^ {4}hashzoo |^```text)", text, flags=re.M):
        if part.startswith("```text"):
            said = textwrap.dedent(part.split("```text\n")[1].split("```")[0]).strip()
            places.append((len(steps) - 1, [line.strip() for line in said.splitlines()]))
        elif part.startswith("    hashzoo"):
            for words in commands(part):
                again = any(step[0] == "bench" for step in steps)  # baselines and reference methods stand once
                fewer = ["--epochs", "2", *(["--no-baselines"] if again else [])] if words[0] == "bench" else []
                steps.append([*words, *fewer])
        elif part.startswith("```python"):
            code = part.split("```python\n")[1].split("```")[0]
            name = "broken.py" if "Broken" in code else "far_apart.py"
            steps.append(["write.py", name, code])
    (tmp_path / "write.py").write_text("import pathlib, sys\npathlib.Path(sys.argv[1]).write_text(sys.argv[2])\n")
    assert len(steps) >= 15
    found = run_all(steps, tmp_path)
    for step, (code, told) in zip(steps, found, strict=True):
        assert code == (1 if step[:2] == ["check", "broken.py"] else 0), (step, told)
    assert len(places) == 2
    for at, lines in places:
        assert [line for line in lines if line not in found[at][1]] == []
    assert (tmp_path / "sharper" / "pyproject.toml").is_file()
    assert {path.name for path in tmp_path.glob("my_*.py")} == {
        "my_head.py", "my_method.py", "my_network.py", "my_photos.py"
    }  # fmt: skip


def test_every_example_runs(tmp_path):
    """Each with less to do: what is tested is that it works, and that its last words are made of what it measured."""
    from hashzoo_plugins.datasets import digits

    images, classes = digits.load()
    for kind in range(3):
        (tmp_path / "photos" / str(kind)).mkdir(parents=True)
        for row in range(20):
            image = Image.fromarray(images[classes == kind][row]).resize((24, 24))
            image.save(tmp_path / "photos" / str(kind) / f"{row}.png")
    few = ["--epochs", "1", "--no-baselines"]
    steps = {
        "pick_a_hash": ["photos", "--methods", "itq,sdh", "--bits", "8,16"],
        "add_a_loss": few,
        "reproduce_a_table": ["--epochs", "1", "--seeds", "0", "--bits", "12"],
        "composed_queries": [
            *("--quick", *few, "--bits", "8", "--methods", "dcoh", "--set", "dcoh.hidden=16"),
            *("--set", "scenes.union.queries=50"),
        ],
    }
    assert {path.stem for path in EXAMPLES.iterdir() if path.suffix in (".py", ".sh")} == {
        *steps, "compare_in_ci", "pitfalls"
    }  # fmt: skip
    found = run_all([[str(EXAMPLES / f"{name}.py"), *given] for name, given in steps.items()], tmp_path)
    for name, (code, told) in zip(steps, found, strict=True):
        assert code == 0, (name, told)
    told = dict(zip(steps, (text for _, text in found), strict=True))
    assert re.search(
        r"take (itq|sdh) at (8|16) bits: map@all [01]\.\d+, the best of all is [01]\.\d+", told["pick_a_hash"]
    )
    assert "loss batch-hard" in told["add_a_loss"]
    assert "FAILED" not in told["add_a_loss"]
    assert "tanh+batch-hard" in told["add_a_loss"].split("digits:")[-1]
    assert re.search(r"DHN-B, no sign +[01]\.\d+ ±0\.000", told["reproduce_a_table"])
    assert re.search(r"dcoh +its operator 0\.\d+", told["composed_queries"])


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
def test_the_example_for_ci_makes_a_baseline_and_passes_on_itself(tmp_path):
    program = tmp_path / "bin" / "hashzoo"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nexec {sys.executable} -c 'from hashzoo.cli.main import main; main()' \"$@\"\n")
    program.chmod(0o755)

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", str(EXAMPLES / "compare_in_ci.sh"), "base"], cwd=tmp_path, capture_output=True, text=True,
            env={**os.environ, "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}, check=False,
        )  # fmt: skip

    first = run()
    assert first.returncode == 0, first.stderr
    assert "no baseline yet" in first.stdout
    for cell in (tmp_path / "base" / "cells").glob("csq*"):
        cell.unlink()  # a board that lacks a row, so that there is something to compare
    again = run()
    assert again.returncode == 0, again.stderr
    assert "scores are the same" in again.stdout


def test_the_pitfalls_have_the_figures_that_the_page_says(tmp_path):
    page = (DOCS / "concepts" / "pitfalls.md").read_text()
    ((code, told),) = run_all([[str(EXAMPLES / "pitfalls.py")]], tmp_path)
    assert code == 0, told

    def table(text: str) -> dict[str, list[float]]:
        rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([\d.]+) \| ([\d.]+) \| [+-][\d.]+ \|$", text, re.M)
        return {f"{name} {where}": [float(wrong), float(right)] for name, where, wrong, right in rows}

    said, found = table(page), table(told)
    assert len(found) == 8
    assert said.keys() == found.keys()
    for name in said:
        assert found[name] == pytest.approx(said[name], abs=0.03), name
    closed = [name for name in found if name.startswith(("ties", "average", "sgn", "queries", "empty"))]
    for name in closed:  # nothing is trained by gradient there: the figures hold to what is printed
        assert found[name] == pytest.approx(said[name], abs=0.002), name
        assert found[name][0] > found[name][1]


def snippets() -> list[tuple[str, int, str]]:
    # run with what they need by test_using_page.py, test_embeddings_page.py and tests/api/test_bench.py
    elsewhere = ("search", "update-index", "embeddings", "search-vectors", "notebook")
    return [
        (page.stem, number, code)
        for page in PAGES
        if page.stem not in elsewhere
        for number, code in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.S | re.M))
    ]


@pytest.mark.parametrize(("page", "number", "code"), snippets(), ids=lambda given: str(given)[:12])
def test_every_snippet_of_python_runs(page, number, code, tmp_path, monkeypatch):
    import hashzoo

    monkeypatch.chdir(tmp_path)
    Path("hashzoo-results/digits").mkdir(parents=True)
    shutil.copy(ROOT / "results" / "zoo" / "leaderboard.csv", "hashzoo-results/digits")
    Path("photos").mkdir()
    for row in range(2):
        Image.new("RGB", (16, 16), (90, 120, 40)).save(f"photos/{row}.png")
    compiled = compile(code, f"{page}.md, snippet {number}", "exec")
    if "import pymilvus" in code or "from pymilvus" in code:
        pytest.skip("needs a Milvus server; the page says that it is untested")
    if "qdrant_client" in code:
        pytest.importorskip("qdrant_client")
    known = {name: getattr(hashzoo, name) for name in hashzoo.__all__}
    exec(compiled, {"__name__": "snippet", **known})  # noqa: S102


def test_every_table_of_toml_is_a_benchmark_file_or_a_part_of_one():
    blocks = [block for page in PAGES for block in re.findall(r"^```toml\n(.*?)^```", page.read_text(), re.S | re.M)]
    tables = [table for table in map(tomllib.loads, blocks) if "project" not in table]
    assert len(tables) >= 3
    for table in tables:
        checked({"name": "page", "dataset": "digits.standard"} | table, "page").each()


def test_the_plugins_of_the_pages_pass_their_check(tmp_path):
    steps = []
    for page in sorted((DOCS / "howto").glob("write-*.md")):
        for name, code in FILE.findall(page.read_text()):
            (tmp_path / name).write_text(code)
        steps += [words for words in commands(page.read_text()) if words[0] == "check" and "--root" not in words]
    assert len(steps) == 4
    for step, (code, told) in zip(steps, run_all(steps, tmp_path), strict=True):
        assert code == 0, (step, told)


#: What a page speaks of and a test has not: images and lists of others, clusters, files of the reader.
ELSEWHERE = re.compile(r"cifar|imagenet|coco|folder|lists|\.toml|/data|CELL|IMAGE|longtail")


def parsed(words: list[str]) -> None:
    """Read by the command itself: an option or a choice that does not exist is an error."""
    command, rest = main, list(words)
    while rest and getattr(command, "commands", {}).get(rest[0]):
        command = command.commands[rest.pop(0)]
    command.make_context(" ".join(words[:2]), rest)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_a_page_can_be_typed(page, tmp_path, monkeypatch, capsys):
    text = page.read_text()
    monkeypatch.chdir(tmp_path)
    for name, code in FILE.findall(text):
        Path(name).write_text(code)
    for words in in_prose(text):
        with suppress(click.MissingParameter):  # a command that is spoken of, not typed
            parsed(words)
    for words in commands(text):
        parsed(words)
        if words[:1] != ["bench"] or not words[1:] or page.stem == "own-method":  # which runs above
            continue
        named = words[1] if not words[1].startswith("-") else "digits"
        assert named in shipped() or named.endswith(".toml"), words
        whole = " ".join(words).replace(named, "", Path(named).is_file())
        quick = named == "digits" or (Path(named).is_file() and "--quick" in words)
        if quick and not ELSEWHERE.search(whole):  # others take their time to look at images
            main([*words, "--dry-run"])
            assert re.search(r"\d+ cells? pending", capsys.readouterr().out), words


def in_prose(text: str) -> list[list[str]]:
    """Commands between backticks that are whole: without words in capitals or dots for what is left out."""
    spans = re.findall(r"`hashzoo ([a-z][^`]*)`", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M))
    whole = [span for span in spans if not re.search(r"\b[A-Z]{3,}\b|\.\.\.|\\|\|", span)]
    return [words for words in map(shlex.split, (span.replace("\n", " ") for span in whole)) if len(words) > 1]


def test_the_page_of_plugins_says_of_each_hook_what_its_specification_says():
    text = (DOCS / "reference" / "plugins.md").read_text()
    for name in (name for name in dir(hookspecs) if name.startswith("hashzoo_")):
        called = re.search(r"factory(\(.*?\))|function(\(.*?\))", (getattr(hookspecs, name).__doc__ or ""))
        assert called, name
        arguments = (called[1] or called[2]).replace("\\", "")
        (row,) = re.findall(rf"^\| `{name}` \|.*$", text, re.M)
        given = [word for word in re.findall(r"[a-z]+", arguments) if word not in ("options", "hyperparameters")]
        assert [word for word in given if word not in row] == [], row


def test_every_point_of_the_contract_is_on_the_page_of_plugins():
    from hashzoo.testing import methods

    text = (DOCS / "reference" / "plugins.md").read_text()
    section = text[text.index("## The contract") :]
    points = {"fit and encode", *methods.CHECKS, "process state", "card", "extra"}
    assert [point for point in points if f"`{point}`" not in section] == []


def test_every_page_is_in_the_table_of_contents_and_every_command_in_the_reference():
    index = (DOCS / "index.md").read_text()
    listed = re.findall(r"^([\w/-]+)$", "\n".join(re.findall(r"```\{toctree\}(.*?)```", index, re.S)), re.M)
    names = sorted(page.relative_to(DOCS).with_suffix("").as_posix() for page in WRITTEN if page != DOCS / "index.md")
    assert len(names) > 40
    assert sorted(name for name in listed if name != "methods/index") == names
    reference = (DOCS / "reference" / "commands.md").read_text()
    assert [name for name in main.commands if f"`hashzoo {name}" not in reference] == []


def test_every_page_lies_in_a_folder_with_a_purpose():
    folders = {page.relative_to(DOCS).parent.as_posix() for page in WRITTEN}
    assert folders == {".", "start", "howto", "concepts", "reference", "evidence"}
    assert {page.name for page in WRITTEN if page.parent == DOCS} == {"index.md", "architecture.md"}


@pytest.mark.parametrize("word", SEARCHED)
def test_a_word_that_readers_search_for_is_on_the_page_that_answers(word):
    text = (DOCS / f"{SEARCHED[word]}.md").read_text()
    assert re.search(word, text, re.I)
    prose = [line for line in text.splitlines() if line.startswith("#") or not line.startswith((" ", "|", "`"))]
    assert word.lower() in " ".join(prose).lower()


BRITISH = re.compile(
    r"\b\w*(?:colour|neighbour|behaviour|favour|centre[sd]?\b|labelled|labelling|catalogue|grey|artefact|learnt|"
    r"(?:normal|recogn|organ|initial|minim|maxim|summar|general|quant|binar|regular|serial)is(?:e[ds]?|ing|ation)\b)"
    r"|\bper cent\b|\btowards\b",
    re.I,
)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.stem)
def test_prose_has_american_spelling(page):
    text = re.sub(r"^```.*?^```|`[^`]*`|\]\([^)]*\)|^    .*?$", "", page.read_text(), flags=re.S | re.M)
    assert BRITISH.findall(text) == []


def test_a_how_to_page_is_a_screen_and_a_half_at_most():
    pages = sorted((DOCS / "howto").glob("*.md"))
    assert len(pages) > 25
    counts = {page.name: len(page.read_text().split()) for page in pages}
    assert {name: count for name, count in counts.items() if count > MOST_WORDS} == {}


def test_the_readme_is_short_and_its_links_lead_somewhere():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120
    for file in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"):
        links = re.findall(r"\]\(([^)#:]+)\)", file.read_text())
        assert links
        assert [link for link in links if not (ROOT / link).exists()] == []
