"""A small convolutional network."""

from __future__ import annotations

import torch
from torch import nn

from hashzoo import Backbone, Features, Input


class Tiny(Backbone):
    """A small convolutional network in three stages, for CPUs and tests."""

    def __init__(self, shape: tuple[int, int, int], *, width: int = 32, depth: int = 1) -> None:
        """Stages of ``width``, 2 ``width`` and 4 ``width`` channels at 1, 1/2 and 1/4 of the image's side.

        Each stage has ``depth`` convolutions of 3 x 3. The receptive field is 9 pixels wide with one, 23 with two.
        """
        super().__init__()
        widths = (width, 2 * width, 4 * width)
        stages, before = [], shape[0]
        for level, after in enumerate(widths):
            layers: list[nn.Module] = []
            for place in range(depth):
                stride = 2 if level and not place else 1
                layers += [
                    nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),
                    nn.BatchNorm2d(after),
                    nn.ReLU(),
                ]
                before = after
            stages.append(nn.Sequential(*layers))
        self.stages = nn.ModuleList(stages)
        self.eyes = (self.stages[-1],)
        self.dim, self.map_dims = widths[-1], widths
        self.input = Input()

    def forward(self, images: torch.Tensor) -> Features:
        """``pooled`` (B, 4 width) and the maps of the three stages."""
        maps, x = [], images
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return Features(x.mean((2, 3)), tuple(maps))
