"""What a notebook or a script calls: a benchmark, its board, its progress."""

from hashzoo.api.bench import Options, Plan, benchmark, prepare, run, run_cell
from hashzoo.api.board import Board
from hashzoo.api.watch import Screen

__all__ = ["Board", "Options", "Plan", "Screen", "benchmark", "prepare", "run", "run_cell"]
