"""What codes cost in each engine: growth from measured rates, and what the command prints."""

from __future__ import annotations

import json

import pytest

from hashzoo.errors import UsageError
from hashzoo.export import plan
from tests.in_process import command

RATES = {
    "bits": 64,
    "engines": {
        "hashzoo index": [
            {"rows": 100, "export": 0.0, "load": 1.0, "size": 2000, "query": 2.0, "recall": 1.0},
            {"rows": 200, "export": 0.0, "load": 2.0, "size": 4000, "query": 3.0, "recall": 1.0},
        ],
        "faiss lists": [{"rows": 10_000, "export": 3.0, "load": 1.0, "size": 200_000, "query": 0.5, "recall": 0.987}],
    },
}


def test_costs_grow_as_the_engine_does():
    lists, index = plan.plan(40_000, 64, RATES)
    assert (lists.engine, lists.finds) == ("faiss lists", "98.7% at 1e4")
    assert lists.query == pytest.approx(0.0005 * 2)  # four times the codes: twice the time
    assert lists.load == pytest.approx(4 * 8)
    assert (lists.disk, lists.memory) == (800_000, 40_000 * 16)
    assert (index.engine, index.finds) == ("hashzoo index", "all")
    assert index.query == pytest.approx(0.001 * (1 + 40_000 / 100))  # a fixed part, and one for each code
    assert (index.disk, index.memory, index.load) == (800_000, 40_000 * 8, 400)


def test_longer_codes_take_their_bytes_and_a_scan_their_time():
    short, long = ({one.engine: one for one in plan.plan(1000, bits, RATES)} for bits in (64, 256))
    assert long["hashzoo index"].query == pytest.approx(4 * short["hashzoo index"].query)
    assert long["faiss lists"].query == short["faiss lists"].query
    assert all(long[name].disk - short[name].disk == 1000 * 24 for name in short)


def test_a_number_that_is_none_is_refused(capsys):
    for images, bits in ((0, 64), (10**12, 64), (10, 0), (10, 5000)):
        with pytest.raises(UsageError, match=r"is from 1 to"):
            plan.plan(images, bits)
    for text in ("1.5", "many", "nan", "inf", "-1"):
        assert command("plan", "--images", text) == 2
        assert capsys.readouterr().err.startswith("hashzoo: --images")


def test_the_command_prints_every_engine_that_was_measured_and_the_one_with_the_least_memory(capsys):
    assert command("plan", "--images", "1e8") == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[0] == "100,000,000 codes of 64 bits"
    assert all(name in printed for name in plan.ENGINES)
    assert command("plan", "--images", "1e8", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["engine"] for one in found] == sorted(plan.ENGINES, key=lambda name: printed.index(f"\n{name} "))
    fast = min((one for one in found if one["query"] <= 0.1), key=lambda one: one["memory"])
    assert f"least memory of those that answer in 100 ms: {fast['engine']}" in printed


def test_rates_of_another_size_are_foretold_within_a_factor_of_four():
    """The time of a scan at the largest number of codes, from the two sizes before it."""
    for name in ("hashzoo index", "faiss flat", "LanceDB"):
        *before, last = plan.rates()["engines"][name]
        foretold = plan.predicted(before, "query", plan.ENGINES[name].query, last["rows"])
        assert 0.25 < foretold / last["query"] < 4, (name, foretold, last["query"])
