"""Several results folders as one."""

import shutil
from dataclasses import replace

import pytest
from click.testing import CliRunner

from hashzoo.cli.main import main
from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.report.page import PageOptions, render_page
from hashzoo.results import merge, store
from hashzoo.results.board import Filter, read_board
from hashzoo.results.leaderboard import board_frame, records
from tests.results.test_leaderboard import a_cell
from tests.results.test_paired import FACTS, a_board, put, scores


@pytest.fixture
def shards(tmp_path):
    """Two folders: each has seeds of one method that the other lacks, and both have one of the cells."""
    put(tmp_path / "a", "dhn", 0.5, 0)
    put(tmp_path / "a", "itq", 0.4, 0)
    put(tmp_path / "b", "dhn", 0.6, 1)
    put(tmp_path / "b", "itq", 0.4, 0, timings={"fit_seconds": 9.0})
    return tmp_path / "a", tmp_path / "b"


def contents(folder):
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_merged_folder_has_each_cell_once_with_its_files_and_a_board(shards, tmp_path):
    file = next((shards[1] / "cells").glob("*dhn*.json"))
    for ending in (".log", ".safetensors"):
        file.with_suffix(ending).write_text(ending)
    file.with_suffix(".lease").write_text("held")
    before = [contents(folder) for folder in shards]
    assert merge.merge_folders(shards, tmp_path / "c") == (3, 2)
    found, faults = store.read_all(tmp_path / "c")
    assert (len(found), faults) == (3, [])
    assert all(len(store.arrays(store.path(tmp_path / "c", cell.identity, cell.benchmark))) for cell in found)
    made = {path.name for path in contents(tmp_path / "c")}
    assert {file.with_suffix(".log").name, file.with_suffix(".safetensors").name} <= made
    assert not any(name.endswith((".lease", ".tmp")) for name in made)
    rows = records(read_board(tmp_path / "c" / "leaderboard.csv").frame)
    assert {row["method"]: row["seed_list"] for row in rows} == {"dhn": "0 1", "itq": "0"}
    assert [contents(folder) for folder in shards] == before


def test_several_folders_are_read_as_the_folder_that_they_merge_into(shards, tmp_path):
    merge.merge_folders(shards, tmp_path / "c")
    several, one = merge.read_boards(shards), read_board(tmp_path / "c")
    assert several.frame.drop(columns="origin").equals(one.frame)
    row = next(row for row in several.rows() if row.facts["method"] == "dhn")
    assert [row.file(cell).parents[1].name for cell in row.cells] == ["a", "b"]
    assert "dhn" in render_page(shards, PageOptions(gallery=0, explained=("none",)))


def test_rows_of_several_folders_say_which_ones_they_come_from(shards):
    put(shards[1], "lsh", 0.3, 0)
    rows = {row["method"]: row["origin"] for row in records(merge.read_boards(shards).frame)}
    assert rows == {"dhn": "a, b", "itq": "a", "lsh": "b"}
    assert "origin" not in read_board(shards[0]).frame
    page = render_page(shards, PageOptions(gallery=0, explained=("none",)))
    assert '<em title="the results folder of the row">a, b</em>' in page
    assert "the results folder of the row" not in render_page(shards[:1], PageOptions(gallery=0, explained=("none",)))


def test_show_marks_the_folder_of_each_row_if_there_are_several(shards):
    shown = CliRunner(env={"COLUMNS": "160"}).invoke(main, ["show", *map(str, shards)])
    assert shown.exit_code == 0, shown.output
    lines = [line.split() for line in shown.stdout.splitlines() if line.split()[:1] in (["dhn"], ["itq"])]
    assert [line.count("a") + 2 * line.count("b") for line in lines] == [1, 1, 2, 2]
    assert "origin" not in CliRunner().invoke(main, ["show", str(shards[0])]).stdout


def test_a_cell_with_different_results_is_refused_and_both_files_are_named(shards, tmp_path):
    put(shards[1], "itq", 0.3, 0, draw=5)
    with pytest.raises(UsageError, match="same cell with different results") as refused:
        merge.merge_folders(shards, tmp_path / "c")
    files = [next((folder / "cells").glob("*itq*.json")) for folder in shards]
    assert all(str(file) in str(refused.value) for file in files)
    assert not (tmp_path / "c").exists()


def test_the_file_with_arrays_is_taken_of_two_with_the_same_results(shards, tmp_path):
    for file in (shards[0] / "cells").glob("*itq*.npz"):
        file.unlink()
    merge.merge_folders(shards, tmp_path / "c")
    assert list((tmp_path / "c" / "cells").glob("*itq*.npz"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"benchmark": "other"}, "holds the benchmark digits and"),
        ({"data": "0ther"}, "fingerprint of the data da7a and 0ther"),
        ({"protocol": 2}, "protocol version 1 and 2"),
        ({"facts": {**FACTS, "split": "x"}}, "split 5p11t and x"),
    ],
)
def test_folders_that_do_not_belong_together_are_refused(change, said, tmp_path):
    put(tmp_path / "a", "dhn")
    put(tmp_path / "b", "itq", **change)
    with pytest.raises(UsageError, match=said):
        merge.merge_folders([tmp_path / "a", tmp_path / "b"], tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_an_output_that_is_not_empty_and_a_folder_without_cells_are_refused(shards, tmp_path):
    (tmp_path / "c").mkdir()
    merge.merge_folders(shards, tmp_path / "c")
    with pytest.raises(UsageError, match="is not empty"):
        merge.merge_folders(shards, tmp_path / "c")
    with pytest.raises(EnvironmentFailure, match="has no cells"):
        merge.merge_folders([shards[0], tmp_path], tmp_path / "d")
    with pytest.raises(UsageError, match="given twice"):
        merge.merge_folders([shards[0], shards[0]], tmp_path / "d")


def test_a_merge_that_is_interrupted_leaves_nothing(shards, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(merge, "write_board", interrupt)
    with pytest.raises(KeyboardInterrupt):
        merge.merge_folders(shards, tmp_path / "c")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_results_that_a_newer_run_replaces_do_not_prevent_a_merge(tmp_path):
    a_board(tmp_path / "a", dhn=0.5)
    old = a_cell("dhn", 0.1, data="01d", facts=FACTS, created="2025-01-01T00:00:00.000000+00:00")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    store.write(tmp_path / "b", old, {"map@all": scores(0.1, 0)})
    assert merge.merge_folders([tmp_path / "a", tmp_path / "b"], tmp_path / "c") == (4, 1)


# --- which rows ---

CELLS = [a_cell(m, bits=bits, dataset=d) for m in ("dhn", "dhn-b", "itq") for bits in (8, 16) for d in ("one", "two")]


def board(tmp_path):
    for cell in CELLS:
        store.write(tmp_path, cell, {})
    return read_board(tmp_path)


def test_rows_are_selected_by_patterns_of_methods_bits_and_datasets(tmp_path):
    found = Filter(["dhn*"], [8], ["t*"]).apply(board(tmp_path))
    places = [(row["method"], row["bits"], row["dataset"]) for row in records(found.frame)]
    assert places == [("dhn", 8, "two"), ("dhn-b", 8, "two")]
    assert [{cell.identity.method for cell in row.cells} for row in found.rows()] == [{"dhn"}, {"dhn-b"}]
    assert Filter().apply(board(tmp_path)).frame.equals(board_frame(CELLS))


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (Filter(["dnh"]), "no method 'dnh'; did you mean 'dhn'"),
        (Filter(["x*"]), "no method matches 'x\\*'"),
        (Filter(bits=[7]), "no rows of 7 bits; there are: 8, 16"),
        (Filter(datasets=["on"]), "did you mean 'one'"),
    ],
)
def test_a_selection_of_nothing_is_refused(wanted, said, tmp_path):
    with pytest.raises(UsageError, match=said):
        wanted.apply(board(tmp_path))


def test_methods_and_bits_that_never_meet_are_refused(tmp_path):
    store.write(tmp_path, replace(a_cell("dhn", bits=8)), {})
    store.write(tmp_path, replace(a_cell("itq", bits=16)), {})
    with pytest.raises(UsageError, match="together"):
        Filter(["dhn"], [16]).apply(read_board(tmp_path))
