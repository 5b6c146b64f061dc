"""The page on tuning says what the committed cells say."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def check():
    spec = importlib.util.spec_from_file_location("reality_check", ROOT / "benchmarks" / "reality_check.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_the_tables_and_sentences_of_the_page_are_those_of_the_cells(check):
    page = check.PAGE.read_text(encoding="utf-8")
    assert re.findall(r"<!-- study: (\S+) -->", page) == list(check.STUDIES)
    assert check.page() == page


def test_every_study_has_its_trials_and_its_board(check):
    for name in check.STUDIES:
        result, rows, cells = check.study(name)
        found = check.lines(rows, cells, result.mark)
        assert len(found) > 10
        assert all(one.trials for one in result.methods)
        assert {"classifier", "itq"} <= {line.method for line in found}


def test_a_score_is_printed_without_its_zero(check):
    assert (check.score(0.1234), check.signed(-0.5), check.signed(0.5)) == (".123", "-.500", "+.500")
