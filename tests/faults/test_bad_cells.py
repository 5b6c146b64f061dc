"""Cells that go wrong in every way there is, before, among and after sound ones."""

from __future__ import annotations

import pytest

from tests.cli.command import hashzoo
from tests.execution.test_bad_cells import EXPECTED, PLUGIN, living, rows


@pytest.mark.slow  # its sample is tests/execution/test_bad_cells.py
def test_whatever_becomes_of_a_cell_the_sound_ones_first_amid_and_last_are_measured(tmp_path, tally):
    """cells that raise, hang, crash, exhaust, meddle; at the beginning, amid and at the end of a sweep"""
    (tmp_path / "bad.py").write_text(PLUGIN.replace('"sound": Base', '**{f"sound{n}": Base for n in range(4)}'))
    kinds = [name for name in EXPECTED if name != "sound"]
    sound = [f"sound{n}" for n in range(4)]
    orders = {"first": kinds + sound, "amid": sound[:2] + kinds + sound[2:], "last": sound + kinds}
    for place, order in orders.items():
        result = hashzoo(
            "bench", "digits", "--quick", "--no-baselines", "--plugin", "bad.py", "--methods", ",".join(order),
            "--bits", "8", "--timeout", "30", "--mem-limit", "2G", "--results", place, cwd=tmp_path, timeout=1200,
        )  # fmt: skip
        assert result.returncode == 1
        assert "Traceback" not in result.stdout + result.stderr
        found = rows(tmp_path / place / "leaderboard.csv")
        for name in sound:
            assert found[name]["status"] == "ok"
        for name in kinds:
            status = found[name]["status"]
            sound_reason = bool(found[name]["reason"]) == (status != "ok")
            tally.case("" if status == EXPECTED[name] and sound_reason else f"{name} {place}: {found[name]}")
        assert living(tmp_path) == []
