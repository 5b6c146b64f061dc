"""Operations that a device lacks are computed on the CPU: on MPS those in float64 and some of linear algebra."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

#: Types that MPS does not have: tensors of these types stay on the CPU.
MISSING = (torch.float64, torch.complex128)

#: Operations that take an index on the CPU for a tensor on the device.
INDEXED = ("index", "index_put", "index_put_", "_index_put_impl_")

#: The attribute of a tensor that is on the CPU because the device cannot hold it.
MARK = "_hashzoo_off_device"


class CpuFallback(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Computes on the CPU what ``device`` refuses; a result that the device can hold returns to it.

    A result that it cannot hold stays on the CPU and is marked: an operation on a marked tensor takes place on the CPU,
    as does one that mixes tensors of both.
    The first operation that the device lacks is printed.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device, self.said = device, False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The result of an operation."""
        kwargs = kwargs or {}
        given = list(_tensors((*args, *kwargs.values())))
        asked = torch.device(kwargs["device"]).type if kwargs.get("device") is not None else ""
        there = any(one.device.type == self.device.type for one in given)
        marked = any(hasattr(one, MARK) for one in given) or (there and self._mixes(func, args, given))
        kept = asked in ("", self.device.type)  # whether the result belongs on the device
        wide = kwargs.get("dtype") in MISSING and kept and (there or asked != "")
        if not marked and not wide:
            try:
                return func(*args, **kwargs)
            except NotImplementedError:
                if not there and asked != self.device.type:
                    raise
        self._say(func)
        moved = kwargs | ({"device": torch.device("cpu")} if asked else {})
        result = func(*_moved(args, "cpu"), **{name: _moved(value, "cpu") for name, value in moved.items()})
        written = [
            value
            for argument, value in zip(func._schema.arguments, args, strict=False)
            if argument.alias_info is not None and argument.alias_info.is_write and isinstance(value, Tensor)
        ]
        if written and written[0].device.type == self.device.type:  # in place: the values belong in what was given
            return written[0].copy_(result if isinstance(result, Tensor) else result[0])
        return self._returned(result) if kept else result

    def _mixes(self, func: Any, args: Any, given: list[Tensor]) -> bool:
        """Whether an operation mixes tensors: one was made on the CPU, where a marked tensor is."""
        name = func._schema.name.removeprefix("aten::")
        own = name in INDEXED and args[0].device.type == self.device.type
        return name != "copy_" and not own and any(one.ndim and one.device.type == "cpu" for one in given)

    def _returned(self, result: Any) -> Any:
        """A result on the device, or marked if the device cannot hold it."""
        if isinstance(result, list | tuple):
            return type(result)(map(self._returned, result))
        if not isinstance(result, Tensor):
            return result
        if result.dtype not in MISSING:
            return result.to(self.device)
        setattr(result, MARK, True)
        return result

    def _say(self, func: Any) -> None:
        if not self.said:
            self.said = True
            name = func._schema.name.removeprefix("aten::")
            print(f"{self.device.type} lacks float64 or {name}; what it lacks is computed on the CPU", flush=True)


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _moved(value: Any, device: str) -> Any:
    """A value with its tensors on another device."""
    if isinstance(value, Tensor):
        return value.to(device)
    return type(value)(_moved(one, device) for one in value) if isinstance(value, list | tuple) else value


def cpu_fallback(device: torch.device) -> AbstractContextManager[Any]:
    """The context in which a method trains and encodes on a device."""
    return CpuFallback(device) if device.type == "mps" else nullcontext()
