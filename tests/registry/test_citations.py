"""What a plugin cites: by key, by its own entries, for each kind of factory; and mistakes in it."""

from __future__ import annotations

import textwrap

import pytest

from hashzoo.errors import UsageError
from hashzoo.registry import zoo
from hashzoo.registry.citations import citations, match
from hashzoo.registry.source import code_digest

ENTRY = "@misc{{{key}, author = {{A}}, title = {{T}}, year = {{{year}}}}}\n"
PLUGIN = '''
    """A family of losses.
    {module}
    """
    from torch import nn
    from hashzoo import CodeMetric, Family, Loss, deep, hookimpl

    class Mine(Loss):
        """Mine.
        {own}
        """
        def __init__(self, setting, *, weight: float = 1.0):
            super().__init__()

        def forward(self, output, batch):
            return {{}}

    class Bare(Mine):
        def __init__(self, setting):
            super().__init__(setting)

    def rare(sample):
        """Rare.

        Cite: rare2000
        """

    @hookimpl
    def hashzoo_losses():
        return {{"mine": Mine, "bare": Bare}}

    @hookimpl
    def hashzoo_methods():
        return {{"composed": deep("tanh", "mine", doc="""Mine.
        {doc}""")}}

    @hookimpl
    def hashzoo_metrics():
        return {{"rare": CodeMetric(rare)}}
'''


@pytest.fixture
def plugin(tmp_path):
    """Loads a plugin whose docstrings have these sections, beside a file of entries, and tells the keys of a name."""
    (tmp_path / "references.bib").write_text(
        "".join(ENTRY.format(key=key, year=key[-4:]) for key in ("module1990", "own2010", "doc2020", "rare2000"))
    )

    def load(module="", own="", doc="", entries=None):
        if entries is not None:
            (tmp_path / "references.bib").write_text(entries)
        file = tmp_path / "plugin.py"
        file.write_text(textwrap.dedent(PLUGIN).format(module=module, own=own, doc=doc))
        house = zoo.load_plugins([str(file)])
        return lambda name: [one.key for one in citations(e.factory for e in match(house, [name])[name])]

    return load


def test_a_key_is_looked_up_in_the_file_beside_the_module(plugin):
    keys = plugin(own="\n    Cite: own2010,\n    doc2020.")
    assert keys("mine") == ["own2010", "doc2020"]


def test_what_a_class_does_not_cite_its_module_does(plugin):
    keys = plugin(module="\nCite: module1990", own="\n    Cite: own2010")
    assert keys("mine") == ["own2010"]
    assert keys("bare") == ["module1990"]  # and not what its base class cites


def test_a_composition_cites_its_own_publication_and_then_those_of_its_parts(plugin):
    assert plugin(own="\n    Cite: own2010", doc="\n    Cite: own2010")("composed") == ["own2010"]
    entry = "\n    Cite:\n        @misc{mine2024,\n          year = {2024},\n        }"
    assert plugin(own="\n    Cite: own2010", doc=entry)("composed") == ["mine2024", "own2010"]


def test_entries_stand_in_the_docstring_of_a_plugin_without_a_file(plugin):
    entry = "\n\n    Cite:\n\n        @misc{mine2024,\n          year = {2024},\n\n          title = {T},\n        }"
    assert plugin(own=entry + "\n\n    More text, at 1990.", entries="")("mine") == ["mine2024"]


def test_an_entry_of_a_docstring_is_printed_without_its_indentation(tmp_path):
    cite = "\n\nCite:\n\n    @misc{mine2024,\n      year = {2024},\n    }"
    (tmp_path / "plugin.py").write_text(textwrap.dedent(PLUGIN).format(module=cite, own="", doc=""))
    house = zoo.load_plugins([str(tmp_path / "plugin.py")])
    (entry,) = citations([house.losses["mine"].factory])
    assert entry.text == "@misc{mine2024,\n  year = {2024},\n}"


def test_a_metric_of_codes_cites_what_its_function_cites(plugin):
    assert plugin()("rare") == ["rare2000"]


def test_nothing_is_cited_without_a_section(plugin):
    assert plugin(own="\n    It does not Cite: own2010")("mine") == []


@pytest.mark.parametrize(
    ("own", "entries", "message"),
    [
        (
            "\n    Cite: none2000",
            None,
            r"plugin\.py, Mine cites 'none2000', but .*references\.bib does not have it; add the entry",
        ),
        ("\n    Cite:\n        @misc{a b}", None, r"plugin\.py, Mine: invalid BibTeX in the section Cite:, line 2: "),
        ("\n    Cite: own2010", "\n@misc{a, year}", r"references\.bib, line 2: expected a field"),
    ],
)
def test_a_mistake_names_the_place_and_the_fix(plugin, own, entries, message):
    with pytest.raises(UsageError, match=message):
        plugin(own=own, entries=entries)("mine")


def test_a_key_without_a_file_is_refused(tmp_path):
    (tmp_path / "lonely.py").write_text(textwrap.dedent(PLUGIN).format(module="\nCite: own2010", own="", doc=""))
    house = zoo.load_plugins([str(tmp_path / "lonely.py")])
    with pytest.raises(UsageError, match=r"there is no references\.bib beside its module"):
        citations([house.losses["mine"].factory])


def test_the_file_of_a_package_serves_the_modules_below_it_and_nothing_above_it_does(tmp_path, monkeypatch):
    inner = tmp_path / "citing_package" / "inner"
    inner.mkdir(parents=True)
    for folder in (inner, inner.parent):
        (folder / "__init__.py").write_text("")
    (inner / "low.py").write_text('"""Low.\n\nCite: a1\n"""\n\n\ndef low(setting):\n    pass\n')
    (tmp_path / "references.bib").write_text("@misc{a1, title = {above}}")
    monkeypatch.syspath_prepend(str(tmp_path))
    from citing_package.inner.low import low

    with pytest.raises(UsageError, match="there is no references"):
        citations([low])
    (inner.parent / "references.bib").write_text("@misc{a1, title = {of the package}}")
    assert citations([low])[0].fields["title"] == "of the package"


def test_a_citation_does_not_change_the_digest_of_the_code(plugin, tmp_path):
    def digest():
        return code_digest(zoo.load_plugins([str(tmp_path / "plugin.py")]).method("composed").factory)

    plugin()
    before = digest()
    plugin(module="\nCite: module1990", own="\n    Cite: own2010", doc="\n    Cite: own2010")
    assert digest() == before


def test_names_select_every_kind_of_that_name_and_patterns_all_that_match():
    house = zoo.load_plugins()
    assert [entry.factory for entry in match(house, ["dhn"])["dhn"]] == [
        house.method("dhn").factory,
        house.losses["dhn"].factory,
    ]
    assert list(match(house, ["orthohash*", "tanh+dhn", "timm/resnet18"])) == [
        *("orthohash", "orthohash-arc", "tanh+dhn", "timm/resnet18")
    ]
    for name in ("orthohsh", "z*", "tanh+dnn", "timm/resnt18", ""):
        with pytest.raises(UsageError, match=r"no .*(did you mean|there are)"):
            match(house, [name])
