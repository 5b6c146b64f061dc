"""What a code that says nothing scores."""

from __future__ import annotations

import torch

from hashzoo import Backbone, Batch, Card, Codes, Method, Run, Setting, Split


class Chance(Method):
    """One and the same code for every image: all items tied, the score of a random order."""

    card = Card("shallow", "none", informative=False)

    def __init__(self, setting: Setting, backbone: Backbone) -> None:
        super().__init__()
        self.bits = setting.bits

    def fit(self, train: Split, run: Run) -> None:
        """Nothing to learn."""

    def encode(self, batch: Batch) -> Codes:
        """Ones."""
        return {"code": torch.ones(len(batch), self.bits, dtype=torch.bool)}
