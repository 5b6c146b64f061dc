"""The digest of a plugin's code: what changes it, and what does not."""

from __future__ import annotations

import ast
import importlib
import itertools
import linecache
import random
import sys
from functools import partial
from pathlib import Path

import pytest

from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.factory import deep
from hashzoo.hookspecs import Family
from hashzoo.registry.source import code_digest, load_module, source_files
from hashzoo.registry.syntax import joined, reduced

PLUGINS = Path(__file__).parents[2] / "plugins"
FILES = sorted(PLUGINS.rglob("*.py"))

PLAIN = """
from dataclasses import dataclass, field
import numpy as np
from torch import nn
from hashzoo import deep, hookimpl


@dataclass(frozen=True)
class Options:
    rate: float = 0.1
    names: tuple = ()


def loss(setting, *, weight=0.5, margin=None):
    total = setting.bits + weight
    scale = np.sqrt(total)
    if margin is None or margin < 0:
        raise ValueError(f"{margin} is not a margin")
    return {"pair": scale, **Options().__dict__}


class Method(nn.Module):
    card = None

    def fit(self, train, run):
        assert train, "no images"
        self.options = Options()
        for step in range(3):
            run.step(step)


METHOD = deep("tanh", loss, doc="a method")
"""


def text_of(source: str, name: str = "plugin") -> str:
    return joined({name: reduced(source.encode(), name, name.rpartition(".")[0])})


def edited(old: str, new: str) -> str:
    assert PLAIN.count(old) == 1
    return PLAIN.replace(old, new)


SAME = {
    "a comment": edited("    total = ", "    # the sum\n    total = "),
    "a comment behind code": edited("range(3):", "range(3):  # three"),
    "a docstring of the module": '"""What this is."""\n' + PLAIN,
    "a docstring of a class": edited("class Method(nn.Module):", 'class Method(nn.Module):\n    """Docs."""'),
    "a docstring of a function": edited("    total = ", '    """Docs."""\n    total = '),
    "an annotated parameter": edited(
        "def loss(setting, *, weight=0.5", "def loss(setting: Setting, *, weight: float = 0.5"
    ),
    "an annotated result": edited("margin=None):", "margin=None) -> dict[str, float]:"),
    "another annotation of a field": edited("rate: float", "rate: int"),
    "an annotated variable": edited("scale = np", "scale: np.float64 = np"),
    "an annotated attribute": edited("self.options = ", "self.options: Options = "),
    "a declared variable": edited("    total = ", "    total: float\n    total = "),
    "an annotated constant": edited("METHOD = ", "METHOD: object = "),
    "a class variable": edited("    card = None", "    card: ClassVar[object] = None"),
    "an import for annotations": edited("import numpy as np", "import numpy as np\nfrom typing import Any"),
    "one more name for annotations": edited("from torch import nn", "from torch import Tensor, nn"),
    "the future": "from __future__ import annotations\n" + PLAIN,
    "an import of hashzoo": "from hashzoo import Method\nimport hashzoo.testing\n" + PLAIN,
    "another import of hashzoo": edited("from hashzoo import", "from hashzoo.method import"),
    "imports for type checkers": edited(
        "from torch", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from torch import Tensor\nfrom torch"
    ),
    "the other branch of it": edited(
        "import numpy as np", "if typing.TYPE_CHECKING:\n    pass\nelse:\n    import numpy as np"
    ),
    "the order of imports": edited(
        "import numpy as np\nfrom torch import nn", "from torch import nn\nimport numpy as np"
    ),
    "an import in a function": edited("import numpy as np\n", "").replace(
        "    total = ", "    import numpy as np\n\n    total = "
    ),
    "an import at the top and in a function": edited("    total = ", "    import numpy as np\n\n    total = "),
    "imports on one line each": edited("import dataclass, field", "import dataclass\nfrom dataclasses import field"),
    "an error text": edited('f"{margin} is not a margin"', 'f"the margin {margin!r} of {setting} is negative"'),
    "an error text without names": edited('f"{margin} is not a margin"', '"not a margin"'),
    "a text of an assertion": edited(', "no images"', ""),
    "the text that describes a method": edited('doc="a method"', 'doc="the method"'),
    "the reason of a card": edited('doc="a method")', 'doc="a method", collapses="why")'),
    "pass": edited("    card = None\n", "    card = None\n    pass\n"),
    "quotes and brackets": edited('{"pair": scale, ', "{('pair'): (\n  scale), "),
    "digits": edited("0.5", "5_0e-2"),
    "blank lines": PLAIN.replace("\n", "\n\n"),
    "a formatter": ast.unparse(ast.parse(PLAIN)),
}

OTHER = {
    "a constant": edited("range(3)", "range(4)"),
    "an int that becomes a float": edited("range(3)", "range(3.0)"),
    "a truth value that becomes an int": edited("frozen=True", "frozen=1"),
    "a text": edited('"pair"', '"pairs"'),
    "the operator": edited("setting.bits + weight", "setting.bits - weight"),
    "the comparison": edited("margin < 0", "margin <= 0"),
    "and": edited("is None or", "is None and"),
    "a name": edited("scale = np.sqrt(total)", "scale = np.sqrt(weight)"),
    "an attribute": edited("setting.bits", "setting.classes"),
    "a function": edited("np.sqrt", "np.exp"),
    "a default": edited("weight=0.5", "weight=0.25"),
    "no default": edited("margin=None", "margin"),
    "the place of a parameter": edited("weight=0.5, margin=None", "margin=None, weight=0.5"),
    "a parameter by position": edited("setting, *, weight", "setting, weight"),
    "an argument of a decorator": edited("frozen=True", "frozen=False"),
    "no decorator": edited("@dataclass(frozen=True)\n", ""),
    "a value of a field": edited("rate: float = 0.1", "rate: float = 0.2"),
    "one more field": edited("    names: tuple = ()", "    names: tuple = ()\n    count: int = 0"),
    "one more field without a value": edited("    rate: float", "    count: int\n    rate: float"),
    "a field that is one no longer": edited("rate: float = 0.1", "rate: ClassVar[float] = 0.1"),
    "a field that is a parameter alone": edited("rate: float = 0.1", "rate: 'InitVar[float]' = 0.1"),
    "the order of fields": edited(
        "rate: float = 0.1\n    names: tuple = ()", "names: tuple = ()\n    rate: float = 0.1"
    ),
    "the order of statements": edited(
        "    total = setting.bits + weight\n    scale = np.sqrt(total)",
        "    scale = np.sqrt(total)\n    total = setting.bits + weight",
    ),
    "one statement less": edited("    scale = np.sqrt(total)\n", ""),
    "a base class": edited("class Method(nn.Module)", "class Method"),
    "the kind of an error": edited("raise ValueError", "raise TypeError"),
    "another import under the same name": edited("import numpy as np", "import torch as np"),
    "another name of hashzoo under the same name": edited("import deep, hookimpl", "import shallow as deep, hookimpl"),
    "an import in a function under a name of the module": edited(
        "    total = ", "    import torch as np\n\n    total = "
    ),
    "an import in a function of a name that is assigned": edited(
        "        self.options = ", "        from numpy import step\n\n        self.options = "
    ),
    "an import in a branch": edited("        raise", "        import numpy as np\n\n        raise"),
    "a condition of an assertion": edited("assert train", "assert run"),
    "a key that is spread": edited("**Options()", "None: Options()"),
    "a branch": edited("    if margin", "    while margin"),
}


@pytest.mark.parametrize("source", SAME.values(), ids=SAME)
def test_what_cannot_change_a_score_does_not_change_the_text(source):
    assert text_of(source) == text_of(PLAIN)


@pytest.mark.parametrize("source", OTHER.values(), ids=OTHER)
def test_what_can_change_a_score_changes_the_text(source):
    assert text_of(source) != text_of(PLAIN)


def test_a_parameter_without_a_default_is_not_one_with_none():
    assert text_of("def f(*, x): return x") != text_of("def f(*, x=None): return x")
    assert text_of("f({**x})") != text_of("f({None: x})")


def test_a_chain_longer_than_the_stack_is_read():
    assert text_of("x = " + "+".join(["y"] * 400)) != text_of("x = " + "+".join(["y"] * 401))


@pytest.fixture
def file(tmp_path):
    """PLAIN as a plugin file."""
    path = tmp_path / "mine.py"
    path.write_text(PLAIN, encoding="utf-8")
    return path


def digest(path: Path, name: str = "loss") -> str:
    return code_digest(getattr(load_module(str(path)), name))


def test_the_digest_is_the_same_in_every_version_of_python(file):
    assert digest(file) == "9ea5464038b87c27"


# --- factories and modules ---


def test_a_file_has_the_same_digest_wherever_it_lies_and_whatever_it_is_called(file, tmp_path):
    (tmp_path / "below").mkdir()
    other = tmp_path / "below" / "yours.py"
    other.write_bytes(file.read_bytes())
    assert digest(file) == digest(other)


def test_two_factories_of_one_file_have_two_digests(file):
    assert digest(file, "loss") != digest(file, "Method")


def test_the_order_of_factories_counts(file):
    module = load_module(str(file))
    assert code_digest(module.loss, module.Method) != code_digest(module.Method, module.loss)


PACKAGES = itertools.count()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A function that writes a package of another name each time and returns the digest of its factory."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(files: dict[str, str], factory: str = "main:make", load: str = "") -> str:
        name = f"some_package_{next(PACKAGES)}"
        for file, text in {"__init__.py": "", **files}.items():
            path = tmp_path / name / file
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_text(text.replace("PACKAGE", name), encoding="utf-8")
        module, _, attribute = factory.partition(":")
        for one in (module, *load.split()):
            importlib.import_module(f"{name}.{one}".rstrip("."))
        return code_digest(getattr(sys.modules[f"{name}.{module}".rstrip(".")], attribute))

    return write


MAIN = "from PACKAGE import second\nfrom PACKAGE.first import f\n\n\ndef make(setting):\n    return f, second.g\n"
PARTS = {"main.py": MAIN, "first.py": "def f():\n    return 1\n", "second.py": "def g():\n    return 2\n"}


def test_the_digest_follows_what_a_module_imports_of_its_own_package(package):
    was = package(PARTS)
    assert package(PARTS) == was
    assert package(PARTS | {"first.py": "def f():\n    return 3\n"}) != was
    assert package(PARTS | {"second.py": "def g():\n    return 3\n"}) != was
    assert package(PARTS | {"other.py": "x = 1\n", "__init__.py": "from PACKAGE import other\n"}) == was


def test_the_name_of_a_module_does_not_count(package):
    renamed = {"main.py": MAIN.replace("first", "another"), "another.py": PARTS["first.py"]}
    assert package(PARTS) == package(renamed | {"second.py": PARTS["second.py"]})


@pytest.mark.parametrize(
    "way", ["from . import second\nfrom .first import f", "from .first import f\nfrom . import second"]
)
def test_relative_imports_are_the_same_imports(package, way):
    relative = MAIN.replace("from PACKAGE import second\nfrom PACKAGE.first import f", way)
    assert package(PARTS) == package(PARTS | {"main.py": relative})


def test_two_modules_that_swap_their_roles_change_the_digest(package):
    same = {
        "first.py": "def f():\n    return 1\ndef g():\n    return 1\n",
        "second.py": "def f():\n    return 2\ndef g():\n    return 2\n",
    }
    swapped = {"first.py": same["second.py"], "second.py": same["first.py"]}
    assert package({"main.py": MAIN} | same) != package({"main.py": MAIN} | swapped)


def test_modules_that_import_each_other_have_a_digest(package):
    circle = {
        "first.py": "def f():\n    from PACKAGE.second import g\n    return g\n",
        "second.py": "def g():\n    from PACKAGE.first import f\n    return f\n",
    }
    assert package(PARTS | circle) != package(PARTS)


def test_a_module_counts_before_it_is_imported(package):
    late = PARTS | {"main.py": "def make(setting):\n    from PACKAGE.first import f\n    return f\n"}
    assert package(late) == package(late, load="first")
    assert package(late) != package(late | {"first.py": "def f():\n    return 3\n"})


def test_a_name_that_a_module_passes_on_counts(package):
    passed = PARTS | {"first.py": "from math import sin as f\n"}
    assert package(passed) != package(passed | {"first.py": "from math import cos as f\n"})


def test_an_import_for_annotations_does_not_count_if_another_module_uses_the_name(package):
    unused = PARTS | {"first.py": "from math import sin\n" + PARTS["first.py"]}
    using = {"second.py": "from math import sin\n\n\ndef g():\n    return sin(2)\n"}
    assert package(unused | using) == package(PARTS | using)


def test_a_factory_in_the_file_of_the_package_itself_counts(package):
    here = {
        "__init__.py": "from . import first\n\n\ndef make(setting):\n    return first.f\n",
        "first.py": PARTS["first.py"],
    }
    assert package(here, ":make") != package(here | {"first.py": "def f():\n    return 3\n"}, ":make")


def test_a_composition_has_the_code_of_both_parts(file, tmp_path):
    other = tmp_path / "other.py"
    other.write_text(PLAIN.replace("0.5", "0.25"), encoding="utf-8")
    one, two = (load_module(str(path)).loss for path in (file, other))
    digests = [code_digest(deep(*parts)) for parts in ((one, one), (one, two), (two, one), (two, two))]
    assert len({*digests, code_digest(deep(one, two, loss_rate=2.0))}) == 5
    assert code_digest(deep(one, two, doc="another text")) == digests[1]


def test_a_partial_has_the_code_of_its_function_and_its_arguments_by_position(file):
    loss = load_module(str(file)).loss
    assert len({code_digest(one) for one in (loss, partial(loss), partial(loss, 1), partial(loss, 2))}) == 4
    assert code_digest(partial(loss, weight=0.5)) == code_digest(partial(loss))  # a hyperparameter of the cell


def test_members_of_a_family_have_the_code_of_the_family_and_their_name(file):
    family = Family(load_module(str(file)).loss, lambda: ["a", "b"], "")
    a, b = (code_digest(partial(family.build, name)) for name in ("a", "b"))
    assert a != b


def test_the_core_has_no_code(file):
    from hashzoo.method import Deep

    assert code_digest(Deep) == code_digest(Deep)
    assert source_files(Deep) == []
    assert source_files(load_module(str(file)).Method, Deep) == [file]


def test_a_class_of_a_notebook_has_the_code_of_its_cell(monkeypatch):
    def define(source: str):
        name = f"<ipython-input-{len(source)}>"
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        space = {"__name__": "__main__"}
        exec(compile(source, name, "exec"), space)  # noqa: S102 - as a notebook does
        return space["Mine"]

    monkeypatch.setattr(sys.modules["__main__"], "__file__", None, raising=False)
    monkeypatch.setattr(linecache, "cache", dict(linecache.cache))
    source = "class Mine:\n    def fit(self):\n        return 1\n"
    was = code_digest(define(source))
    assert code_digest(define("# mine\n" + source)) == was
    assert code_digest(define(source.replace("1", "10"))) != was
    with pytest.raises(UsageError, match="the source of Mine cannot be read"):
        code_digest(type("Mine", (), {"__module__": "__main__"}))


def test_a_file_that_was_spoiled_after_it_was_loaded_is_named(file):
    factory = load_module(str(file)).loss
    file.write_text("def loss(:\n", encoding="utf-8")
    with pytest.raises(EnvironmentFailure, match=r"mine.py is not valid Python: .* \(line 1\)"):
        code_digest(factory)
    file.unlink()
    with pytest.raises(EnvironmentFailure, match=r"cannot read .*mine\.py"):
        code_digest(factory)


# --- every node of the shipped plugins ---


def irrelevant(tree: ast.Module) -> set[int]:
    """The ids of nodes that cannot change a score, found another way than ``reduced`` does."""
    found: set[int] = set()

    def drop(*nodes: ast.AST | None) -> None:
        found.update(id(one) for node in nodes if node for one in ast.walk(node))

    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(returns=returns):
                drop(returns)
            case ast.arg(annotation=annotation) | ast.AnnAssign(annotation=annotation):
                drop(annotation)
            case ast.Expr(value=ast.Constant()) | ast.Import() | ast.ImportFrom() | ast.Pass():
                drop(node)
            case ast.Raise():
                drop(*(one for one in ast.walk(node) if isinstance(one, ast.JoinedStr | ast.Constant)))
            case ast.Assert(msg=msg):
                drop(msg)
            case ast.keyword(arg="doc"):
                drop(node)
            case ast.If(test=ast.Name("TYPE_CHECKING")):
                drop(node)
    return found


def mutations(node: ast.AST):
    """Functions that change a node in place, each in one way that can change what it does."""
    match node:
        case ast.Constant(value=bool(value)):
            yield lambda: setattr(node, "value", not value)
        case ast.Constant(value=int(value) | float(value)):
            yield lambda: setattr(node, "value", value * 2 + 1)
        case ast.Constant(value=str(value)):
            yield lambda: setattr(node, "value", value + "x")
        case ast.Constant(value=None):
            yield lambda: setattr(node, "value", 0)
        case ast.BinOp(op=op) | ast.AugAssign(op=op):
            yield lambda: setattr(node, "op", ast.Sub() if not isinstance(op, ast.Sub) else ast.Add())
        case ast.Compare(ops=[op, *rest]):
            yield lambda: setattr(node, "ops", [ast.Lt() if not isinstance(op, ast.Lt) else ast.LtE(), *rest])
        case ast.BoolOp(op=op):
            yield lambda: setattr(node, "op", ast.And() if isinstance(op, ast.Or) else ast.Or())
        case ast.UnaryOp(op=op):
            yield lambda: setattr(node, "op", ast.UAdd() if not isinstance(op, ast.UAdd) else ast.USub())
        case ast.Name(id=name):
            yield lambda: setattr(node, "id", name + "_")
        case ast.Attribute(attr=name):
            yield lambda: setattr(node, "attr", name + "_")
        case ast.arg(arg=name) | ast.keyword(arg=str(name)):
            yield lambda: setattr(node, "arg", name + "_")
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            yield lambda: setattr(node, "name", name + "_")
            if node.decorator_list:
                yield node.decorator_list.pop
            if isinstance(node, ast.FunctionDef) and (node.args.defaults or any(node.args.kw_defaults)):
                yield lambda: setattr(node.args, "defaults", [])
                yield lambda: setattr(node.args, "kw_defaults", [None] * len(node.args.kwonlyargs))
        case ast.Return(value=ast.expr()):
            yield lambda: setattr(node, "value", None)
    body = getattr(node, "body", None)
    if isinstance(body, list) and len(body) > 2:
        yield lambda: body.__setitem__(slice(-2, None), body[:-3:-1])


@pytest.mark.parametrize("path", FILES, ids=[file.relative_to(PLUGINS).as_posix() for file in FILES])
def test_every_change_of_a_shipped_plugin_changes_its_text(path):
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    before, was = ast.unparse(tree), text_of(source)
    assert text_of(before) == was
    nodes, unseen = list(ast.walk(tree)), irrelevant(tree)
    relevant = [place for place, node in enumerate(nodes) if id(node) not in unseen and list(mutations(node))]
    for place in random.Random(path.name).sample(relevant, min(len(relevant), 6)):
        for number in range(len(list(mutations(nodes[place])))):
            changed = ast.parse(source)
            list(mutations(list(ast.walk(changed))[place]))[number]()
            after = ast.unparse(changed)
            if without_imports(after) != without_imports(before):
                assert text_of(after) != was, after


def without_imports(source: str) -> list[str]:
    return [line for line in source.splitlines() if not line.lstrip().startswith(("from ", "import "))]
