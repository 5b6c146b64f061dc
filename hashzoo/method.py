"""What a plugin writes: backbones, heads, losses and methods."""

from __future__ import annotations

import inspect
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from hashzoo.backbone import Backbone
from hashzoo.distance import Hamming
from hashzoo.errors import ComposeError, NonFiniteError
from hashzoo.index import Index, Scan
from hashzoo.types import Batch, Codes, Features, Operation, Output, Setting, Split

if TYPE_CHECKING:
    from hashzoo.run import Run
    from hashzoo.types import View


@dataclass(frozen=True)
class Card:
    """What one must know of a method before asking for it; ``hashzoo list methods`` prints it.

    ``kind`` decides which backbone a benchmark file gives the method: ``shallow`` methods read features once and
    solve, ``deep`` ones train by gradient. ``beyond`` says why a method stores something other than ``bits`` bits
    an image (empty: it keeps to the budget, and ``hashzoo check`` holds it to that). ``informative`` is False
    only for a control that is at chance by design. ``saw_database`` is for methods that learn the codes of single
    training images from their labels: they alone get the ids of database images when encoding, and where training
    images are in the database their row is marked.
    ``multilabel`` and ``single`` say whether images may have several labels, and whether one is enough. ``views``
    says that the method learns from transformed views of images, which stored features cannot give. ``gathers`` says
    that a training loop of its own joins what several processes saw (:meth:`hashzoo.Run.gathered`).
    """

    kind: Literal["shallow", "deep"] = "deep"
    supervision: Literal["none", "pairs", "classes"] = "classes"
    multilabel: bool = True
    paper: str = ""
    year: int | None = None
    beyond: str = ""
    informative: bool = True
    saw_database: bool = False
    single: bool = True
    views: bool = False
    gathers: bool = False


class Method(nn.Module, ABC):
    """A way to learn codes: how to fit, how to encode, how queries meet the database.

    Subclasses are final. The constructor is ``(setting, backbone, *, hyperparameters)``; what stands right of the
    star is what the paper chose, and every value there can be set from the command line. A constructor refuses a
    setting it cannot serve by raising ``ValueError`` with the reason. All state that encoding needs must be in
    ``state_dict`` (parameters and buffers).
    """

    card: ClassVar[Card] = Card()
    mark: str = ""  # what a reader of the board must know of this very configuration, as "uses the classifier"

    @abstractmethod
    def fit(self, train: Split, run: Run) -> None:
        """Learn from the training split; ``run`` is what a fit may use. The loop is the method's own."""

    @abstractmethod
    def encode(self, batch: Batch) -> Codes:
        """Codes of a batch whose labels are blank: bool tensors (B, K) are bits, the rest is side information."""

    def index(self) -> Index:
        """How queries meet the database; by default an exact scan by Hamming distance of ``code``."""
        return Scan(Hamming("code"))

    def compose(self, operation: Operation, a: Codes, b: Codes) -> Codes:
        """Codes of composed queries; by default :meth:`bitwise`."""
        return self.bitwise(operation, a, b)

    def bitwise(self, operation: Operation, a: Codes, b: Codes) -> Codes:
        """Or, and, and-not: what operators are compared with. A method with other codes says what they become."""
        return bitwise(operation, a, b)

    def relaxed(self, batch: Batch) -> Tensor | None:
        """The code before it becomes bits, (B, K), with its gradient; None for a method that has none."""
        return None

    def attention(self, batch: Batch) -> Tensor | None:
        """Where the method looks, (B, h, w), not negative; None where it has no attention of its own."""
        return None


def bitwise(operation: Operation, a: Codes, b: Codes) -> Codes:
    """Or, and, and-not of every code; of real values the maximum and the minimum, whose signs are just that.

    >>> a, b = ({"code": torch.tensor([row])} for row in ([True, True, False], [True, False, False]))
    >>> [bitwise(o, a, b)["code"].int().tolist() for o in ("union", "intersection", "difference")]
    [[[1, 1, 0]], [[1, 0, 0]], [[0, 1, 0]]]
    """

    def of(x: Tensor, y: Tensor) -> Tensor:
        if operation == "difference":
            y = ~y if y.dtype == torch.bool else -y
        return torch.maximum(x, y) if operation == "union" else torch.minimum(x, y)

    return {name: of(a[name], b[name]) for name in a}


class Head(nn.Module, ABC):
    """Base class of a hash head: the layers between a backbone's features and the relaxed code.

    A head factory is called as ``factory(setting, backbone, *, options)``. It reads the width of its input from
    ``backbone.dim``, the channels of the feature maps from ``backbone.map_dims`` and the code length from
    ``setting.bits``. Extending this class is optional: any ``nn.Module`` with the same ``forward`` works.

    Example:
        >>> class Sign(Head):
        ...     def __init__(self, setting: Setting, backbone: Backbone, *, scale: float = 1.0) -> None:
        ...         super().__init__()
        ...         self.scale, self.layer = scale, nn.Linear(backbone.dim, setting.bits)
        ...
        ...     def forward(self, features: Features) -> Output:
        ...         return Output(torch.tanh(self.scale * self.layer(features.pooled)))
    """

    if TYPE_CHECKING:

        def __call__(self, features: Features) -> Output:
            """Typed for callers; see :meth:`forward`."""

    @abstractmethod
    def forward(self, features: Features) -> Output:
        """Compute the relaxed code.

        Args:
            features: what the backbone gives: ``pooled`` (B, D) and ``maps``, each (B, D_l, h_l, w_l), coarsest last.

        Returns:
            An :class:`Output` with ``code`` (B, K), differentiable; the sign of a value is its bit. ``logits`` (B, C)
            and ``extra`` are for losses that read more than codes; each entry of ``extra`` has one row per image.
        """


class Loss(nn.Module, ABC):
    """Base class of a loss: the objective that trains a head and a backbone.

    A loss factory is called as ``factory(setting, *, options)``. Parameters of the loss, such as learned class
    centers, are trained with the network. Extending this class is optional: any ``nn.Module`` with the same
    ``forward`` works.

    Example:
        >>> class Pairwise(Loss):
        ...     def __init__(self, setting: Setting, *, weight: float = 1.0) -> None:
        ...         super().__init__()
        ...         self.weight = weight
        ...
        ...     def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        ...         cosine = output.code @ output.code.T / output.code.shape[1]
        ...         return {"pair": self.weight * (cosine - 2 * batch.similar + 1).square().mean()}
    """

    if TYPE_CHECKING:

        def __call__(self, output: Output, batch: Batch) -> dict[str, Tensor]:
            """Typed for callers; see :meth:`forward`."""

    @abstractmethod
    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Compute the loss terms of a batch.

        Args:
            output: what the head gives for the batch: ``code`` (B, K) and, depending on the head, ``logits`` and
                ``extra``.
            batch: the labels (B, C), ids (B,) and training progress of the same images.

        Returns:
            Named scalar tensors. Their sum is minimised, and each is logged under its name.
        """


MethodFactory = Callable[..., Method]  # (setting, backbone, *, hyperparameters)
BackboneFactory = Callable[..., Backbone]  # (shape, *, options)
HeadFactory = Callable[..., nn.Module]  # (setting, backbone, *, options) -> module: Features -> Output
LossFactory = Callable[..., nn.Module]  # (setting, *, options) -> module: (Output, Batch) -> dict[str, Tensor]


def bits(relaxed: Tensor) -> Tensor:
    """The code of relaxed values: the bit is 1 where the value is >= 0, so sgn(0) = +1.

    Raises NonFiniteError where a value is not finite: a NaN would otherwise pass as a zero bit.

    >>> bits(torch.tensor([[0.3, -0.0, -2.0]]))
    tensor([[ True,  True, False]])
    """
    if not torch.compiler.is_compiling() and not torch.isfinite(relaxed).all():  # a graph has no values to look at
        raise NonFiniteError("the relaxed code is not finite; a smaller learning rate often cures it")
    return relaxed >= 0


@dataclass(frozen=True)
class Option:
    """One hyperparameter: what stands right of the star in a factory."""

    name: str
    default: Any
    annotation: Any


def options(factory: Callable[..., Any]) -> dict[str, Option]:
    """The hyperparameters of any factory, in the order they are declared.

    >>> def loss(setting, *, weight: float = 0.1, margin: int | None = None): ...
    >>> [(o.name, o.default) for o in options(loss).values()]
    [('weight', 0.1), ('margin', None)]
    """
    if isinstance(factory, Composition):
        return factory.options()
    plain = factory.func if isinstance(factory, partial) else factory  # one of a family, bound to its name
    hints = typing.get_type_hints(plain.__init__ if inspect.isclass(plain) else plain)
    return {
        p.name: Option(p.name, p.default, hints.get(p.name, Any))
        for p in inspect.signature(factory).parameters.values()
        if p.kind is inspect.Parameter.KEYWORD_ONLY
    }


class Deep(Method):
    """A backbone, a hash head and a loss, trained together by gradient.

    What ``deep`` makes; and the one class that methods may extend, where only the loop of ``fit`` is their own, or
    nothing but the ``views`` of images that they learn from (None: the budget's one).
    """

    views: Sequence[View | None] | None = None

    def __init__(self, backbone: Backbone, head: nn.Module, loss: nn.Module, loss_rate: float = 1.0) -> None:
        super().__init__()
        self.backbone, self.head, self.loss, self.loss_rate = backbone, head, loss, loss_rate

    def fit(self, train: Split, run: Run) -> None:
        """One pass over the batches of the budget, one optimizer over backbone, head and loss."""
        optimizer = run.optimizer(self.backbone, self.head, (self.loss, self.loss_rate))
        run.resume(self)
        for batch in run.batches(train, views=self.views):
            run.step(optimizer, self.loss(run.gathered(self.seen(batch), batch), batch))

    def seen(self, batch: Batch) -> Output:
        """What the head makes of the first view, and of a second its code beside it, as ``extra["second"]``.

        One pass a view, each with batch statistics of its own.
        """
        outputs: list[Output] = [self.head(self.backbone(view)) for view in batch.views]
        first = outputs[0]
        return first if len(outputs) == 1 else replace(first, extra=first.extra | {"second": outputs[1].code})

    def relaxed(self, batch: Batch) -> Tensor:
        """The head's relaxed code."""
        output: Output = self.head(self.backbone(batch.images))
        return output.code

    def encode(self, batch: Batch) -> Codes:
        """The sign of the head's relaxed code."""
        return {"code": bits(self.relaxed(batch))}

    def rehearse(self, setting: Setting) -> None:
        """Take a made-up batch through head and loss, so that parts that do not fit say so before any training."""
        sides = [2 ** (len(self.backbone.map_dims) - level) for level in range(len(self.backbone.map_dims))]
        maps = tuple(torch.randn(4, d, s, s) for d, s in zip(self.backbone.map_dims, sides, strict=True))
        labels = torch.eye(setting.classes)[torch.arange(4) % setting.classes]
        output: Output = self.head(Features(torch.randn(4, self.backbone.dim), maps))
        self.loss(output, Batch((None,), labels, torch.arange(4) % setting.pool))

    def attention(self, batch: Batch) -> Tensor | None:
        """What the head calls ``attention``, if it has any."""
        output: Output = self.head(self.backbone(batch.images))
        return output.extra.get("attention")


@dataclass(frozen=True)
class Composition:
    """The factory that ``deep`` makes: head + loss on whatever backbone the benchmark gives.

    ``loss_rate`` is the multiple of the learning rate that the loss's own parameters, such as centers, get.
    """

    head: HeadFactory | str
    loss: LossFactory | str
    card: Card
    doc: str
    loss_rate: float = 1.0

    def bind(self, heads: Mapping[str, HeadFactory], losses: Mapping[str, LossFactory]) -> Composition:
        """The same composition with names replaced by what they stand for."""

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
            raise ComposeError(f"{self.head}+{self.loss} names parts that are not bound to a zoo yet")
        return self.head, self.loss

    def options(self) -> dict[str, Option]:
        """Hyperparameters of both parts; a name that both use is written ``head.NAME`` and ``loss.NAME``."""
        head, loss = (options(part) for part in self._parts())
        shared = head.keys() & loss.keys()
        joined = {(f"head.{n}" if n in shared else n): o for n, o in head.items()}
        joined |= {(f"loss.{n}" if n in shared else n): o for n, o in loss.items()}
        return {name: replace(option, name=name) for name, option in joined.items()}

    def __call__(self, setting: Setting, backbone: Backbone, **values: Any) -> Deep:
        """The method, with hyperparameters under the names of ``options``."""
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
    """A method out of a hash head and a loss, each a factory or the name of one: composition is a function.

    >>> deep("tanh", "dhn", doc="Deep Hashing Network").doc
    'Deep Hashing Network'
    """
    return Composition(head, loss, card or Card(), doc, loss_rate)


def spreads(factory: MethodFactory) -> bool:
    """Whether a method trains in several processes as it does in one: by the loop of ``Deep``, or by its card.

    >>> spreads(deep("tanh", "dhn")), spreads(Deep)
    (True, True)
    """
    plain = factory.func if isinstance(factory, partial) else factory
    if isinstance(plain, Composition):
        return True
    return inspect.isclass(plain) and issubclass(plain, Deep) and (plain.fit is Deep.fit or plain.card.gathers)
