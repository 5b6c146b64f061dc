"""Encoding vectors with a trained method, block by block."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashzoo.bench.benchmark_file import VECTOR_BACKBONE
from hashzoo.data.vector_checks import checked_numbers
from hashzoo.data.vector_files import array_matrix, read_vectors
from hashzoo.data.vectors import Matrix, Vectors
from hashzoo.errors import EnvironmentFailure, UsageError, first_line, printable
from hashzoo.method import values_of_bits
from hashzoo.registry import hub
from hashzoo.registry.saved_method import TrainedMethod
from hashzoo.retrieval.encoder import Encoder, TrainedEncoder, read_trained
from hashzoo.training.cpu_fallback import cpu_fallback
from hashzoo.types import Codes, ProgressCallback

#: Vectors: a file, an array (N, D) of NumPy or torch, or vectors that were opened.
VectorsLike = Any

ROWS = 4096  # encoded at a time
CHOICE = hub.CHOICE  # what was measured of the method in a folder that hashzoo quantize -o writes


def load_vector_encoder(
    run: str | os.PathLike[str], *, device: str = "cpu", plugins: Sequence[str] = ()
) -> VectorEncoder:
    """Load a method that was fitted on vectors, ready to encode vectors.

    Args:
        run: The folder that ``hashzoo quantize -o`` or :meth:`hashzoo.Quantization.save` wrote, or the ``.json`` of a
            cell of ``hashzoo bench --save-weights``.
        device: As for :func:`hashzoo.load_encoder`.
        plugins: Plugin files or modules to load. They must include every such plugin that the cell was measured with.

    Returns:
        The encoder.

    Raises:
        UsageError: If there is no such cell, it has no weights, or it was trained on images.
        EnvironmentFailure: If a file is damaged, or the code of the method has changed since the cell was measured.
    """
    found = load_any_encoder(run, device=device, plugins=plugins)
    if not isinstance(found, VectorEncoder):
        raise UsageError(f"{printable(run)} was trained on images, and this encodes vectors; name a cell of vectors")
    return found


def load_any_encoder(
    run: str | os.PathLike[str], *, device: str = "cpu", plugins: Sequence[str] = ()
) -> Encoder | VectorEncoder:
    """The encoder of a cell, of images or of vectors; arguments as for :func:`load_vector_encoder`."""
    trained, cell = read_trained(run, device, plugins)
    if trained.cell.identity.backbone != VECTOR_BACKBONE:
        return Encoder(trained, cell, plugins)
    if not trained.metric:
        raise EnvironmentFailure(f"{cell} does not say how its vectors are compared; measure it again with --rerun all")
    return VectorEncoder(trained, cell, plugins)


@final
class VectorEncoder(TrainedEncoder):
    """A method that encodes vectors. Created by :func:`hashzoo.load_vector_encoder`.

    Shapes in this class: N vectors, D dimensions, K bits.

    Attributes:
        metric: How vectors are compared: ``"cosine"``, ``"ip"`` or ``"l2"``. For ``"cosine"``, each vector is divided
            by its length before it is encoded.
        dim: Number D of dimensions.
        choice: What ``hashzoo quantize`` measured of the method; empty if the method comes from a results folder.
    """

    item, items = "a vector", "vectors"

    def __init__(self, trained: TrainedMethod, cell: Path, plugins: Sequence[str] = ()) -> None:
        super().__init__(trained, cell, plugins)
        self.metric, self.dim = trained.metric, trained.shape[0]
        self.choice = _read_choice(cell.with_name(CHOICE))

    def open(self, vectors: VectorsLike, key: str = "") -> Vectors:
        """Vectors as the method takes them. UsageError if they have another number of dimensions.

        Args:
            vectors: A file, an array (N, D) of NumPy or torch, or vectors that were opened.
            key: The name of the array or column, in a file of several.
        """
        if isinstance(vectors, Vectors):
            return self._fitting(vectors.matrix, vectors.rows)
        if isinstance(vectors, str | os.PathLike):
            return self._fitting(read_vectors(Path(vectors), key).matrix)
        return self._fitting(array_matrix(vectors, "the array"))

    def _fitting(self, matrix: Matrix, rows: Any = None) -> Vectors:
        if matrix.shape[1] != self.dim:
            raise UsageError(
                f"{matrix.name} has {matrix.shape[1]} columns, and {self.trained.cell.identity.method} of "
                f"{self.cell.parent} takes {self.dim}; give vectors of the model that it was fitted on"
            )
        return Vectors(matrix, rows, unit=self.metric == "cosine")

    def encode(self, vectors: VectorsLike) -> Codes:
        """Encode vectors.

        Args:
            vectors: A file of vectors, or an array (N, D) of NumPy or torch.

        Returns:
            Each code of the N vectors by name, (N, K) bool for a binary code, (N, ...) for other values, which the
            method's own index uses.

        Raises:
            UsageError: If they are no vectors of D dimensions.
            EnvironmentFailure: If a number is not finite; the message names its row.
        """
        parts = list(self.encode_batches(self.open(vectors)))
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def encode_batches(self, vectors: Vectors, progress: ProgressCallback | None = None) -> Iterator[Codes]:
        """The codes of opened vectors, ``ROWS`` at a time; ``progress`` receives how many are done, and their total."""
        for start, values in self._blocks(vectors):
            yield self._encode_tensors(values)
            if progress:
                progress(start + len(values), len(vectors))

    def relaxed(self, vectors: VectorsLike) -> Tensor:
        """The real values (N, K) whose signs are the bits of vectors; arguments as for :meth:`encode`.

        Raises:
            UsageError: If the bits of the method are not signs of real values.
        """
        return torch.cat([self.values(values.numpy()) for _, values in self._blocks(self.open(vectors))])

    def values(self, prepared: NDArray[np.float32]) -> Tensor:
        """The real values (N, K) whose signs are the bits of numbers (N, D) that are given to the method as they are.

        Raises:
            UsageError: If the bits of the method are not signs of real values.
        """
        with torch.no_grad(), cpu_fallback(self.trained.run.device):
            found = values_of_bits(self.trained.method, self.batch(torch.from_numpy(prepared)))
        if found is None:
            method = self.trained.cell.identity.method
            raise UsageError(f"the bits of {method} are not signs of real values, so that only codes can be compared")
        return found.detach().cpu()

    def _blocks(self, vectors: Vectors) -> Iterator[tuple[int, Tensor]]:
        for start in range(0, len(vectors), ROWS):
            yield start, torch.from_numpy(checked_numbers(vectors, vectors.rows[start : start + ROWS]))

    def _vectors(self, items: Tensor) -> AbstractContextManager[Callable[[], Tensor]]:
        return nullcontext(lambda: items)

    def _preprocessing(self) -> dict[str, Any]:
        return {"dim": self.dim, "metric": self.metric, "unit": self.metric == "cosine"}


def _read_choice(file: Path) -> Mapping[str, Any]:
    """What was measured of a winner. Raises EnvironmentFailure if its file is damaged."""
    try:
        found = json.loads(file.read_bytes())
        factors = {name: float(found[name]) for name in ("factor", "factor_by_code")}
        return {"k": int(found["k"]), "asymmetric": bool(found["asymmetric"]), **factors}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EnvironmentFailure(f"{file} cannot be read ({first_line(error)}); run hashzoo quantize again") from error
