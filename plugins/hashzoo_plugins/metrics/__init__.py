"""Metrics in addition to those of the core."""

from collections.abc import Callable
from typing import Any

from hashzoo import CodeMetric, hookimpl
from hashzoo_plugins.metrics.bits import bit_balance, bit_correlation, distinct, distortion, quantization
from hashzoo_plugins.metrics.distances import inter, intra
from hashzoo_plugins.metrics.rprecision import rprecision
from hashzoo_plugins.metrics.transfer import transfer


@hookimpl
def hashzoo_metrics() -> dict[str, Callable[..., Any]]:
    """The metrics of this family."""
    return {
        "rprecision": rprecision,
        "bit-balance": CodeMetric(bit_balance),
        "bit-correlation": CodeMetric(bit_correlation),
        "distinct": CodeMetric(distinct),
        "quantization": CodeMetric(quantization),
        "distortion": CodeMetric(distortion),
        "intra": CodeMetric(intra),
        "inter": CodeMetric(inter),
        "transfer": CodeMetric(transfer, higher_is_better=True, cutoff=True),
    }
