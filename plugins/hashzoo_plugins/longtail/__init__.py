"""Long-tail methods: for training sets with a few large classes and many small ones."""

from typing import Any

from hashzoo import hookimpl
from hashzoo_plugins.longtail import bbn, bcl, hybrid_sc, lthnet, tsc


@hookimpl
def hashzoo_methods() -> dict[str, Any]:
    """The methods of this family."""
    return {
        "bbn": bbn.BBN,
        "bcl": bcl.BCL,
        "hybrid-sc": hybrid_sc.HybridSC,
        "lthnet": lthnet.LTHNet,
        "tsc": tsc.TSC,
    }


@hookimpl
def hashzoo_losses() -> dict[str, Any]:
    """The losses of this family; compositions have one view and the plain sampler."""
    return {
        "bcl": bcl.BalancedContrast,
        "hybrid-sc": hybrid_sc.Hybrid,
        "lthnet": lthnet.ClassBalanced,
    }
