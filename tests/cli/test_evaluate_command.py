"""`hashzoo evaluate` on files of codes: what it says, and its exit code."""

from __future__ import annotations

import numpy as np
import pytest

from hashzoo.cli.main import main


@pytest.fixture
def evaluate(tmp_path, capsys):
    """Run the command on arrays; its exit code, and what it prints."""

    def run(query, database, query_labels, labels, *options):
        sides = {"query_codes": query, "database_codes": database}
        np.savez(tmp_path / "codes.npz", **sides, query_labels=query_labels, database_labels=labels)
        code = 0
        try:
            main(["evaluate", str(tmp_path / "codes.npz"), *options])
        except SystemExit as done:
            code = int(done.code or 0)
        return code, *capsys.readouterr(), (tmp_path / "codes.metrics.json").exists()

    return run


CODES = np.random.default_rng(0).random((9, 16)) < 0.5
CLASSES = np.arange(9) % 3


@pytest.mark.parametrize(
    "labels",
    [
        (CLASSES + 100, CLASSES),
        (CLASSES * 2 + 1, CLASSES * 2),
        (np.eye(6)[CLASSES], np.eye(6)[CLASSES + 3]),
        (np.zeros((9, 3), int), np.eye(3)[CLASSES]),
        (np.eye(3)[CLASSES], np.zeros((9, 3), bool)),
        (-1 - CLASSES, CLASSES.astype(float)),
    ],
)
def test_queries_without_any_relevant_item_are_one_line_and_exit_code_1(evaluate, labels):
    code, out, err, written = evaluate(CODES, CODES, *labels)
    assert (code, out, written) == (1, "", False)
    last = err.splitlines()[-1]
    assert "none of the 9 queries has a relevant item" in last
    assert "codes.npz" in last


def test_a_query_without_a_relevant_item_among_others_is_counted(evaluate):
    code, out, err, written = evaluate(CODES, CODES, np.where(CLASSES == 0, 7, CLASSES), CLASSES)
    assert (code, err, written) == (0, "", True)
    assert "queries_without_relevant\t3" in out


@pytest.mark.parametrize("form", [int, np.float32, np.int8])
def test_codes_that_are_not_bool_give_the_same_scores_and_a_note(evaluate, form):
    _, wanted, *_ = evaluate(CODES, CODES, CLASSES, CLASSES)
    code, out, err, _ = evaluate(CODES.astype(form), CODES.astype(form), CLASSES.astype(float), CLASSES)
    assert (code, out) == (0, wanted)
    assert len(err.splitlines()) == 3
    assert err.startswith("note: query_codes: ")


def test_the_number_of_bits_decides_between_single_bits_and_packed_bytes(evaluate):
    _, wanted, *_ = evaluate(CODES, CODES, CLASSES, CLASSES)
    single = CODES.astype(np.uint8)
    code, _, err, _ = evaluate(single, single, CLASSES, CLASSES)
    assert code == 2
    assert "--bits 128" in err
    assert evaluate(single, single, CLASSES, CLASSES, "--bits", "16")[:2] == (0, wanted)
    packed = np.packbits(np.unpackbits(single, axis=1), axis=1)
    assert (packed == single).all()
    unpacked = np.unpackbits(single, axis=1).astype(bool)
    _, of_packed, *_ = evaluate(unpacked, unpacked, CLASSES, CLASSES)
    assert evaluate(single, single, CLASSES, CLASSES, "--bits", "128")[:2] == (0, of_packed)
