"""The bibliography of the built-in plugins: complete, well-formed, and in agreement with the cards."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import hashzoo_plugins
import pytest

from hashzoo.factory import FactoryInfo
from hashzoo.registry import zoo
from hashzoo.registry.bibtex import parse
from hashzoo.registry.citations import KINDS, citations

FILE = Path(hashzoo_plugins.__file__).with_name("references.bib")
ENTRIES = parse(FILE.read_text(encoding="utf-8"))
HOUSE = zoo.load_plugins()
VENUE = {"article": "journal", "inproceedings": "booktitle", "misc": "howpublished"}
#: Methods whose sources name no publication.
WITHOUT = {"chance", "float16", "float32", "knn-sign", "unquantized", "multigrain", "sfdh"}
SURNAME = re.compile(r"([A-Z][\w'-]+|van [A-Z]\w+)")


def surname(author):
    """The surname of an author of an entry, without accents."""
    return re.sub(r"\{\\.(\w)\}", r"\1", author.split(",")[0])


def of(entry):
    return citations([HOUSE.method(entry.name).factory if entry.name in HOUSE.methods else entry.factory])


def test_keys_and_titles_are_unique_and_sorted():
    assert len(ENTRIES) > 40
    assert [entry.key for entry in ENTRIES] == sorted({entry.key for entry in ENTRIES})
    assert len({entry.fields["title"].lower() for entry in ENTRIES}) == len(ENTRIES)
    assert len(re.findall(r"^@", FILE.read_text(), re.M)) == len(ENTRIES)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.key)
def test_an_entry_has_all_fields_that_its_kind_requires_in_their_forms(entry):
    fields = entry.fields
    assert {"author", "title", "year", VENUE[entry.kind]} <= fields.keys()
    assert all(value == value.strip() != "" for value in fields.values())
    assert all(re.fullmatch(r"[^,]+, [^,]+", author) for author in fields["author"].split(" and "))
    first = re.sub(r"[^a-z]", "", surname(fields["author"]).lower())
    assert re.fullmatch(rf"{first}{fields['year']}[a-z0-9]+", entry.key)
    assert re.fullmatch(r"(19|20)\d\d", fields["year"])
    assert re.fullmatch(r"10\.\d{4,5}/\S+", fields.get("doi", "10.1000/x"))
    assert ("eprint" in fields) == (fields.get("archiveprefix") == "arXiv")
    assert re.fullmatch(r"\d{4}\.\d{4,5}", fields.get("eprint", "1234.5678"))
    assert fields.get("url", "https://").startswith("https://")
    assert re.fullmatch(r"\d+(--\d+)?", fields.get("pages", "1"))
    if "--" in fields.get("pages", ""):
        first, last = map(int, fields["pages"].split("--"))
        assert first < last
    assert entry.text.isascii()
    assert [line for line in entry.text.split("\n") if len(line) > 76 and "http" not in line] == []


@pytest.mark.parametrize("entry", [e for e in ENTRIES if "eprint" in e.fields], ids=lambda entry: entry.key)
def test_a_preprint_is_not_younger_than_its_publication(entry):
    year = 2000 + int(entry.fields["eprint"][:2])
    assert year <= int(entry.fields["year"]) or entry.key == "gui2018fsdh"  # whose authors uploaded it a year later


def test_every_method_with_a_publication_cites_it_and_every_entry_is_cited():
    cited = {entry.key for kind in KINDS for one in HOUSE.catalogue(kind).values() for entry in of(one)}
    assert cited == {entry.key for entry in ENTRIES}
    assert {name for name, entry in HOUSE.methods.items() if not of(entry)} == WITHOUT


@pytest.mark.parametrize("name", sorted(HOUSE.methods.keys() - WITHOUT))
def test_the_first_publication_is_that_of_the_card(name):
    card = HOUSE.method(name).card
    first, *others = of(HOUSE.methods[name])
    assert card.year == int(first.fields["year"])
    named = SURNAME.findall(re.sub(r"et al\..*|,.*", "", card.paper))
    authors = [surname(author) for author in first.fields["author"].split(" and ")]
    assert authors[: len(named)] == named
    later = all(int(other.fields["year"]) >= int(first.fields["year"]) for other in others)
    assert later or name.startswith("swin-dual-stream")


@pytest.mark.parametrize("name", sorted({*HOUSE.losses, *HOUSE.heads}))
def test_a_part_that_names_a_paper_cites_it(name):
    for kind in (HOUSE.losses, HOUSE.heads):
        if name in kind and (paper := re.search(r"\(?(?:of )?([A-Z]\w+)[^()]*?(\d{4})\)", kind[name].doc)):
            first, *_ = of(kind[name])
            assert first.fields["year"] == paper[2]


def test_the_authors_that_a_module_names_are_those_of_its_first_entry():
    seen = set()
    for name in HOUSE.methods:
        for _, part in FactoryInfo(HOUSE.method(name).factory).parts():
            text = (sys.modules[part.__module__].__doc__ or "") if part else ""
            title = " ".join(text.split("\n\n")[0].split())
            given = re.search(r"\(([A-Z][^()]*?), [\w. ]+? \d{4}", title)
            if not given or "et al" in given[1] or "Cite: " not in text or "swin" in part.__module__:
                continue
            first = citations([part])[0]
            authors = [surname(author) for author in first.fields["author"].split(" and ")]
            named = [one.strip() for one in re.split(r",|&", given[1])]
            assert named == authors, part.__module__
            seen.add(part.__module__)
    assert len(seen) > 25
