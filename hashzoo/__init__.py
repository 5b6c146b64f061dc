"""hashzoo: a zoo and a benchmark of methods that learn to hash images into short binary codes.

A benchmark from Python is :func:`benchmark`. A plugin is a module with one or more hooks, each of which returns
factories by name. They build a :class:`Method`, :class:`Head`, :class:`Loss`, :class:`Backbone` or :class:`Splits`:

    from hashzoo import hookimpl

    @hookimpl
    def hashzoo_losses():
        return {"my-loss": MyLoss}

The hooks are ``hashzoo_methods``, ``hashzoo_heads``, ``hashzoo_losses``, ``hashzoo_backbones``, ``hashzoo_datasets``,
``hashzoo_metrics``, ``hashzoo_launchers`` and ``hashzoo_finished`` (trackers). ``hashzoo check FILE`` checks a plugin,
and ``hashzoo bench --plugin FILE`` runs it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from hashzoo._version import __version__ as __version__

if TYPE_CHECKING:
    from hashzoo.api import Board, Quantization, Study, benchmark, quantize, run_cell, tune
    from hashzoo.backbone import Backbone
    from hashzoo.bench.job import Job
    from hashzoo.data.class_names import similar_names
    from hashzoo.data.image_files import ImageFiles
    from hashzoo.data.image_paths import IMAGE_SUFFIXES, FolderFiles, files_below, list_folder, read_image_file
    from hashzoo.data.label_files import read_label_file
    from hashzoo.data.vector_files import VectorFile, read_vectors
    from hashzoo.data.vectors import Vectors
    from hashzoo.distance import Cosine, Distance, Hamming, PackedDistance
    from hashzoo.errors import (
        ComposeError,
        DiskError,
        EnvironmentFailure,
        HashzooError,
        NonFiniteError,
        UsageError,
        printable,
        unknown_name,
    )
    from hashzoo.evaluation.code_metrics import CodeMetric, CodeSample
    from hashzoo.evaluation.metrics import evaluate
    from hashzoo.evaluation.scoring import encode
    from hashzoo.execution.base import Attempt, Launcher, Limits
    from hashzoo.execution.local import LocalLauncher
    from hashzoo.execution.remote import find_cell, measure_claimed, measure_to_files, store_files
    from hashzoo.factory import ADDED, Composition, deep, options
    from hashzoo.hamming.counting import Counts, hamming_counts
    from hashzoo.hamming.distances import weighted_distances
    from hashzoo.hamming.packing import pack, unpack
    from hashzoo.hamming.reading import is_missing
    from hashzoo.hamming.relevance import Neighbours, Relevance, neighbours, relevance
    from hashzoo.hookspecs import Download, Family, Outline, Tracker, TrainingFacts, hookimpl
    from hashzoo.index import Cascade, Index, Scan
    from hashzoo.method import Card, Deep, Head, Loss, Method, bits, bitwise
    from hashzoo.registry.build import convert_options
    from hashzoo.registry.zoo import load_plugins
    from hashzoo.results.cell import Cell, Identity
    from hashzoo.retrieval.duplicates import Duplicates, ImageCopy, find_duplicates
    from hashzoo.retrieval.encoder import Encoder, load_encoder
    from hashzoo.retrieval.hit import Hit
    from hashzoo.retrieval.image_index import ImageIndex, open_index
    from hashzoo.retrieval.index_folder import IndexFolder
    from hashzoo.retrieval.index_images import Changes, update_index
    from hashzoo.retrieval.vector_encoder import VectorEncoder, load_vector_encoder
    from hashzoo.retrieval.vector_index import VectorHits, VectorIndex, open_vector_index
    from hashzoo.run import Run
    from hashzoo.space import Choice, Integer, Log, Uniform
    from hashzoo.storage.cache import cache_folder
    from hashzoo.storage.offline import is_offline
    from hashzoo.testing import (
        Finding,
        Probe,
        check_backbone,
        check_dataset,
        check_head,
        check_loss,
        check_method,
        synthetic_splits,
    )
    from hashzoo.training.budget import Budget
    from hashzoo.types import (
        Batch,
        Codes,
        Features,
        Input,
        Operation,
        Output,
        Pairs,
        Ranking,
        Setting,
        SourceFinding,
        Split,
        Splits,
        View,
        signs,
    )

#: Module below hashzoo -> the names that it gives to this package.
_WHERE = {
    "api": ("Board", "Quantization", "Study", "benchmark", "quantize", "run_cell", "tune"),
    "backbone": ("Backbone",),
    "bench.job": ("Job",),
    "data.image_files": ("ImageFiles",),
    "data.class_names": ("similar_names",),
    "data.image_paths": ("IMAGE_SUFFIXES", "FolderFiles", "files_below", "list_folder", "read_image_file"),
    "data.label_files": ("read_label_file",),
    "data.vector_files": ("VectorFile", "read_vectors"),
    "data.vectors": ("Vectors",),
    "distance": ("Cosine", "Distance", "Hamming", "PackedDistance"),
    "errors": (
        "ComposeError",
        "DiskError",
        "EnvironmentFailure",
        "HashzooError",
        "NonFiniteError",
        "UsageError",
        "printable",
        "unknown_name",
    ),
    "evaluation.code_metrics": ("CodeMetric", "CodeSample"),
    "evaluation.metrics": ("evaluate",),
    "evaluation.scoring": ("encode",),
    "execution.base": ("Attempt", "Launcher", "Limits"),
    "execution.local": ("LocalLauncher",),
    "execution.remote": ("find_cell", "measure_claimed", "measure_to_files", "store_files"),
    "factory": ("ADDED", "Composition", "deep", "options"),
    "hamming.counting": ("Counts", "hamming_counts"),
    "hamming.distances": ("weighted_distances",),
    "hamming.packing": ("pack", "unpack"),
    "hamming.reading": ("is_missing",),
    "hamming.relevance": ("Neighbours", "Relevance", "neighbours", "relevance"),
    "hookspecs": ("Download", "Family", "Outline", "Tracker", "TrainingFacts", "hookimpl"),
    "index": ("Cascade", "Index", "Scan"),
    "method": ("Card", "Deep", "Head", "Loss", "Method", "bits", "bitwise"),
    "registry.build": ("convert_options",),
    "registry.zoo": ("load_plugins",),
    "results.cell": ("Cell", "Identity"),
    "retrieval.encoder": ("Encoder", "load_encoder"),
    "retrieval.duplicates": ("Duplicates", "ImageCopy", "find_duplicates"),
    "retrieval.hit": ("Hit",),
    "retrieval.image_index": ("ImageIndex", "open_index"),
    "retrieval.index_folder": ("IndexFolder",),
    "retrieval.index_images": ("Changes", "update_index"),
    "retrieval.vector_encoder": ("VectorEncoder", "load_vector_encoder"),
    "retrieval.vector_index": ("VectorHits", "VectorIndex", "open_vector_index"),
    "run": ("Run",),
    "space": ("Choice", "Integer", "Log", "Uniform"),
    "storage.cache": ("cache_folder",),
    "storage.offline": ("is_offline",),
    "testing": (
        "Finding",
        "Probe",
        "check_backbone",
        "check_dataset",
        "check_head",
        "check_loss",
        "check_method",
        "synthetic_splits",
    ),
    "training.budget": ("Budget",),
    "types": (
        "Batch",
        "Codes",
        "Features",
        "Input",
        "Operation",
        "Output",
        "Pairs",
        "Ranking",
        "Setting",
        "SourceFinding",
        "Split",
        "Splits",
        "View",
        "signs",
    ),
}
_MODULES = {name: module for module, names in _WHERE.items() for name in names}

__all__ = [  # noqa: RUF022 - in the order of the modules above
    "Board", "Quantization", "Study", "benchmark", "quantize", "run_cell", "tune",
    "Backbone",
    "Job",
    "ImageFiles",
    "similar_names",
    "IMAGE_SUFFIXES", "FolderFiles", "files_below", "list_folder", "read_image_file",
    "read_label_file",
    "VectorFile", "read_vectors",
    "Vectors",
    "Cosine", "Distance", "Hamming", "PackedDistance",
    "ComposeError", "DiskError", "EnvironmentFailure", "HashzooError", "NonFiniteError", "UsageError", "printable",
    "unknown_name", "CodeMetric", "CodeSample",
    "evaluate",
    "encode",
    "Attempt", "Launcher", "Limits",
    "LocalLauncher",
    "find_cell", "measure_claimed", "measure_to_files", "store_files",
    "ADDED", "Composition", "deep", "options",
    "Counts", "hamming_counts",
    "weighted_distances",
    "pack", "unpack",
    "is_missing",
    "Neighbours", "Relevance", "neighbours", "relevance",
    "Download", "Family", "Outline", "Tracker", "TrainingFacts", "hookimpl",
    "Cascade", "Index", "Scan",
    "Card", "Deep", "Head", "Loss", "Method", "bits", "bitwise",
    "convert_options",
    "load_plugins",
    "Cell", "Identity",
    "Encoder", "load_encoder",
    "Hit",
    "ImageIndex", "open_index",
    "IndexFolder",
    "Changes", "update_index",
    "Duplicates", "ImageCopy", "find_duplicates",
    "VectorEncoder", "load_vector_encoder",
    "VectorHits", "VectorIndex", "open_vector_index",
    "Run",
    "Choice", "Integer", "Log", "Uniform",
    "cache_folder",
    "is_offline",
    "Finding", "Probe", "check_backbone", "check_dataset", "check_head", "check_loss", "check_method",
    "synthetic_splits",
    "Budget",
    "Batch", "Codes", "Features", "Input", "Operation", "Output", "Pairs", "Ranking", "Setting", "SourceFinding",
    "Split", "Splits", "View", "signs",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import on first use: ``import hashzoo``, and so ``hashzoo --help``, stays without torch."""
    if name not in _MODULES:
        raise AttributeError(f"module 'hashzoo' has no attribute {name!r}")
    return getattr(importlib.import_module(f"hashzoo.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """The names above, imported or not."""
    return sorted({*globals(), *__all__})
