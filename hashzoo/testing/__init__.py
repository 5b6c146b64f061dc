"""The checks that a plugin author runs on a method, loss, head, backbone or dataset, and the small data that they run
on.
"""

from hashzoo.testing.accelerator import pretended_accelerator
from hashzoo.testing.datasets import check_dataset
from hashzoo.testing.fixtures import Finding, Probe, synthetic_splits
from hashzoo.testing.methods import check_method
from hashzoo.testing.parts import check_backbone, check_head, check_loss

__all__ = [
    "Finding", "Probe", "check_backbone", "check_dataset", "check_head", "check_loss", "check_method",
    "pretended_accelerator", "synthetic_splits"
]  # fmt: skip
