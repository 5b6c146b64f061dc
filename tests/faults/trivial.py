"""What stands for the measurement of a cell where only the launcher is tried. Apart: a cell's process imports it."""

from __future__ import annotations

from hashzoo import cells
from hashzoo.attempt import limit_memory
from hashzoo.measure import blank
from hashzoo.processes import alone


def attempt(job, folder, memory, pipe, surroundings):
    """A blank cell, at once."""
    alone(surroundings)
    limit_memory(memory)
    cells.write(folder, blank(job, "ok"), {})
    pipe.send(("written", None))
