"""Tables for people: what never leaves them at any width, and the formats of papers."""

import csv
import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from hashzoo.results import formats, mean_ranks, paired, regressions, render, table
from hashzoo.results.board import BoardRow
from hashzoo.results.csv_file import csv_text
from hashzoo.results.leaderboard import board_frame, records
from hashzoo.results.table import Column, Entry, TextTable
from tests.results.test_leaderboard import BOARD, a_cell, failed

NAME = "a-method-with-a-long-name"


def pairs():
    first, second = (BoardRow(row) for row in records(board_frame([a_cell(NAME), a_cell("csq", 0.6)])))
    found = paired.Pair(first, second, 0.5, 0.25, 3, 100, (-0.3, -0.2), 0.001, 0.04)
    return [found]


def tables():
    """One table of each kind that the command prints, with its rows' names."""
    before, after = [a_cell(NAME), a_cell("csq")], [a_cell(NAME, 0.75), a_cell("csq", 0.1)]
    blocks = [
        a_cell(name, score, bits=bits) for bits in (8, 16, 32) for name, score in ((NAME, 0.9), ("b", 0.5), ("c", 0.2))
    ]
    listing = [{"name": NAME, "plugin": "hashzoo", "what": "A sentence of several words about it."}]
    return {
        "show": render.render(board_frame([a_cell(NAME, role="baseline"), a_cell("csq")])),
        "show --columns": render.render(board_frame([a_cell(NAME)]), columns=["map@all"]),
        "show --rank": [mean_ranks.render(mean_ranks.rank([board_frame(blocks)]))],
        "compare": regressions.render_compare(regressions.compare(board_frame(before), board_frame(after))),
        "compare --between": paired.render_paired(pairs(), "map@all"),
        "list": [table.of_records(listing, identifies="name", sentence="what")],
    }


def printed(tables, width):
    console = Console(width=width, file=io.StringIO(), no_color=True)
    table.show(tables, console=console)
    return console.file.getvalue()


@pytest.mark.parametrize("kind", tables())
@pytest.mark.parametrize("width", [1, 10, 20, 40, 60, 80, 100, table.UNLIMITED])
def test_a_table_keeps_the_column_of_names_whole_at_every_width(kind, width):
    found = tables()[kind]
    text = printed(found, width)
    assert NAME in text
    assert "\u2026" not in text
    shown = [columns for one in found for columns, _ in [one.fitted(width)]]
    left_out = [name for one in found for name in one.fitted(width)[1]]
    assert all(0 in columns for columns in shown)
    words = " ".join(text.split())
    if width >= 40:
        assert ("left out: " in words) == bool(left_out)
        assert all(name in words for name in left_out)
    if width == table.UNLIMITED:
        assert left_out == []


@given(st.lists(st.integers(1, 20), min_size=2, max_size=8), st.integers(20, 120), st.data())
@settings(max_examples=60, deadline=None)
def test_columns_are_left_out_from_the_right_and_lines_fit(widths, width, data):
    columns = [Column(str(n), header="", identifies=not n) for n in range(len(widths))]
    made = TextTable(columns, [[Entry("x" * one) for one in widths]])
    shown, left_out = made.fitted(width)
    assert list(shown) == list(range(len(shown)))
    assert left_out == [str(n) for n in range(len(shown), len(widths))]
    assert made.fitted(width + 1)[0].keys() >= shown.keys()
    longest = max(map(len, printed([made], width).splitlines()[:3]))
    assert longest <= max(width, widths[0])


def test_the_score_is_left_out_after_all_other_numbers():
    made = render.render(board_frame([a_cell("dhn"), a_cell("dhn", seed=1), a_cell("lsh", role="baseline")]))[0]
    shown = [made.columns[number].name for number in made.fitted(34)[0]]
    assert shown == ["method", "bits", "map@all"]


MARKS = {"*": "*: ", "\u00b1": "\u00b1: ", "(contaminated)": "contaminated: ", "(control)": "control: ", "vs ": "vs: "}


def test_every_mark_of_a_table_is_explained_below_it():
    [made] = render.render(board_frame([*(cell for cell in BOARD if cell.identity.bits == 32)]))
    text = printed([made], 300)
    for mark, note in MARKS.items():
        assert mark in text
        assert len([line for line in text.splitlines() if line.startswith(note)]) == 1
    [made] = paired.render_paired(pairs(), "map@all")
    assert "0.040*" in printed([made], 300)
    assert "*: significant at 5 %" in made.notes


def test_a_mark_that_is_not_used_is_not_explained():
    [made] = render.render(board_frame([a_cell(metrics={"empty@h2": 0.5})]))
    assert (made.details, made.notes) == (["all rows: backbone=tiny"], [])


# --- formats ---

HOSTILE = r"a_b&c%d$e#f{g}h~i^j\k<l>m|n\"[o]--p*`!@"


class Latex:
    """A strict reader of the LaTeX that is written here: what is open is closed, and nothing special is bare."""

    TOKEN = re.compile(r"\\[A-Za-z]+|\\.|[{}$&#%_^~]|[^\\{}$&#%_^~]+", re.DOTALL)
    WORDS = (
        *(
            [
                "begin",
                "end",
                "centering",
                "caption",
                "label",
                "toprule",
                "midrule",
                "bottomrule",
                "textbf",
                "pm",
                "approx",
                "rightarrow",
            ]
        ),
        *(["textbackslash", "textasciitilde", "textasciicircum", "textless", "textgreater", "textbar"]),
        *"\\&%$#_{}",
    )
    KNOWN = frozenset("\\" + word for word in WORDS)

    def __init__(self, text):
        body = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("%"))
        depth, math, counts = 0, False, []
        for token in self.TOKEN.findall(body):
            assert token not in "#%~", token
            assert token not in "_^&" or (math and token == "^") or (token == "&" and not math), token
            assert not token.startswith("\\") or token in self.KNOWN, token
            assert token not in "<>|" or math, token
            depth += {"{": 1, "}": -1}.get(token, 0)
            assert depth >= 0
            math ^= token == "$"
        assert (depth, math) == (0, False)
        environments = re.findall(r"\\(begin|end)\{(\w+)\}", body)
        assert [kind for kind, _ in environments] == ["begin", "begin", "end", "end"]
        assert [name for _, name in environments] == ["table", "tabular", "tabular", "table"]
        columns = re.search(r"\\begin\{tabular\}\{([lr]+)\}", body)[1]
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        counts = {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows}
        assert counts == {len(columns)}
        self.rows = [[cell.strip() for cell in re.split(r"(?<!\\)&", row.removesuffix(r"\\"))] for row in rows]


def test_latex_has_booktabs_bold_best_deviations_marks_and_a_caption():
    cells = [a_cell("dhn", 0.5, seed=seed) for seed in (0, 1)] + [a_cell("csq", 0.25, seed=seed) for seed in (0, 1)]
    frame = board_frame(cells)
    number = frame["method"].tolist().index("csq")
    [view] = render.views(frame, alike={number}, tests="p values are corrected")
    text = formats.latex(view.table(), view.table().title, view.table().title)
    read = Latex(text)
    assert all(word in text for word in (r"\toprule", r"\midrule", r"\bottomrule", r"\caption{", r"\label{tab:digits-"))
    best, other = read.rows[1], read.rows[2]
    assert best[0] == "dhn"
    assert r"\textbf{0.5000} $\pm$ 0.0000" in best
    assert r"0.2500$^{\approx}$ $\pm$ 0.0000" in other
    assert r"$\approx$: was tested and cannot be told from the best" in text
    assert "*" not in text


def test_settings_and_reasons_are_comments_in_latex_and_not_in_the_caption():
    shared = "allow_missing=('classifier.1.*',) size=128"
    cells = [a_cell("dhn", settings=shared), a_cell("itq", settings=shared), failed(method="csq", settings=shared)]
    [made] = render.render(board_frame(cells))
    text = formats.latex(made, made.title, made.title)
    Latex(text)
    assert f"% all rows: backbone=tiny {shared}\n" in text
    assert "\n% csq at 32: " in text
    [caption] = re.findall(r"\\caption\{(.*)\}$", text, re.M)
    assert not re.search("allow|csq", caption)
    assert "Bold: the best" in caption


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=30))
@settings(max_examples=80, deadline=None)
def test_any_name_is_escaped_in_latex(name):
    [made] = render.render(board_frame([a_cell("x" + name, settings=HOSTILE), a_cell(HOSTILE, 0.1)]))
    Latex(formats.latex(made, f"x{name}", name))


def test_negative_numbers_have_a_minus_sign_in_latex():
    text = formats.latex(paired.render_paired(pairs(), "map@all")[0], "x", "x")
    Latex(text)
    assert "$-$0.2500" in text
    assert "$-$0.3000 $-$0.2000" in text


def test_markdown_is_a_table_that_github_reads():
    from markdown_it import MarkdownIt

    cells = [a_cell("dhn", 0.5, seed=seed) for seed in (0, 1)] + [a_cell(HOSTILE, 0.25), a_cell("c|d", 0.1)]
    [made] = render.render(board_frame(cells))
    text = formats.markdown(made)
    html = MarkdownIt("commonmark").enable("table").render(text)
    assert html.count("<table>") == 1
    assert html.count("<tr>") == 4
    assert {row.count("<td") for row in html.split("<tr>")[2:]} == {len(made.columns)}
    assert "<strong>0.5000</strong> \u00b1 0.0000" in html
    assert '<td style="text-align:left">c|d</td>' in html
    assert "a_b&amp;c%d$e#f{g}h~i^j\\k&lt;l&gt;m|n" in html


def test_csv_of_a_board_is_the_leaderboard_and_any_selection_keeps_all_digits():
    frame = board_frame(BOARD)
    assert csv_text(render.select(frame)) == csv_text(frame)
    chosen = list(csv.DictReader(io.StringIO(csv_text(render.select(frame, "map@all", ["map@all"])))))
    assert [float(row["map@all"]) for row in chosen if row["map@all"]] == sorted(
        frame["map@all"].dropna(), reverse=True
    )
    assert {row["method"] for row in chosen} == {cell.identity.method for cell in BOARD}
