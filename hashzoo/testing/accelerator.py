"""A pretended accelerator: tensors that behave as on a GPU, with the values of the CPU, on a machine without a GPU.

Its tensors report another device and hold a CPU tensor. Operations compute with the CPU tensors, and raise where CUDA
raises: if they mix tensors of both devices, index a CPU tensor from the device, use a generator of the other device,
ask for NumPy arrays, or have no implementation on CUDA. The device is named "meta", the only name under which torch's
autograd runs without the hardware.
"""

from __future__ import annotations

import threading
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode

from hashzoo.errors import status_of
from hashzoo.testing.accelerator_autocast import Autocast

DEVICE = torch.device("meta")
TITLE = "the accelerator"

#: Operations that take tensors of any device: they copy, or read only the shape of one of them.
COPIES = {"copy_", "copy", "_to_copy"}

#: Operations of ``x[i]`` and ``x[i] = y``: the index of a tensor on the device can be on the CPU.
INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}

#: Operations that refuse a CPU tensor even if it has no dimension.
STRICT = {
    *("cat", "stack", "equal", "index_select", "gather", "scatter", "scatter_", "scatter_add", "scatter_add_"),
    *("scatter_reduce", "index_add", "index_add_", "index_copy", "index_copy_", "take", "embedding", "dot"),
}

#: Operations without an implementation for integers on CUDA.
FLOATING = {"mm", "bmm", "addmm", "baddbmm", "mv", "addmv", "dot", "convolution"}

#: Operations without an implementation on CUDA.
ABSENT = {"histogram", "_histogramdd_from_bin_cts", "to_mkldnn"}

#: Operations whose result, or its shape, the CPU waits for.
READS = {
    *("_local_scalar_dense", "equal", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive"),
    *("bincount", "_linalg_check_errors"),
}

#: Generators of the accelerator, by the address under which an operation gets them.
GENERATORS: dict[int, torch.Generator] = {}


class DeviceError(RuntimeError):
    """An operation that raises on a GPU."""


class AcceleratorTensor(Tensor):
    """A tensor on the pretended accelerator; ``held`` has its values on the CPU."""

    held: Tensor
    is_meta = False  # such a tensor has no values, and torch leaves it out where it copies
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def __new__(cls, inner: Tensor) -> AcceleratorTensor:
        """The CPU tensor ``inner``, on the accelerator."""
        strided = inner.layout == torch.strided
        made: AcceleratorTensor = Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride() if strided else None,
            storage_offset=inner.storage_offset() if strided else None,
            dtype=inner.dtype,
            layout=inner.layout,
            device=DEVICE,
        )
        made.held = inner
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Compute outside of the context in which the tensor was made; such reads are not counted."""
        return compute(func, args, kwargs or {}, Counter())

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        """Tells torch that ``Module.to`` must exchange the whole tensor."""
        return ["held"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], meta: None, size: Any, stride: Any) -> AcceleratorTensor:
        return AcceleratorTensor(inner["held"])

    def __deepcopy__(self, memo: dict[int, Any]) -> AcceleratorTensor:
        if id(self) not in memo:
            with torch.no_grad():
                made = AcceleratorTensor(self.held.clone())
            made.__dict__.update({name: value for name, value in self.__dict__.items() if name != "held"})
            memo[id(self)] = made.requires_grad_(self.requires_grad)
        copied: AcceleratorTensor = memo[id(self)]
        return copied

    def __repr__(self, **kwargs: Any) -> str:  # type: ignore[override]
        return f"{self.held!r} on {TITLE}"

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self.ndim == 0 else object.__format__(self, spec)

    def numpy(self, *, force: bool = False) -> Any:
        """As on a GPU: refused, unless forced."""
        if not force:
            raise TypeError(f"can't convert a tensor on {TITLE} to numpy; use Tensor.cpu() to copy it to the CPU first")
        return self.detach().cpu().numpy()

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        return self.numpy()

    def tolist(self) -> Any:
        """The values, which are copied to the CPU."""
        return self.detach().cpu().tolist()

    def new_tensor(self, data: Any, **kwargs: Any) -> Tensor:  # type: ignore[override]
        """A tensor with these values on the same device."""
        made: Tensor = torch.tensor(data, **{"dtype": self.dtype, "device": self.device, **kwargs})
        return made

    def data_ptr(self) -> int:
        """The address of the values."""
        return self.held.data_ptr()

    @property
    def data(self) -> Tensor:
        """The same tensor without gradient."""
        found: Tensor = Tensor.data.__get__(self)  # type: ignore[attr-defined]
        return found

    @data.setter
    def data(self, value: Tensor) -> None:
        if not isinstance(value, AcceleratorTensor):
            raise DeviceError(f"cannot assign a CPU tensor to .data of a tensor on {TITLE}")
        Tensor.data.__set__(self, value)  # type: ignore[attr-defined]
        self.held = value.held


@dataclass(frozen=True)
class Rule:
    """What to know about an operation: its name, the places of arguments that it writes to, and kinds of it."""

    name: str
    written: tuple[int, ...]
    reshapes: bool

    @staticmethod
    @cache
    def of(func: Any) -> Rule:
        """The rule of an operation."""
        infos = [argument.alias_info for argument in func._schema.arguments]
        written = tuple(place for place, info in enumerate(infos) if info is not None and info.is_write)
        return Rule(func._schema.name.removeprefix("aten::"), written, torch.Tag.inplace_view in func.tags)


def address(generator: torch.Generator) -> int:
    """The address of a generator, which stays when torch makes another Python object for it."""
    found: int = generator._cdata  # type: ignore[attr-defined]
    return found


def tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among arguments, and in lists of them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors_in(value)


def unwrapped(value: Any) -> Any:
    """An argument with the CPU tensor in place of each tensor on the accelerator."""
    if isinstance(value, AcceleratorTensor):
        return value.held
    return type(value)(map(unwrapped, value)) if isinstance(value, list | tuple) else value


def wrapped(result: Any, known: dict[int, AcceleratorTensor]) -> Any:
    """A result on the accelerator; what an operation changed in place is the tensor that it was given."""
    if isinstance(result, Tensor):
        return known[id(result)] if id(result) in known else AcceleratorTensor(result)
    return type(result)(wrapped(one, known) for one in result) if isinstance(result, list | tuple) else result


def compute(func: Any, args: Any, kwargs: dict[str, Any], reads: Counter[str]) -> Any:
    """The result of an operation; raises DeviceError where CUDA raises, and counts the values that the CPU reads."""
    given = list(tensors_in((*args, *kwargs.values())))
    inside = [one for one in given if isinstance(one, AcceleratorTensor)]
    wanted, rule = kwargs.get("device"), Rule.of(func)
    on_device = wanted == DEVICE or (wanted is None and bool(inside))
    if rule.name == "copy_":
        on_device = isinstance(args[0], AcceleratorTensor)
    for one in (*args, *kwargs.values()):
        if isinstance(one, torch._C.Generator) and on_device != (address(one) in GENERATORS):
            places = (TITLE, "the CPU") if on_device else ("the CPU", TITLE)
            raise DeviceError(f"expected a generator of {places[0]}, but found one of {places[1]} (in {rule.name})")
    if not inside and not on_device:
        return func(*args, **kwargs)
    if inside:
        _refuse(rule, args, kwargs, given)
        _count(rule, args, on_device, reads)
    if rule.name == "_fused_sdp_choice":
        return 0  # a composition of basic operations; the fused form of torch is only for devices that it knows
    if wanted is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    result = func(*map(unwrapped, args), **{key: unwrapped(value) for key, value in kwargs.items()})
    if not on_device:
        return result
    if rule.reshapes:  # such as unsqueeze_: the shape of the tensor itself changes too
        with no_dispatch():
            func(*args, **kwargs)
    return wrapped(result, {id(one.held): one for one in inside})


def _refuse(rule: Rule, args: Any, kwargs: dict[str, Any], given: list[Tensor]) -> None:
    """Raise DeviceError if CUDA has no such operation on such tensors."""
    name, outside = rule.name, [one for one in given if not isinstance(one, AcceleratorTensor)]
    if any(one.device == DEVICE for one in outside):
        raise DeviceError(f"{name} got a tensor without values: it was made for {TITLE} outside of its context")
    if name in ABSENT or (name in FLOATING and not given[0].is_floating_point() and not given[0].is_complex()):
        raise DeviceError(f"{name} is not implemented for {given[0].dtype} on {TITLE}, as on CUDA; convert to float")
    if name == "linalg_lstsq" and kwargs.get("driver") not in (None, "gels"):
        raise DeviceError(f"the driver of lstsq must be 'gels' on {TITLE}, as on CUDA, not {kwargs['driver']!r}")
    if not outside or name in COPIES:
        return
    if name in INDEXED:
        if not isinstance(args[0], AcceleratorTensor):
            raise DeviceError(f"the index of a CPU tensor must be on the CPU, but it is on {TITLE} (in {name})")
        outside = [one for one in tensors_in(args[2:]) if not isinstance(one, AcceleratorTensor)]
    targets = tensors_in(args[place] for place in rule.written if place < len(args))
    wrong = [one for one in targets if not isinstance(one, AcceleratorTensor)]
    if wrong := [*wrong, *(one for one in outside if one.ndim or name in STRICT)]:
        raise DeviceError(
            f"expected all tensors to be on {TITLE}, but found one of shape {tuple(wrong[0].shape)} on the CPU "
            f"(in {name}); move it with .to(device) or make it a buffer"
        )


def _count(rule: Rule, args: Any, on_device: bool, reads: Counter[str]) -> None:
    """Count an operation whose result the CPU waits for."""
    masked = rule.name in INDEXED and any(one.dtype == torch.bool for one in tensors_in(args[1:2]))
    if rule.name in READS or masked or (rule.name in COPIES and not on_device):
        reads[rule.name] += 1


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sends every operation of a thread to the accelerator that it concerns."""

    def __init__(self, reads: Counter[str], lacks: frozenset[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.reads, self.lacks = reads, lacks

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # no torch.compile under this mode; the wrapper that prevents it costs as much as an operation

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not types and (not kwargs or not kwargs.keys() & {"device", "generator"}):  # tensors of the CPU only
            return func(*args, **(kwargs or {}))
        result = compute(func, args, kwargs or {}, self.reads)
        there = [one for one in tensors_in((result, args)) if isinstance(one, AcceleratorTensor)] if self.lacks else []
        if "float64" in self.lacks and any(one.dtype == torch.float64 for one in there):
            raise TypeError(f"{TITLE} cannot hold float64, like MPS")
        if there and Rule.of(func).name in self.lacks:
            raise NotImplementedError(f"{Rule.of(func).name} is not implemented for {TITLE}")
        return result


def _is_accelerator(device: Any) -> bool:
    return device is not None and not isinstance(device, int) and torch.device(device) == DEVICE


def _filled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function such as torch.tensor that keeps the values on the accelerator: torch leaves them out for "meta"."""

    def make(data: Any, *args: Any, device: Any = None, requires_grad: bool = False, **kwargs: Any) -> Tensor:
        there = _is_accelerator(device)
        made = function(data, *args, device="cpu" if there else device, **kwargs)
        made = made.to(DEVICE) if there else made
        return made.requires_grad_() if requires_grad else made

    return make


class _GeneratorType(type(torch.Generator)):  # type: ignore[misc]
    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, torch._C.Generator)


class _DeviceGenerator(torch.Generator):
    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return DEVICE


class _AnyGenerator(torch.Generator, metaclass=_GeneratorType):
    """Replaces ``torch.Generator``: makes a generator of either device."""

    def __new__(cls, device: Any = "cpu") -> Any:
        if not _is_accelerator(device):
            return torch._C.Generator(device)
        made = _DeviceGenerator()
        GENERATORS[address(made)] = made
        return made


@dataclass(frozen=True)
class Accelerator:
    """The accelerator while it is in use.

    Attributes:
        device: Its device, for ``Tensor.to``, ``Module.to`` and ``device=``.
        name: The same as text, for ``Run(device=...)``.
        reads: How often each operation made the CPU wait for values, such as ``_local_scalar_dense`` for ``item()``.
    """

    device: torch.device = DEVICE
    name: str = str(DEVICE)
    reads: Counter[str] = field(default_factory=Counter)


@contextmanager
def pretended_accelerator(lacks: Collection[str] = ()) -> Iterator[Accelerator]:
    """Pretend that this machine has an accelerator, in this thread and those started inside the context.

    Args:
        lacks: Names of operations that the device does not have, such as ``"linalg_eigh"``, or ``"float64"``.

    Yields:
        The accelerator.

    Example:
        >>> with pretended_accelerator() as accelerator:
        ...     x = torch.ones(2, 2, device=accelerator.device)
        ...     x + torch.ones(2, 2)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        hashzoo.testing.accelerator.DeviceError: expected all tensors to be on the accelerator, but found one of ...
    """
    accelerator, original, missing = Accelerator(), threading.Thread.run, frozenset(lacks)

    def run(thread: threading.Thread) -> None:
        with _Operations(accelerator.reads, missing):
            original(thread)

    def autocast(device_type: str, *args: Any, **kwargs: Any) -> Any:
        if _is_accelerator(device_type):
            return Autocast(AcceleratorTensor, *args, **kwargs)
        return torch.amp.autocast_mode.autocast(device_type, *args, **kwargs)

    replaced: tuple[tuple[Any, str, Any], ...] = (
        (threading.Thread, "run", run),
        *((module, "autocast", autocast) for module in (torch, torch.amp)),
        *((torch, name, _filled(getattr(torch, name))) for name in ("tensor", "as_tensor", "asarray")),
        (torch, "Generator", _AnyGenerator),
    )
    with ExitStack() as stack:
        for owner, name, value in replaced:
            stack.enter_context(mock.patch.object(owner, name, value))
        stack.callback(GENERATORS.clear)
        stack.enter_context(_Operations(accelerator.reads, missing))
        yield accelerator


def problem_on_accelerator(step: Callable[[str], object]) -> str:
    """What fails if ``step`` runs on the pretended accelerator, whose name it is given; empty if nothing does."""
    try:
        with pretended_accelerator() as accelerator:
            step(accelerator.name)
    except (Exception, SystemExit) as error:
        return f"{status_of(error)[1].removesuffix(_place(error, -1))}{_place(error, _own_frame(error))}"
    return ""


def _own_frame(error: BaseException) -> int:
    """The innermost frame of a traceback that is neither in torch nor in this module, as an index from the end."""
    hidden = (str(Path(torch.__file__).parent), str(Path(__file__)))
    frames = traceback.extract_tb(error.__traceback__)
    places = [place for place, frame in enumerate(frames) if not frame.filename.startswith(hidden)]
    return places[-1] - len(frames) if places else -1


def _place(error: BaseException, frame: int) -> str:
    """File and line of a frame of a traceback, in parentheses."""
    found = traceback.extract_tb(error.__traceback__)[frame]
    return f" ({Path(found.filename).name}:{found.lineno})"
