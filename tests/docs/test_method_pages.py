"""The documentation's page a method, as it is written before Sphinx reads it."""

from __future__ import annotations

import doctest
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashzoo.factory import options
from hashzoo.registry import zoo
from hashzoo.registry.source import load_module

ROOT = Path(__file__).parents[2]
method_pages: Any = load_module(str(ROOT / "docs" / "method_pages.py"))
TITLE = "A title with |u|_1 * 2 (Nobody & Friend, NOWHERE 2001)."
PROSE = r"""The norm |u_i| of a_b * c_d * e < f > g costs $5 and $6; [x](y) is no link, {x}`y` no role, <b> no tag,
- log p_c no list, &lt; is that; ``weight = "a | b"`` is code, x' and K -- L are neither quotes nor dashes,
# and ~~this~~ is not struck \out, 2^{n}^{m} no footnote."""
FORMULA = r"""loss = |Y - B W|^2 + lambda * |W|^2   (N, K),  S_ij in {-1, 1}
       + sum_i <u_i, v_i> $x$ \ `y`

code = sgn(W' f)"""
LAST = "1. is no list."
TEXT = "\n\n".join([TITLE, PROSE, textwrap.indent(FORMULA, "    "), LAST])


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    (folder / "gone.md").write_text("a method that is no more")
    method_pages.write(zoo.load_plugins(), folder, ROOT / "results")
    return {path.stem: path.read_text() for path in folder.iterdir()}


def test_every_method_has_a_page_that_names_its_paper_and_every_hyperparameter(written):
    house = zoo.load_plugins()
    assert set(written) == {*house.methods, "index"}
    for name in house.methods:
        entry, page = house.method(name), written[name]
        assert page.startswith(f"# {name}\n\n{method_pages.escaped(entry.doc)}\n")
        assert f"| paper | {method_pages.escaped(entry.card.paper) or 'none'} |" in page
        for option in options(entry.factory).values():
            assert f"| `{option.name}` | `{option.default!r}` |" in page.replace("\\|", "|"), (name, option)


def test_no_page_is_without_the_text_of_its_module(written):
    house = zoo.load_plugins()
    for name in house.methods:
        source = method_pages.described(house.method(name).factory)
        text = sys.modules[source.__module__].__doc__
        assert len(text) > 30, name
        assert method_pages.markdown(text) in written[name], name


def test_the_index_has_every_method_once_in_a_family_with_a_heading(written):
    index = written["index"]
    linked = re.findall(r"^\| \[.*?\]\((.*?)\.md\)", index, re.MULTILINE)
    assert sorted(linked) == sorted(set(written) - {"index"})
    assert re.findall(r"^## (.*)", index, re.MULTILINE) == list(method_pages.FAMILIES.values())
    assert index.split("```{toctree}\n:hidden:\n\n")[1].split("\n```")[0].split("\n") == linked


def test_a_composition_says_what_it_is_made_of_and_a_class_does_not(written):
    assert "| as head + loss | `hashzoo bench digits --methods tanh+dhn` |" in written["dhn"]
    assert "| rate of the loss's parameters | 0.5 times that of the rest |" in written["sfdh"]
    assert "| head |" not in written["itq"]


def test_a_page_has_the_rows_of_its_method_on_every_board_and_none_without_rows(tmp_path):
    header = (ROOT / "results" / "source-methods" / "leaderboard.csv").read_text().split("\n")[0].split(",")
    plain = dict.fromkeys(header, "")
    plain |= {"schema": "1", "benchmark": "mine", "dataset": "digits.small", "backbone": "pixels", "budget": "equal"}
    plain |= {"stored_bits": "8", "contaminated": "False", "seeds": "3", "status": "ok"}
    rows = [
        plain | {"method": "lsh", "bits": "8", "map@all": "0.25", "map@all_std": "0.0312"},
        plain | {"method": "lsh", "bits": "16", "map@100": "0.5", "seeds": "1", "settings": "center=False"},
        plain | {"method": "lsh", "bits": "32", "status": "failed", "seeds": "0"},
        plain | {"method": "itq", "bits": "8", "map@all": "0.75"},
    ]
    (tmp_path / "mine").mkdir()
    lines = [",".join(header), *(",".join(row[name] for name in header) for row in rows)]
    (tmp_path / "mine" / "leaderboard.csv").write_text("\n".join(lines) + "\n")
    house, scores = zoo.load_plugins(), method_pages.board_rows(tmp_path)
    page = method_pages.page(house, "lsh", scores)
    assert [line for line in page.split("\n") if line.startswith("| mine")] == [
        "| mine | digits.small | pixels | 8 | map@all | 0.250 \u00b1 0.031 | 3 |  |",
        "| mine | digits.small | pixels | 16 | map@100 | 0.500 | 1 | center=False |",
        "| mine | digits.small | pixels | 32 |  | failed | 0 |  |",
    ]
    assert "`hashzoo show results/mine`" in page
    assert "board" not in method_pages.page(house, "pcah", scores)


def test_the_examples_of_the_page_maker_hold():
    result = doctest.testmod(method_pages)
    assert (result.failed, result.attempted > 3) == (0, True)


def test_a_family_that_did_not_load_stops_the_documentation(tmp_path):
    house = zoo.load_plugins()
    house.plugins.append(zoo.Plugin("hashzoo", "", "hashzoo_plugins.lost", reason="ImportError: no such module"))
    with pytest.raises(RuntimeError, match=r"hashzoo_plugins\.lost: ImportError"):
        method_pages.write(house, tmp_path, ROOT / "results")


def shown(text: str) -> str:
    """What a reader sees of Markdown, paragraphs in one line each."""
    core = pytest.importorskip("docutils.core")
    parsers = pytest.importorskip("myst_parser.parsers.docutils_")
    quiet = {"myst_enable_extensions": ["dollarmath", "colon_fence"], "report_level": 1, "halt_level": 2}
    tree = core.publish_doctree(text, parser=parsers.Parser(), settings_overrides=quiet)
    return "\n\n".join(part.astext().rstrip("\n") for part in tree.children)


def test_formulas_reach_the_reader_as_they_were_written():
    prose = " ".join(PROSE.replace("``", "").split("\n"))
    assert shown(method_pages.markdown(TEXT)) == "\n\n".join([TITLE, prose, FORMULA, LAST])


@settings(deadline=None, max_examples=200)
@given(st.lists(st.text([*map(chr, range(33, 127))], min_size=1, max_size=6), min_size=1, max_size=12))
def test_no_running_text_is_taken_for_markdown(words):
    text = " ".join(words)
    if "``" not in text:
        assert shown(method_pages.markdown(text)) == text
        assert shown(method_pages.table(["a"], [[method_pages.escaped(text)]])).split("\n\n")[-1] == text


def test_the_page_of_a_composition_shows_the_text_of_its_loss_and_its_module(tmp_path):
    code = """
        from torch import nn
        from hashzoo import Card, deep, hookimpl

        class Loss(nn.Module):
            "Weighs pairs.\\n\\nBoth ways."

            def __init__(self, setting, *, weight: float | None = 0.5):
                super().__init__()

        @hookimpl
        def hashzoo_methods():
            return {"theirs": deep("tanh", Loss, card=Card(paper="Nobody & Friend, NOWHERE 2001"), doc="of a_b | c")}
        """
    (tmp_path / "theirs.py").write_text(f'r"""{TEXT}\n"""\n{textwrap.dedent(code)}')
    page = method_pages.page(zoo.load_plugins([str(tmp_path / "theirs.py")]), "theirs")
    assert "| as head + loss |" not in page  # its loss has no name to compose by
    seen = shown(page)
    for piece in ("of a_b | c", "Nobody & Friend, NOWHERE 2001", "Weighs pairs.", TITLE, FORMULA):
        assert piece in seen
    assert seen.index(LAST) < seen.index("Both ways.") < seen.index("float | None")
