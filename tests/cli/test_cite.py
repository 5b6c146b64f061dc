"""`hashzoo cite` as it is typed."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

from hashzoo.cli.main import main
from hashzoo.registry.bibtex import parse


def cite(capsys, *arguments):
    """The exit code, standard output and standard error of ``hashzoo cite``."""
    try:
        main(["cite", *arguments])
        code = 0
    except SystemExit as ended:
        code = ended.code
    return (code, *capsys.readouterr())


def keys(text):
    return [entry.key for entry in parse(text)]


def test_standard_output_is_the_entries_of_all_names_each_once_and_nothing_else(capsys):
    code, out, err = cite(capsys, "csq", "itq,cca-itq", "dhn*")
    assert (code, err) == (0, "")
    assert keys(out) == ["yuan2020csq", "gong2011itq", "gong2013itq", "zhu2016dhn"]
    assert out == "\n\n".join(entry.text for entry in parse(out)) + "\n"


def test_a_method_without_a_publication_is_named_on_standard_error(capsys):
    code, out, err = cite(capsys, "chance", "multigrain", "lsh")
    assert (code, keys(out)) == (0, ["charikar2002similarity"])
    assert err == (
        "no publication is recorded for: chance, multigrain (article on multi-grain retrieval, authors unknown)\n"
    )
    assert cite(capsys, "chance") == (0, "", "no publication is recorded for: chance\n")


def test_an_unknown_name_is_refused_with_a_suggestion(capsys):
    code, out, err = cite(capsys, "lsh", "orthohsh")
    assert (code, out) == (2, "")
    assert err == "hashzoo: no method, loss, head, backbone, metric or dataset 'orthohsh'; did you mean 'orthohash'?\n"


def test_an_empty_name_is_refused(capsys):
    code, out, err = cite(capsys, "", "lsh")
    assert (code, out) == (2, "")
    assert err == "hashzoo: NAME is empty; give values separated by commas, or leave it out\n"


def test_without_a_name_it_says_how_to_cite_hashzoo(capsys):
    code, out, err = cite(capsys)
    (entry,) = parse(out)
    assert (code, entry.key) == (0, "hashzoo")
    assert {"author", "title", "year", "note"} <= entry.fields.keys()
    assert "hashzoo cite NAME..." in err


def test_json_has_a_row_for_each_name_with_its_entries_by_field(capsys):
    code, out, _ = cite(capsys, "--json", "csq", "chance")
    csq, chance = json.loads(out)
    assert (code, csq["name"], chance) == (0, "csq", {"name": "chance", "entries": []})
    (entry,) = csq["entries"]
    assert (entry["key"], entry["type"], entry["fields"]["year"]) == ("yuan2020csq", "inproceedings", "2020")
    assert keys(entry["bibtex"]) == ["yuan2020csq"]


def test_two_plugins_with_one_key_for_two_publications_are_told_apart(capsys, tmp_path):
    text = textwrap.dedent("""
        from hashzoo import hookimpl

        def {0}(setting):
            '''A loss.

            Cite:

                @misc{{a1, title = {{{0}}}}}
            '''

        @hookimpl
        def hashzoo_losses():
            return {{"{0}": {0}}}
        """)
    given = []
    for name in ("first", "second"):
        (tmp_path / f"{name}.py").write_text(text.format(name))
        given += ["--plugin", str(tmp_path / f"{name}.py")]
    code, out, err = cite(capsys, *given, "first", "second")
    assert (code, [entry.fields["title"] for entry in parse(out)]) == (0, ["first"])
    assert err == "a1 is the key of two different entries; the second is left out\n"


def test_citing_hashzoo_does_not_import_torch():
    script = "import sys; from hashzoo.cli.main import main; main(['cite']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=False).returncode == 0
