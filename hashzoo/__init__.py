"""hashzoo: a zoo and a benchmark of methods that learn to hash pictures into short binary codes."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hashzoo.diagnostics import Coded, OfCodes
    from hashzoo.encoder import Encoder, load
    from hashzoo.hookspecs import Family, hookimpl
    from hashzoo.index import Cascade, Cosine, Distance, Hamming, Index, Scan
    from hashzoo.method import Backbone, Card, Input, Method, bits, bitwise, deep
    from hashzoo.metrics import evaluate
    from hashzoo.picture_index import PictureIndex, open_index
    from hashzoo.run import Run, Train
    from hashzoo.types import Batch, Codes, Features, Output, Pairs, Ranking, Setting, Split, Splits, signs

__version__ = "0.1.0"

_WHERE = {
    "diagnostics": ("Coded", "OfCodes"),
    "encoder": ("Encoder", "load"),
    "hookspecs": ("Family", "hookimpl"),
    "index": ("Cascade", "Cosine", "Distance", "Hamming", "Index", "Scan"),
    "method": ("Backbone", "Card", "Input", "Method", "bits", "bitwise", "deep"),
    "metrics": ("evaluate",),
    "picture_index": ("PictureIndex", "open_index"),
    "run": ("Run", "Train"),
    "types": ("Batch", "Codes", "Features", "Output", "Pairs", "Ranking", "Setting", "Split", "Splits", "signs"),
}
_MODULES = {name: module for module, names in _WHERE.items() for name in names}

__all__ = [  # noqa: RUF022 - in the order of the modules above
    "Coded", "OfCodes",
    "Encoder", "load",
    "Family", "hookimpl",
    "Cascade", "Cosine", "Distance", "Hamming", "Index", "Scan",
    "Backbone", "Card", "Input", "Method", "bits", "bitwise", "deep",
    "evaluate",
    "PictureIndex", "open_index",
    "Run", "Train",
    "Batch", "Codes", "Features", "Output", "Pairs", "Ranking", "Setting", "Split", "Splits", "signs",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import on first use: ``import hashzoo``, and so ``hashzoo --help``, stays without torch."""
    if name not in _MODULES:
        raise AttributeError(f"module 'hashzoo' has no attribute {name!r}")
    return getattr(importlib.import_module(f"hashzoo.{_MODULES[name]}"), name)
