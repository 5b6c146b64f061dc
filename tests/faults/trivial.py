"""What stands for the measurement of a cell where only the launcher is tried. Apart: a cell's process imports it."""

from __future__ import annotations

from hashzoo.bench.job import blank
from hashzoo.execution.processes import isolate
from hashzoo.execution.worker import limit_memory
from hashzoo.results import store


def attempt(job, folder, memory, pipe, surroundings):
    """A blank cell, at once."""
    isolate(surroundings)
    limit_memory(memory)
    store.write(folder, blank(job, "ok"), {})
    pipe.send(("written", None))
