"""What holds for the whole tree."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from hashzoo import hookspecs
from hashzoo.bench.benchmark_file import read, shipped
from hashzoo.registry import zoo
from hashzoo.registry.source import code_digest, source_files
from tests.conftest import LONGEST

ROOT = Path(__file__).parents[2]


def test_the_core_names_no_method():
    plugins = zoo.load_plugins()
    words = {name for kind in ("methods", "datasets") for name in plugins.catalogue(kind)}
    words -= {"chance", "folder", "lists", "vectors", "float16", "float32"}  # words of statistics, files and types
    pattern = re.compile(r"(?<![\w.-])(" + "|".join(map(re.escape, sorted(words))) + r")(?![\w-])")
    hits = []
    files = sorted((ROOT / "hashzoo").rglob("*.py"))
    assert {"method.py", "plan.py", "page.py", "onnx.py"} <= {file.name for file in files}
    for file in files:
        code = re.sub(r'"""[\s\S]*?"""|#.*', "", file.read_text())  # docstrings can give examples
        hits += [f"{file.relative_to(ROOT)}: {match[0]}" for match in pattern.finditer(code)]
    assert hits == []


def test_no_module_is_longer_than_400_lines():
    files = [*(ROOT / "hashzoo").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")]
    assert [f.name for f in files if len(f.read_text().splitlines()) > 400] == []


LINES, PARAMETERS = 50, 7


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function of a module with its dotted name, methods and nested functions included."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + node.name, node
        name = f"{node.name}." if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) else ""
        yield from functions(node, prefix + name)


def line_count(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function from ``def`` to its end, without decorators and docstring."""
    count = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function) is not None:
        count -= function.body[0].end_lineno - function.body[0].lineno + 1
    return count


def parameter_count(function: ast.FunctionDef | ast.AsyncFunctionDef, plugin: bool) -> int:
    """Parameters of a function except ``self``; the keyword-only ones of a plugin's factory are hyperparameters."""
    positional = [arg.arg for arg in (*function.args.posonlyargs, *function.args.args)]
    factory = plugin and (function.name == "__init__" or not function.name.startswith("_"))
    return len(positional) - (positional[:1] in (["self"], ["cls"])) + len(function.args.kwonlyargs) * (not factory)


def test_no_function_is_too_large():
    found, count = {}, 0
    for folder in ("hashzoo", "plugins"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            for name, function in functions(ast.parse(file.read_bytes())):
                count += 1
                lines, parameters = line_count(function), parameter_count(function, folder == "plugins")
                if lines > LINES or parameters > PARAMETERS:
                    found[f"{file.relative_to(ROOT)}:{name}"] = f"{lines} lines, {parameters} parameters"
    assert count > 1500
    assert found == {}


def test_the_size_of_a_function_is_counted():
    code = 'class A:\n    def f(self, a, *, b):\n        """One.\n\n        Two.\n        """\n        return a\n'
    ((name, function),) = functions(ast.parse(code))
    assert (name, line_count(function)) == ("A.f", 2)
    assert (parameter_count(function, plugin=False), parameter_count(function, plugin=True)) == (2, 1)


def test_every_hook_is_documented_and_used():
    text = (ROOT / "docs" / "reference" / "plugins.md").read_text()
    hooks = [name for name in dir(hookspecs) if name.startswith("hashzoo_")]
    assert len(hooks) == 10
    house = zoo.load_plugins()
    for name in hooks:
        assert f"`{name}`" in text
        kind = name.removeprefix("hashzoo_")
        assert house.catalogue("trackers" if kind == "finished" else kind)


def test_every_built_in_plugin_loads():
    assert [p for p in zoo.load_plugins().plugins if p.reason] == []


@pytest.mark.parametrize("name", sorted(shipped()))
def test_every_shipped_benchmark_reads(name):
    file = read(name)
    assert file.name == Path(name).name
    assert f"# Command: hashzoo bench {name}" in shipped()[name].read_text()
    for part in file.each():
        assert part.title


BROKEN = {
    "raises": ("raise RuntimeError('at import')", "at import"),
    "exits": ("import sys; sys.exit(4)", "SystemExit"),
    "no_hook": ("x = 1", "it has no hook"),
    "undecorated": ("def hashzoo_methods(): return {}", "decorate hashzoo_methods"),
    "misspelt": ("from hashzoo import hookimpl\n@hookimpl\ndef hashzoo_metods(): return {}", "hashzoo_metods"),
    "repeats": (
        "from hashzoo import hookimpl\n@hookimpl\ndef hashzoo_methods(): return {'itq': list}",
        "both hashzoo and",
    ),
    "wrong_kind": (
        "from hashzoo import hookimpl\n@hookimpl\ndef hashzoo_methods(): return ['itq']",
        "must return a dict",
    ),
    "wrong_name": (
        "from hashzoo import hookimpl\n@hookimpl\ndef hashzoo_methods(): return {'=1+1': list}",
        "a name must match",
    ),
}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_broken_installed_plugin_shows_its_reason_and_the_rest_works(name, tmp_path, monkeypatch):
    code, reason = BROKEN[name]
    (tmp_path / f"stranger_{name}.py").write_text(code)
    about = tmp_path / f"stranger_{name}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: stranger-{name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[hashzoo]\nmine = stranger_{name}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("HASHZOO_PLUGINS")
    house = zoo.load_plugins()
    (found,) = [p for p in house.plugins if p.name.startswith("stranger")]
    assert reason in found.reason
    assert "itq" in house.methods
    assert house.methods["itq"].plugin == "hashzoo"


def test_a_sound_installed_plugin_is_found_and_can_be_turned_off(tmp_path, monkeypatch):
    code = textwrap.dedent("""
        from hashzoo import hookimpl, deep

        @hookimpl
        def hashzoo_methods():
            return {"theirs": deep("linear", "dhn", doc="theirs")}
        """)
    (tmp_path / "stranger_sound.py").write_text(code)
    about = tmp_path / "stranger_sound-2.5.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger-sound\nVersion: 2.5\n")
    (about / "entry_points.txt").write_text("[hashzoo]\nmine = stranger_sound\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "theirs" not in zoo.load_plugins().methods
    monkeypatch.delenv("HASHZOO_PLUGINS")
    entry = zoo.load_plugins().method("theirs")
    assert (entry.plugin, entry.version) == ("stranger-sound:mine", "2.5")


def test_the_code_digest_follows_what_a_plugin_imports_of_its_own_package_and_nothing_else():
    from hashzoo_plugins.shallow.itq import ITQ
    from hashzoo_plugins.shallow.lsh import LSH

    files = source_files(ITQ)
    assert [file.relative_to(file.parents[2]).as_posix() for file in files] == [
        "hashzoo_plugins/shallow/itq.py",
        "hashzoo_plugins/shallow/projection.py",
        "hashzoo_plugins/shallow/span.py",
    ]
    assert code_digest(ITQ) != code_digest(LSH)


def test_every_file_of_tests_that_starts_first_exists():
    assert LONGEST
    assert [name for name in LONGEST if not (ROOT / "tests" / name).is_file()] == []
