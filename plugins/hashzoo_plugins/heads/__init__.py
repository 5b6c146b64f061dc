"""Hash heads, which map features to relaxed codes."""

from typing import Any

from hashzoo import hookimpl
from hashzoo_plugins.heads.linear import Linear, Norm, NormTanh, Tanh
from hashzoo_plugins.heads.mlp import MLP


@hookimpl
def hashzoo_heads() -> dict[str, Any]:
    """The heads of this family."""
    return {"linear": Linear, "tanh": Tanh, "norm": Norm, "norm-tanh": NormTanh, "mlp": MLP}
