"""Builds a method of one code length, or one whose head serves several nested lengths."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from hashzoo.backbone import Backbone
from hashzoo.errors import UsageError
from hashzoo.factory import FactoryInfo
from hashzoo.method import Deep, Method
from hashzoo.registry.zoo import Entry
from hashzoo.training.budget import Budget
from hashzoo.training.nested import NestedLoss, Prefix, split_lengths
from hashzoo.types import Setting

#: What a method must take from :class:`hashzoo.Deep` so that its code can be cut, and what it has instead.
_OWN = {"fit": "training loop", "relaxed": "codes", "encode": "codes", "index": "index", "compose": "composition"}


def cannot_nest(name: str, factory: Any) -> str:
    """Why a method cannot serve nested lengths, in one line; empty if it can, or if only building it tells.

    Args:
        name: The name of the method.
        factory: Its factory.
    """
    info = FactoryInfo(factory)
    kind = info.function
    if info.composition or not isinstance(kind, type):
        return ""
    own = "no loss of codes" if not issubclass(kind, Deep) else ""
    own = own or next(
        (f"its own {what}" for part, what in _OWN.items() if getattr(kind, part) is not getattr(Deep, part)), ""
    )
    return f"{name} has {own}, so it cannot serve nested lengths; leave it out, or leave out nested" if own else ""


def build_method(
    entry: Entry, setting: Setting, backbone: Backbone, values: Mapping[str, Any], budget: Budget
) -> Method:
    """Build a method; with nested lengths, that of the longest one with the losses of all.

    Raises:
        UsageError: If the method cannot serve nested lengths.
    """
    weighting, lengths = split_lengths(budget.nested)
    if not lengths:
        made: Method = entry.factory(setting, backbone, **values)
        return made
    return nest(entry.name, entry.factory, setting, backbone, values, (weighting, lengths, budget.nested_distillation))


def nest(
    name: str,
    factory: Callable[..., Method],
    setting: Setting,
    backbone: Backbone,
    values: Mapping[str, Any],
    how: tuple[str, tuple[int, ...], float],
) -> Deep:
    """A method of the longest length that is trained by the losses of all lengths.

    Args:
        name: The name of the method.
        factory: Its factory.
        setting: The setting; its code length is replaced.
        backbone: The backbone.
        values: The hyperparameters of every length.
        how: Weighting, lengths, and weight of the distillation, as :class:`NestedLoss` takes them.

    Raises:
        UsageError: If the method cannot serve nested lengths.
    """
    weighting, lengths, distilled = how
    made = {bits: factory(replace(setting, bits=bits), backbone, **values) for bits in sorted(lengths, reverse=True)}
    method = made[max(lengths)]
    if (reason := cannot_nest(name, type(method))) or not isinstance(method, Deep):
        raise UsageError(reason)
    losses = {bits: one.loss for bits, one in made.items() if isinstance(one, Deep)}
    method.loss = NestedLoss(losses, method.head, weighting, distilled)
    method.mark = ", ".join(filter(None, [method.mark, "nested"]))
    return method


def keep_prefix(method: Method, bits: int) -> None:
    """From now on, a trained method with nested lengths encodes with the first bits; its state stays as it is."""
    if isinstance(method, Deep) and isinstance(method.loss, NestedLoss):
        method.head.register_forward_hook(Prefix(bits))
