"""What a number of codes costs in each engine that searches them, from rates measured by benchmarks/speed/engines.py.

A time grows as a + b g(N): g is known for each engine, a and b are those of the two largest measured N. Times of more
bits than measured grow with the bytes of a code, sizes by its further bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from hashzoo.errors import UsageError

RATES = "rates.json"
MOST = 10**11

Growth = Callable[[float], float]
LINEAR: Growth = lambda n: n  # noqa: E731
ROOT: Growth = lambda n: n**0.5  # noqa: E731
LOGARITHM: Growth = lambda n: math.log(n)  # noqa: E731


@dataclass(frozen=True)
class Engine:
    """How the cost of an engine grows.

    Attributes:
        query: Growth of the time of a query.
        load: Growth of the time to load.
        finds: What a query finds; empty for the measured recall.
        row: Bytes of an item in memory beside its code; None if all of its disk space is read by queries.
    """

    query: Growth
    load: Growth
    finds: str = ""
    row: int | None = None


#: The engines by their names in the rates.
ENGINES: Mapping[str, Engine] = {
    "hashzoo index": Engine(LINEAR, LINEAR, "all", 0),
    "faiss flat": Engine(LINEAR, LINEAR, "all", 0),
    "faiss lists": Engine(ROOT, lambda n: n**1.5, "", 8),
    "LanceDB": Engine(LINEAR, LINEAR, "all", 0),
    "PostgreSQL scan": Engine(LINEAR, lambda n: n * math.log(n), "all"),
    "PostgreSQL radius 3": Engine(LINEAR, lambda n: n * math.log(n), "all within 3 bits"),
    "pgvector graph": Engine(LOGARITHM, lambda n: n * math.log(n)),
}


@dataclass(frozen=True)
class Planned:
    """The cost of codes in an engine.

    Attributes:
        engine: Its name.
        finds: What a query finds: all of the nearest, or a part of them.
        disk: Bytes on disk.
        memory: Bytes that queries read, and that should be in memory for the stated time.
        load: Seconds to export and load.
        query: Seconds of a query for the 100 nearest, in one thread.
    """

    engine: str
    finds: str
    disk: float
    memory: float
    load: float
    query: float


def rates() -> dict[str, Any]:
    """The measured rates."""
    content: dict[str, Any] = json.loads((files("hashzoo.export") / RATES).read_text("utf-8"))
    return content


def plan(images: int, bits: int, measured: Mapping[str, Any] | None = None) -> list[Planned]:
    """The cost of codes in each engine, by the time of a query.

    Args:
        images: Number of codes.
        bits: Bits of a code.
        measured: The rates; by default, those that hashzoo comes with.

    Returns:
        The engines that have rates.

    Raises:
        UsageError: If a number is below 1, or above what the growth is stated for.
    """
    if not 1 <= images <= MOST:
        raise UsageError(f"--images is from 1 to {MOST:.0e}, not {images}")
    if not 1 <= bits <= 4096:
        raise UsageError(f"--bits is from 1 to 4096, not {bits}")
    content = measured or rates()
    known = content["engines"].items()
    found = [_planned(name, ENGINES[name], points, images, (content["bits"], bits)) for name, points in known]
    return sorted(found, key=lambda one: one.query)


def _planned(
    name: str, engine: Engine, points: Sequence[Mapping[str, float]], images: int, bits: tuple[int, int]
) -> Planned:
    measured, own = (-(-one // 8) for one in bits)
    longer, largest = max(1.0, own / measured), points[-1]
    disk = images * (largest["size"] / largest["rows"] + own - measured)
    scale = longer if engine.query is LINEAR else 1.0
    return Planned(
        name,
        engine.finds or f"{largest['recall']:.1%} at {largest['rows']:.0e}".replace("e+0", "e"),
        disk,
        disk if engine.row is None else images * (own + engine.row),
        sum(predicted(points, what, engine.load, images) for what in ("export", "load")),
        predicted(points, "query", engine.query, images) / 1000 * scale,
    )


def predicted(points: Sequence[Mapping[str, float]], what: str, growth: Growth, images: float) -> float:
    """A measured number at another number of codes.

    >>> points = [{"rows": 10, "query": 2.0}, {"rows": 20, "query": 3.0}]
    >>> predicted(points, "query", LINEAR, 100), predicted(points[:1], "query", LINEAR, 100)
    (11.0, 20.0)
    """
    sizes, values = ([growth(one["rows"]) for one in points[-2:]], [one[what] for one in points[-2:]])
    slope = (values[-1] - values[0]) / (sizes[-1] - sizes[0]) if len(sizes) == 2 else -1.0
    start = values[-1] - slope * sizes[-1]
    if slope < 0 or start < 0:  # one size, or noise: in proportion
        slope, start = values[-1] / sizes[-1], 0.0
    return start + slope * growth(images)
