"""The score of a code without information."""

from __future__ import annotations

import torch

from hashzoo import Backbone, Batch, Card, Codes, Method, Run, Setting, Split


class Chance(Method):
    """The same code for every image: all items are tied, which scores like a random order."""

    card = Card("shallow", "none", informative=False)

    def __init__(self, setting: Setting, backbone: Backbone) -> None:
        super().__init__()
        self.bits = setting.bits

    def fit(self, train: Split, run: Run) -> None:
        """Do nothing: there is nothing to learn."""

    def encode(self, batch: Batch) -> Codes:
        """A code of ones for every image."""
        return {"code": torch.ones(len(batch), self.bits, dtype=torch.bool)}
