"""Tensors and a text in one safetensors file, with a digest of both. Nothing in it runs code."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor


def tensor_digest(tensors: Mapping[str, Tensor]) -> str:
    """A digest of tensors with their names, shapes and types."""
    total = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        total.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        total.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def _seal(text: str, tensors: Mapping[str, Tensor]) -> str:
    return hashlib.sha256((text + tensor_digest(tensors)).encode()).hexdigest()


def tensor_bytes(text: str, tensors: Mapping[str, Tensor]) -> bytes:
    """What the file holds; of the tensors, copies in the memory of the CPU."""
    kept = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    return save(kept, {"hashzoo": text, "digest": _seal(text, kept)})


def read_tensors(path: Path, *, unsealed: bool = False) -> tuple[str, dict[str, Tensor]]:
    """The text and the tensors. ValueError where they are not what was written.

    ``unsealed``: a file with an empty digest, or none, is read too.
    """
    try:
        with safe_open(path, "pt") as opened:
            told = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - it is no dict
        text, seal = told["hashzoo"], told.get("digest", "")
    except Exception as error:  # whatever a damaged file makes of its readers
        raise ValueError(f"it is damaged ({error})") from error
    if seal != _seal(text, tensors) and not (unsealed and not seal):
        raise ValueError("it is damaged (its digest does not fit its content)")
    return text, tensors
