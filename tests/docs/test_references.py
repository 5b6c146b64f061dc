"""Names of modules, classes and functions in prose, docstrings and configuration are names that exist."""

from __future__ import annotations

import ast
import importlib
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = [*ROOT.glob("hashzoo/**/*.py"), *ROOT.glob("plugins/**/*.py")]
PAGES = [
    *ROOT.glob("docs/**/*.md"),
    *ROOT.glob("docs/**/*.py"),
    *ROOT.glob("benchmarks/**/*.*"),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "pyproject.toml")),
]
DOTTED = re.compile(r"(?<![\w./@-])hashzoo(?:_plugins)?(?:\.[A-Za-z_]\w*)+")
ROLE = re.compile(r":(?:func|class|meth|data|mod|attr|obj):`~?([\w.]+)`")


@cache
def exists(name: str) -> bool:
    """Whether a dotted name is a module, or is found in one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ImportError:
            continue
        for part in parts[length:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def test_every_dotted_name_exists():
    found = [(file, name) for file in (*SOURCES, *PAGES) for name in DOTTED.findall(file.read_text())]
    assert len(found) > 500
    assert sorted({f"{file.relative_to(ROOT)}: {name}" for file, name in found if not exists(name)}) == []


def test_every_name_that_a_docstring_refers_to_is_defined_or_imported_in_its_module():
    wrong, count = [], 0
    for file in SOURCES:
        text = file.read_text()
        nodes = list(ast.walk(ast.parse(text)))
        known = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        known |= {a.asname or a.name for n in nodes if isinstance(n, ast.Import | ast.ImportFrom) for a in n.names}
        known |= set(re.findall(r"^\s*(?:self\.)?(\w+)\s*[:=]", text, re.M))
        for name in ROLE.findall(text):
            count += 1
            if not name.startswith(("hashzoo", "torch.", "numpy.")) and name.split(".")[0] not in known:
                wrong.append(f"{file.relative_to(ROOT)}: {name}")
    assert count > 50
    assert wrong == []


def test_the_files_and_constants_that_the_page_for_contributors_names_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    files = re.findall(r"\b(?:hashzoo|tests|docs|benchmarks)/[\w/-]+(?:\.\w+|/)?", text)
    assert [name for name in files if not (ROOT / name).exists() and not name.startswith("docs/_build")] == []
    constants = re.findall(r"`([A-Z]+)` in\s+`([\w/.]+)`", text)
    assert len(constants) == 2
    for name, file in constants:
        assert re.search(rf"^{name} = ", (ROOT / file).read_text(), re.M), (name, file)
