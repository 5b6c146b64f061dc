"""A batch in parts: the loss sees all of it, the network only as many images at a time as fit in its memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from hashzoo.types import Batch, Output


def in_parts(
    forward: Callable[[Batch], Output], batch: Batch, parts: int, network: nn.Module
) -> tuple[Output, Callable[[], None]]:
    """The output for a whole batch, and a function that carries its gradients back through the network.

    Each part is computed twice: first without gradient, for the output; then, once the loss has given the gradients of
    the output, again with the same random numbers, to carry them on. Losses of pairs see all pairs of the batch, which
    sums of the losses of its parts would not. Batch statistics are those of a part; running ones are updated once.

    Source: Gao et al., Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup, RepL4NLP 2021.

    Args:
        forward: Output for a batch.
        batch: B images.
        parts: Number of parts.
        network: The modules that ``forward`` calls.

    Returns:
        The output, whose tensors are leaves, and the function to call after the backward pass of the loss.
    """
    images, device = len(batch.views[0]), batch.views[0].device
    pieces = [
        replace(batch, views=tuple(view[rows] for view in batch.views))
        for rows in torch.arange(images).tensor_split(min(parts, images // 2 or 1))
    ]
    states, outputs = [], []
    with torch.no_grad(), _running_statistics_unchanged(network):
        for piece in pieces:
            states.append(_random_states(device))
            outputs.append(_tensors(forward(piece)))
    leaves = {name: _leaf(torch.cat([one[name] for one in outputs])) for name in outputs[0]}
    extra = {name.removeprefix("extra."): leaf for name, leaf in leaves.items() if name.startswith("extra.")}
    whole = Output(leaves["code"], leaves.get("logits"), extra)

    def backward() -> None:
        # what the loss has drawn since must not be drawn again in the next batch
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            again()

    def again() -> None:
        start = 0
        for piece, state in zip(pieces, states, strict=True):
            rows = slice(start, start := start + len(piece.views[0]))
            _set_random_states(device, state)
            pairs = [
                (tensor, leaves[name].grad[rows])  # type: ignore[index]  # not None by the condition
                for name, tensor in _tensors(forward(piece)).items()
                if tensor.requires_grad and leaves[name].grad is not None
            ]
            tensors, gradients = zip(*pairs, strict=True)
            torch.autograd.backward(tensors, gradients)

    return whole, backward


def _tensors(output: Output) -> dict[str, Tensor]:
    found = {"code": output.code, **{f"extra.{name}": value for name, value in output.extra.items()}}
    return found if output.logits is None else found | {"logits": output.logits}


def _leaf(value: Tensor) -> Tensor:
    return value.detach().requires_grad_(value.is_floating_point())


def _random_states(device: torch.device) -> list[Tensor]:
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def _set_random_states(device: torch.device, states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)


@contextmanager
def _running_statistics_unchanged(network: nn.Module) -> Iterator[None]:
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._NormBase) and m.track_running_stats]
    for norm in norms:
        # in eval mode it keeps using them
        norm.track_running_stats = not norm.training
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
