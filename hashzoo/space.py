"""Ranges of hyperparameters, declared where a hyperparameter is declared, and the points in them that a study tries."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

#: A value is at the edge of a range if less than this part of the range lies beyond it.
EDGE = 0.05

DIGITS = 4  # significant digits of a value that is drawn from a range


@dataclass(frozen=True)
class Space(ABC):
    """The range that ``hashzoo tune`` searches for a hyperparameter; see its four kinds.

    A range is part of an annotation, so it does not change the key of a cell::

        def __init__(self, setting, *, weight: Annotated[float, Log(1e-3, 10, source="paper")] = 0.1): ...
    """

    @abstractmethod
    def at(self, place: float) -> Any:
        """The value at a place of the range, from 0 to below 1."""

    @abstractmethod
    def place(self, value: Any) -> float | None:
        """The place of a value in the range, from 0 to 1; None for a value outside."""

    def edge(self, value: Any) -> str:
        """``"low"`` or ``"high"`` for a value at that end of an ordered range; else an empty text.

        >>> [Log(0.01, 100).edge(value) for value in (0.011, 1.0, 99.0, None)]
        ['low', '', 'high', '']
        """
        where = self.place(value)
        if where is None:
            return ""
        return "low" if where < EDGE else "high" if where > 1 - EDGE else ""


@dataclass(frozen=True)
class Uniform(Space):
    """Real numbers from ``low`` to ``high``, all equally likely.

    Args:
        low: The least value.
        high: The greatest value.
        source: Where the range is from: ``"paper"`` if the method's own ablation covers it, else ``"ours"``.

    Raises:
        ValueError: If the range is empty.

    >>> Uniform(0, 0.5).at(0.25), Uniform(0, 0.5).place(0.6)
    (0.125, None)
    """

    low: float
    high: float
    source: str = "ours"

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"a range from {self.low:g} to {self.high:g} is empty; give the lower end first")

    def at(self, place: float) -> float:
        """The value at a place, with four significant digits."""
        return _rounded(self.low + place * (self.high - self.low), self.low, self.high)

    def place(self, value: Any) -> float | None:
        """The place of a value; None for one outside the range."""
        if not _is_number(value) or not self.low <= value <= self.high:
            return None
        return float((value - self.low) / (self.high - self.low))

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Log(Uniform):
    """Positive real numbers from ``low`` to ``high``, their logarithms equally likely.

    Args:
        low: The least value, greater than 0.
        high: The greatest value.
        source: As for :class:`Uniform`.

    Raises:
        ValueError: If the range is empty or not positive.

    >>> Log(0.01, 100).at(0.5), Log(0.01, 100).place(100), str(Log(0.01, 100))
    (1.0, 1.0, '0.01 to 100 (log)')
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low <= 0:
            raise ValueError(f"a logarithmic range starts above 0, not at {self.low:g}; use Uniform")

    def at(self, place: float) -> float:
        """The value at a place, with four significant digits."""
        return _rounded(self.low * (self.high / self.low) ** place, self.low, self.high)

    def place(self, value: Any) -> float | None:
        """The place of a value; None for one outside the range."""
        if not _is_number(value) or not self.low <= value <= self.high:
            return None
        return math.log(value / self.low) / math.log(self.high / self.low)

    def __str__(self) -> str:
        return f"{super().__str__()} (log)"


@dataclass(frozen=True)
class Integer(Space):
    """Whole numbers from ``low`` to ``high``, both included.

    Args:
        low: The least value.
        high: The greatest value.
        log: Whether the logarithms are equally likely, in place of the numbers.
        source: As for :class:`Uniform`.

    Raises:
        ValueError: If the range is empty, or logarithmic and not positive.

    >>> [Integer(1, 3).at(place) for place in (0, 0.4, 0.99)], Integer(8, 512, log=True).at(0.5)
    ([1, 2, 3], 64)
    """

    low: int
    high: int
    log: bool = False
    source: str = "ours"

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low < 1):
            scale = " on a logarithmic scale, which starts at 1 or more" if self.log else ""
            raise ValueError(f"no range of whole numbers from {self.low} to {self.high}{scale}")

    def at(self, place: float) -> int:
        """The whole number at a place."""
        if self.log:
            value: float = self.low * (self.high / self.low) ** place
            return min(self.high, max(self.low, round(value)))
        return min(self.high, self.low + int(place * (self.high - self.low + 1)))

    def place(self, value: Any) -> float | None:
        """The place of a value; None for one outside the range, or that is not a whole number."""
        if not _is_number(value) or value != int(value) or not self.low <= value <= self.high:
            return None
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return float((value - self.low) / (self.high - self.low))

    def __str__(self) -> str:
        return f"{self.low} to {self.high}{' (log)' if self.log else ''}, whole numbers"


@dataclass(frozen=True, init=False)
class Choice(Space):
    """One of several values, all equally likely.

    Args:
        *values: Two values or more: text, numbers, true or false.
        source: As for :class:`Uniform`.

    Raises:
        ValueError: If there are fewer than two values.

    >>> Choice("cos", "arc").at(0.7), Choice("cos", "arc").place("tan"), str(Choice("cos", "arc"))
    ('arc', None, 'cos, arc')
    """

    values: tuple[Any, ...]
    source: str

    def __init__(self, *values: Any, source: str = "ours") -> None:
        if len(values) < 2:
            raise ValueError(f"a choice of {len(values)} values leaves nothing to choose; give two or more")
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "source", source)

    def at(self, place: float) -> Any:
        """The value at a place."""
        return self.values[min(len(self.values) - 1, int(place * len(self.values)))]

    def place(self, value: Any) -> float | None:
        """The place of a value; None for one that is not among the choices."""
        return (self.values.index(value) + 0.5) / len(self.values) if value in self.values else None

    def edge(self, value: Any) -> str:
        """Always empty: choices have no order."""
        return ""

    def __str__(self) -> str:
        return ", ".join(map(str, self.values))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _rounded(value: float, low: float, high: float) -> float:
    return min(float(high), max(float(low), float(f"{value:.{DIGITS}g}")))
