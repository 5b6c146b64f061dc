"""Operations that a device does not have are computed on the CPU: on MPS, those in float64 and some of linear algebra."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

#: Types that MPS does not have: tensors of these types stay on the CPU.
MISSING = (torch.float64, torch.complex128)


class CpuFallback(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Computes on the CPU what ``device`` refuses: results of other types return to the device.

    A tensor that the device cannot hold is made on the CPU. Later operations on it and on tensors of the device take
    place on the CPU too. The first operation that does is printed.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device, self.said = device, False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The result of an operation."""
        kwargs = kwargs or {}
        given = list(_tensors((*args, *kwargs.values())))
        asked = kwargs.get("device")
        here = any(one.device.type == self.device.type for one in given) or (
            asked is not None and torch.device(asked).type == self.device.type
        )
        if not here:
            return func(*args, **kwargs)
        double = any(one.dtype in MISSING and one.ndim for one in given) or kwargs.get("dtype") in MISSING
        if not double:
            try:
                return func(*args, **kwargs)
            except NotImplementedError:
                pass
        self._say(func)
        return self._on_cpu(func, args, kwargs)

    def _say(self, func: Any) -> None:
        if not self.said:
            self.said = True
            print(f"{self.device.type} lacks {func}: such operations are computed on the CPU, which is slower", flush=True)

    def _on_cpu(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        moved = kwargs | ({"device": torch.device("cpu")} if kwargs.get("device") is not None else {})
        result = func(*_to(args, "cpu"), **{name: _to(value, "cpu") for name, value in moved.items()})
        written = [
            value
            for argument, value in zip(func._schema.arguments, args, strict=False)
            if argument.alias_info is not None and argument.alias_info.is_write and isinstance(value, Tensor)
        ]
        if written:  # in place: the values belong in the tensor that was given
            written[0].copy_(result if isinstance(result, Tensor) else result[0])
            return written[0]
        to_cpu = kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "cpu"
        return result if to_cpu else _to(result, self.device)


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _to(value: Any, device: Any) -> Any:
    """A value with its tensors on a device; those that only the CPU can hold stay there."""
    if isinstance(value, Tensor):
        return value if value.dtype in MISSING else value.to(device)
    return type(value)(_to(one, device) for one in value) if isinstance(value, list | tuple) else value


def cpu_fallback(device: torch.device) -> AbstractContextManager[Any]:
    """The context in which a method trains and encodes on a device."""
    return CpuFallback(device) if device.type == "mps" else nullcontext()
