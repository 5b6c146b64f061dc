"""Which code for vectors of the user: the table by bytes, the front, and one sentence of advice."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape

import numpy as np
import pytest
import torch

import hashzoo
from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.report.quantize import write
from hashzoo.results.choices import Choice, advise, choices_of, records_of, winner


def code(method, size, factor, **changes):
    made = Choice(method, 8 * size, size, False, dict.fromkeys((1, 2, 3, 5, 10), 0.5), 0.01, factor, 2 * factor, {})
    return replace(made, **changes)


CELLS = []


def test_the_smallest_codes_that_reach_the_target_are_named():
    choices = [code("a", 8, 40), code("b", 16, 5, front=True), code("c", 32, 7), code("d", 48, 2.5, front=True)]
    said = advise(choices, CELLS, 0.95, None)
    assert said.startswith("b of 16 B reaches .95 at 5 times k candidates; d of 48 B at 2.5 times (")
    assert "±0.010" in said
    assert "a of" not in said
    assert advise(choices, CELLS, 0.95, 20).startswith("b of 16 B reaches .95 at 5 times k candidates (")


def test_the_winner_is_what_the_advice_names_first_when_recomputed_from_the_full_table():
    rng = np.random.default_rng(0)
    for _ in range(200):
        table = [code(f"m{n}", int(rng.integers(1, 6)), float(rng.integers(1, 16))) for n in range(6)]
        budget = int(rng.integers(1, 7))
        said, chosen = advise(table, CELLS, 0.95, budget), winner(table, budget)
        allowed = [one for one in table if one.size <= budget]
        reached = [one for one in allowed if one.factor <= 10]
        if not allowed:
            assert chosen is None
            assert "no code of at most" in said
        elif not reached:
            assert chosen.factor == min(one.factor for one in allowed)
            assert f"{chosen.name} of {chosen.size} B is nearest" in said
        else:
            least = min(one.size for one in reached)
            assert (chosen.size, chosen.factor) == (least, min(o.factor for o in reached if o.size == least))
            assert said.startswith(f"{chosen.name} of {chosen.size} B reaches .95 at {chosen.factor:g} times")


def test_a_target_that_no_code_reaches_is_said_with_the_nearest():
    said = advise([code("a", 8, 40, front=True), code("b", 16, 25, front=True)], CELLS, 0.95, 100)
    assert said.startswith(
        "no code of at most 100 B reaches .95 with 10 times k candidates; b of 16 B is nearest, at 25"
    )
    assert "no code of at most 4 B was measured" in advise([code("a", 8, 40)], CELLS, 0.95, 4)


def test_codes_of_vectors_are_measured_and_sorted_by_bytes(tmp_path):
    np.save(tmp_path / "emb.npy", np.random.default_rng(0).normal(size=(300, 16)).astype(np.float32))
    given = {"methods": ["lsh"], "bits": [8, 16], "results": tmp_path / "out", "jobs": 1, "metric": "l2"}
    array = torch.from_numpy(np.load(tmp_path / "emb.npy"))
    found = hashzoo.quantize(array, k=3, target=0.9, progress=False, **given)
    assert [(one.name, one.size) for one in found.choices if not one.asymmetric] == [("lsh", 1), ("lsh", 2)]
    assert len(found.choices) == 4
    assert [one.size for one in found.choices] == sorted(one.size for one in found.choices)
    for one in found.choices:
        assert 0 < one.recall[1] <= one.recall[2] <= one.recall[10] <= 1
        assert 1 <= one.factor <= one.factor_high
        assert 0 < one.interval < 0.5
    for size in (1, 2):  # the front holds the best of the fewest bytes
        least = min(one.factor for one in found.choices if one.size <= size)
        assert any(one.front and one.factor == least for one in found.choices if one.size <= size)
    assert "30 queries among 270 vectors" in found.advice
    assert choices_of(found.board.cells, found.board.folder, 3, 0.9) == list(found.choices)
    assert records_of(found.choices)[0]["bytes_1e6"] == 1e6
    chosen = found.save(tmp_path / "chosen")
    assert chosen == winner(found.choices)
    encoder = hashzoo.load_vector_encoder(tmp_path / "chosen")
    assert encoder.encode(array)["code"].shape == (300, chosen.bits)
    assert (encoder.metric, encoder.choice["factor"]) == ("l2", chosen.factor)
    again = hashzoo.quantize(tmp_path / "emb.npy", k=3, target=0.9, progress=False, **given)
    assert again.choices == found.choices  # the cells are those of the same vectors, from an array or from a file
    write(tmp_path / "page.html", "emb.npy", found.choices, found.advice, 3, 0.9)
    page = (tmp_path / "page.html").read_text()
    assert page.count("<tr>") == 1 + len(found.choices)
    assert found.advice in unescape(page)
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", page)  # everything is in the page
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").touch()
    with pytest.raises(UsageError, match="holds other files"):
        found.save(tmp_path / "other")


@pytest.mark.parametrize("wrong", [{"k": 0}, {"target": 1.0}])
def test_numbers_that_make_no_sense_are_refused(wrong, tmp_path):
    with pytest.raises(UsageError, match="k must be 1 or more"):
        hashzoo.quantize(tmp_path / "emb.npy", **wrong)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (np.zeros((5, 3, 2)), "x.reshape"),
        (np.array([["a"]]), "save float64"),
        (np.zeros((0, 4)), "has 0 rows of 4"),
        ([[1.0], [1.0, 2.0]], "is no array of numbers"),
        (np.array([[1.0], [1.0, 2.0]], object), "Python objects"),
        (np.ones((30, 4)), "30 neighbors need more than 30 vectors"),
    ],
    ids=["three axes", "text", "no rows", "ragged", "objects", "few rows"],
)
def test_arrays_that_hold_no_vectors_are_refused(given, words):
    with pytest.raises(UsageError, match="the array of vectors") as refused:
        hashzoo.quantize(given, k=30, progress=False)
    assert words in str(refused.value)


def test_a_row_of_an_array_that_is_not_finite_is_named():
    bad = np.ones((40, 4))
    bad[7, 2] = np.inf
    with pytest.raises(EnvironmentFailure, match="row 7 of the array of vectors has inf in column 2"):
        hashzoo.quantize(bad, k=3, progress=False)


def test_bad_rows_of_a_file_are_left_out_as_the_message_offers(tmp_path):
    rows = np.random.default_rng(0).normal(size=(60, 8))
    rows[7] = 0
    np.save(tmp_path / "emb.npy", rows)
    given = {"methods": ["bq"], "bits": [8], "results": tmp_path / "out", "jobs": 1, "k": 3, "progress": False}
    with pytest.raises(EnvironmentFailure, match=r"row 7 .* use --on-bad-image skip"):
        hashzoo.quantize(tmp_path / "emb.npy", **given)
    found = hashzoo.quantize(tmp_path / "emb.npy", on_bad_image="skip", **given)
    assert "6 queries among 53 vectors" in found.advice
