"""Built-in plugins and scaffolds import the core through `hashzoo` alone, as third-party plugins do."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import hashzoo
from hashzoo.cli.develop import CHECKED
from hashzoo.registry import scaffold

PLUGINS = Path(__file__).parents[2] / "plugins"
KINDS = sorted(CHECKED)


def modules_of_the_core(text: str) -> list[str]:
    """The modules below ``hashzoo`` that a source imports, at any depth, and in its doctests.

    >>> modules_of_the_core("from hashzoo import Run\\nfrom hashzoo.run import Run\\nimport hashzoo.data as d")
    ['hashzoo.data', 'hashzoo.run']
    >>> modules_of_the_core("from hashzoo_plugins.quantization import gap")
    []
    """
    found = set()
    for node in ast.walk(ast.parse(text)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [str(node.module)]
            if node.module == "hashzoo":
                names += [f"hashzoo.{alias.name}" for alias in node.names if alias.name not in hashzoo.__all__]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            lines = [line.strip().removeprefix(">>> ") for line in node.value.split("\n") if line.strip()[:4] == ">>> "]
            names = [word for line in lines if "import" in line for word in line.split()]
        found |= {name for name in names if name.startswith("hashzoo.")}
    return sorted(found)


def offenders(files: dict[str, str]) -> dict[str, list[str]]:
    """The files that import a module of the core; AssertionError if no file imports the facade at all."""
    assert sum("from hashzoo import" in text for text in files.values()) > 0
    return {name: modules for name, text in files.items() if (modules := modules_of_the_core(text))}


def test_built_in_plugins_import_the_facade_alone():
    files = {str(file.relative_to(PLUGINS)): file.read_text() for file in PLUGINS.rglob("*.py")}
    assert len(files) > 90
    assert offenders(files) == {}


@pytest.mark.parametrize("kind", KINDS)
def test_scaffolds_import_the_facade_alone(kind, tmp_path):
    scaffold.new(f"my-{kind}", kind, False, tmp_path)
    scaffold.new(f"own-{kind}", kind, True, tmp_path)
    files = {str(file.relative_to(tmp_path)): file.read_text() for file in tmp_path.rglob("*.py")}
    assert len(files) == 4  # __init__, plugin, its test; and the single file
    assert offenders(files) == {}


@pytest.mark.parametrize(
    "text",
    [
        "from hashzoo.run import Run",
        "import hashzoo.run",
        "def f():\n    from hashzoo.registry import zoo",
        "from hashzoo import run",
        '"""Doc.\n\n    >>> from hashzoo.run import Run\n"""',
    ],
)
def test_an_import_of_the_core_is_found(text):
    assert offenders({"plugin.py": "from hashzoo import Run\n" + text})


def test_the_facade_shows_and_gives_every_name():
    assert len(hashzoo.__all__) > 60
    assert len(set(hashzoo.__all__)) == len(hashzoo.__all__)
    assert set(hashzoo.__all__) == set(hashzoo._MODULES) <= set(dir(hashzoo))
    for name in hashzoo.__all__:
        value = getattr(hashzoo, name)
        home = getattr(value, "__module__", "")
        assert home.split(".")[0] in ("hashzoo", "typing", "pluggy", "builtins", "collections", ""), (name, home)


def test_type_checkers_see_the_names_that_python_gives():
    tree = ast.parse(Path(hashzoo.__file__).read_bytes())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        alias.asname or alias.name: f"{node.module}".removeprefix("hashzoo.")
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == hashzoo._MODULES


def test_a_name_of_the_facade_imports_its_own_module_only():
    code = "import sys; from hashzoo import EnvironmentFailure; print([m for m in sys.modules if m[:8] == 'hashzoo.'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert sorted(ast.literal_eval(done.stdout)) == ["hashzoo._version", "hashzoo.errors"]


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        hashzoo.nothing  # noqa: B018
