"""Tables in the formats of papers and pages: LaTeX with booktabs, and the Markdown of GitHub."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from hashzoo.results.table import Entry, TextTable

_LATEX = {
    **{one: f"\\{one}" for one in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",  # the double quote is not in the default encoding of fonts
    "\u2192": r"$\rightarrow$",
    "\u00b1": r"$\pm$",
    "\u2248": r"$\approx$",
    "[": "{[}",  # after a line break it would be the length of the break
    "]": "{]}",
}


def latex_text(text: str) -> str:
    r"""A text with all characters that mean something to LaTeX escaped.

    >>> latex_text("a_b & 5% of {x} ~ \\")
    'a\\_b \\& 5\\% of \\{x\\} \\textasciitilde{} \\textbackslash{}'
    """
    parts = [_LATEX.get(one, one) for one in text.replace("->", "\u2192")]
    return "".join(parts).replace("--", "-{}-")  # two hyphens would be a dash


def latex(table: TextTable, caption: str, label: str) -> str:
    """A table for LaTeX with the packages ``booktabs`` and, for names beyond ASCII, a Unicode font.

    The best entries are bold, marks are superscripts, and deviations follow a plus-minus sign. The notes of the table
    are part of the caption, its details are comments.
    """
    kinds = "".join("l" if column.text else "r" for column in table.columns)
    lines = [r"% requires \usepackage{booktabs}", *(f"% {line}" for line in table.details)]
    lines += [r"\begin{table}", r"  \centering"]
    sentences = [latex_text(f"{text.rstrip('.')}.") for text in (caption, *_paper_notes(table))]
    lines += [f"  \\caption{{{' '.join(sentences)}}}"]
    lines += [f"  \\label{{{_label(label)}}}", f"  \\begin{{tabular}}{{{kinds}}}", r"    \toprule"]
    lines += [_latex_row([latex_text(column.shown) for column in table.columns]), r"    \midrule"]
    for number, row in enumerate(table.rows):
        lines.append(_latex_row([_latex_entry(entry) for entry in row]))
        if number in table.ends:
            lines.append(r"    \midrule")
    return "\n".join([*lines, r"    \bottomrule", r"  \end{tabular}", r"\end{table}"]) + "\n"


def _latex_row(texts: Sequence[str]) -> str:
    return f"    {' & '.join(texts)} \\\\"


def _latex_entry(entry: Entry) -> str:
    text = _signed(entry.text, latex_text)
    text = f"\\textbf{{{text}}}" if entry.best else text
    mark = f"$^{{{_LATEX.get(entry.mark, entry.mark).strip('$')}}}$" if entry.mark else ""
    return f"{text}{mark}" + (f" $\\pm$ {entry.spread}" if entry.spread else "")


def _signed(text: str, escape: Callable[[str], str]) -> str:
    """Numbers with minus signs in place of their hyphens; any other text escaped.

    >>> _signed("-0.5 +0.2", latex_text), _signed("a-b", latex_text)
    ('$-$0.5 +0.2', 'a-b')
    """
    return text.replace("-", "$-$") if re.fullmatch(r"[-+\d. ]+", text) else escape(text)


def _label(text: str) -> str:
    """A label of letters, digits and hyphens.

    >>> _label("zoo: digits_lt50")
    'tab:zoo-digits-lt50'
    """
    return "tab:" + (re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower() or "board")


def _paper_notes(table: TextTable) -> list[str]:
    """The notes; the best entries are bold there, not starred."""
    return [re.sub(r"^\*(?=: the best)", "Bold", note) for note in table.notes]


def markdown_text(text: str) -> str:
    r"""A text with all characters that mean something to GitHub's Markdown escaped.

    >>> markdown_text("a_b | <c> *d*")
    'a\\_b \\| \\<c\\> \\*d\\*'
    """
    return re.sub(r"([\\`*_{}\[\]<>#|~$!&])", r"\\\1", text)


def markdown(table: TextTable) -> str:
    """A table for GitHub, its title above and its notes below it."""
    lines = [f"**{markdown_text(table.title)}**", ""] if table.title else []
    lines.append(_markdown_row([markdown_text(column.shown) for column in table.columns]))
    lines.append(_markdown_row([":---" if column.text else "---:" for column in table.columns]))
    lines += [_markdown_row([_markdown_entry(entry) for entry in row]) for row in table.rows]
    if notes := [*table.details, *_paper_notes(table)]:
        lines += ["", *(f"- {markdown_text(note)}" for note in notes)]
    return "\n".join(lines) + "\n"


def _markdown_row(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _markdown_entry(entry: Entry) -> str:
    text = markdown_text(entry.text)
    text = f"**{text}**" if entry.best else text
    mark = f"<sup>{markdown_text(entry.mark)}</sup>" if entry.mark else ""
    return f"{text}{mark}" + (f" \u00b1 {entry.spread}" if entry.spread else "")
