"""Processes that train one cell together: each computes its share of a batch, all compute the loss of the whole batch.

The result equals that of one process. Let L(t) be the loss of the whole batch at parameters t. Process r of W has its
own copy t_r of the parameters and computes its own copy L_r of the loss, from the rows gathered from all processes.
The collectives here propagate gradients exactly: process r receives the gradient of J = L_1 + ... + L_W with respect
to its copy. Since J(t, ..., t) = W L(t) when all copies are equal to t, the gradients of all copies sum to W dL/dt, and
their mean is dL/dt. This holds for parameters that see a share of the rows (the network) and for parameters that see
all rows (the centers of a loss).
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hashzoo.errors import HashzooError
from hashzoo.types import Output

#: How long a process waits for the others; they are idle while the first one evaluates validation images.
TIMEOUT = timedelta(hours=2)
TOLERANCE = 1e-4  # relative difference of the states of processes that is attributed to rounding


class PeerLostError(HashzooError):
    """Another process of the same cell cannot be reached. Usually it has failed and reports the cause itself."""


class ProcessGroup:
    """Process number ``rank`` of ``count`` processes that train together; a single process by default.

    All processes have the same seeds and see images in the same order. ``divided`` tells whether the current batch is
    divided among them, ``gathered`` whether the loop has gathered the outputs of the current batch.
    """

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank, self.count, self.divided, self.gathered = rank, count, False, True

    def join(self, rendezvous: Path, backend: str) -> None:
        """Connect to the other processes through a file that does not exist yet, in a folder that all can access."""
        dist.init_process_group(
            backend, init_method=f"file://{rendezvous}", rank=self.rank, world_size=self.count, timeout=TIMEOUT
        )

    def device(self, kind: str) -> torch.device:
        """The device of this process; for ``cuda`` without a number, the GPU that its rank numbers."""
        device = torch.device("cuda", self.rank) if kind == "cuda" else torch.device(kind)
        if self.count > 1 and device.type == "cuda":
            torch.cuda.set_device(device)  # collectives take place on the current one
        return device

    def share(self, rows: Tensor) -> Tensor:
        """The rows of a batch that this process computes, in order: all rows if there are fewer than processes."""
        return torch.tensor_split(rows, self.count)[self.rank] if len(rows) >= self.count else rows

    def begin_batch(self, total: int) -> None:
        """Start a batch of ``total`` images."""
        self.divided, self.gathered = self.count > 1 and total >= self.count, self.count == 1

    def gather(self, output: Output, total: int) -> Output:
        """The outputs of all processes joined to one for the ``total`` rows of the batch, differentiable.

        Raises ValueError for an entry of ``extra`` that does not have one row per image.
        """
        self.gathered = True
        if not self.divided:
            return output
        sizes = [len(part) for part in torch.tensor_split(torch.arange(total), self.count)]

        def gather_rows(name: str, mine: Tensor) -> Tensor:
            if not mine.ndim or len(mine) != sizes[self.rank]:
                raise ValueError(
                    f"the head's {name!r} has shape {tuple(mine.shape)} for {sizes[self.rank]} images: several "
                    "processes can only join outputs with one row per image; train with --devices 1"
                )
            gathered: Tensor = Gather.apply(mine, sizes, self.rank)
            return gathered

        return replace(
            output,
            code=gather_rows("code", output.code),
            logits=None if output.logits is None else gather_rows("logits", output.logits),
            extra={name: gather_rows(name, value) for name, value in output.extra.items()},
        )

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its mean over all processes, with one collective per dtype and device."""
        buckets: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
        for parameter in parameters if self.count > 1 else ():
            if parameter.grad is not None:
                buckets.setdefault((parameter.grad.dtype, parameter.grad.device), []).append(parameter.grad)
        for gradients in buckets.values():
            flat = sum_over_processes(torch.cat([gradient.flatten() for gradient in gradients])) / self.count
            for gradient, mean in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
                gradient.copy_(mean.view_as(gradient))

    def sync_batch_norm(self) -> AbstractContextManager[Any]:
        """Context in which batch normalization uses the statistics of the whole batch."""
        return SyncBatchNormMode(self) if self.count > 1 else nullcontext()

    def require_equal(self, what: str, values: Tensor) -> None:
        """Raise HashzooError if the values (n,) of a process differ from those of the first by more than rounding."""
        if self.count == 1:
            return
        mine = values.double()
        first = sum_over_processes(mine if self.rank == 0 else torch.zeros_like(mine))
        different = ~torch.isclose(mine, first, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
        if sum_over_processes(different.double()).any():
            raise HashzooError(f"the {self.count} processes of this cell do not agree on {what}; use --devices 1")

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag of any process is set."""
        if self.count == 1:
            return flag
        return bool(sum_over_processes(torch.tensor([float(flag)], device=device)).item())

    def finish(self, method: nn.Module) -> None:
        """Check that all processes hold the same method (else HashzooError), then disconnect them."""
        if self.count > 1:
            state = [*method.parameters(), *method.buffers()]
            self.require_equal("the trained method", torch.stack([t.detach().double().sum() for t in state]))
            dist.destroy_process_group()
            self.divided = False


def sum_over_processes(mine: Tensor) -> Tensor:
    """Sum of a tensor over all processes, bit-identical in each. Raises PeerLostError if a process has ended."""
    total = mine.detach().clone().contiguous()
    try:
        dist.all_reduce(total)
    except RuntimeError as error:
        raise PeerLostError(f"the other processes cannot be reached: {str(error).splitlines()[0]}") from error
    return total


class Gather(torch.autograd.Function):
    """Concatenate the rows of all processes; each receives the summed gradients of its own rows."""

    @staticmethod
    def forward(ctx: Any, mine: Tensor, sizes: list[int], rank: int) -> Tensor:
        """Rows (b, ...) of this process to rows (B, ...) of all."""
        ctx.rows = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
        padded = mine.new_zeros(max(sizes), *mine.shape[1:])  # shares differ by a row; collectives need equal shapes
        padded[: len(mine)] = mine
        parts = [torch.empty_like(padded) for _ in sizes]
        try:
            dist.all_gather(parts, padded)
        except RuntimeError as error:
            raise PeerLostError(f"the other processes cannot be reached: {str(error).splitlines()[0]}") from error
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Sum over processes of the gradient of this process's rows."""
        return sum_over_processes(gradients[0])[ctx.rows], None, None


class SyncBatchNormMode(TorchFunctionMode):
    """Replaces every call of ``torch.nn.functional.batch_norm`` by a synchronized one while a batch is divided.

    ``torch.nn.SyncBatchNorm`` supports only GPUs, and replaces torch's own modules but not their subclasses.
    """

    def __init__(self, group: ProcessGroup) -> None:
        super().__init__()
        self.group = group

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call ``func``, or the synchronized version of ``batch_norm``."""
        if func is nn.functional.batch_norm and self.group.divided:
            return SynchronizedBatchNormCall(*args, **(kwargs or {})).synchronized()
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class SynchronizedBatchNormCall:
    """The arguments of a call of ``torch.nn.functional.batch_norm``, in torch's order."""

    input: Tensor  # (b, C, ...)
    running_mean: Tensor | None
    running_var: Tensor | None
    weight: Tensor | None = None
    bias: Tensor | None = None
    training: bool = False
    momentum: float = 0.1
    eps: float = 1e-5

    def synchronized(self) -> Tensor:
        """The result of the call with the statistics of the rows of all processes."""
        if not self.training:
            return nn.functional.batch_norm(
                self.input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        x = self.input.float() if self.input.dtype in (torch.float16, torch.bfloat16) else self.input
        y, mean, variance, count = SynchronizedBatchNorm.apply(x, self.eps)
        with torch.no_grad():
            if self.running_mean is not None and self.running_var is not None:
                self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
                self.running_var.lerp_((variance * count / (count - 1)).to(self.running_var), self.momentum)
        shape = [1, -1, *[1] * (x.ndim - 2)]
        y = y if self.weight is None else y * self.weight.view(shape)
        y = y if self.bias is None else y + self.bias.view(shape)
        result: Tensor = y.to(self.input.dtype)
        return result


class SynchronizedBatchNorm(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) per channel over the rows of all processes, and these statistics."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Normalized x (b, C, ...), mean (C,), biased variance (C,) and the number of values per channel."""
        axes, shape = [d for d in range(x.ndim) if d != 1], [1, -1, *[1] * (x.ndim - 2)]
        sums = sum_over_processes(torch.cat([x.sum(axes), x.new_tensor([x.numel() / x.shape[1]])]))
        count = sums[-1]
        mean = sums[:-1] / count
        centered = x - mean.view(shape)
        variance = sum_over_processes(centered.square().sum(axes)) / count
        scale = (variance + eps).rsqrt()
        y = centered * scale.view(shape)
        ctx.save_for_backward(y, scale, count)
        ctx.mark_non_differentiable(mean, variance, count)
        return y, mean, variance, count

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """dx = scale (dy - mean(dy) - y mean(dy y)), with means over the rows of all processes."""
        y, scale, count = ctx.saved_tensors
        dy, shape = gradients[0], [1, -1, *[1] * (y.ndim - 2)]
        axes = [d for d in range(y.ndim) if d != 1]
        sums = sum_over_processes(torch.cat([dy.sum(axes), (dy * y).sum(axes)])) / count
        mean_dy, mean_dy_y = (part.view(shape) for part in sums.chunk(2))
        return scale.view(shape) * (dy - mean_dy - y * mean_dy_y), None
