"""The base classes of methods, heads and losses, ``Card``, and ``Deep``, a method made of a head and a loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn

from hashzoo.backbone import Backbone
from hashzoo.distance import Hamming
from hashzoo.errors import NonFiniteError
from hashzoo.index import Index, Scan
from hashzoo.training.accumulation import in_parts
from hashzoo.types import Batch, Codes, Features, Operation, Output, Setting, Split

if TYPE_CHECKING:
    from hashzoo.run import Run
    from hashzoo.types import View


@dataclass(frozen=True)
class Card:
    """Facts about a method, which ``hashzoo list methods`` prints and a benchmark reads before it builds the method.

    Attributes:
        kind: ``"shallow"`` for a method that reads features once and solves, ``"deep"`` for one that trains by
            gradient. It selects the backbone that a benchmark file gives to the method.
        supervision: Labels that the method learns from: none, pairs of similar images, or classes.
        multilabel: Whether images can have several labels.
        paper: Reference, as "Cao et al., AAAI 2016".
        year: Year of publication.
        beyond: Reason why the method stores more or less than ``bits`` bits per image. If it is empty,
            ``hashzoo check`` requires exactly ``bits``.
        informative: False only for a control whose scores are at chance by design.
        saw_database: Whether the method learns the codes of single training images from their labels. Only such a
            method receives the ids of database images when it encodes them, and its results are marked if training
            images are in the database.
        single: Whether the method supports datasets with exactly one label per image.
        views: Whether the method learns from augmented views of images, which stored features cannot provide.
        gathers: Whether the method's own training loop calls :meth:`hashzoo.Run.gathered`, so that several processes
            can train it.
        collapses: Reason why a short training at a usual rate can end with one code for most images; if it is empty,
            ``hashzoo check`` fails then.
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
    collapses: str = ""


class Method(nn.Module, ABC):
    """Base class of a method: how it fits, how it encodes images, and how queries are compared with the database.

    A method factory is called as ``factory(setting, backbone, *, hyperparameters)``. Each keyword-only argument is a
    hyperparameter that can be set from the command line. The constructor raises ``ValueError`` with the reason if it
    does not support the setting or the backbone. All state that encoding needs must be in ``state_dict``, as
    parameters or buffers; the benchmark moves the method to the device of the run. Subclass ``Method`` or
    :class:`Deep`. Do not subclass any other method.

    Attributes:
        card: Facts about the method.
        mark: A note that readers of the leaderboard need, such as "uses the classifier".

    Example:
        >>> class RandomProjections(Method):
        ...     card = Card("shallow", "none")
        ...
        ...     def __init__(self, setting: Setting, backbone: Backbone, *, center: bool = True) -> None:
        ...         super().__init__()
        ...         self.backbone, self.center = backbone, center
        ...         self.register_buffer("mean", torch.zeros(backbone.dim))
        ...         self.register_buffer("directions", torch.zeros(backbone.dim, setting.bits))
        ...
        ...     def fit(self, train: Split, run: Run) -> None:
        ...         self.mean = run.features(self.backbone, train).pooled.mean(0) * self.center
        ...         drawn = torch.randn(self.directions.shape, generator=run.generator)
        ...         self.directions = drawn.to(self.mean.device)
        ...
        ...     def encode(self, batch: Batch) -> Codes:
        ...         features = self.backbone(batch.images).pooled  # (B, D)
        ...         return {"code": bits((features - self.mean) @ self.directions)}
    """

    card: ClassVar[Card] = Card()
    mark: str = ""

    @abstractmethod
    def fit(self, train: Split, run: Run) -> None:
        """Learn from the training set. Write your own training loop here.

        Args:
            train: The training set.
            run: Batches, optimizers, features and the random generator.
        """

    @abstractmethod
    def encode(self, batch: Batch) -> Codes:
        """Encode a batch of images. It is called in eval mode and without gradient.

        Args:
            batch: Images without labels: ``labels`` is zero, and ``ids`` is -1 unless ``card.saw_database`` is set.

        Returns:
            Codes by name, each (B, ...). Bool tensors (B, K) are bits, any other tensor is side information.
        """

    def index(self) -> Index:
        """Create an empty index for the codes. It is called after :meth:`fit`.

        By default an exact scan by the Hamming distance of the code named ``"code"``.
        """
        return Scan(Hamming("code"))

    def compose(self, operation: Operation, a: Codes, b: Codes) -> Codes:
        """Compose the codes of pairs of images to codes of queries; by default :meth:`bitwise`.

        Args:
            operation: Set operation on the labels of the two images.
            a: Codes (P, ...) of the first images.
            b: Codes (P, ...) of the second images.

        Returns:
            Codes (P, ...) by the same names.
        """
        return self.bitwise(operation, a, b)

    def bitwise(self, operation: Operation, a: Codes, b: Codes) -> Codes:
        """Compose codes by or, and, and-not: the baseline for composed queries. Override it for side information."""
        return bitwise(operation, a, b)

    def relaxed(self, batch: Batch) -> Tensor | None:
        """The relaxed code (B, K) of a batch, differentiable, whose signs are the bits; None if the method has none."""
        return None

    def attention(self, batch: Batch) -> Tensor | None:
        """The attention map (B, h, w) of a batch, non-negative; None if the method has no attention."""
        return None


def bitwise(operation: Operation, a: Codes, b: Codes) -> Codes:
    """Compose codes by or (union), and (intersection) or and-not (difference).

    For real values, it takes the maximum or minimum; the signs of the result are the composed bits.

    Args:
        operation: Set operation.
        a: Codes (P, ...) by name.
        b: Codes (P, ...) by the same names.

    Returns:
        Composed codes (P, ...) by the same names.

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
        >>> class ScaledTanh(Head):
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
            features: Output of the backbone: ``pooled`` (B, D) and ``maps``, each (B, D_l, h_l, w_l), coarsest last.

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
            Named scalar tensors. Their sum is minimized, and each is logged under its name.
        """


def bits(relaxed: Tensor) -> Tensor:
    """Binarize a relaxed code: a bit is 1 if its value is at least 0, so sgn(0) = +1.

    Args:
        relaxed: (B, K) real values.

    Returns:
        (B, K) bool.

    Raises:
        NonFiniteError: If a value is NaN or infinite; a NaN would otherwise become a zero bit.

    >>> bits(torch.tensor([[0.3, -0.0, -2.0]]))
    tensor([[ True,  True, False]])
    """
    if not torch.compiler.is_compiling():  # a traced graph has no values
        if not torch.isfinite(relaxed).all():
            raise NonFiniteError("the relaxed code is not finite; a smaller learning rate often cures it")
        if (binarized := _BINARIZED.get()) is not None:
            binarized.append(relaxed)
    return relaxed >= 0


#: Collects the arguments of :func:`bits`, for :func:`values_of_bits`.
_BINARIZED: ContextVar[list[Tensor] | None] = ContextVar("binarized", default=None)


def values_of_bits(method: Method, batch: Batch) -> Tensor | None:
    """The real values (B, K) that a method binarizes: its relaxed code, or what ``encode`` gives to :func:`bits`.

    Args:
        method: The fitted method.
        batch: B images.

    Returns:
        The values, whose signs are the bits; None if the bits do not come from one call of :func:`bits`.
    """
    if (relaxed := method.relaxed(batch)) is not None:
        return relaxed
    found: list[Tensor] = []
    token = _BINARIZED.set(found)
    try:
        codes = [code for code in method.encode(batch).values() if code.dtype == torch.bool]
    finally:
        _BINARIZED.reset(token)
    if len(found) != 1 or len(codes) != 1 or codes[0].shape != found[0].shape:
        return None
    return found[0] if bool(((found[0] >= 0) == codes[0]).all()) else None


class Deep(Method):
    """A backbone, a hash head and a loss that are trained together by gradient.

    :func:`hashzoo.deep` makes one of a head and a loss. A method that needs its own training loop or views extends it.

    Args:
        backbone: The backbone.
        head: Module from :class:`Features` to :class:`Output`.
        loss: Module from (:class:`Output`, :class:`Batch`) to named scalar terms.
        loss_rate: Multiple of the learning rate for parameters of the loss.

    Attributes:
        views: Augmentations, one for each view of an image that the loss compares; None takes that of the budget.
    """

    views: Sequence[View | None] | None = None

    def __init__(self, backbone: Backbone, head: nn.Module, loss: nn.Module, loss_rate: float = 1.0) -> None:
        super().__init__()
        self.backbone, self.head, self.loss, self.loss_rate = backbone, head, loss, loss_rate

    def fit(self, train: Split, run: Run) -> None:
        """Train backbone, head and loss with one optimizer for the epochs of the budget."""
        optimizer = run.optimizer(self.backbone, self.head, (self.loss, self.loss_rate))
        run.resume(self)
        for batch in run.batches(train, views=self.views):
            parts = run.train.accumulate
            output, backward = in_parts(self.seen, batch, parts, self) if parts > 1 else (self.seen(batch), None)
            run.step(optimizer, self.loss(run.gathered(output, batch), batch), backward)

    def seen(self, batch: Batch) -> Output:
        """Compute the head's output for the first view, with the code of a second view in ``extra["second"]``.

        Each view is a separate forward pass with its own batch statistics.
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

    def rehearse(self, setting: Setting, *, unlabelled: bool = False) -> None:
        """Run head and loss on random features, so that parts that do not fit each other fail before any training.

        With ``unlabelled``, one of the made-up images has no label.
        """
        sides = [2 ** (len(self.backbone.map_dims) - level) for level in range(len(self.backbone.map_dims))]
        maps = tuple(torch.randn(4, d, s, s) for d, s in zip(self.backbone.map_dims, sides, strict=True))
        labels = torch.eye(max(1, setting.classes))[torch.arange(4) % max(1, setting.classes), : setting.classes]
        if unlabelled:
            labels[-1] = 0
        output: Output = self.head(Features(torch.randn(4, self.backbone.dim), maps))
        self.loss(output, Batch((None,), labels, torch.arange(4) % setting.pool))

    def attention(self, batch: Batch) -> Tensor | None:
        """``extra["attention"]`` of the head's output, if there is one."""
        output: Output = self.head(self.backbone(batch.images))
        return output.extra.get("attention")
