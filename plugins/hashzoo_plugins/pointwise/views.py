"""Transformed views of images, weak and strong, as Deep Hash Distillation takes them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

FULL = 224  # pixels for which the blur is meant


@dataclass(frozen=True)
class Views:
    """One view of an image: DHD's group of transforms, each with its probability scaled by ``strength``.

    Random resized crop 1, flip 0.5, colour jitter 0.8, greyscale 0.2, Gaussian blur 0.5. ``flip = False`` is for
    images that mean something else in a mirror, ``crop`` the smallest share of the area that a crop keeps.
    """

    strength: float
    flip: bool
    crop: float

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise ValueError(f"the strength of a view is a multiple of probabilities, 0 to 1, not {self.strength}")

    def __call__(self, image: Tensor) -> Tensor:
        """A (C, H, W) uint8 image in, one of the same shape out; randomness is torch's global generator."""
        a, (channels, height, width) = self.strength, image.shape
        side = min(height, width)
        half = min(round(12 * side / FULL), side - 1)
        steps: list[tuple[float, nn.Module]] = [
            (a, v2.RandomResizedCrop((height, width), scale=(self.crop, 1.0), antialias=True)),
            (0.5 * a * self.flip, v2.RandomHorizontalFlip(1.0)),
            (0.8 * a, v2.ColorJitter(0.4, 0.8, 0.8, 0.2) if channels == 3 else v2.ColorJitter(0.4, 0.8)),
            (0.2 * a * (channels == 3), v2.RandomGrayscale(1.0)),
        ]
        if half:
            scale = side / FULL
            steps.append((0.5 * a, v2.GaussianBlur(2 * half + 1, (max(0.1 * scale, 1e-3), 2.0 * scale))))
        draws = torch.rand(5)
        for draw, (probability, step) in zip(draws, steps, strict=False):
            if float(draw) < probability:
                image = step(image)
        return image
