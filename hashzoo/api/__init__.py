"""The Python entry points: a benchmark, its board, its progress display."""

from hashzoo.api.bench import Options, Plan, benchmark, prepare, run, run_cell
from hashzoo.api.board import Board
from hashzoo.api.watch import Screen

__all__ = ["Board", "Options", "Plan", "Screen", "benchmark", "prepare", "run", "run_cell"]
