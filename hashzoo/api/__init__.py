"""The Python entry points: ``benchmark``, ``tune``, ``run_cell``, ``quantize``, the board as an object, progress bars
and the live table of a sweep.
"""

from hashzoo.api.bench import Options, Plan, Request, benchmark, prepare, run, run_cell
from hashzoo.api.board import Board
from hashzoo.api.dry_run import DryRun, dry_run
from hashzoo.api.quantization import Quantization, quantize
from hashzoo.api.tuning import Study, StudyRequest, tune
from hashzoo.api.watch import Screen

__all__ = [
    "Board",
    "DryRun",
    "Options",
    "Plan",
    "Quantization",
    "Request",
    "Screen",
    "Study",
    "StudyRequest",
    "benchmark",
    "dry_run",
    "prepare",
    "quantize",
    "run",
    "run_cell",
    "tune",
]
