"""A results folder as a bundle, and what is found in one that somebody changed."""

import io
import json
import pickle
import shutil
import stat
import subprocess
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hashzoo.api import rerun as rerun_module
from hashzoo.api import verify as api
from hashzoo.api.rerun import Rerun, rerun
from hashzoo.bench.measure import measure
from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.results import bundle, bundle_files, packed, store
from hashzoo.results.board import read_board
from hashzoo.storage import signing
from tests.results.bundles import forged, measured_board, sealed
from tests.results.test_leaderboard import a_cell


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    return measured_board(tmp_path_factory.mktemp("board"))


@pytest.fixture(scope="module")
def made(board, tmp_path_factory):
    target = tmp_path_factory.mktemp("bundles") / "bundle"
    bundle.submit(board, target)
    return target


@pytest.fixture
def copy(made, tmp_path):
    return shutil.copytree(made, tmp_path / "copy")


def failures(path, **options):
    """The checks that fail, with what they say."""
    found = {}
    for one in api.verify(path, api.Verification(**options)):
        if one.status == "failed":
            found.setdefault(one.check, []).append(one.detail)
    return found


def zipped(folder, target, extra=()):
    with zipfile.ZipFile(target, "w") as written:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                written.write(file, file.relative_to(folder).as_posix())
        for name, data in extra:
            written.writestr(name, data)
    return target


# --- what is written ---


def test_a_bundle_passes_its_checks_and_is_a_results_folder(board, made):
    assert failures(made) == {}
    columns = ["method", "map@all", "key"] if "key" in read_board(made).frame else ["method", "map@all"]
    assert read_board(made).frame[columns].equals(read_board(board).frame[columns])
    assert {one.check for one in api.verify(made)} >= {"files", "digests", "cells", "protocol", "splits", "scores"}


def test_the_same_cells_give_the_same_zip_file_and_it_passes_too(board, made, tmp_path):
    first, second = (bundle.submit(board, tmp_path / name) for name in ("a.zip", "b.zip"))
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert first.digest == second.digest == json.loads((made / bundle.MANIFEST).read_text())["digest"]
    bundle.submit(made, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == (tmp_path / "a.zip").read_bytes()
    assert failures(tmp_path / "a.zip") == {}
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.zip", "again.zip", "b.zip"]


def test_paths_of_the_user_are_in_no_file_of_a_bundle(tmp_path):
    command = "hashzoo bench mine --root '/home/alice/my data' --set b.weights=/home/alice/w.pt --results ~alice/out"
    cell = a_cell(status="failed", reason="cannot read /home/alice/a.png: no access", provenance={"command": command})
    store.write(tmp_path / "r", cell, {})
    notes = bundle.submit(tmp_path / "r", tmp_path / "b").notes
    assert any("FOLDER replaces them, in 1 cell" in note for note in notes)
    for file in (tmp_path / "b").rglob("*.json*"):
        assert "alice" not in file.read_text()
    (kept,) = [store.read(file) for file in store.files(tmp_path / "b")]
    assert kept.provenance["command"] == ("hashzoo bench mine --root FOLDER --set b.weights=FOLDER --results FOLDER")
    assert kept.reason == "cannot read FOLDER: no access"
    assert kept.identity == cell.identity


@given(st.lists(st.text("az09_.-", min_size=1, max_size=5), min_size=1, max_size=4), st.sampled_from(["", "~"]))
def test_no_absolute_path_remains_in_a_command_and_other_words_do(parts, home):
    path = f"{home}/{'/'.join(parts)}"
    command = f"hashzoo bench a/b --root {path} --set x.y={path} 'z=({path},1)' https://a.example/{parts[0]}"
    assert bundle.command_without_paths(command) == (
        f"hashzoo bench a/b --root FOLDER --set x.y=FOLDER 'z=(FOLDER,1)' https://a.example/{parts[0]}"
    )


def test_what_lowers_the_value_of_a_bundle_is_said(tmp_path):
    provenance = {"checkout": {"revision": "f00d", "dirty": True}}
    store.write(tmp_path / "r", a_cell(provenance=provenance), {"map@all": np.full(4, 0.5)})
    next((tmp_path / "r" / "cells").glob("*.npz")).unlink()
    notes = "\n".join(bundle.submit(tmp_path / "r", tmp_path / "b").notes)
    assert "not committed: 1 cell" in notes
    assert "without scores of single queries" in notes
    assert "so that split cannot be checked for leaks" in notes


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([a_cell(), a_cell("itq", benchmark="other")], "holds the benchmarks"),
        ([a_cell(plugin="(given)")], "was given as an object"),
    ],
)
def test_cells_that_nobody_else_can_use_are_refused(tmp_path, cells, message):
    for cell in cells:
        store.write(tmp_path / "r", cell, {})
    with pytest.raises(UsageError, match=message):
        bundle.submit(tmp_path / "r", tmp_path / "b")
    assert [one.name for one in tmp_path.iterdir()] == ["r"]


def test_a_damaged_cell_and_an_output_that_exists_are_refused(board, tmp_path):
    with pytest.raises(UsageError, match="exists"):
        bundle.submit(board, tmp_path)
    file = store.write(tmp_path / "r", a_cell(), {})
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(EnvironmentFailure, match="is damaged"):
        bundle.submit(tmp_path / "r", tmp_path / "b")


# --- what is found ---


def test_a_score_that_was_changed_differs_from_the_mean_of_its_queries(made, tmp_path):
    path = forged(made, tmp_path / "forged", lambda cell: cell["metrics"].update({"map@all": 0.999}))
    found = failures(path)
    assert found.keys() == {"scores"}
    assert "map@all of itq at 16 bits" in found["scores"][0]
    assert "is 0.999" in found["scores"][0]


def test_a_score_without_its_queries_is_found_by_measuring_it_again(made, tmp_path, monkeypatch):
    # in this process, since starting others takes most of the time
    monkeypatch.setattr(rerun_module, "sweep", lambda jobs, *_: ([measure(job)[0] for job in jobs], None))
    path = forged(made, tmp_path / "forged", lambda cell: cell["metrics"].update({"map@all": 0.999}), arrays=b"")
    assert failures(path) == {}
    lines = failures(path, rerun=Rerun(2, seed=1))["rerun"]
    assert len(lines) == 1
    assert "map@all is 0.999" in lines[0]
    assert "here" in lines[0]


def test_a_cell_whose_data_or_method_are_not_here_is_not_checked_and_its_paths_are_not_opened(board, tmp_path):
    cell = next(store.read(file) for file in store.files(board))
    for changes, reason in (
        ({"data": "f00d"}, "data differ"),
        ({"code": "f00d"}, "code differ"),
        ({"method": "no-such-method"}, "no method 'no-such-method'"),
        ({"backbone_options": {"weights": str(tmp_path / "x.pt")}}, "backbone options differ"),
    ):
        other = replace(cell, identity=replace(cell.identity, **changes))
        (first, last) = rerun([other], Rerun(1, seed=0))
        assert first[0] == "not checked"
        assert reason in first[1]
        assert last == ("note", "the same to the last digit: 0 of 1 cell, drawn with seed 0")


def test_a_line_without_its_checksum_and_a_file_that_is_cut_are_found(copy):
    file = copy / packed.NAME
    text = file.read_text()
    file.write_text(text.replace('"seed":0', '"seed":1', 1))
    assert {"cells", "digests"} <= failures(copy).keys()
    file.write_text(text[: len(text) // 2])
    assert {"cells", "digests", "facts"} <= failures(copy).keys()


def test_a_split_that_was_changed_is_found_and_so_is_a_leak(copy):
    (file,) = (copy / store.SPLITS).iterdir()
    with np.load(file) as stored:
        arrays = dict(stored)
    arrays["query_ids"][0] = arrays["database_ids"][0]
    np.savez_compressed(file, **arrays)
    assert "digest" in failures(sealed(copy))["splits"][0]
    from hashzoo.data import split_file

    parts = [
        (part, arrays[f"{part}_ids"], np.unpackbits(arrays[f"{part}_labels"], axis=1, count=10), None)
        for part in split_file.NAMES
        if f"{part}_ids" in arrays
    ]
    arrays["digest"] = np.array(split_file._digest(parts))
    np.savez_compressed(file, **arrays)
    lines = "\n".join(failures(sealed(copy))["splits"])
    assert "query-in-database" in lines
    assert "split is" in lines


def test_a_cell_of_another_budget_is_found(made, tmp_path):
    def change(cell):
        cell["identity"]["budget"]["epochs"] += 5

    found = failures(forged(made, tmp_path / "forged", change))
    assert "epochs" in found["protocol"][0]
    assert "do not say so" in found["benchmark"][0]
    stated = forged(made, tmp_path / "stated", lambda cell: (change(cell), cell.update(settings="epochs=6")))
    assert failures(stated) == {}


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (lambda cell: cell.update(budget_kind="paper"), "protocol"),
        (lambda cell: cell["facts"].update(split="f00df00df00d"), "protocol"),
        (lambda cell: cell["facts"].update(queries=99), "scores"),
        (lambda cell: cell["metrics"].pop("map@100"), "protocol"),
        (lambda cell: cell.update(plugin="(given)"), "origin"),
    ],
)
def test_each_fact_in_which_a_row_differs_from_the_others_is_found(made, tmp_path, change, check):
    assert check in failures(forged(made, tmp_path / "forged", change))


@pytest.mark.parametrize("name", ["run.py", "cells/x.json", "splits/a.pkl", ".hidden"])
def test_a_file_that_does_not_belong_there_is_found_and_not_read(copy, name):
    (copy / name).parent.mkdir(exist_ok=True)
    (copy / name).write_text("import os")
    assert failures(copy).keys() == {"files"}


def test_links_are_found_and_not_followed(copy, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (copy / bundle.ENVIRONMENT).unlink()
    (copy / bundle.ENVIRONMENT).symlink_to(secret)
    found = failures(copy)
    assert found["files"] == ["environment.json is a link; put the file itself there"]
    assert "secret" not in bundle_files.read(copy)[0].values()


@pytest.mark.parametrize("name", ["../out", "/out", "splits/../../out", "a\\..\\out", "C:/out"])
def test_a_name_in_a_zip_file_that_leads_out_is_found_and_nothing_is_written_there(made, tmp_path, name):
    (tmp_path / "in").mkdir()
    path = zipped(made, tmp_path / "in" / "b.zip", [(name, b"x")])
    assert len(failures(path)["files"]) == 1
    assert sorted(one.name for one in tmp_path.iterdir()) == ["in"]


def test_a_link_in_a_zip_file_and_a_name_that_is_there_twice_are_found(made, tmp_path):
    link = zipfile.ZipInfo("splits/x.npz")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    assert "is a link" in failures(zipped(made, tmp_path / "a.zip", [(link, "/etc/passwd")]))["files"][0]
    with pytest.warns(UserWarning, match="Duplicate"):
        path = zipped(made, tmp_path / "b.zip", [(packed.NAME, b"{}")])
    assert "is there twice" in failures(path)["files"][0]


def test_a_bundle_beyond_the_limits_is_not_read(copy, monkeypatch):
    monkeypatch.setattr(bundle_files, "MOST_BYTES", 6000)
    assert any("too large" in line for line in failures(copy)["files"])
    monkeypatch.setattr(bundle_files, "MOST_FILES", 2)
    assert any("at most 2 files" in line for line in failures(copy)["files"])


def test_no_object_in_arrays_is_loaded(made, tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as arrays:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": (1,)})
        arrays.writestr("map@all" + ".npy", header.getvalue() + pickle.dumps([Payload()]))
    found = failures(forged(made, tmp_path / "forged", lambda cell: None, arrays=data.getvalue()))
    assert found.keys() == {"scores"}
    assert "cannot be read" in found["scores"][0]
    assert not (tmp_path / "ran").exists()


def test_json_that_no_reader_agrees_on_is_refused(copy):
    file = copy / bundle.MANIFEST
    text = file.read_text()
    for wrong in (
        text.replace('"schema": 1', '"schema": 1, "schema": 1'),
        text.replace('"schema": 1', '"schema": NaN'),
    ):
        file.write_text(wrong)
        assert failures(copy)["digests"] == ["manifest.json is not a complete JSON file"]
    file.write_text(text.replace('"schema": 1', '"schema": 2'))
    with pytest.raises(EnvironmentFailure, match="schema 2"):
        failures(copy)


def test_what_is_no_bundle_is_an_error_on_one_line(tmp_path, made):
    with pytest.raises(UsageError, match="there is no bundle"):
        api.verify(tmp_path / "none")
    with pytest.raises(UsageError, match=r"without manifest\.json"):
        api.verify(tmp_path)
    whole = zipped(made, tmp_path / "b.zip").read_bytes()
    for part in (whole[: len(whole) // 2], whole[:500], whole[100:]):
        (tmp_path / "b.zip").write_bytes(part)
        with pytest.raises(EnvironmentFailure, match=r"not a complete \.zip file|is a damaged \.zip file"):
            api.verify(tmp_path / "b.zip")


# --- signatures ---


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    if shutil.which(signing.TOOL) is None:
        pytest.skip("needs ssh-keygen")
    folder = tmp_path_factory.mktemp("keys")
    for name in ("alice", "mallory"):
        command = [signing.TOOL, "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(folder / name)]
        subprocess.run(command, check=True)
    (folder / "signers").write_text(f"alice {(folder / 'alice.pub').read_text()}")
    return folder


def test_a_signature_holds_for_one_manifest_and_one_signer(board, keys, tmp_path):
    signers = keys / "signers"
    bundle.submit(board, tmp_path / "a", keys / "alice")
    bundle.submit(board, tmp_path / "m.zip", keys / "mallory")
    assert failures(tmp_path / "a", signers=signers) == {}
    assert failures(tmp_path / "m.zip", signers=signers)["signature"] == [
        f"the key of the signature is not in {signers}"
    ]
    forged(tmp_path / "a", tmp_path / "f", lambda cell: cell.update(created="2026-01-01T00:00:00+00:00"))
    assert failures(tmp_path / "f").keys() == set()
    assert "not one of this manifest" in failures(tmp_path / "f", signers=signers)["signature"][0]
    (tmp_path / "a" / bundle.SIGNATURE).unlink()
    assert failures(tmp_path / "a", signers=signers)["signature"] == ["manifest.json.sig is missing"]


def test_a_missing_key_and_a_missing_program_are_one_line(board, keys, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="there is no key"):
        bundle.submit(board, tmp_path / "b", tmp_path / "none")
    monkeypatch.setattr(signing, "TOOL", "no-such-program")
    with pytest.raises(EnvironmentFailure, match="not installed"):
        bundle.submit(board, tmp_path / "b", keys / "alice")
    assert not (tmp_path / "b").exists()


# --- the command ---


def test_the_command_prints_one_table_and_exits_with_1_if_a_check_failed(made, tmp_path, monkeypatch):
    from click.testing import CliRunner

    from hashzoo.cli.main import main

    def run(*arguments):
        return CliRunner(env={"COLUMNS": "160"}).invoke(main, [str(one) for one in arguments])

    good = run("verify", made)
    assert good.exit_code == 0, good.output
    assert "scores" in good.stdout
    path = forged(made, tmp_path / "forged", lambda cell: cell["metrics"].update({"map@all": 0.999}))
    bad = run("verify", path, "--json")
    assert bad.exit_code == 1
    assert [one["check"] for one in json.loads(bad.stdout) if one["status"] == "failed"] == ["scores"]
    assert run("verify", tmp_path / "none").exit_code == 2
    refused = run("verify", made, "--tolerance", "0.1")
    assert refused.exit_code == 2
    assert "--tolerance requires --rerun N" in refused.output
    again = run("submit", made, "-o", tmp_path / "b.zip")
    assert again.exit_code == 0, again.output
    assert "2 cells; written to" in again.stdout


def test_older_cells_that_newer_ones_replace_are_left_out(tmp_path):
    old = a_cell(created="2026-01-01T00:00:00+00:00")
    new = replace(old, identity=replace(old.identity, code="newer"), created="2026-02-01T00:00:00+00:00")
    for cell in (old, new):
        store.write(tmp_path / "r", cell, {})
    done = bundle.submit(tmp_path / "r", tmp_path / "b")
    assert done.cells == 1
    assert any("left out" in note for note in done.notes)
