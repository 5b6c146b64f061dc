"""Every suite in two forms, a sample for every day and the whole; and their figures, for docs/evidence/reliability.md.

A suite is named by the docstring of its test; ``pytest tests/faults -m slow`` prints the figures of the whole forms.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import pytest

COLUMNS = ("suite", "cases", "good", "bad", "seconds")
ROWS: dict[str, Tally] = {}


@dataclass
class Tally:
    """What a suite tried, and what went wrong in it."""

    cases: int = 0
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def case(self, wrong: str = "") -> None:
        """Count a case; ``wrong`` says what was bad about it."""
        self.cases += 1
        if wrong:
            print(f"bad: {wrong}", flush=True)
            self.wrong.append(wrong)


@pytest.fixture(
    params=[pytest.param(False, id="sample"), pytest.param(True, id="whole", marks=pytest.mark.slow)], scope="session"
)
def whole(request):
    """Whether all cases are tried, or a sample."""
    return request.param


@pytest.fixture
def tally(request):
    """Counts the cases of a suite; the test fails where one was bad."""
    row = ROWS.setdefault(request.function.__doc__.strip(), Tally())
    start, before = time.monotonic(), len(row.wrong)
    yield row
    row.seconds += time.monotonic() - start
    wrong = row.wrong[before:]
    if wrong:
        pytest.fail(f"{len(wrong)} bad cases, first: " + "\n".join(wrong[:5]), pytrace=False)


def pytest_terminal_summary(terminalreporter):
    if not ROWS:
        return
    terminalreporter.write_sep("-", "suites of faults")
    lines = [COLUMNS, tuple("-" * len(name) for name in COLUMNS)]
    for suite, row in sorted(ROWS.items()):
        numbers = (row.cases, row.cases - len(row.wrong), len(row.wrong), round(row.seconds))
        lines.append((suite, *(f"{number:,}" for number in numbers)))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        terminalreporter.write_line("| " + " | ".join(f.ljust(w) for f, w in zip(line, widths, strict=True)) + " |")
