"""The reference of built-in methods: a page for each, one for heads, losses and backbones each, and an index.

The pages are made from docstrings, cards, options, the publications that docstrings cite, and the committed boards.
"""

from __future__ import annotations

import inspect
import re
import sys
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from hashzoo.factory import FactoryInfo, options
from hashzoo.method import Card
from hashzoo.registry.bibtex import BibEntry
from hashzoo.registry.citations import citations, section
from hashzoo.registry.zoo import Entry, Zoo
from hashzoo.results.csv_file import read_csv
from hashzoo.results.leaderboard import main_metric, metrics, records
from hashzoo.results.render import STALE, without_shared

FAMILIES = {
    "shallow": "Shallow",
    "pairwise": "Pairwise and triplet",
    "pointwise": "Pointwise and unsupervised",
    "structured": "Structured",
    "longtail": "Long tail",
    "controls": "Controls",
}
PARTS = {"heads": "Heads", "losses": "Losses", "backbones": "Backbones"}
SAW_DATABASE = "yes: where training images are in the database, their codes were learned from their labels"
#: Characters of a line of a formula that fit into a page of 700 pixels.
WIDTH = 76
INTRODUCTION = """# Methods

Each page has the card of a method, its formulas, its scores on the boards that come with hashzoo, and how to cite it.
**Resolved** says how this implementation reads what the paper leaves open, **Public code** what other implementations
do differently, and **Measured** what was found here. `hashzoo list methods` prints the same tables; `--supervision`,
`--kind`, `--labels` and `--year` select from them.
"""


def write(house: Zoo, folder: Path, results: Path) -> None:
    """Write all pages into a folder, and remove what else it holds.

    Args:
        house: The plugins to describe.
        folder: The folder of the pages.
        results: A folder with a results folder for each board.

    Raises:
        RuntimeError: If a plugin did not load, since its methods would be missing.
    """
    broken = [f"{plugin.origin}: {plugin.reason}" for plugin in house.plugins if plugin.reason]
    if broken:
        raise RuntimeError("; ".join(broken))
    scores = board_rows(results)
    pages = {f"{name}.md": page(house, name, scores) for name in house.methods}
    pages |= {f"{kind}.md": parts_page(house, kind) for kind in PARTS}
    pages["index.md"] = index(house)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.md"):
        if old.name not in pages:
            old.unlink()
    for name, text in pages.items():
        if not (folder / name).exists() or (folder / name).read_text() != text:  # Sphinx builds changed files only
            (folder / name).write_text(text)


def index(house: Zoo) -> str:
    """The families in the order of FAMILIES, each with a table of its methods by year, and the pages of parts."""
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
        parts += [table(["name", "description", "supervision", "labels", "year"], rows)]
    listed = ", ".join(f"[{title}]({kind}.md)" for kind, title in PARTS.items())
    parts += ["## Parts", f"A head and a loss compose a method: `--methods HEAD+LOSS`. {listed}."]
    return "\n\n".join([*parts, "```{toctree}\n:hidden:\n\n" + "\n".join([*order, *PARTS]) + "\n```\n"])


def families(house: Zoo) -> dict[str, tuple[str, list[str]]]:
    """The package and the methods of each family; families of other plugins come last."""
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
    parts = [f"# {escaped(name)}", escaped(entry.doc), facts(house, entry), text_of_module(source)]
    parts.append(markdown(without_citation("\n\n".join((inspect.getdoc(source) or "").split("\n\n")[1:]))))
    if rows := [
        [code(o.name), code(repr(o.default)), code(spelt(o.annotation)), str(o.space or "")]
        for o in options(entry.factory).values()
    ]:
        parts += ["## Hyperparameters", table(["name", "default", "type", "range of `hashzoo tune`"], rows)]
        first = next(iter(options(entry.factory).values()))
        parts.append(
            f"Set one with `--set {name}.{first.name}=VALUE` or in the table `[set.{name}]` of a benchmark file."
        )
    if mine := [(board, row) for board, row in scores if row["method"] == name]:
        parts += ["## On the shipped boards", boards(mine)]
    parts += ["## How to cite", how_to_cite(name, citations([entry.factory]))]
    return "\n\n".join(part for part in parts if part) + "\n"


def parts_page(house: Zoo, kind: str) -> str:
    """The page of all heads, losses or backbones; the text of a module is on the page of its method if it has one."""
    of_module = {described(house.method(name).factory).__module__: name for name in reversed(house.methods)}
    parts, shown = [f"# {PARTS[kind]}"], dict[str, str]()
    for name, entry in house.catalogue(kind).items():
        source = described(entry.factory)
        cited = citations([entry.factory])
        method = of_module.get(source.__module__)
        users = [f"[{escaped(one)}]({one}.md)" for one in house.methods if entry.factory in composed_of(house, one)]
        defaults = [code(f"{o.name} = {o.default!r}") for o in FactoryInfo(source).options.values()]
        rows = [("paper", papers("", cited)), ("defaults", ", ".join(defaults)), ("methods", ", ".join(users))]
        rows += [
            ("described with", f"[{escaped(method)}]({method}.md)" if method else shown.get(source.__module__, ""))
        ]
        parts += [f"## {escaped(name)}", escaped(entry.doc), table(["card", ""], [row for row in rows if row[1]])]
        if not method and source.__module__ not in shown:
            shown[source.__module__] = code(name)
            parts += [text_of_module(source), how_to_cite(name, cited) if cited else ""]
    return "\n\n".join(part for part in parts if part) + "\n"


def composed_of(house: Zoo, method: str) -> list[Any]:
    """The head and the loss of a composition; nothing for another method."""
    composition = FactoryInfo(house.method(method).factory).composition
    return [composition.head, composition.loss] if composition else []


def described(factory: Any) -> Any:
    """The class or function whose module's docstring describes a factory: of a composition its loss."""
    info = FactoryInfo(factory)
    if info.composition:
        return described(info.composition.loss)
    return info.family.build if info.family else info.function


def text_of_module(source: Any) -> str:
    """The docstring of the module of a class or function, without what it cites."""
    return markdown(without_citation(inspect.getdoc(sys.modules[source.__module__]) or ""))


def without_citation(text: str) -> str:
    """A docstring without its section ``Cite:``.

    >>> without_citation("One.\\n\\nCite: somebody2020\\n\\nTwo.")
    'One.\\n\\n\\nTwo.'
    """
    found = section(text)
    return text[: found.start()] + text[found.end() :] if found else text


def facts(house: Zoo, entry: Entry) -> str:
    """The card of a method as a table, with a command that trains it and, for a composition, its parts."""
    card, composition = entry.card, FactoryInfo(entry.factory).composition
    command = f"hashzoo bench {'digits' if card.single else 'scenes'} --methods"
    rows = [
        ("kind", card.kind),
        ("supervision", "none: images without labels" if card.supervision == "none" else card.supervision),
        ("labels", labels(card)),
        ("year", card.year),
        ("paper", papers(card.paper, citations([entry.factory])) or "none"),
        ("defaults", ", ".join(code(f"{o.name} = {o.default!r}") for o in options(entry.factory).values())),
        ("stored bits", escaped(f"differ from the requested ones: {card.beyond}") if card.beyond else "as requested"),
        ("saw the database", SAW_DATABASE if card.saw_database else ""),
        ("command", code(f"{command} {entry.name}")),
    ]
    if composition:
        head, loss = offered(house.heads, composition.head), offered(house.losses, composition.loss)
        rate = "" if composition.loss_rate == 1 else f"{composition.loss_rate} times that of the rest"
        rows += [
            ("head", (code(head) + ": " if head else "") + first_line(composition.head)),
            ("loss", (code(loss) + ": " if loss else "") + first_line(composition.loss)),
            ("rate of the loss's parameters", rate),
        ]
        if head and loss:
            rows.append(("as head + loss", code(f"{command} {head}+{loss}") + (", at one rate" if rate else "")))
    return table(["card", ""], [row for row in rows if row[1]])


def offered(catalogue: dict[str, Entry], factory: Any) -> str | None:
    """The name of a part; None if it has none."""
    return next((name for name, entry in catalogue.items() if entry.factory is factory), None)


def first_line(factory: Any) -> str:
    return escaped((inspect.getdoc(factory) or "").partition("\n")[0])


def labels(card: Card) -> str:
    """How many labels an image can have.

    >>> labels(Card(multilabel=False))
    'single'
    """
    return ", ".join(["single"] * card.single + ["multi"] * card.multilabel)


def papers(text: str, cited: Sequence[BibEntry]) -> str:
    """The publications of a card, with their links; further ones that are cited follow with authors, venue and year."""
    named = [one for one in text.split("; ") if one]
    shown = []
    for number in range(max(len(named), len(cited))):
        entry = cited[number] if number < len(cited) else None
        name = named[number] if number < len(named) else short(entry) if entry else ""
        links = [f"[{kind}](<{address}>)" for kind, address in (entry.links if entry else {}).items()]
        shown.append(escaped(name) + (f" ({', '.join(links)})" if links else ""))
    return "; ".join(shown)


def short(entry: BibEntry) -> str:
    """A publication in a few words.

    >>> from hashzoo.registry.bibtex import parse
    >>> short(parse("@article{a, author = {Do, A. and Re, B. and Mi, C.}, journal = {Music (M)}, year = {1999}}")[0])
    'Do et al., M 1999'
    """
    surnames = [plain(author.split(",")[0]) for author in entry.fields["author"].split(" and ")]
    authors = f"{surnames[0]} et al." if len(surnames) > 2 else " & ".join(surnames)
    venue = next(
        entry.fields[name] for name in ("journal", "booktitle", "howpublished", "title") if name in entry.fields
    )
    abbreviation = re.search(r"\((\w+)\)$", venue)
    return f"{authors}, {abbreviation[1] if abbreviation else plain(venue)} {entry.fields['year']}"


def plain(text: str) -> str:
    """A value of BibTeX without braces and accents.

    >>> plain("J{\\\\'e}gou and {H}ash")
    'Jegou and Hash'
    """
    return re.sub(r"\\[^a-z]|[{}]", "", text)


def how_to_cite(name: str, cited: Sequence[BibEntry]) -> str:
    """The BibTeX entries, and the command that prints them."""
    if not cited:
        return "No publication is recorded. `hashzoo cite` prints how to cite hashzoo."
    entries = "\n\n".join(entry.text for entry in cited)
    return f"`hashzoo cite {name}` prints:\n\n~~~bibtex\n{entries}\n~~~"


def board_rows(results: Path) -> list[tuple[str, dict[str, Any]]]:
    """Every row of ``results/*/leaderboard.csv`` with its folder's name.

    Each row has in addition ``metric``, the main metric of the board or the first one that the row has, ``score`` and
    ``std``. Settings that all rows of a dataset share, such as weights of the network, are left out.
    """
    found = []
    for file in sorted(results.glob("*/leaderboard.csv")):
        frame = read_csv(file)
        names = [name for name in (main_metric(metrics(frame)), *metrics(frame)) if name]
        datasets: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row in records(frame):
            datasets.setdefault((row["benchmark"], row["dataset"]), []).append(row)
        for rows in datasets.values():
            for row in own_settings(rows):
                metric = next((name for name in names if row[name] is not None), "")
                scored = {"metric": metric, "score": row.get(metric), "std": row.get(f"{metric}_std")}
                found.append((file.parent.name, row | scored))
    return found


def own_settings(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of one dataset without the settings that all rows on the same backbone share."""
    found = []
    for backbone in dict.fromkeys(row["backbone"] for row in rows):
        same = [row for row in rows if row["backbone"] == backbone]
        found += without_shared(same)[1] if len({row["method"] for row in same}) > 1 else same
    return found


def boards(rows: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """A method's scores: for each board a table with a row for each dataset and a column for each number of bits."""
    parts = []
    for board in dict.fromkeys(board for board, _ in rows):
        mine = [row for name, row in rows if name == board]
        lengths = sorted({row["bits"] for row in mine})
        groups: dict[tuple[str, ...], dict[int, str]] = {}
        for row in mine:
            other = ", ".join(filter(None, [row["settings"], row["marks"]]))
            place = (row["dataset"], row["backbone"], other)
            metric = row["metric"] or next((one["metric"] for one in mine if one["metric"]), "")
            nth = 0  # rows can differ in what is not shown, such as the budget
            while row["bits"] in groups.setdefault((*place, metric, str(nth)), {}):
                nth += 1
            groups[*place, metric, str(nth)][row["bits"]] = score(row)
        header = ["dataset", "backbone", "metric", *(f"{bits} bits" for bits in lengths)]
        lines = [
            [escaped(dataset), escaped(backbone), escaped(metric), *(scores.get(bits, "") for bits in lengths), other]
            for (dataset, backbone, other, metric, _), scores in groups.items()
        ]
        noted = any(line[-1] for line in lines)
        lines = [[*line[:-1], *([escaped(line[-1])] if noted else [])] for line in lines]
        parts += [f"**{escaped(board)}** (`hashzoo show results/{board}`)"]
        parts += [table([*header, *(["not by default"] if noted else [])], lines)]
    seeds = sorted({row["seeds"] for _, row in rows if row["score"] is not None})
    if seeds:
        count = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        parts.append(f"Mean \u00b1 standard deviation over {count} seed{'s' * (seeds != [1])}.")
    if any(row.get("stale") for _, row in rows):
        parts.append(f"\\* {STALE[0].upper()}{STALE[1:]}.")
    return "\n\n".join([*parts, "`results/README.md` lists the limitations of each board."])


def score(row: dict[str, Any]) -> str:
    """The score of a row, with a star if it is stale; its status if it has none."""
    if row["score"] is None:
        return str(row["status"])
    spread = "" if row["std"] is None else f" \u00b1 {row['std']:.3f}"
    return f"{row['score']:.3f}{spread}" + (" \\*" if row.get("stale") else "")


def spelt(annotation: Any) -> str:
    """A type as written in code.

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
    """A Markdown table from cells in Markdown; a bar inside a cell is escaped."""
    cells = [[re.sub(r"(?<!\\)\|", r"\|", str(cell)) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, ["---"] * len(header), *cells])


def code(text: str) -> str:
    """Text as code."""
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
            paragraph = escaped(" ".join(lines))
            parts.append(re.sub(r"^(Resolved|Public code|Measured):", r"**\1:**", paragraph))
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
