"""Dropout of features before the head, which ``[train] dropout`` adds to every method that trains by gradient."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import dropout

from hashzoo.errors import UsageError
from hashzoo.method import Method
from hashzoo.training.budget import Budget
from hashzoo.types import Features, LazyTensors


class FeatureDropout:
    """A forward pre-hook of a head: in training, each feature is 0 with a probability, and others grow in return.

    Of feature maps, whole channels are dropped, by a draw of their own.

    Args:
        method: Name of the method, for messages.
        probability: Probability of a feature to be dropped.

    Attributes:
        calls: How often features were dropped.
    """

    def __init__(self, method: str, probability: float) -> None:
        self.method, self.probability, self.calls = method, probability, 0

    def __call__(self, head: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """The inputs of the head, with dropped features in training."""
        if not head.training:
            return inputs
        self.calls += 1
        return tuple(self._dropped(one) for one in inputs)

    def _dropped(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return dropout(value, self.probability)
        if not isinstance(value, Features):
            return value
        pooled, maps = dropout(value.pooled, self.probability), value.maps
        if isinstance(maps, LazyTensors):  # few heads use maps, and reading them takes longer than a training step
            return replace(value, pooled=pooled, maps=maps.map(self._dropped_channels))
        return replace(value, pooled=pooled, maps=tuple(self._dropped_channels(one) for one in maps))

    def _dropped_channels(self, feature_map: Tensor) -> Tensor:
        return feature_map * dropout(feature_map.new_ones(feature_map.shape[:2]), self.probability)[..., None, None]

    def require_use(self) -> None:
        """Raise UsageError if the training never called the head of the method."""
        if not self.calls:
            raise UsageError(
                f"[train] dropout: the training of {self.method} does not call its head as a module, so no feature "
                f"was dropped; leave {self.method} out, or leave out dropout"
            )


def add_dropout(method: Method, name: str, budget: Budget) -> FeatureDropout | None:
    """Drop features before the head of a method; None if the budget drops none.

    Raises:
        UsageError: If the method has no head.
    """
    if not budget.dropout:
        return None
    head = getattr(method, "head", None)
    if not isinstance(head, nn.Module):
        raise UsageError(
            f"[train] dropout: {name} has no module head that reads features; leave it out, or leave out dropout"
        )
    added = FeatureDropout(name, budget.dropout)
    head.register_forward_pre_hook(added)
    return added
