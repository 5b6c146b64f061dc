"""BibTeX entries: what is read of them, and which mistakes are named with their line."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hashzoo.registry.bibtex import parse

PAPER = """@InProceedings{one2020,
  author = {One, Some and J{\\'e}gou, Herv{\\'e}},
  Title = "A {"Quoted"} Title: {H}ashing
    of Images",
  year = 2020,
  doi = {10.1/ab_c},
  archivePrefix = {arXiv}, eprint = {2001.00001}
}"""


def test_an_entry_has_its_fields_and_its_text_as_written():
    (entry,) = parse(f"A comment.\n\n{PAPER}\n\nAnother.")
    assert (entry.kind, entry.key, entry.text) == ("inproceedings", "one2020", PAPER)
    assert entry.fields == {
        "author": "One, Some and J{\\'e}gou, Herv{\\'e}",
        "title": 'A {"Quoted"} Title: {H}ashing of Images',
        "year": "2020",
        "doi": "10.1/ab_c",
        "archiveprefix": "arXiv",
        "eprint": "2001.00001",
    }


def test_an_entry_links_to_its_doi_and_its_preprint_and_to_nothing_else():
    assert parse(PAPER)[0].links == {"DOI": "https://doi.org/10.1/ab_c", "arXiv": "https://arxiv.org/abs/2001.00001"}
    (other,) = parse("@misc{a, eprint = {1}, url = {https://example.org/a_b}}")
    assert other.links == {"paper": "https://example.org/a_b"}


def test_entries_are_read_in_order_without_comments():
    text = "@comment{@misc{no, year = 1}}\n@misc{a, year = {1}}@book{b,}\n@misc{c}"
    assert [(entry.kind, entry.key) for entry in parse(text)] == [("misc", "a"), ("book", "b"), ("misc", "c")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n@misc{a, year = {2020}", "line 2: the brace is never closed"),
        ("@misc{a,\n year = {2020}\n doi = {1}}", "line 3: expected a comma after the value of year"),
        ("@misc{a,\n year = 2020,\n year = 2021}", "line 3: a has the field year twice; remove one of them"),
        ("@misc{a,\n journal = tpami}", "line 2: write the value of journal in braces"),
        ("@misc{a,\n 2020}", "line 2: expected a field such as year = {2020}, found '2020'"),
        ('@misc{a,\n title = "of}', "line 2: the quote is never closed"),
        ("@misc{year = {2020}}", "line 1: @misc has no key; write @misc{KEY, ...}"),
        ("@string{a = {b}}", "line 1: @string is not supported; write the text into the field"),
    ],
)
def test_a_mistake_is_named_with_its_line(text, message):
    with pytest.raises(ValueError, match=r"^line") as error:
        parse(text)
    assert str(error.value) == message


PLAIN = st.text(st.characters(exclude_characters='{}"\\@', exclude_categories=["Cs", "Cc", "Z"]), min_size=1)


@given(st.dictionaries(st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True), PLAIN, max_size=4))
def test_every_value_in_braces_comes_back(fields):
    text = "@misc{key,\n" + "".join(f"  {name} = {{{value}}},\n" for name, value in fields.items()) + "}"
    (entry,) = parse(text)
    assert entry.fields == fields
    assert entry.text == text


@given(st.text('@misc{}=," \\\nab1'))
def test_any_text_is_read_or_refused_with_a_line(text):
    problem = "line 1: none"
    try:
        parse(text)
    except ValueError as error:
        problem = str(error)
    assert re.match(r"line \d+: ", problem)
