"""What a factory in a plugin takes: its options and their types; and a head and a loss composed to a method."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, is_dataclass, replace
from functools import partial
from typing import Annotated, Any

from torch import nn

from hashzoo.backbone import Backbone
from hashzoo.data.held_out import HeldOutDataset
from hashzoo.errors import ComposeError
from hashzoo.hookspecs import Family
from hashzoo.method import Card, Deep, Method
from hashzoo.space import Space
from hashzoo.types import Setting

MethodFactory = Callable[..., Method]  # (setting, backbone, *, hyperparameters)
BackboneFactory = Callable[..., Backbone]  # (shape, *, options)
HeadFactory = Callable[..., nn.Module]  # (setting, backbone, *, options) -> module: Features -> Output
LossFactory = Callable[..., nn.Module]  # (setting, *, options) -> module: (Output, Batch) -> dict[str, Tensor]


#: Marks an option that a dataset got after cells were measured on it, as in ``mode: Annotated[str, ADDED] = ""``. At
#: its default value it is not part of a cell's key, so that the keys of these cells stay as they are.
ADDED = "added"


@dataclass(frozen=True)
class Option:
    """A hyperparameter: a keyword-only argument of a factory."""

    name: str
    default: Any
    annotation: Any
    added: bool = False  # whether it has the mark ADDED
    space: Space | None = None  # the range that `hashzoo tune` searches


def options(factory: Callable[..., Any]) -> dict[str, Option]:
    """The hyperparameters of a factory: its keyword-only arguments, in order.

    Args:
        factory: A class, function, partial, or what :func:`deep` returns.

    Returns:
        Hyperparameters by name.

    >>> def loss(setting, *, weight: float = 0.1, margin: int | None = None): ...
    >>> [(o.name, o.default) for o in options(loss).values()]
    [('weight', 0.1), ('margin', None)]
    """
    return FactoryInfo(factory).options


def _option(name: str, default: Any, annotation: Any) -> Option:
    marks = getattr(annotation, "__metadata__", ())
    space = next((mark for mark in marks if isinstance(mark, Space)), None)
    plain = annotation.__origin__ if ADDED in marks or space is not None else annotation
    others = tuple(mark for mark in marks if mark != ADDED and mark is not space)
    if others and plain is not annotation:
        plain = Annotated[(plain, *others)]  # such as a limit of pydantic
    return Option(name, default, plain, ADDED in marks, space)


def without_markup(text: str) -> str:
    """A text of a docstring without the marks of reStructuredText, for terminals.

    >>> without_markup("Class folders in ``root``; see :class:`~hashzoo.Splits`.")
    'Class folders in root; see hashzoo.Splits.'
    """
    return re.sub(r"``(.+?)``|:\w+:`~?([^`]+)`", lambda found: found[1] or found[2], text)


@dataclass(frozen=True)
class FactoryInfo:
    """One description of every kind of factory: a class, function, partial, composition, family or code metric.

    Code that reads documentation, options, source or signature of a factory goes through this class and does not
    distinguish the kinds itself.
    """

    factory: Any

    @property
    def composition(self) -> Composition | None:
        """The factory itself if it composes a head and a loss."""
        return self.factory if isinstance(self.factory, Composition) else None

    @property
    def family(self) -> Family | None:
        """The factory itself if it is a family of factories."""
        return self.factory if isinstance(self.factory, Family) else None

    @property
    def function(self) -> Any:
        """The class or function that is called: that of a partial, or the factory itself."""
        if isinstance(self.factory, HeldOutDataset):
            return FactoryInfo(self.factory.factory).function
        return self.factory.func if isinstance(self.factory, partial) else self.factory

    @property
    def doc(self) -> str:
        """The description: the attribute ``doc`` of a composition, family or metric, the docstring of any other."""
        described = is_dataclass(self.factory) and not inspect.isclass(self.factory)
        text = getattr(self.factory, "doc", None) if described else None
        return text if isinstance(text, str) else inspect.getdoc(self.factory) or ""

    @property
    def card(self) -> Card | None:
        """The card of a method; None if the factory has none."""
        try:
            card = getattr(self.factory, "card", None)
        except Exception:  # a plugin's attribute can raise anything, and a listing must not fail
            return None
        return card if isinstance(card, Card) else None

    @property
    def options(self) -> dict[str, Option]:
        """The hyperparameters by name; see :func:`options`."""
        if self.composition:
            return self.composition.options()
        if isinstance(self.factory, HeldOutDataset):
            return options(self.factory.factory)
        function = self.function
        hints = typing.get_type_hints(function.__init__ if inspect.isclass(function) else function, include_extras=True)
        return {
            p.name: _option(p.name, p.default, hints.get(p.name, Any))
            for p in inspect.signature(self.factory).parameters.values()
            if p.kind is inspect.Parameter.KEYWORD_ONLY
        }

    @property
    def unrecorded(self) -> frozenset[str]:
        """The options that a cell's key leaves out, since they change no score or the text of the weights covers them.

        A factory declares them in its attribute ``unrecorded``.
        """
        return frozenset(getattr(self.function, "unrecorded", ()))

    @property
    def positional(self) -> list[str] | None:
        """Names of the positional arguments; None if it takes any number of them."""
        if self.composition:
            return None
        parameters = inspect.signature(self.factory).parameters.values()
        if any(p.kind is p.VAR_POSITIONAL for p in parameters):
            return None
        return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]

    @property
    def distributed(self) -> bool:
        """Whether several processes can train the method: if it uses the loop of ``Deep``, or if its card says so.

        >>> FactoryInfo(deep("tanh", "dhn")).distributed, FactoryInfo(Deep).distributed
        (True, True)
        """
        method = self.function
        if isinstance(method, Composition):
            return True
        return inspect.isclass(method) and issubclass(method, Deep) and (method.fit is Deep.fit or method.card.gathers)

    def parts(self) -> Iterator[tuple[str, Any]]:
        """The classes and functions that the factory calls, each with a text that says how; None for a bare text."""
        if self.composition:
            yield from FactoryInfo(self.composition.head).parts()
            yield from FactoryInfo(self.composition.loss).parts()
            yield f"loss rate {self.composition.loss_rate!r}", None
        elif isinstance(self.factory, partial):
            # positional arguments alone: those by name are hyperparameters, which the identity of a cell holds
            plain = (str, int, float, bool, type(None))
            given = [ascii(v) if isinstance(v, plain) else type(v).__qualname__ for v in self.factory.args]
            for text, part in FactoryInfo(self.factory.func).parts():
                yield f"{text}({', '.join(given)})", part
        else:
            yield getattr(self.factory, "__qualname__", type(self.factory).__qualname__), self.factory


@dataclass(frozen=True)
class Composition:
    """A method factory from a head and a loss, as :func:`deep` returns it.

    Attributes:
        head: Head factory, or the name of one.
        loss: Loss factory, or the name of one.
        card: Facts about the method.
        doc: Description in one line.
        loss_rate: Multiple of the learning rate for parameters of the loss, such as class centers.
    """

    head: HeadFactory | str
    loss: LossFactory | str
    card: Card
    doc: str
    loss_rate: float = 1.0

    def bind(self, heads: Mapping[str, HeadFactory], losses: Mapping[str, LossFactory]) -> Composition:
        """Replace names of parts by the factories of these names. ComposeError for an unknown name."""

        def part(kind: str, name: Any, known: Mapping[str, Any]) -> Any:
            if not isinstance(name, str):
                return name
            if name not in known:
                raise ComposeError(f"no {kind} {name!r}; there are: {', '.join(sorted(known))}")
            return known[name]

        head, loss = part("head", self.head, heads), part("loss", self.loss, losses)
        return replace(self, head=head, loss=loss)

    def _parts(self) -> tuple[HeadFactory, LossFactory]:
        if isinstance(self.head, str) or isinstance(self.loss, str):
            raise ComposeError(f"{self.head}+{self.loss} has parts that are given by name: call bind first")
        return self.head, self.loss

    def options(self) -> dict[str, Option]:
        """The hyperparameters of both parts; a name that both use becomes ``head.NAME`` and ``loss.NAME``."""
        head, loss = (options(part) for part in self._parts())
        shared = head.keys() & loss.keys()
        merged = {(f"head.{n}" if n in shared else n): o for n, o in head.items()}
        merged |= {(f"loss.{n}" if n in shared else n): o for n, o in loss.items()}
        return {name: replace(option, name=name) for name, option in merged.items()}

    def __call__(self, setting: Setting, backbone: Backbone, **values: Any) -> Deep:
        """Build the method, with hyperparameters by the names of :meth:`options`. TypeError for an unknown name."""
        head, loss = self._parts()
        unknown = values.keys() - self.options().keys()
        if unknown:
            raise TypeError(f"no hyperparameter {sorted(unknown)[0]!r}; there are: {', '.join(self.options())}")

        def pick(part: str, factory: Callable[..., Any]) -> dict[str, Any]:
            names = options(factory)
            plain = {n: v for n, v in values.items() if n in names}
            return plain | {n: values[f"{part}.{n}"] for n in names if f"{part}.{n}" in values}

        return Deep(
            backbone,
            head(setting, backbone, **pick("head", head)),
            loss(setting, **pick("loss", loss)),
            self.loss_rate,
        )


def deep(
    head: HeadFactory | str,
    loss: LossFactory | str,
    *,
    card: Card | None = None,
    doc: str = "",
    loss_rate: float = 1.0,
) -> Composition:
    """Compose a method from a hash head and a loss.

    Args:
        head: Head factory ``(setting, backbone, *, options)``, or the name of one in a zoo.
        loss: Loss factory ``(setting, *, options)``, or the name of one.
        card: Facts about the method.
        doc: Description in one line.
        loss_rate: Multiple of the learning rate for parameters of the loss.

    Returns:
        A method factory, to be returned from the hook ``hashzoo_methods``.

    >>> deep("tanh", "dhn", doc="Deep Hashing Network").doc
    'Deep Hashing Network'
    """
    return Composition(head, loss, card or Card(), doc, loss_rate)
