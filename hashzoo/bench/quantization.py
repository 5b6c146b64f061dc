"""The loss that ``[train] quantization`` adds to that of every deep method."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace

from torch import Tensor, nn

from hashzoo.errors import EnvironmentFailure, UsageError, unknown_name
from hashzoo.factory import FactoryInfo, options
from hashzoo.method import Deep, Method
from hashzoo.registry.source import code_digest
from hashzoo.registry.zoo import Entry, Zoo
from hashzoo.training.budget import Budget
from hashzoo.training.nested import NestedLoss
from hashzoo.types import Batch, Output, Setting


def own_budget(budget: Budget, entry: Entry) -> Budget:
    """The budget of a method, without what it cannot take.

    That is ``quantization`` without a loss of codes, ``dropout`` of shallow methods, and ``ema`` without the training
    loop of :class:`Deep`: a loop can keep state that belongs to the weights of the last step.
    """
    function = FactoryInfo(entry.factory).function
    if entry.card.kind != "deep":
        return budget.model_copy(update={"quantization": "", "dropout": 0.0, "ema": 0.0})
    if not inspect.isclass(function):
        return budget
    if not issubclass(function, Deep):
        return budget.model_copy(update={"quantization": "", "ema": 0.0})
    return budget if function.fit is Deep.fit else budget.model_copy(update={"ema": 0.0})


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


class AddedLoss:
    """A forward hook of a loss that adds the terms of another one, each as ``added NAME``.

    Args:
        name: Name of the other loss.
        loss: The other loss.

    Attributes:
        calls: How often the terms were added.
    """

    def __init__(self, name: str, loss: nn.Module) -> None:
        self.name, self.loss, self.calls = name, loss, 0

    def __call__(self, loss: nn.Module, inputs: tuple[Output, Batch], terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """The terms of a call of ``loss``, and those of the other loss for the same inputs."""
        self.calls += 1
        return terms | {f"added {name}": value for name, value in self.loss(*inputs).items()}


def add_loss(to: nn.Module, name: str, loss: nn.Module) -> AddedLoss:
    """Add the terms of another loss to those of a method's loss, whenever the training calls it.

    Args:
        to: The loss of the method.
        name: Name of the loss.
        loss: A loss without parameters and buffers, since the state of the method remains as it is.

    Returns:
        What adds the terms; it counts how often.

    Raises:
        ValueError: If the loss has parameters or buffers.
    """
    if [*loss.parameters(), *loss.buffers()]:
        raise ValueError(f"loss {name!r} has parameters or buffers, so it cannot be added to that of another method")
    added = AddedLoss(name, loss)
    to.register_forward_hook(added)
    return added


@dataclass(frozen=True)
class Quantization:
    """The loss that was added to the one of a method, or to that of each nested length."""

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
    own = method.loss.losses if isinstance(method.loss, NestedLoss) else {setting.bits: method.loss}
    added = [
        add_loss(one, loss, zoo.losses[loss].factory(replace(setting, bits=bits), weight=budget.quantization_weight))
        for bits, one in own.items()
    ]
    return Quantization(name, added[0])
