"""Weak and strong random views of images, as in Deep Hash Distillation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

FULL = 224  # side in pixels for which the blur is defined


@dataclass(frozen=True)
class Views:
    """One random view of an image: the transforms of DHD, each with its probability multiplied by ``strength``.

    Probabilities: random resized crop 1, flip 0.5, color jitter 0.8, grayscale 0.2, Gaussian blur 0.5. Use ``flip =
    False`` for images whose meaning changes when mirrored; ``crop`` is the smallest area of a crop, as a fraction.
    """

    strength: float
    flip: bool
    crop: float

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise ValueError(f"the strength of a view must be in 0..1, not {self.strength}")

    def __call__(self, image: Tensor) -> Tensor:
        """Transform a (C, H, W) uint8 image to one of the same shape; uses the global generator of torch."""
        from torchvision.transforms import v2

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
