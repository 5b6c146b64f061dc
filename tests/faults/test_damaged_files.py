"""Files that were cut off, that lost a bit, or that came back from another program: the same numbers, or an error."""

from __future__ import annotations

import csv
import json
import random
import shutil

import pytest

from hashzoo.errors import HashzooError
from hashzoo.results import board as boards
from hashzoo.results import csv_file, leaderboard, store
from hashzoo.results.cell import Cell, Identity
from tests.faults.targets import TARGETS, board, cell, write_board

ENCODINGS = {
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-16 without a mark": lambda text: text.encode("utf-16-le"),
    "UTF-32": lambda text: text.encode("utf-32"),
    "latin-1": lambda text: text.encode("latin-1"),
    "a mark in front": lambda text: text.encode("utf-8-sig"),
    "lines of DOS": lambda text: text.replace("\n", "\r\n").encode(),
    "lines of the old Macintosh": lambda text: text.replace("\n", "\r").encode(),
}


def cut(data, whole):
    """The file cut off at every byte."""
    for length in range(0, len(data), 1 if whole else max(1, len(data) // 20)):
        yield f"cut off at {length}", data[:length]


def flipped(data, count):
    """The file with one bit of it turned."""
    dice = random.Random(len(data))
    for _ in range(count):
        place, bit = dice.randrange(len(data)), dice.randrange(8)
        changed = bytearray(data)
        changed[place] ^= 1 << bit
        yield f"bit {bit} of byte {place} turned", bytes(changed)


def disordered(data, count):
    """The file with a block of it lost, zeroed, doubled or moved, as disks and transfers do."""
    dice = random.Random(len(data))
    for _ in range(count):
        start, length = dice.randrange(len(data)), dice.randrange(1, 64)
        head, block, tail = data[:start], data[start : start + length], data[start + length :]
        kind = dice.choice(["lost", "zeroed", "doubled", "moved"])
        made = {
            "lost": head + tail,
            "zeroed": head + bytes(len(block)) + tail,
            "doubled": head + block + block + tail,
            "moved": tail + head + block,
        }
        yield f"{length} bytes at {start} {kind}", made[kind]


def reencoded(data, _):
    for name, act in ENCODINGS.items():
        yield name, act(data.decode())


def outcome(read, was, case, fine=lambda found, was: found == was):
    """What is bad about a case; empty where what is read is what was written, or the error is named in one line."""
    try:
        found = read()
    except HashzooError as error:
        one = "\n" not in str(error) and len(str(error)) > 20
        return "" if one and error.exit_code in (2, 3) else f"{case}: {error!r}"
    except Exception as error:
        return f"{case}: {type(error).__name__}: {error}"
    return "" if fine(found, was) else f"{case}: another number was read"


def tried(tally, read, file, damages):
    data, was = file.read_bytes(), read()
    for name, made in damages(data):
        file.write_bytes(made)
        tally.case(outcome(read, was, f"{file.name} {name}"))
    file.write_bytes(data)


def test_cells(tally, whole, tmp_path):
    """Cells and their arrays cut off at every byte, with bits turned, blocks lost, and re-encoded"""
    file = store.write(tmp_path, cell(), {"map@all": [0.25, 0.5], "relevant": [3, 4]})
    (beside,) = file.parent.glob("*.npz")

    def read():
        return store.read(file), {name: array.tolist() for name, array in store.arrays(file).items()}

    for one, act in [(file, cut), (beside, cut), (file, reencoded)]:
        tried(tally, read, one, lambda data, act=act: act(data, whole))
    for one in (file, beside):
        tried(tally, read, one, lambda data: flipped(data, 400 if whole else 20))
        tried(tally, read, one, lambda data: disordered(data, 100 if whole else 10))


@pytest.mark.parametrize("kind", ["split", "trained weights"])
def test_splits_and_weights(kind, tally, whole, tmp_path):
    """Splits and trained weights cut off at every byte, with bits turned and blocks lost"""
    TARGETS[kind].write(tmp_path, 0)
    (file,) = tmp_path.iterdir()

    def read():
        return TARGETS[kind].read(tmp_path)

    tried(tally, read, file, lambda data: cut(data, whole))
    tried(tally, read, file, lambda data: flipped(data, 600 if whole else 30))
    tried(tally, read, file, lambda data: disordered(data, 200 if whole else 20))


def test_stored_features(tally, whole, tmp_path, monkeypatch):
    """Stored features cut off, with bits turned and blocks lost: extracted anew, or a map refused and removed"""
    monkeypatch.setenv("HASHZOO_CACHE", str(tmp_path))
    TARGETS["features"].write(tmp_path, 1)
    (folder,) = [one for one in (tmp_path / "features").iterdir() if one.is_dir()]
    (was,) = TARGETS["features"].read(tmp_path)

    def read():
        copy = tmp_path / "copy"  # a damaged map is removed with its folder
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(tmp_path / "features", copy / "features")
        (found,) = TARGETS["features"].read(copy)
        return was if found is None else found

    for file in sorted(folder.iterdir()):
        tried(tally, read, file, lambda data: cut(data, whole))
        tried(tally, read, file, lambda data: flipped(data, 200 if whole else 20))
        tried(tally, read, file, lambda data: disordered(data, 100 if whole else 10))
    TARGETS["features"].write(tmp_path, 1)
    assert TARGETS["features"].read(tmp_path) == [was]


def test_boards(tally, whole, tmp_path):
    """Boards cut off at every byte and re-encoded: the same rows, fewer, or an error"""
    write_board(tmp_path, 0)
    file = tmp_path / "leaderboard.csv"
    data = file.read_bytes()

    def read():
        return leaderboard.records(csv_file.read_csv(file))

    was = read()
    assert len(was) == 3
    for name, made in [*cut(data, whole), *reencoded(data, whole)]:
        file.write_bytes(made)
        fewer = lambda found, was: all(row in was for row in found)  # noqa: E731 - nothing tells rows that are not there
        tally.case(outcome(read, was, name, fewer))


def test_boards_beside_their_cells(tally, whole, tmp_path):
    """Boards with bits turned and blocks lost beside their cells: the numbers of the cells"""
    for one in board(0):
        store.write(tmp_path, one, {})
    write_board(tmp_path, 0)
    file = tmp_path / "leaderboard.csv"
    data = file.read_bytes()

    def read():
        return leaderboard.records(boards.read_board(tmp_path).frame)

    was = leaderboard.records(csv_file.read_csv(file))
    assert read() == was
    for name, made in [*flipped(data, 200 if whole else 10), *disordered(data, 100 if whole else 10)]:
        file.write_bytes(made)
        tally.case(outcome(read, was, name))


def test_boards_without_cells_never_crash(tally, whole, tmp_path):
    """Boards with bits turned and blocks lost, alone: no crash (a changed digit cannot be seen in a CSV)"""
    write_board(tmp_path, 0)
    file = tmp_path / "leaderboard.csv"
    data = file.read_bytes()
    for name, made in [*flipped(data, 600 if whole else 30), *disordered(data, 200 if whole else 20)]:
        file.write_bytes(made)
        tally.case(outcome(lambda: csv_file.read_csv(file), None, name, lambda found, was: True))


FORMULAS = [
    "=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "'=1", "''=1", "=cmd|' /C calc'!A0", '=HYPERLINK("http://x","y")', '"',
    ",", "a\nb", "\n=1", ";", "\u2028=1", "\uff1d1", "",
]  # fmt: skip


def test_formulas(tally, whole, tmp_path):
    """Names, settings and reasons that a spreadsheet would run, or that break lines"""
    for place in ("method", "settings", "reason", "benchmark"):
        for text in FORMULAS if whole else FORMULAS[::4]:
            shutil.rmtree(tmp_path)
            tmp_path.mkdir()
            one = cell()
            identity = json.loads(json.dumps(vars(one.identity))) | ({"method": text} if place == "method" else {})
            changes = {place: text} if place != "method" else {}
            one = Cell(**{**vars(one), **changes, "identity": Identity(**identity)})
            store.write(tmp_path, one, {})
            boards.write_board(tmp_path, [one])
            with (tmp_path / "leaderboard.csv").open(encoding="utf-8", newline="") as opened:
                raw = list(csv.reader(opened))
            ran = [field for row in raw for field in row if field[:1] and field[0] in "=+-@\t\r"]
            (row,) = leaderboard.records(csv_file.read_csv(tmp_path / "leaderboard.csv"))
            same = row == leaderboard.records(boards.read_board(tmp_path).frame)[0] and len(raw) == 2
            tally.case("" if same and not ran else f"{place} {text!r}: {ran}")
