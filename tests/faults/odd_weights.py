"""Weights files that are broken in the ways of their format, and in those of any file."""

from __future__ import annotations

import io
import json
import random
import struct
from collections.abc import Iterator
from typing import Any

import torch
from safetensors.torch import save

TENSORS = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.zeros(2), "steps": torch.tensor(3)}
ODD: list[Any] = [
    -1, 0, 1, 2**31, 2**53, 2**63, 2**64, 10**30, 1.5, 1e308, "", "x", "F32", "F64", "BOOL", None, True, [], {},
    [2**40] * 9, [-1, 3], [0, 2**62], [8, 0], {"dtype": "F32"}, "\ud83d\ude00" * 9,
]  # fmt: skip


def sound() -> bytes:
    return save(TENSORS, {"hashzoo": json.dumps({"key": "k", "plugins": []}), "digest": ""})


def pth(**how: Any) -> bytes:
    packed = io.BytesIO()
    torch.save(TENSORS, packed, **how)
    return packed.getvalue()


def told(data: bytes) -> dict[str, Any]:
    (length,) = struct.unpack("<Q", data[:8])
    header: dict[str, Any] = json.loads(data[8 : 8 + length])
    return header


def headed(header: bytes, body: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", (len(header) if length is None else length) % 2**64) + header + body


def fuzzed(data: bytes, dice: random.Random) -> bytes:
    """A safetensors file with something wrong in its header, its lengths or its bytes."""
    (length,) = struct.unpack("<Q", data[:8])
    header, body = told(data), data[8 + length :]
    kind = dice.randrange(8)
    if kind == 0:
        return headed(json.dumps(header).encode(), body, dice.choice([0, 1, length - 1, 10**8, 2**40, 2**63, -1]))
    if kind == 1:
        header[dice.choice([*header])] = dice.choice(ODD)
    elif kind == 2:
        one = header[dice.choice([*TENSORS])]
        one[dice.choice([*one])] = dice.choice(ODD)
    elif kind == 3:
        one = header[dice.choice([*TENSORS])]
        one["data_offsets"] = [dice.choice([0, 4, 8, 24, 36, 2**40]), dice.choice([0, 4, 24, 32, 40, 2**63 - 1])]
    elif kind == 4:
        header |= {f"n{number}": dice.choice([*header.values()]) for number in range(dice.choice([1, 5, 5000]))}
    elif kind == 5:
        depth = dice.choice([10, 1000, 100_000])
        return headed(b'{"a":' + b"[" * depth + b"]" * depth + b"}", body)
    elif kind == 6:
        text = bytearray(json.dumps(header).encode())
        for _ in range(dice.choice([1, 1, 3])):
            text[dice.randrange(len(text))] = dice.randrange(256)
        return headed(bytes(text), body)
    else:
        return any_file(data, dice)
    return headed(json.dumps(header).encode(), body)


def any_file(data: bytes, dice: random.Random) -> bytes:
    """A file of any kind with bytes changed, lost, doubled or put in."""
    changed = bytearray(data)
    for _ in range(dice.choice([1, 1, 2, 8])):
        at, size = dice.randrange(len(changed)), dice.choice([1, 4, 64])
        act = dice.randrange(5)
        if act == 0:
            changed[at] ^= 1 << dice.randrange(8)
        elif act == 1:
            changed[at : at + size] = dice.randbytes(size)
        elif act == 2:
            del changed[at : at + size]
        elif act == 3:
            changed[at:at] = changed[at : at + size]
        else:
            changed[at : at + 8] = struct.pack("<Q", dice.choice([2**31, 2**40, 2**63, 2**64 - 1]))
        if not changed:
            break
    return bytes(changed)


def files(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Suffix and content of so many broken files: two thirds safetensors, the rest .pth, new form and old."""
    dice = random.Random(seed)
    good = sound()
    others = [pth(), pth(_use_new_zipfile_serialization=False)]
    for number in range(count):
        if number % 3 < 2:
            yield "safetensors", fuzzed(good, dice)
        else:
            yield "pth", any_file(dice.choice(others), dice)
