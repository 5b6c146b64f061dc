"""The syntax of plugin modules, reduced to what can change a score.

Pure functions of source text. The result is the same in every Python version that hashzoo supports: it holds the types
of syntax nodes and their fields, but no positions, contexts, type comments or type parameters.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

_BLOCKS = ("body", "orelse", "finalbody")
_OMITTED = {"ctx", "kind", "simple", "type_comment", "type_ignores", "type_params"}
_FIELD_MARKERS = {"ClassVar", "InitVar", "KW_ONLY"}  # annotations that decide what is a field of a dataclass


@dataclass(frozen=True)
class ImportedName:
    """One name that an import statement binds; ``name`` is None for ``import module``."""

    module: str
    name: str | None
    bound: str

    def render(self, labels: Mapping[str, int], used: Collection[str]) -> str:
        """The import as text: modules in ``labels`` by their label, and nothing for a name that is not used."""
        if f"{self.module}.{self.name}" in labels:
            return f"(import #{labels[f'{self.module}.{self.name}']} as {self.bound})"
        if self.module in labels and self.bound != self.module:
            return f"(from #{labels[self.module]} import {self.name} as {self.bound})"
        if self.name not in (None, "*") and self.bound not in used:
            return ""
        return f"(from {self.module} import {self.name} as {self.bound})"


@dataclass(frozen=True)
class Syntax:
    """The reduced syntax of one module: text, with its imports apart, since these depend on other modules."""

    parts: tuple[str | ImportedName, ...]
    variables: frozenset[str]
    demands: frozenset[str]  # names that the module can use of others

    @property
    def imports(self) -> list[ImportedName]:
        """The names that the module imports, in order."""
        return [part for part in self.parts if isinstance(part, ImportedName)]


#: Arguments by keyword whose texts only describe: of a composed method, and of a card.
TEXTS = ("doc", "collapses")


@lru_cache(maxsize=512)
def reduced(source: bytes, name: str, package: str) -> Syntax:
    """The syntax of a module's source without what cannot change a score.

    Removed are docstrings and other expressions that are constants, ``pass``, annotations, the messages of ``raise``
    and ``assert``, ``doc=`` and ``collapses=`` texts, imports of hashzoo and ``if TYPE_CHECKING:`` blocks. An annotated
    name in the body of a class remains, since it can be a field of a dataclass. Each import binds one name, adjacent
    imports are sorted by that name, and imports of other packages count the same in a function as at the top. Raises
    SyntaxError.

    Args:
        source: The text of the module.
        name: Its dotted name.
        package: The package that relative imports start from; empty if there is none.
    """
    tree = ast.parse(source)
    stack: list[tuple[ast.AST, bool]] = [(tree, False)]
    while stack:
        node, in_class = stack.pop()
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            in_class = isinstance(node, ast.ClassDef)
        for field in _BLOCKS:
            if isinstance(block := getattr(node, field, None), list):
                setattr(node, field, _with_sorted_imports(_statements(block, in_class)))
        _reduce(node)
        stack += [(child, in_class) for child in ast.iter_child_nodes(node)]
    _hoist_imports(tree, name.partition(".")[0])
    parts = tuple(_parts(tree, package))
    variables = frozenset(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
    return Syntax(parts, variables, frozenset(_demands(tree, parts, name.partition(".")[0])))


def joined(modules: Mapping[str, Syntax]) -> str:
    """The text of several modules. Their names and files are not part of it, only their order and what imports what."""
    labels = {name: label for label, name in enumerate(modules)}
    demands = frozenset[str]().union(*(module.demands for module in modules.values()))

    def text(module: Syntax) -> str:
        used = module.variables | demands
        return "".join(part if isinstance(part, str) else part.render(labels, used) for part in module.parts)

    return "\n".join(map(text, modules.values()))


def _reduce(node: ast.AST) -> None:
    """Remove annotations, messages and texts of the arguments ``TEXTS`` of one node."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        node.returns = None
    elif isinstance(node, ast.arg):
        node.annotation = None
    elif isinstance(node, ast.Assert):
        node.msg = None
    elif isinstance(node, ast.Raise):
        for one in ast.walk(node):
            for name, value in ast.iter_fields(one):
                if isinstance(value, list):
                    setattr(one, name, [ast.Constant("") if _is_text(item) else item for item in value])
                elif _is_text(value):
                    setattr(one, name, ast.Constant(""))
    elif isinstance(node, ast.Call):
        node.keywords = [word for word in node.keywords if not (word.arg in TEXTS and _is_text(word.value))]


def _is_text(value: object) -> bool:
    return isinstance(value, ast.JoinedStr) or (isinstance(value, ast.Constant) and isinstance(value.value, str))


def _statements(block: list[ast.stmt], in_class: bool) -> list[ast.stmt]:
    """A block without statements that do nothing."""
    kept: list[ast.stmt] = []
    for one in block:
        if isinstance(one, ast.If) and _is_type_checking(one.test):
            kept += _statements(one.orelse, in_class)
        elif isinstance(one, ast.Import | ast.ImportFrom):
            kept += _single_imports(one)
        elif isinstance(one, ast.AnnAssign):
            kept += _assignment(one, in_class)
        elif not isinstance(one, ast.Pass) and not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant)):
            kept.append(one)
    return kept


def _is_type_checking(test: ast.expr) -> bool:
    return "TYPE_CHECKING" in (getattr(test, "id", ""), getattr(test, "attr", ""))


def _single_imports(node: ast.Import | ast.ImportFrom) -> list[ast.stmt]:
    """An import as one statement a name, without those of hashzoo and for type checkers."""
    kept: list[ast.stmt] = []
    for alias in node.names:
        if isinstance(node, ast.ImportFrom):
            module = "" if node.level else node.module or ""
            own = module.partition(".")[0] == "hashzoo"
            renamed = alias.asname not in (None, alias.name)
            if module != "__future__" and alias.name != "TYPE_CHECKING" and (renamed or not own):
                # where in hashzoo a name is defined does not matter, but what a new name stands for does
                kept.append(ast.ImportFrom("hashzoo" if own else node.module, [alias], node.level))
        elif alias.name.partition(".")[0] != "hashzoo" or alias.asname:
            kept.append(ast.Import([alias]))
    return kept


def _with_sorted_imports(block: list[ast.stmt]) -> list[ast.stmt]:
    """The block with every run of imports sorted by the name that each binds."""
    kept: list[ast.stmt] = []
    run: list[ast.Import | ast.ImportFrom] = []
    for one in block:
        if isinstance(one, ast.Import | ast.ImportFrom):
            run.append(one)
        else:
            kept += [*sorted(run, key=_bound_name), one]
            run = []
    return kept + sorted(run, key=_bound_name)


def _hoist_imports(tree: ast.Module, root: str) -> None:
    """Move imports of other packages from the bodies of functions to the top of a module, where each counts once.

    Only an import whose name has one meaning is moved: nothing else in the module binds it.
    """
    nodes = list(ast.walk(tree))
    meanings: dict[str, set[str]] = {}
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            meanings.setdefault(_bound_name(node), set()).add(ast.dump(node))
    assigned = {node.arg for node in nodes if isinstance(node, ast.arg)}
    assigned |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    variables = [node for node in nodes if isinstance(node, ast.Name)]
    assigned |= {node.id for node in variables if isinstance(getattr(node, "ctx", None), ast.Store)}

    def movable(node: ast.stmt) -> bool:
        if not isinstance(node, ast.Import | ast.ImportFrom):
            return False
        name, module = _bound_name(node), getattr(node, "module", None) or node.names[0].name
        other = not getattr(node, "level", 0) and module.partition(".")[0] != root
        return other and len(meanings[name]) == 1 and name.partition(".")[0] not in assigned

    moved: dict[str, ast.stmt] = {}
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            moved |= {ast.dump(one): one for one in node.body if movable(one)}
            node.body = [one for one in node.body if not movable(one)]
    top = [node for node in tree.body if ast.dump(node) not in moved]
    tree.body = _with_sorted_imports([*moved.values(), *top])


def _bound_name(node: ast.Import | ast.ImportFrom) -> str:
    (alias,) = node.names
    return alias.asname or alias.name


def _assignment(node: ast.AnnAssign, in_class: bool) -> list[ast.stmt]:
    """An annotated assignment without its annotation: a plain one, unless it can be a field of a class."""
    names = {getattr(one, "id", getattr(one, "attr", "")) for one in ast.walk(node.annotation)}
    texts = [str(one.value) for one in ast.walk(node.annotation) if isinstance(one, ast.Constant)]
    marks = {mark for mark in _FIELD_MARKERS if mark in names or any(mark in text for text in texts)}
    if in_class and "ClassVar" not in marks:
        node.annotation = ast.Tuple([ast.Name(mark) for mark in sorted(marks)])
        return [node]
    return [ast.Assign([node.target], node.value)] if node.value else []


def _parts(tree: ast.AST, package: str) -> Iterator[str | ImportedName]:
    """The text of a tree, equal for equal trees and for no others, with its imports apart."""
    stack: list[object] = [tree]  # an explicit stack, since expressions can nest deeper than Python recurses
    while stack:
        item = stack.pop()
        if isinstance(item, _Verbatim):
            yield item.text
        elif item is None:  # in a list: a parameter without a default, or the key of ``**other``
            yield "~"
        elif isinstance(item, ast.Constant):
            yield ascii(item.value)  # an int, a float and a bool have different texts
        elif isinstance(item, ast.Import | ast.ImportFrom):
            yield _imported_name(item, package)
        elif isinstance(item, ast.AST):
            stack += reversed(list(_node_parts(item)))
        elif isinstance(item, list):
            stack += reversed(
                [_Verbatim("["), *(part for one in item for part in (one, _Verbatim(","))), _Verbatim("]")]
            )
        else:
            yield ascii(item)


@dataclass(frozen=True)
class _Verbatim:
    text: str


def _node_parts(node: ast.AST) -> Iterator[object]:
    yield _Verbatim(f"({type(node).__name__}")
    for name, value in ast.iter_fields(node):
        if name in _BLOCKS and isinstance(value, list):  # without separators, since an import can be left out
            yield from (_Verbatim(f" {name}=["), *value, _Verbatim("]"))
        elif name not in _OMITTED and value is not None and value != []:
            yield from (_Verbatim(f" {name}="), value)
    yield _Verbatim(")")


def _imported_name(node: ast.Import | ast.ImportFrom, package: str) -> ImportedName:
    (alias,) = node.names
    if isinstance(node, ast.Import):
        return ImportedName(alias.name, None, alias.asname or alias.name)
    base = package.split(".")[: package.count(".") + 2 - node.level] if node.level else []
    module = ".".join([*base, *([node.module] if node.module else [])])
    return ImportedName(module, alias.name, alias.asname or alias.name)


def _demands(tree: ast.AST, parts: Iterable[str | ImportedName], root: str) -> Iterator[str]:
    """Names that a module can use of others: attributes, texts, and what it imports from its own package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
    for part in parts:
        if isinstance(part, ImportedName) and part.name and part.module.partition(".")[0] == root:
            yield part.name
