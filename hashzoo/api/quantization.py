"""Which code for vectors of the user: every method of the benchmark ``quantize`` at several lengths, and advice."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np

from hashzoo.api.bench import Request, observer_of, prepare, run
from hashzoo.api.board import Board
from hashzoo.api.watch import Callback, Screen
from hashzoo.bench.benchmark_file import read
from hashzoo.data.vector_checks import checked_numbers
from hashzoo.data.vector_files import VectorFile, array_matrix, read_vectors
from hashzoo.data.vectors import Vectors
from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.registry import saved_method
from hashzoo.results import choices
from hashzoo.results.choices import Choice
from hashzoo.retrieval.encoder import CHOSEN
from hashzoo.retrieval.vector_encoder import CHOICE
from hashzoo.storage.files import disk_errors, expand_user, replace_bytes

SAMPLE = 10_000  # rows that methods learn from at most: more hardly change the recall, and take minutes
LEAST, NUMBERS = 4096, 5_120_000  # wide vectors: fewer rows, of about so many numbers, but at least LEAST
QUERIES = 1000  # rows that can be left out as queries
LONGEST = 1024  # dimensions up to which a code with a bit for each is added to those of the benchmark

#: Vectors: a file, or an array (N, D) of NumPy or torch.
VectorsLike = Any


class QuantizeOptions(TypedDict, total=False):
    """Further options of :func:`quantize`."""

    queries: VectorsLike  # by default a tenth of the rows, at most 1,000, which are left out of the database
    metric: str  # "cosine", "ip" or "l2"
    methods: Sequence[str]
    bits: Sequence[int]
    train: int  # rows that methods learn from
    results: str | Path
    plugins: Sequence[str]
    jobs: int
    device: str
    on_bad_image: str  # "skip" leaves out rows that are not finite or, for the cosine, zero; "error" stops


@dataclass(frozen=True)
class Quantization:
    """What :func:`quantize` found.

    Attributes:
        board: The board of all cells.
        choices: The codes, sorted by bytes.
        advice: One sentence: the smallest codes that reach the target, and what it rests on.
        k: Neighbors per query.
        target: Recall that is wanted.
        budget: Bytes per item at most; None for any.
    """

    board: Board
    choices: Sequence[Choice]
    advice: str
    k: int = 10
    target: float = 0.95
    budget: int | None = None

    @property
    def winner(self) -> Choice | None:
        """The code that the advice names first; None if no code is within the budget."""
        return choices.winner(self.choices, self.budget)

    def save(self, folder: str | Path) -> Choice:
        """Write the winner's fitted method and what was measured of it to a folder.

        The folder can be given to ``hashzoo encode``, ``hashzoo index build`` and ``hashzoo export --to onnx``, and to
        :func:`hashzoo.load_vector_encoder`. Files of an earlier winner are replaced.

        Args:
            folder: The folder; it is created.

        Returns:
            The winner.

        Raises:
            UsageError: If no code is within the budget, or the folder holds other files.
            EnvironmentFailure: If the disk fails.
        """
        chosen, target = self.winner, expand_user(Path(folder))
        if chosen is None:
            raise UsageError(self.advice)
        check_folder(target)
        facts = next(cell.facts for cell in self.board.cells if cell.status == "ok")
        about = {
            **choices.records_of([chosen])[0],
            "asymmetric": chosen.asymmetric,
            "factor_by_code": min(one.factor for one in self.choices if one.cell == chosen.cell and not one.asymmetric),
            "k": self.k,
            "target": self.target,
            "queries": facts.get("queries"),
            "database": facts.get("database"),
            "advice": self.advice,
        }
        with disk_errors("create", target):
            target.mkdir(parents=True, exist_ok=True)
        with disk_errors("read", chosen.cell):
            cell, weights = chosen.cell.read_bytes(), saved_method.path_of(chosen.cell).read_bytes()
        replace_bytes(saved_method.path_of(target / CHOSEN), weights)
        replace_bytes(target / CHOSEN, cell)
        replace_bytes(target / CHOICE, (json.dumps(about, indent=1) + "\n").encode())
        return chosen


def check_folder(folder: Path) -> None:
    """Raise UsageError unless a winner can be written to a folder: a new or empty one, or that of an earlier winner."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file, and the winner is written to a folder; name a new folder")
    if folder.is_dir() and not (folder / CHOICE).is_file() and any(folder.iterdir()):
        raise UsageError(f"{folder} holds other files; name a new folder")


def quantize(
    vectors: VectorsLike,
    *,
    k: int = 10,
    target: float = 0.95,
    budget: int | None = None,
    progress: Callback | bool | Screen = True,
    **options: Unpack[QuantizeOptions],
) -> Quantization:
    """Measure which code keeps the exact neighbors of your vectors.

    Every method learns from the same ``train`` rows of the database, by default all rows or a seeded sample of 10,000
    (of vectors with more than 512 dimensions 4,096 or more).

    Args:
        vectors: A file of vectors (``.npy``, ``.safetensors``, Parquet and others), or an array (N, D) of NumPy or
            torch, one vector a row.
        k: Neighbors per query.
        target: Mean recall of these that is wanted after the candidates are compared again exactly.
        budget: Bytes per item at most, in the advice.
        progress: As for :func:`hashzoo.benchmark`.
        **options: See :class:`hashzoo.api.quantization.QuantizeOptions`.

    Returns:
        The codes, sorted by bytes, and the advice.

    Raises:
        UsageError: If an option, the file or the array is wrong.
        EnvironmentFailure: If the file is damaged, or every cell failed.

    Example:
        >>> found = hashzoo.quantize(embeddings, target=0.9, bits=[64, 128])  # doctest: +SKIP
        >>> print(found.advice)  # doctest: +SKIP
        >>> found.save("chosen")  # doctest: +SKIP
    """
    if k < 1 or not 0 < target < 1:
        raise UsageError(f"k must be 1 or more and the target between 0 and 1, not k = {k} and target = {target}")
    observer = observer_of(progress)
    with ExitStack() as stack:
        request = _request(vectors, k, choices.metrics_of(k, target), options, stack)
        board = run(prepare(request, observer), observer)
    found = choices.choices_of(board.cells, board.folder, k, target)
    if not found:
        reasons = [cell.reason for cell in board.cells if cell.reason] or ["there are no cells"]
        raise EnvironmentFailure(f"no method was measured: {reasons[0]}")
    advice = choices.advise(found, board.cells, target, budget)
    return Quantization(board, found, advice, k, target, budget)


def _request(vectors: VectorsLike, k: int, metrics: list[str], options: QuantizeOptions, stack: ExitStack) -> Request:
    """The sweep; arrays are in files until the stack is closed."""
    path, file = _file(vectors, "the array of vectors", stack)
    rows, dim = file.matrix.shape
    given: dict[str, Any] = {"metric": options["metric"]} if "metric" in options else {}
    held = 0 if file.queries is not None else min(QUERIES, max(1, rows // 10))
    if "queries" in options:
        given["queries"], held = str(_file(options["queries"], "the array of queries", stack)[0]), 0
    if k >= rows - held:
        raise UsageError(
            f"{k} neighbors need more than {k:,} vectors in the database, and {file.matrix.name} has {rows:,} rows"
            + (f", of which {held:,} are the queries" if held else "")
            + "; give a smaller k or more vectors"
        )
    if "train" in options or rows - held > _sample(dim):
        given["train"] = options.get("train", _sample(dim))
    more = {name: options[name] for name in ("jobs", "on_bad_image") if name in options}
    benchmark = read("quantize")
    (dataset,) = benchmark.datasets
    return Request(
        benchmark,
        methods=options.get("methods"),
        bits=options.get("bits") or _lengths(benchmark.bits, dim),
        results=options.get("results"),
        plugins=options.get("plugins", ()),
        root=path,
        metrics=metrics,
        settings={dataset: given} if given else {},
        device=options.get("device", "auto"),
        save_weights=True,
        **more,  # type: ignore[arg-type]
    )


def _sample(dim: int) -> int:
    """Rows that methods learn from at most, by default.

    >>> _sample(384), _sample(768), _sample(1280)
    (10000, 6666, 4096)
    """
    return min(SAMPLE, max(LEAST, NUMBERS // dim))


def _lengths(usual: Sequence[int], dim: int) -> list[int]:
    """The usual code lengths that vectors of ``dim`` dimensions have room for, and one bit for each of few dimensions.

    >>> _lengths([64, 128, 256, 384], 768), _lengths([64, 128], 64), _lengths([64, 128], 5), _lengths([64], 1280)
    ([64, 128, 256, 384, 768], [64], [5], [64])
    """
    own = {dim - dim % 8 or dim} if dim <= LONGEST else set()
    return sorted({bits for bits in usual if bits <= dim} | own)


def _file(vectors: VectorsLike, name: str, stack: ExitStack) -> tuple[Path, VectorFile]:
    """A file of vectors, which is written for an array, and its content."""
    if isinstance(vectors, str | os.PathLike):
        path = expand_user(Path(vectors))
        return path, read_vectors(path)
    matrix = array_matrix(vectors, name)
    whole = Vectors(matrix)
    for _, rows in whole.blocks():  # so that a message names the array and not the file
        checked_numbers(whole, rows)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hashzoo-")))
    path = folder / f"{name.split()[-1]}.npy"
    with disk_errors("write", path):
        np.save(path, matrix.read(np.arange(matrix.shape[0])), allow_pickle=False)
    return path, VectorFile(matrix)
