"""A page a method, made from its docstring, its card, its options and the shipped boards; and an index by family."""

from __future__ import annotations

import inspect
import re
import sys
import types
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from hashzoo.factory import Composition, options
from hashzoo.method import Card
from hashzoo.registry.zoo import Entry, Zoo
from hashzoo.results.csv_file import read_csv
from hashzoo.results.leaderboard import main_metric, metrics, records

FAMILIES = {
    "shallow": "Shallow",
    "pairwise": "Pairwise and triplet",
    "pointwise": "Pointwise and unsupervised",
    "structured": "Structured",
    "longtail": "Long tail",
    "controls": "Controls",
}
SAW_DATABASE = "where training images are in the database, their codes were learned from their labels"
INTRODUCTION = """# Methods

What each method does, what its paper leaves open and how that was resolved, what public code gets wrong, and what it
scored on the boards that come with hashzoo. `hashzoo list methods` prints the same tables, and `--supervision`,
`--kind`, `--labels` and `--year` choose from them.
"""


def write(house: Zoo, folder: Path, results: Path) -> None:
    """All pages and ``index.md`` into ``folder``, and nothing else in it; ``results`` holds a folder a board.

    RuntimeError where a plugin did not load, since its methods would be missing without a word.
    """
    broken = [f"{plugin.origin}: {plugin.reason}" for plugin in house.plugins if plugin.reason]
    if broken:
        raise RuntimeError("; ".join(broken))
    scores = board_rows(results)
    pages = {f"{name}.md": page(house, name, scores) for name in house.methods}
    pages["index.md"] = index(house)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.md"):
        if old.name not in pages:
            old.unlink()
    for name, text in pages.items():
        if not (folder / name).exists() or (folder / name).read_text() != text:  # what is the same is not built again
            (folder / name).write_text(text)


def index(house: Zoo) -> str:
    """The families in the order of FAMILIES, each a table of its methods by year."""
    parts, order = [INTRODUCTION.strip()], []
    for family, (origin, names) in families(house).items():
        entries = sorted((house.method(name) for name in names), key=lambda entry: (entry.card.year or 0, entry.name))
        order += [entry.name for entry in entries]
        rows = [
            [f"[{escaped(e.name)}]({e.name}.md)", escaped(e.doc), e.card.supervision, labels(e.card), e.card.year or ""]
            for e in entries
        ]
        heading = f"## {FAMILIES.get(family, family)}"
        parts += [heading, markdown(inspect.getdoc(sys.modules[origin]) or "")]
        parts += [table(["name", "what", "learns from", "labels", "year"], rows)]
    return "\n\n".join([*parts, "```{toctree}\n:hidden:\n\n" + "\n".join(order) + "\n```\n"])


def families(house: Zoo) -> dict[str, tuple[str, list[str]]]:
    """The package that offers them and the names of its methods, by family; strangers' families come last."""
    found = {}
    for plugin in house.plugins:
        names = [offer.removeprefix("method ") for offer in plugin.offers if offer.startswith("method ")]
        if names:
            family = plugin.origin.rpartition(".")[2] if plugin.name == "hashzoo" else plugin.origin
            found[family] = (plugin.origin, names)
    order = [*FAMILIES, *sorted(found.keys() - FAMILIES)]
    return {family: found[family] for family in order if family in found}


def page(house: Zoo, name: str, scores: Sequence[tuple[str, dict[str, Any]]] = ()) -> str:
    """The page of one method, in Markdown."""
    entry = house.method(name)
    source = described(entry.factory)
    parts = [f"# {escaped(name)}", escaped(entry.doc), facts(house, entry)]
    parts.append(markdown(inspect.getdoc(sys.modules[source.__module__]) or ""))
    parts.append(markdown("\n\n".join((inspect.getdoc(source) or "").split("\n\n")[1:])))
    if rows := [
        [code(o.name), code(repr(o.default)), code(spelt(o.annotation))] for o in options(entry.factory).values()
    ]:
        parts += ["## Hyperparameters", table(["name", "default", "type"], rows)]
        first = next(iter(options(entry.factory).values()))
        parts.append(
            f"Set one by `--set {name}.{first.name}=VALUE`, or in the table `[set.{name}]` of a benchmark file."
        )
    if mine := [(board, row) for board, row in scores if row["method"] == name]:
        parts += ["## On the shipped boards", boards(mine)]
    return "\n\n".join(part for part in parts if part) + "\n"


def described(factory: Any) -> Any:
    """The class or function whose module's docstring describes a method: of a composition its loss."""
    source = factory.loss if isinstance(factory, Composition) else factory
    return source.func if isinstance(source, partial) else source


def facts(house: Zoo, entry: Entry) -> str:
    """The card as a table, with a command that trains the method; of a composition its parts, too."""
    card, factory = entry.card, entry.factory
    command = f"hashzoo bench {'digits' if card.single else 'scenes'} --methods"
    rows = [
        ("kind", card.kind),
        ("learns from", "images alone" if card.supervision == "none" else card.supervision),
        ("labels an image", labels(card)),
        ("paper", escaped(card.paper) or "none"),
        ("year", card.year),
        ("stores beyond its bits", escaped(card.beyond)),
        ("saw the database", SAW_DATABASE if card.saw_database else ""),
        ("command", code(f"{command} {entry.name}")),
    ]
    if isinstance(factory, Composition):
        head, loss = offered(house.heads, factory.head), offered(house.losses, factory.loss)
        rate = "" if factory.loss_rate == 1 else f"{factory.loss_rate} times that of the rest"
        rows += [
            ("head", (code(head) + ": " if head else "") + first_line(factory.head)),
            ("loss", (code(loss) + ": " if loss else "") + first_line(factory.loss)),
            ("rate of the loss's parameters", rate),
        ]
        if head and loss:
            rows.append(("as head + loss", code(f"{command} {head}+{loss}") + (", at one rate" if rate else "")))
    return table(["card", ""], [row for row in rows if row[1]])


def offered(catalogue: dict[str, Entry], factory: Any) -> str | None:
    """The name under which a part is offered; None for one that has no name."""
    return next((name for name, entry in catalogue.items() if entry.factory is factory), None)


def first_line(factory: Any) -> str:
    return escaped((inspect.getdoc(factory) or "").partition("\n")[0])


def labels(card: Card) -> str:
    """How many labels an image may have.

    >>> labels(Card(multilabel=False))
    'single'
    """
    return ", ".join(["single"] * card.single + ["multi"] * card.multilabel)


def board_rows(results: Path) -> list[tuple[str, dict[str, Any]]]:
    """Every row of ``results/*/leaderboard.csv`` with its folder's name.

    To a row belong ``metric``, the board's main metric or the first that the row has, ``score`` and ``std``.
    """
    found = []
    for file in sorted(results.glob("*/leaderboard.csv")):
        frame = read_csv(file)
        names = [name for name in (main_metric(metrics(frame)), *metrics(frame)) if name]
        for row in records(frame):
            metric = next((name for name in names if row[name] is not None), "")
            scored = {"metric": metric, "score": row.get(metric), "std": row.get(f"{metric}_std")}
            found.append((file.parent.name, row | scored))
    return found


def boards(rows: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """A method's rows as a table, and the commands that show the boards."""
    cells = []
    for _, row in rows:
        spread = "" if row["std"] is None else f" \u00b1 {row['std']:.3f}"
        score = row["status"] if row["score"] is None else f"{row['score']:.3f}{spread}"
        other = ", ".join(filter(None, [row["settings"], row["marks"]]))
        names = [escaped(row[key]) for key in ("benchmark", "dataset", "backbone")]
        cells.append([*names, row["bits"], row["metric"], score, row["seeds"], escaped(other)])
    shown = sorted({f"`hashzoo show results/{board}`" for board, _ in rows})
    header = ["benchmark", "dataset", "backbone", "bits", "metric", "mean \u00b1 std", "seeds", "not by default"]
    return table(header, cells) + f"\n\nWhole boards: {', '.join(shown)}. `results/README.md` says what to doubt."


def spelt(annotation: Any) -> str:
    """A type as its author wrote it.

    >>> spelt(Union[float, Literal["mean"], None])
    "float | 'mean' | None"
    """
    if get_origin(annotation) in (Union, types.UnionType):
        return " | ".join(spelt(one) for one in get_args(annotation))
    if get_origin(annotation) is Literal:
        return " | ".join(repr(one) for one in get_args(annotation))
    if annotation is type(None):
        return "None"
    return annotation.__name__ if inspect.isclass(annotation) else str(annotation)


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table of Markdown out of cells that are Markdown; a bar inside a cell gets its backslash."""
    cells = [[re.sub(r"(?<!\\)\|", r"\|", str(cell)) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, ["---"] * len(header), *cells])


def code(text: str) -> str:
    """A piece of code."""
    return f"`{text}`"


def markdown(text: str) -> str:
    """Plain text as Markdown that shows it as it is: paragraphs, ``pieces of code`` and indented formulas.

    >>> print(markdown('The norm |u_i| of\\n``u``:\\n\\n    a * b\\n      + c'))
    The norm \\|u\\_i\\| of ``u``:
    <BLANKLINE>
    ~~~text
    a * b
      + c
    ~~~
    """
    parts = []
    for formula, lines in blocks(text):
        if formula:
            parts.append("\n".join(["~~~text", *lines, "~~~"]))
        else:
            parts.append(escaped(" ".join(lines)))
    return "\n\n".join(parts)


def blocks(text: str) -> Iterator[tuple[bool, list[str]]]:
    """The paragraphs of a text, and its blocks of formulas (True) without their indentation."""
    for found in re.finditer(r"(?:^ {4}.*\n(?:\s*\n(?= {4}))?)+|(?:^(?! {4}).*\S.*\n)+", text + "\n", re.MULTILINE):
        lines = found[0].rstrip().split("\n")
        formula = lines[0].startswith("    ")
        yield formula, [line[4:] if formula else line.strip() for line in lines]


def escaped(text: str) -> str:
    """One line of plain text as Markdown, with ``pieces of code`` as they are.

    >>> print(escaped("``a_b`` and a_b * |c| < $d$"))
    ``a_b`` and a\\_b \\* \\|c\\| \\< \\$d\\$
    """
    pieces = re.split(r"(``.+?``)", text.strip())
    for i in range(0, len(pieces), 2):
        pieces[i] = re.sub(r"([\\`*_{}\[\]<>|$&~^#])", r"\\\1", pieces[i])
    return re.sub(r"^(\d*)([-+=%:.()])", r"\1\\\2", "".join(pieces))  # a list, a rule, a comment or a directive
