"""The loss that ``[train] quantization`` adds to that of every deep method."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

from hashzoo.errors import EnvironmentFailure, UsageError, unknown_name
from hashzoo.factory import FactoryInfo, options
from hashzoo.method import AddedLoss, Deep, Method
from hashzoo.registry.source import code_digest
from hashzoo.registry.zoo import Entry, Zoo
from hashzoo.training.budget import Budget
from hashzoo.types import Setting


def own_budget(budget: Budget, entry: Entry) -> Budget:
    """The budget of a method: without ``quantization`` if the method has no loss of codes."""
    function = FactoryInfo(entry.factory).function
    if entry.card.kind == "deep" and not (inspect.isclass(function) and not issubclass(function, Deep)):
        return budget
    return budget.model_copy(update={"quantization": ""})


def record_quantization(budget: Budget, zoo: Zoo) -> Budget:
    """The budget as keys of cells record it: the name of the loss, and the digest of its code.

    Raises:
        UsageError: If there is no such loss, or it has no option ``weight``.
    """
    name = budget.quantization
    if not name:
        return budget
    known = {name for name, entry in zoo.losses.items() if "weight" in options(entry.factory)}
    if name not in known:
        raise UsageError(f"[train] quantization: {unknown_name('loss with a weight', name, known)}")
    return budget.model_copy(update={"quantization": f"{name} {code_digest(zoo.losses[name].factory)}"})


@dataclass(frozen=True)
class Quantization:
    """The loss that was added to the one of a method."""

    method: str
    added: AddedLoss

    def require_use(self) -> None:
        """Raise UsageError if the training never called the loss of the method, and so not the added one."""
        if not self.added.calls:
            raise UsageError(
                f"[train] quantization: the training of {self.method} does not call its loss as a module, so "
                f"{self.added.name} was not added; leave {self.method} out, or leave out quantization"
            )


def add_quantization(method: Method, name: str, budget: Budget, zoo: Zoo, setting: Setting) -> Quantization | None:
    """Add the loss that a recorded budget names to a method; None if it names none.

    Raises:
        UsageError: If the method has no loss.
        EnvironmentFailure: If the code of the loss is not the code that the budget records.
    """
    loss, _, digest = budget.quantization.partition(" ")
    if not loss:
        return None
    if not isinstance(method, Deep):
        raise UsageError(
            f"[train] quantization: {name} does not extend hashzoo.Deep, so it has no loss to add to; leave it out"
        )
    if loss not in zoo.losses or code_digest(zoo.losses[loss].factory) != digest:
        raise EnvironmentFailure(
            f"the code of the loss {loss} changed after the sweep was planned; run the command again, with the same "
            "hashzoo and plugins on every machine"
        )
    built = zoo.losses[loss].factory(setting, weight=budget.quantization_weight)
    return Quantization(name, method.add_loss(loss, built))
