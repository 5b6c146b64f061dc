"""The rooms of the core: every module lies in one, and imports only go down."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "hashzoo"

#: The rooms and root modules of the core, bottom to top: a module imports from its own room and from those before it.
ORDER = (
    *("_version", "errors", "types", "space", "backbone", "storage", "hamming", "data", "training"),
    *("distance", "index", "run", "method", "hookspecs", "factory", "evaluation", "results", "registry"),
    *("testing", "bench", "retrieval", "execution", "export", "serve", "report", "api", "cli", "__init__"),
)


def room_of(module: str) -> str:
    """The room, or root module, of a dotted name below ``hashzoo``.

    >>> room_of("results.store"), room_of("run"), room_of("")
    ('results', 'run', '__init__')
    """
    return module.split(".")[0] or "__init__"


def modules() -> dict[str, Path]:
    """Every module of the core by its name below ``hashzoo``; a package by its own name."""
    found = {}
    for file in sorted(CORE.rglob("*.py")):
        parts = file.relative_to(CORE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imports(file: Path, known: set[str]) -> set[str]:
    """The modules of the core that a file imports anywhere: at the top, in functions, and for type checkers."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_bytes())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file} imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            root, _, below = name.partition(".")
            if root != "hashzoo":
                continue
            while below and below not in known:
                below = below.rpartition(".")[0]
            found.add(below)
    return found


def graph() -> dict[str, set[str]]:
    """What each module imports of the core."""
    files = modules()
    return {name: imports(file, set(files)) for name, file in files.items()}


def test_the_graph_holds_the_whole_core():
    found = graph()
    assert len(found) > 90
    assert sum(map(len, found.values())) > 300
    assert {"cli.main", "report.page", "export.onnx", "serve.app", "run", ""} <= found.keys()
    assert {room_of(name) for name in found} == set(ORDER)


def test_imports_only_go_down():
    rank = {room: place for place, room in enumerate(ORDER)}
    up = [
        f"{name} imports {other}"
        for name, others in graph().items()
        for other in sorted(others)
        if rank[room_of(other)] > rank[room_of(name)]
    ]
    assert up == []


def test_nothing_below_the_facade_imports_the_facade():
    assert [name for name, others in graph().items() if name and "" in others] == []


def test_there_is_no_circle():
    left = {name: others - {name} for name, others in graph().items()}
    while free := [name for name, others in left.items() if not others & left.keys()]:
        for name in free:
            del left[name]
    assert left == {}


@pytest.mark.parametrize("text", ["import hashzoo.cli.main", "def f():\n    from hashzoo.cli import main"])
def test_an_import_is_seen_wherever_it_stands(tmp_path, text):
    file = tmp_path / "module.py"
    file.write_text(text)
    assert imports(file, {"cli", "cli.main"}) == {"cli.main"}


def promise(file):
    """The first paragraph of a module's docstring, in one line."""
    return " ".join(str(ast.get_docstring(ast.parse(file.read_bytes()))).split("\n\n")[0].split()).replace("``", "`")


def test_the_page_on_architecture_gives_the_promise_of_every_room_in_the_order_of_imports():
    page = (ROOT / "docs" / "architecture.md").read_text()
    rooms = [name for name in reversed(ORDER) if (CORE / name).is_dir()]
    assert re.findall(r"^\| `(\w+)/` \| (.+) \|$", page, re.M) == [
        (room, promise(CORE / room / "__init__.py")) for room in rooms
    ]


def test_the_page_on_architecture_gives_the_promise_of_every_module_beside_the_rooms():
    page = (ROOT / "docs" / "architecture.md").read_text()
    modules = [name for name in reversed(ORDER) if (CORE / f"{name}.py").is_file() and not name.startswith("_")]
    assert len(modules) >= 8
    assert re.findall(r"^\| `(\w+\.py)` \| (.+) \|$", page, re.M) == [
        (f"{name}.py", promise(CORE / f"{name}.py")) for name in modules
    ]


def test_every_file_that_the_page_on_architecture_names_exists():
    page = (ROOT / "docs" / "architecture.md").read_text()
    names = set(re.findall(r"`([\w./]+(?:\.py|/))`", page))
    assert len(names) > 30
    assert [name for name in names if not (CORE / name).exists() and not (ROOT / name).exists()] == []


@pytest.mark.parametrize("room", sorted(path.parent.name for path in CORE.glob("*/__init__.py")))
def test_every_room_states_its_promise(room):
    assert promise(CORE / room / "__init__.py").endswith(".")


def test_every_folder_of_tests_is_named_after_a_room():
    others = {"root", "plugins", "oracles", "faults", "docs"}
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/__init__.py")}
    assert folders <= others | set(ORDER)
    assert len(folders & set(ORDER)) >= 12
