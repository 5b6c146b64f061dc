"""Tensors and a text in one safetensors file, with a digest of both. Reading a file runs no code from it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor


def tensor_digest(tensors: Mapping[str, Tensor]) -> str:
    """Digest of tensors with their names, shapes and dtypes."""
    total = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        total.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        total.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    return hashlib.sha256((text + tensor_digest(tensors)).encode()).hexdigest()


def tensor_bytes(text: str, tensors: Mapping[str, Tensor]) -> bytes:
    """The content of a file with this text and CPU copies of these tensors."""
    copies = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    return save(copies, {"hashzoo": text, "digest": _digest(text, copies)})


def read_tensors(path: Path, *, allow_unsealed: bool = False) -> tuple[str, dict[str, Tensor]]:
    """The text and the tensors of a file. Raises ValueError if the file is damaged.

    With ``allow_unsealed``, a file without a digest, or with an empty one, is read too.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        text, digest = metadata["hashzoo"], metadata.get("digest", "")
    except Exception as error:  # damaged files raise many types of exceptions
        raise ValueError(f"damaged ({error})") from error
    if digest != _digest(text, tensors) and not (allow_unsealed and not digest):
        raise ValueError("damaged (its digest does not match its content)")
    return text, tensors
