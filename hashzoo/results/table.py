"""The tables that commands print: one layout for the terminal, and the same entries in other formats.

A table never shrinks or drops a column that identifies its rows. What does not fit into the terminal is left out from
the right, and the last line names it. Without a terminal the width is not limited.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from hashzoo.errors import printable

UNLIMITED = 10_000  # characters of a line without a terminal
LEGIBLE = 44  # characters of a sentence below which other columns are left out
_SHORTEST = 16  # characters below which a sentence is left out
_GAP = 2  # between columns

#: What to do about columns that are left out.
ADVICE = "a wider terminal, | less -S or --json shows all"


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: Its name in messages and in ``--columns``.
        header: Its header; by default the name.
        text: Whether it holds text, which is broken over lines, and not numbers, which are never broken.
        identifies: Whether it identifies the rows, so that it is never left out.
        widest: The number of characters after which text is broken over lines; never inside its first word.
        flexible: Whether it is a sentence that takes the room that the other columns leave.
        shortened: Whether a flexible column is cut after a word instead of broken over lines.
        vital: Whether it is left out only after all others that do not identify the rows.
    """

    name: str
    header: str | None = None
    text: bool = False
    identifies: bool = False
    widest: int = UNLIMITED
    flexible: bool = False
    shortened: bool = False
    vital: bool = False

    @property
    def shown(self) -> str:
        """The text of the header."""
        return self.name if self.header is None else self.header


@dataclass(frozen=True)
class Entry:
    """An entry of a table.

    Attributes:
        text: Its text.
        best: Whether it is the best of its group: bold, and marked ``*`` where there is no bold.
        mark: A mark beside the text, such as ``*`` of a small p value.
        spread: The deviation beside it, without its sign.
        style: A style of the terminal.
    """

    text: str
    best: bool = False
    mark: str = ""
    spread: str = ""
    style: str = ""

    def __str__(self) -> str:
        """The entry on a terminal."""
        spread = f" \u00b1{self.spread}" if self.spread else ""
        return f"{self.text}{'*' if self.best else ''}{self.mark}{spread}"


@dataclass(frozen=True)
class TextTable:
    """A table for people.

    Attributes:
        columns: The columns, the most important ones first.
        rows: The entries of each row.
        title: The line above the table.
        notes: Lines under the table; the marks that the entries use are explained there.
        details: Lines about the rows, such as their settings, before the notes; a comment in LaTeX.
        ends: The numbers of rows that end a section.
        headers: Whether the columns have headers.
        ruled: Whether a line separates the headers and the sections.
        advice: What to do about columns that are left out.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[Entry]]
    title: str = ""
    notes: Sequence[str] = ()
    ends: frozenset[int] = frozenset()
    headers: bool = True
    ruled: bool = True
    advice: str = ADVICE
    details: Sequence[str] = ()

    def column(self, name: str) -> list[str]:
        """The texts of the column with this name."""
        number = [one.name for one in self.columns].index(name)
        return [str(row[number]) for row in self.rows]

    @cached_property
    def _widths(self) -> list[int]:
        return [self._width(number) for number in range(len(self.columns))]

    def _width(self, number: int) -> int:
        """The width of a column: that of its texts, at most ``widest``, but never less than the first word of each."""
        column = self.columns[number]
        texts = [column.shown if self.headers else "", *(str(row[number]) for row in self.rows)]
        words = max(cell_len((text.split() or [""])[0]) for text in texts)
        return max(words, min(max(map(cell_len, texts)), column.widest))

    def fitted(self, width: int) -> tuple[dict[int, int], list[str]]:
        """The widths of the columns that fit into a line, by their numbers, and the names of the others."""
        if width >= UNLIMITED and any(column.widest < UNLIMITED for column in self.columns):
            wide = [replace(column, widest=UNLIMITED) for column in self.columns]  # one line for each row, as for grep
            return replace(self, columns=wide).fitted(width)
        flexible = [number for number, column in enumerate(self.columns) if column.flexible]
        fixed = [number for number in range(len(self.columns)) if number not in flexible]
        wanted = sum(min(self._widths[number], LEGIBLE) for number in flexible)
        for number in self._dispensable(fixed):
            if self._room(fixed, flexible, width) < wanted:
                fixed.remove(number)
        room = self._room(fixed, flexible, width)
        shortest = sum(min(self._widths[number], _SHORTEST) for number in flexible)
        if room < shortest and not any(self.columns[number].identifies for number in flexible):
            flexible = []
        share = max(room, shortest) // max(len(flexible), 1)
        widths = {number: self._widths[number] for number in fixed}
        widths |= {number: min(self._widths[number], share) for number in flexible}
        return dict(sorted(widths.items())), [c.name for n, c in enumerate(self.columns) if n not in widths]

    def _dispensable(self, numbers: Sequence[int]) -> list[int]:
        """The columns that can be left out, in this order: from the right, vital ones last."""
        found = [number for number in reversed(numbers) if not self.columns[number].identifies]
        return sorted(found, key=lambda number: self.columns[number].vital)

    def _room(self, fixed: Sequence[int], flexible: Sequence[int], width: int) -> int:
        """Characters that remain for flexible columns; negative if the others do not fit."""
        gaps = _GAP * (len(fixed) + len(flexible) - 1)
        return width - sum(self._widths[number] for number in fixed) - gaps

    def _grid(self, widths: dict[int, int]) -> Table:
        ruled = self.ruled and self.headers
        grid = Table(box=box.SIMPLE_HEAD if ruled else None, show_edge=False, show_header=self.headers, pad_edge=False)
        grid.padding = (0, 1, 0, 0) if ruled else (0, _GAP, 0, 0)
        for number, width in widths.items():
            column = self.columns[number]
            # a number that is broken over two lines reads as another number, so only text is folded
            grid.add_column(
                Text(column.shown),
                justify="left" if column.text else "right",
                overflow="fold",
                no_wrap=not column.text,
                width=width,
            )
        for number, row in enumerate(self.rows):
            entries = [self._text(row[place], self.columns[place], width) for place, width in widths.items()]
            grid.add_row(*entries, end_section=number in self.ends)
        return grid

    @staticmethod
    def _text(entry: Entry, column: Column, width: int) -> Text:
        text = str(entry)
        if column.shortened and cell_len(text) > width:
            text = textwrap.shorten(text, width, placeholder=" ...", break_on_hyphens=False)
        return Text(text, style="bold" if entry.best else entry.style)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The title, the table, its notes, and a line with the names of the columns that do not fit."""
        if self.title:
            yield Text(self.title, style="bold", overflow="fold")
        widths, left_out = self.fitted(options.max_width)
        if self.rows:
            needed = sum(widths.values()) + _GAP * (len(widths) + 1)
            yield from console.render(self._grid(widths), options.update(max_width=max(needed, options.max_width)))
        for note in (*self.details, *self.notes):
            yield Text(note, overflow="fold")
        if left_out and self.rows:
            several = "columns" if len(left_out) > 1 else "column"
            yield Text(f"{several} left out: {', '.join(left_out)}; {self.advice}", style="dim", overflow="fold")


def screen() -> Console:
    """The console of the terminal; without a terminal or COLUMNS, the width is not limited."""
    console = Console()
    return console if console.is_terminal or os.environ.get("COLUMNS", "").isdecimal() else Console(width=UNLIMITED)


def show(tables: Iterable[TextTable], lines: Sequence[str] = (), console: Console | None = None) -> None:
    """Print tables, a blank line between them, and lines after them. No line is cut."""
    console = console or screen()
    for number, one in enumerate(tables):
        if number:
            console.print()
        console.print(one, crop=False)
    for line in lines:
        console.print(Text(line, overflow="fold"))


def of_records(
    records: Sequence[dict[str, object]], *, identifies: str, sentence: str = "", advice: str = ADVICE
) -> TextTable:
    """A table of dicts with the same keys; ``identifies`` is the column of names, ``sentence`` a flexible one."""
    columns = [
        Column(name, text=True, identifies=name == identifies, flexible=name == sentence)
        for name in (records[0] if records else ())
    ]
    rows = [[Entry("" if value is None else printable(value)) for value in record.values()] for record in records]
    return TextTable(columns, rows, ruled=False, advice=advice)
