"""Metrics beyond those of the core."""

from typing import Any

from hashzoo import OfCodes, hookimpl
from hashzoo_plugins.metrics.bits import bit_balance, bit_correlation, distinct, distortion, quantization
from hashzoo_plugins.metrics.distances import inter, intra
from hashzoo_plugins.metrics.rprecision import rprecision
from hashzoo_plugins.metrics.transfer import transfer


@hookimpl
def hashzoo_metrics() -> dict[str, Any]:
    """The metrics of this family."""
    return {
        "rprecision": rprecision,
        "bit-balance": OfCodes(bit_balance),
        "bit-correlation": OfCodes(bit_correlation),
        "distinct": OfCodes(distinct),
        "quantization": OfCodes(quantization),
        "distortion": OfCodes(distortion),
        "intra": OfCodes(intra),
        "inter": OfCodes(inter),
        "transfer": OfCodes(transfer, higher_is_better=True, cutoff=True),
    }
