"""A board in one file: read like a folder, damaged line by line, and written as a whole or not at all."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from hashzoo.cli.main import main
from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.results import merge, packed, store
from hashzoo.results.board import read_board
from hashzoo.results.merge import Packing, merge_folders
from hashzoo.results.store import DamagedError, NewerSchemaError
from hashzoo.storage.files import canonical_json, sha256
from tests.results.test_paired import a_board, put

PLAIN = Packing()


def printed(*arguments):
    result = CliRunner(env={"COLUMNS": "160"}).invoke(main, list(map(str, arguments)))
    return result.exit_code, result.stdout


def lines(folder):
    return (folder / packed.NAME).read_bytes().splitlines(keepends=True)


@pytest.fixture
def board(tmp_path):
    return a_board(tmp_path / "board", dhn=0.5, itq=0.4)


@pytest.fixture
def one_file(board, tmp_path):
    merge_folders([board], tmp_path / "packed", None, PLAIN)
    return tmp_path / "packed"


def test_a_packed_board_is_few_files_and_prints_the_same(board, one_file):
    assert {path.name for path in one_file.iterdir()} == {"cells.jsonl", "cells.zip", "cells.csv", "leaderboard.csv"}
    assert (one_file / "leaderboard.csv").read_bytes() == (board / "leaderboard.csv").read_bytes()
    for command in (("show", "{}"), ("show", "{}", "--json"), ("compare", "{}", "--between", "dhn,itq")):
        code, before = printed(*(part.format(board) for part in command))
        for place in (one_file, one_file / packed.NAME):
            again, after = printed(*(part.format(place) for part in command))
            assert (code, again) == (0, 0)
            assert after.replace(str(place), str(board)) == before
    assert printed("compare", board, one_file)[0] == 0


def test_a_single_cell_is_shown_by_its_path(board, one_file):
    name = next((board / "cells").glob("*itq*.json")).name
    assert printed("show", one_file / "cells" / name) == printed("show", board / "cells" / name)


def test_a_packed_board_merges_into_the_folder_that_it_came_from(board, one_file, tmp_path):
    put(tmp_path / "more", "lsh", 0.3, 0)
    merge_folders([one_file, tmp_path / "more"], tmp_path / "whole")
    for file in (board / "cells").iterdir():
        assert (tmp_path / "whole" / "cells" / file.name).read_bytes() == file.read_bytes()
    assert len(store.files(tmp_path / "whole")) == 7


def test_new_cells_lie_beside_the_packed_file_until_it_is_packed_again(one_file):
    put(one_file, "lsh", 0.3, 0)
    put(one_file, "itq", 0.7, 0, draw=99)  # measured again: the file is newer than the line
    assert len(list((one_file / "cells").glob("*.json"))) == 2
    before = read_board(one_file).frame
    assert set(before["method"]) == {"dhn", "itq", "lsh"}
    assert before.set_index("method").loc["itq", "map@all"] > 0.45
    assert merge_folders([one_file], one_file, None, PLAIN) == (7, 3)
    assert not (one_file / "cells").exists()
    assert read_board(one_file).frame.equals(before)
    found = store.files(one_file)
    assert len(found) == 7
    assert all(store.has_arrays(file) for file in found)


def test_packing_is_refused_while_a_sweep_measures_there_or_methods_are_saved(board):
    lease = board / "cells" / "x.lease"
    lease.write_text("")
    with pytest.raises(UsageError, match="a sweep measures a cell"):
        merge_folders([board], board, None, PLAIN)
    lease.unlink()
    next((board / "cells").glob("*.json")).with_suffix(".safetensors").write_bytes(b"")
    with pytest.raises(UsageError, match="a saved method, which a packed file does not hold"):
        merge_folders([board], board, None, PLAIN)


@pytest.mark.parametrize("in_place", [True, False])
def test_a_write_that_ends_anywhere_leaves_the_former_board_or_the_new_one(one_file, tmp_path, monkeypatch, in_place):
    put(one_file, "itq", 0.7, 0, draw=99)
    whole = read_board(one_file).frame
    write, target = merge.replace_bytes, one_file if in_place else tmp_path / "new"
    for last in range(20):
        folder = tmp_path / f"copy{last}"
        shutil.copytree(one_file, folder)
        target, calls = folder if in_place else tmp_path / f"new{last}", []

        def failing(path, data, calls=calls, last=last):
            calls.append(path)
            if len(calls) > last:
                raise KeyboardInterrupt
            write(path, data)

        for module in (packed, merge, store):
            monkeypatch.setattr(module, "replace_bytes", failing)
        try:
            merge_folders([folder], target, None, PLAIN)
            done = True
        except KeyboardInterrupt:
            done = False
        if in_place or done:
            assert read_board(target).frame.equals(whole)
            assert all(store.arrays(file) for file in store.files(target))
        else:
            assert not target.exists()
        if done:
            break
    assert done
    assert last >= 2


def damage(rows, kind):
    """Rows with the second one damaged."""
    if kind == "truncated":
        return [rows[0], rows[1][: len(rows[1]) // 2]]
    if kind == "flipped":
        return [rows[0], rows[1].replace(b'"bits":', b'"bitt":', 1), *rows[2:]]
    if kind == "checksum":
        known = json.loads(rows[1])
        return [rows[0], (canonical_json({**known, "checksum": "0" * 64}) + "\n").encode(), *rows[2:]]
    if kind == "duplicate":
        return [rows[0], rows[0], *rows[2:]]
    return [rows[0], b"[1, 2]\n", *rows[2:]]


@pytest.mark.parametrize(
    ("kind", "reason", "left"),
    [
        ("truncated", "not a complete JSON line", 1),
        ("flipped", "the checksum does not match", 5),
        ("checksum", "the checksum does not match", 5),
        ("duplicate", "it repeats the cell of line 1", 5),
        ("other", "not the line of a cell", 5),
    ],
)
def test_a_damaged_line_is_named_and_the_others_are_read(one_file, kind, reason, left):
    (one_file / packed.NAME).write_bytes(b"".join(damage(lines(one_file), kind)))
    with pytest.raises(DamagedError, match=rf"cells\.jsonl, line 2, is damaged \({reason}.*delete the line and run"):
        read_board(one_file)
    skipped = read_board(one_file, skip_damaged=True)
    assert (sum(map(len, skipped.groups)), len(skipped.faults)) == (left, 1)
    cells, messages = store.read_all(one_file)
    assert len(cells) == left
    [message] = messages
    assert "line 2" in message
    assert message.endswith("not counted; run the benchmark again to measure it again")
    code, _ = printed("show", one_file)
    assert code == 3
    with pytest.raises(DamagedError):
        merge_folders([one_file], one_file, None, PLAIN)


def test_every_flipped_byte_of_a_line_is_noticed(one_file):
    rows = lines(one_file)
    for at in range(0, len(rows[0]) - 1, 37):
        row = bytearray(rows[0])
        row[at] ^= 1
        (one_file / packed.NAME).write_bytes(bytes(row) + b"".join(rows[1:]))
        packed._read_lines.cache_clear()
        assert sum(map(len, read_board(one_file, skip_damaged=True).groups)) == 5


def test_damaged_and_missing_arrays_are_told_apart(one_file):
    archive = one_file / "cells.zip"
    whole = bytearray(archive.read_bytes())
    whole[len(whole) // 3] ^= 1
    archive.write_bytes(whole)
    assert len(read_board(one_file, skip_damaged=True).faults) == 1
    archive.write_bytes(b"no archive")
    with pytest.raises(DamagedError, match=r"the arrays in the \.zip file beside the packed file"):
        read_board(one_file)
    archive.unlink()
    file = store.files(one_file)[0]
    assert (store.read(file).status, store.has_arrays(file)) == ("ok", False)
    with pytest.raises(EnvironmentFailure, match="No such file"):
        store.arrays(file)


def test_a_newer_schema_and_an_empty_file_say_what_to_do(one_file):
    known = {**json.loads(lines(one_file)[0]), "schema": store.SCHEMA + 1}
    del known["checksum"]
    (one_file / packed.NAME).write_text(
        canonical_json(known | {"checksum": sha256(canonical_json(known).encode())}) + "\n"
    )
    with pytest.raises(NewerSchemaError):
        read_board(one_file, skip_damaged=True)
    (one_file / packed.NAME).write_text("\n")
    with pytest.raises(EnvironmentFailure, match="has no cells"):
        read_board(one_file / packed.NAME)
    with pytest.raises(UsageError, match="is the name of a packed file; name the results folder"):
        store.prepare(one_file / packed.NAME)


def test_rounded_scores_take_less_room_and_stay_the_same_cell(board, tmp_path):
    file = next((board / "cells").glob("*itq*.json"))
    merge_folders([board], tmp_path / "half", None, Packing(half=True))
    inside = tmp_path / "half" / "cells" / file.name
    exact, rounded = store.arrays(file)["map@all"], store.arrays(inside)["map@all"]
    assert (exact.dtype, rounded.dtype) == (np.float64, np.float16)
    assert np.allclose(exact, rounded, rtol=2**-11, equal_nan=True)
    assert store.digest(inside) == store.digest(file)
    assert merge_folders([board, tmp_path / "half"], tmp_path / "both") == (6, 2)  # no conflict
    merge_folders([tmp_path / "half"], tmp_path / "twice", None, Packing(half=True))
    assert (tmp_path / "twice" / "cells.zip").read_bytes() == (tmp_path / "half" / "cells.zip").read_bytes()


def test_scores_beyond_the_range_of_float16_are_not_rounded(tmp_path):
    put(tmp_path / "wide", arrays=np.array([1.0, 7e4, np.nan]))
    merge_folders([tmp_path / "wide"], tmp_path / "half", None, Packing(half=True))
    assert store.arrays(store.files(tmp_path / "half")[0])["map@all"].dtype == np.float64


def test_the_command_packs_one_folder_and_refuses_rounding_without_packing(board, tmp_path):
    assert printed("merge", board, "-o", tmp_path / "x")[0] == 2
    assert printed("merge", board, "-o", tmp_path / "x", "--float16")[0] == 2
    code, text = printed("merge", board, "--pack", "--float16", "-o", tmp_path / "x")
    assert (code, text) == (0, f"6 cells in 2 rows; written to {tmp_path / 'x'}\n")
