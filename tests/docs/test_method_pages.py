"""The documentation's page a method, as it is written before Sphinx reads it."""

from __future__ import annotations

import doctest
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashzoo.factory import options
from hashzoo.registry import zoo
from hashzoo.registry.citations import citations
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
    assert set(written) == {*house.methods, *method_pages.PARTS, "index"}
    for name in house.methods:
        entry, page = house.method(name), written[name]
        assert page.startswith(f"# {name}\n\n{method_pages.escaped(entry.doc)}\n")
        (paper,) = re.findall(r"^\| paper \| (.*) \|$", page, re.MULTILINE)
        named = re.sub(r" \(\[.*?\]\(<.*?>\)\)", "", paper)
        assert named.startswith(method_pages.escaped(entry.card.paper) or "none")
        for option in options(entry.factory).values():
            assert f"| `{option.name}` | `{option.default!r}` |" in page.replace("\\|", "|"), (name, option)


def test_no_page_is_without_the_text_of_its_module(written):
    house = zoo.load_plugins()
    for name in house.methods:
        source = method_pages.described(house.method(name).factory)
        text = method_pages.text_of_module(source)
        assert len(text) > 30, name
        assert text in written[name], name
        assert "Cite:" not in written[name], name


def test_the_index_has_every_method_once_in_a_family_with_a_heading(written):
    index = written["index"]
    linked = re.findall(r"^\| \[.*?\]\((.*?)\.md\)", index, re.MULTILINE)
    assert sorted(linked) == sorted(set(written) - {"index", *method_pages.PARTS})
    assert re.findall(r"^## (.*)", index, re.MULTILINE) == [*method_pages.FAMILIES.values(), "Parts"]
    listed = index.split("```{toctree}\n:hidden:\n\n")[1].split("\n```")[0].split("\n")
    assert listed == [*linked, *method_pages.PARTS]


def test_a_composition_says_what_it_is_made_of_and_a_class_does_not(written):
    assert "| as head + loss | `hashzoo bench digits --methods tanh+dhn` |" in written["dhn"]
    assert "| rate of the loss's parameters | 0.5 times that of the rest |" in written["sfdh"]
    assert "| head |" not in written["itq"]


@pytest.fixture
def board(tmp_path):
    """Writes the board ``mine`` from rows of columns, and returns the rows that pages show."""
    header = (ROOT / "results" / "zoo" / "leaderboard.csv").read_text().split("\n")[0].split(",")
    plain = dict.fromkeys(header, "")
    plain |= {"schema": "1", "benchmark": "mine", "dataset": "digits.small", "backbone": "pixels", "budget": "equal"}
    plain |= {"stored_bits": "8", "contaminated": "False", "seeds": "3", "status": "ok", "stale": "False"}

    def rows(*given):
        lines = [",".join((plain | row)[name] for name in header) for row in given]
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / "leaderboard.csv").write_text("\n".join([",".join(header), *lines]) + "\n")
        return method_pages.board_rows(tmp_path)

    return rows


def shown_scores(scores, method="lsh"):
    """The lines of the tables of scores on a method's page."""
    page = method_pages.page(zoo.load_plugins(), method, scores)
    assert "`hashzoo show results/mine`" in page
    return re.findall(r"^\| (?:dataset|digits\.small).*$", page, re.MULTILINE)


def test_a_page_has_the_score_of_its_method_at_each_number_of_bits_and_none_without_rows(board):
    scores = board(
        {"method": "lsh", "bits": "8", "map@all": "0.25", "map@all_std": "0.0312"},
        {"method": "lsh", "bits": "16", "map@all": "0.5", "seeds": "1"},
        {"method": "lsh", "bits": "32", "status": "failed", "seeds": "0"},
        {"method": "itq", "bits": "8", "map@all": "0.75"},
    )
    assert shown_scores(scores) == [
        "| dataset | backbone | metric | 8 bits | 16 bits | 32 bits |",
        "| digits.small | pixels | map@all | 0.250 \u00b1 0.031 | 0.500 | failed |",
    ]
    page = method_pages.page(zoo.load_plugins(), "lsh", scores)
    assert "over 1 to 3 seeds." in page
    assert "Stale" not in page
    assert "board" not in method_pages.page(zoo.load_plugins(), "pcah", scores)


def test_a_row_without_the_main_metric_has_its_own_and_rows_that_look_alike_are_all_shown(board):
    scores = board(
        {"method": "itq", "bits": "8", "map@all": "0.75"},
        {"method": "lsh", "bits": "8", "map@all": "0.25"},
        {"method": "lsh", "bits": "8", "map@all": "0.5", "budget": "paper"},
        {"method": "lsh", "bits": "8", "map@100": "0.125"},
    )
    assert shown_scores(scores)[1:] == [
        "| digits.small | pixels | map@all | 0.250 |",
        "| digits.small | pixels | map@all | 0.500 |",
        "| digits.small | pixels | map@100 | 0.125 |",
    ]


def test_stale_scores_are_marked_and_the_mark_is_explained(board):
    scores = board(
        {"method": "lsh", "bits": "8", "map@all": "0.25", "stale": "True"},
        {"method": "lsh", "bits": "16", "map@all": "0.5"},
    )
    assert shown_scores(scores)[1] == r"| digits.small | pixels | map@all | 0.250 \* | 0.500 |"
    assert r"\* Stale: measured with code other" in method_pages.page(zoo.load_plugins(), "lsh", scores)


def test_settings_that_all_methods_of_a_dataset_share_are_left_out(board):
    scores = board(
        {"method": "lsh", "bits": "8", "map@all": "0.25", "settings": "size=128 center=False", "marks": "noted"},
        {"method": "itq", "bits": "8", "map@all": "0.75", "settings": "size=128"},
    )
    assert shown_scores(scores) == [
        "| dataset | backbone | metric | 8 bits | not by default |",
        "| digits.small | pixels | map@all | 0.250 | center=False, noted |",
    ]


def test_every_board_that_is_shipped_has_its_scores_on_the_pages(written):
    boards = {file.parent.name for file in ROOT.glob("results/*/leaderboard.csv")}
    assert len(boards) > 4
    assert boards == {name for page in written.values() for name in re.findall(r"show results/([\w-]+)`", page)}
    assert "mobilenet_v2_features" not in written["itq"].replace("\\", "")


def test_every_paper_with_an_address_is_linked_and_every_entry_shown(written):
    house = zoo.load_plugins()
    for name in house.methods:
        cited = citations([house.method(name).factory])
        (paper,) = re.findall(r"^\| paper \| (.*) \|$", written[name], re.MULTILINE)
        assert re.findall(r"\(<(.*?)>\)", paper) == [link for entry in cited for link in entry.links.values()]
        section = written[name].split("## How to cite\n\n")[1]
        assert ("No publication is recorded" in section) == (not cited)
        for entry in cited:
            assert entry.text in section
    assert (
        "| paper | Gong \\& Lazebnik, CVPR 2011 ([DOI](<https://doi.org/10.1109/CVPR.2011.5995432>))" in written["itq"]
    )


def test_the_card_has_the_defaults_and_the_stored_bits(written):
    assert "| defaults | `iterations = 50` |\n| stored bits | as requested |" in written["itq"]
    assert "| stored bits | differ from the requested ones: the class, ceil" in written["classifier"]


def test_headings_are_one_level_below_the_title(written):
    for name, page in written.items():
        levels = [len(mark) for mark in re.findall(r"^(#+) ", page, re.MULTILINE)]
        assert levels[0] == 1, name
        assert set(levels[1:]) <= {2}, name


def test_formulas_fit_a_page_of_700_pixels(written):
    """A line of furo's code block has 78 characters there, at 13 pixels a line and 7.83 a character."""
    long = {
        (name, line)
        for name, page in written.items()
        for block in re.findall(r"^~~~\w+\n(.*?)^~~~", page, re.MULTILINE | re.DOTALL)
        for line in block.split("\n")
        if len(line) > method_pages.WIDTH and "https://" not in line
    }
    assert sum(page.count("~~~text") for page in written.values()) > 40
    assert long == set()


def test_the_pages_of_parts_have_every_part_with_its_paper_and_its_methods(written):
    house = zoo.load_plugins()
    for kind in method_pages.PARTS:
        headings = re.findall(r"^## (.*)", written[kind], re.MULTILINE)
        assert headings == [method_pages.escaped(name) for name in house.catalogue(kind)]
    (losses,) = re.findall(r"^## dhn\n.*?(?=^## )", written["losses"], re.MULTILINE | re.DOTALL)
    assert "[DOI](<https://doi.org/10.1609/aaai.v30i1.10235>)" in losses
    assert "| methods | [dhn](dhn.md) |" in losses
    assert "| described with | [dhn](dhn.md) |" in losses
    assert "@article{bruna2013scattering," in written["backbones"]
    assert written["backbones"].count("@misc{li2025swin,") == 1  # once for both backbones of the module


def test_the_examples_of_the_page_maker_hold():
    result = doctest.testmod(method_pages)
    assert (result.failed, result.attempted > 6) == (0, True)


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
