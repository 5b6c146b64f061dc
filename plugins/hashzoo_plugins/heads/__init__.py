"""Hash heads: from features to relaxed codes."""

from typing import Any

from hashzoo import hookimpl
from hashzoo_plugins.heads.linear import BatchNormTanh, Linear, Tanh


@hookimpl
def hashzoo_heads() -> dict[str, Any]:
    """The heads of this family."""
    return {"linear": Linear, "tanh": Tanh, "batchnorm-tanh": BatchNormTanh}
