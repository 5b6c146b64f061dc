"""Processes that train one cell together: each sees its share of a batch, and all compute the loss of the whole.

Why the result is that of one process. Let L(t) be the loss of the whole batch at parameters t. Process r of W has its
own copy t_r of them and computes its own copy L_r of the loss, out of rows that all processes gave. Collectives here
pass gradients back exactly, which is to say that what process r gets for its copy is the slope of J = L_1 + ... + L_W.
Where all copies are t, J(t, ..., t) = W L(t), so the slopes for all copies add up to W dL/dt, and their mean is dL/dt.
This holds for a parameter that only saw a share (the network), and for one that saw all rows (the centers of a loss).
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hashzoo.errors import HashzooError
from hashzoo.types import Output

#: How long a process waits for the others: while the first looks at validation images, they have nothing to do.
PATIENCE = timedelta(hours=2)
NEAR = 1e-4  # relative difference of the states of processes that is rounding


class LostError(HashzooError):
    """Another process of the same cell cannot be reached: most often it has ended, and its own reason says why."""


class ProcessGroup:
    """One process of ``count``, the one numbered ``rank``; alone, unless it has joined others.

    All have the same seeds and see images in the same order. ``divided`` says whether the batch at hand is.
    """

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank, self.count, self.divided, self.gathered = rank, count, False, True

    def join(self, meeting: Path, backend: str) -> None:
        """Meet the others by a file that does not exist yet, in a folder that all processes see."""
        dist.init_process_group(
            backend, init_method=f"file://{meeting}", rank=self.rank, world_size=self.count, timeout=PATIENCE
        )

    def share(self, rows: Tensor) -> Tensor:
        """The rows of a batch that this process sees, in order; all, where there are fewer than processes."""
        return torch.tensor_split(rows, self.count)[self.rank] if len(rows) >= self.count else rows

    def begin(self, total: int) -> None:
        """A batch of so many images comes next."""
        self.divided, self.gathered = self.count > 1 and total >= self.count, self.count == 1

    def gather(self, output: Output, total: int) -> Output:
        """The output for all ``total`` rows of a batch of what each process made of its share, with its gradient.

        ValueError for an entry of ``extra`` that does not have one row an image.
        """
        self.gathered = True
        if not self.divided:
            return output
        sizes = [len(part) for part in torch.tensor_split(torch.arange(total), self.count)]

        def whole(name: str, mine: Tensor) -> Tensor:
            if not mine.ndim or len(mine) != sizes[self.rank]:
                raise ValueError(
                    f"the head's {name!r} has shape {tuple(mine.shape)} for {sizes[self.rank]} images: several "
                    "processes can only join what has one row an image; train with --devices 1"
                )
            made: Tensor = Gather.apply(mine, sizes, self.rank)
            return made

        return replace(
            output,
            code=whole("code", output.code),
            logits=None if output.logits is None else whole("logits", output.logits),
            extra={name: whole(name, value) for name, value in output.extra.items()},
        )

    def average(self, parameters: Iterable[nn.Parameter]) -> None:
        """Put the mean over processes in the place of each gradient. Those of a kind travel together."""
        kinds: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
        for parameter in parameters if self.count > 1 else ():
            if parameter.grad is not None:
                kinds.setdefault((parameter.grad.dtype, parameter.grad.device), []).append(parameter.grad)
        for gradients in kinds.values():
            flat = summed(torch.cat([gradient.flatten() for gradient in gradients])) / self.count
            for gradient, mean in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
                gradient.copy_(mean.view_as(gradient))

    def norms(self) -> AbstractContextManager[Any]:
        """Within it, batch normalisation takes the statistics of the whole batch."""
        return WholeNorms(self) if self.count > 1 else nullcontext()

    def agree(self, what: str, values: Tensor) -> None:
        """HashzooError where a process has other numbers (n,) than the first, beyond rounding."""
        if self.count == 1:
            return
        mine = values.double()
        first = summed(mine if self.rank == 0 else torch.zeros_like(mine))
        apart = ~torch.isclose(mine, first, rtol=NEAR, atol=NEAR, equal_nan=True)
        if summed(apart.double()).any():
            raise HashzooError(f"the {self.count} processes of this cell do not agree on {what}; use --devices 1")

    def leave(self, method: nn.Module) -> None:
        """The end of training together. HashzooError where the processes do not hold the same method."""
        if self.count > 1:
            state = [*method.parameters(), *method.buffers()]
            self.agree("what was learned", torch.stack([t.detach().double().sum() for t in state]))
            dist.destroy_process_group()
            self.divided = False


def summed(mine: Tensor) -> Tensor:
    """The sum of a tensor over all processes, the same bits in each. LostError where one is gone."""
    total = mine.detach().clone().contiguous()
    try:
        dist.all_reduce(total)
    except RuntimeError as error:
        raise LostError(f"the other processes cannot be reached: {str(error).splitlines()[0]}") from error
    return total


class Gather(torch.autograd.Function):
    """The rows of all processes, in their order; a process gets back the slopes that all have for its own rows."""

    @staticmethod
    def forward(ctx: Any, mine: Tensor, sizes: list[int], rank: int) -> Tensor:
        """(b, ...) of one process in, (B, ...) out."""
        ctx.rows = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
        padded = mine.new_zeros(max(sizes), *mine.shape[1:])  # shares differ by one row, and what travels must not
        padded[: len(mine)] = mine
        parts = [torch.empty_like(padded) for _ in sizes]
        try:
            dist.all_gather(parts, padded)
        except RuntimeError as error:
            raise LostError(f"the other processes cannot be reached: {str(error).splitlines()[0]}") from error
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None, None]:
        """The sum over processes of the slopes of this one's rows."""
        return summed(slopes[0])[ctx.rows], None, None


class WholeNorms(TorchFunctionMode):
    """Takes the place of ``batch_norm``, by whatever module it is called, while a batch is divided.

    torch's own SyncBatchNorm is for GPUs only, and takes the place of torch's modules, not of those that extend them.
    """

    def __init__(self, group: ProcessGroup) -> None:
        super().__init__()
        self.group = group

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Everything else passes."""
        if func is nn.functional.batch_norm and self.group.divided:
            return whole_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def whole_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """``torch.nn.functional.batch_norm`` whose statistics are those of the rows (b, C, ...) of all processes."""
    if not training:
        return nn.functional.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    x = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
    y, mean, variance, count = WholeNorm.apply(x, eps)
    with torch.no_grad():
        if running_mean is not None and running_var is not None:
            running_mean.lerp_(mean.to(running_mean), momentum)
            running_var.lerp_((variance * count / (count - 1)).to(running_var), momentum)
    shape = [1, -1, *[1] * (x.ndim - 2)]
    y = y if weight is None else y * weight.view(shape)
    y = y if bias is None else y + bias.view(shape)
    found: Tensor = y.to(input.dtype)
    return found


class WholeNorm(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) by channel, over the rows of all processes, and these statistics."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(b, C, ...) in; the same out, and mean (C,), biased variance (C,) and the number of values of a channel."""
        around, shape = [d for d in range(x.ndim) if d != 1], [1, -1, *[1] * (x.ndim - 2)]
        sums = summed(torch.cat([x.sum(around), x.new_tensor([x.numel() / x.shape[1]])]))
        count = sums[-1]
        mean = sums[:-1] / count
        centered = x - mean.view(shape)
        variance = summed(centered.square().sum(around)) / count
        scale = (variance + eps).rsqrt()
        y = centered * scale.view(shape)
        ctx.save_for_backward(y, scale, count)
        ctx.mark_non_differentiable(mean, variance, count)
        return y, mean, variance, count

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        """dx = scale (dy - mean dy - y mean(dy y)), with means over the rows of all processes."""
        y, scale, count = ctx.saved_tensors
        dy, shape = slopes[0], [1, -1, *[1] * (y.ndim - 2)]
        around = [d for d in range(y.ndim) if d != 1]
        sums = summed(torch.cat([dy.sum(around), (dy * y).sum(around)])) / count
        straight, along = (part.view(shape) for part in sums.chunk(2))
        return scale.view(shape) * (dy - straight - y * along), None
