"""The Python entry points: ``benchmark``, ``run_cell``, the board as an object, progress bars and the live table of a
sweep.
"""

from hashzoo.api.bench import Options, Plan, benchmark, prepare, run, run_cell
from hashzoo.api.board import Board
from hashzoo.api.watch import Screen

__all__ = ["Board", "Options", "Plan", "Screen", "benchmark", "prepare", "run", "run_cell"]
