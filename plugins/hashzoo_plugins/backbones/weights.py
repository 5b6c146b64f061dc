"""Load weights from files: safetensors, or .pth files, which are read as tensors only."""

from __future__ import annotations

import hashlib
import pickle
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from hashzoo import EnvironmentFailure, UsageError

SHOWN = 5  # keys shown in an error message


def digest(path: Path) -> str:
    """The first 16 hex digits of a file's sha256."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()[:16]


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors, .pth or .pt file.

    Code in a file is never executed. Raises EnvironmentFailure for a file that is not a plain table of tensors.
    """
    if not path.is_file():
        raise EnvironmentFailure(f"weights file not found: {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        text = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise EnvironmentFailure(f"cannot read {path} as plain tensors: {text}") from error
    for key in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise EnvironmentFailure(f"{path} is not a table of tensors; save model.state_dict()")
    return found


def load(module: nn.Module, path: Path, allow_missing: tuple[str, ...]) -> None:
    """Load the weights in a file into a network.

    Missing keys that match a pattern of ``allow_missing``, such as ``classifier.*``, keep their random values. Raises
    UsageError, with the keys, if other keys are missing, unexpected, or have another shape.
    """
    given, wanted = read(path), module.state_dict()
    counters = {key for key in wanted if key.endswith("num_batches_tracked")}
    missing = [
        key for key in wanted.keys() - given.keys() - counters if not any(fnmatchcase(key, p) for p in allow_missing)
    ]
    unexpected = sorted(given.keys() - wanted.keys())
    shapes = [key for key in wanted.keys() & given.keys() if wanted[key].shape != given[key].shape]
    problems = [
        f"{len(keys)} {what} ({', '.join(sorted(keys)[:SHOWN])}{', ...' if len(keys) > SHOWN else ''})"
        for what, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if keys
    ]
    if problems:
        raise UsageError(
            f"{path.name} does not fit the network: {'; '.join(problems)}; "
            "list keys that may be missing in allow_missing"
        )
    module.load_state_dict(given, strict=False)
