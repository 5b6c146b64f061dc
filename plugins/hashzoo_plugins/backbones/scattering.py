"""Features without learning: wavelet scattering (Bruna & Mallat, TPAMI 2013).

The features are averages of the moduli of oriented wavelet responses, and of the wavelet responses of those moduli,
each divided by the modulus that it derives from (Anden & Mallat, 2014). They resemble the first layers of a trained
network but have no weights. Use them to compare methods without pretrained weights when training a network for each
method would take hours.

Cite: bruna2013scattering, anden2014scattering
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, conv2d, pad

from hashzoo import Backbone, Features, Input

SCALES, ORIENTATIONS = 2, 8
LIGHT = 4.0  # weight of the mean intensity, 0..1, relative to the standardized coefficients
FAINT = 1e-2  # added to first-order moduli before division, so that noise is not amplified
CHANNELS = 1 + SCALES * ORIENTATIONS + ORIENTATIONS**2  # orders 0, 1 and 2


def morlet(scale: int) -> Tensor:
    """(2 L, 1, s, s) real and imaginary parts of Morlet wavelets of width 2^scale at L orientations, with zero sum."""
    sigma: float
    sigma, frequency, slant = 0.8 * 2**scale, 0.75 * math.pi / 2**scale, 4 / ORIENTATIONS
    reach = math.ceil(3 * sigma)
    y, x = torch.meshgrid(*[torch.arange(-reach, reach + 1, dtype=torch.float64)] * 2, indexing="ij")
    found = []
    for turn in range(ORIENTATIONS):
        angle = math.pi * turn / ORIENTATIONS
        u, v = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
        window = torch.exp(-(u**2 + slant**2 * v**2) / (2 * sigma**2))
        real = window * torch.cos(frequency * u)
        real = real - window * real.sum() / window.sum()  # so that a constant image has no response
        found += [real, window * torch.sin(frequency * u)]
    kernels = torch.stack(found)[:, None]
    return (kernels / (2 * math.pi * sigma**2 / slant)).float()


def modulus(maps: Tensor, kernels: Tensor) -> Tensor:
    """(B, C L, H, W) moduli of the wavelet responses to maps (B, C, H, W)."""
    count, channels, height, width = maps.shape
    reach = kernels.shape[-1] // 2
    room = min(reach, height - 1, width - 1)  # reflection padding is limited to the size of the image
    mirrored = pad(maps.reshape(-1, 1, height, width), [room] * 4, mode="reflect")
    response = conv2d(pad(mirrored, [reach - room] * 4), kernels)
    energy = response[:, 0::2].square() + response[:, 1::2].square()
    return energy.sqrt().reshape(count, channels * ORIENTATIONS, height, width)


def relative(second: Tensor, first: Tensor) -> Tensor:
    """(B, L L, h, w) second-order averages, divided by the first-order averages (B, L, h, w) that they derive from."""
    parts: Tensor = second.unflatten(1, (ORIENTATIONS, ORIENTATIONS))  # type: ignore[no-untyped-call]  # (B, L, L, h, w)
    return (parts / (first[:, :, None] + FAINT)).flatten(1, 2)


def standard(maps: Tensor) -> Tensor:
    """(B, C h w) maps (B, C, h, w) with mean 0 and standard deviation 1 in each image; zeros for a constant image.

    >>> standard(torch.tensor([[[[1.0]], [[3.0]]], [[[2.0]], [[2.0]]]])).tolist()
    [[-1.0, 1.0], [0.0, 0.0]]
    """
    flat = maps.flatten(1)
    spread, mean = torch.std_mean(flat, 1, correction=0, keepdim=True)
    return (flat - mean) / spread.clamp(min=FAINT / 100)


class Scattering(Backbone):
    """Second-order wavelet scattering, without weights (Bruna & Mallat, TPAMI 2013)."""

    def __init__(self, shape: tuple[int, int, int], *, grid: int = 2) -> None:
        """Moduli are averaged in ``grid`` x ``grid`` cells. Color images are averaged over channels first."""
        super().__init__()
        if grid < 1:
            raise ValueError(f"scattering: the grid must be at least 1, not {grid}")
        if min(shape[1:]) < 4:
            raise ValueError(f"scattering needs images of 4 x 4 pixels or more, not {shape[2]} x {shape[1]}")
        self.grid = grid
        for scale in range(SCALES):
            self.register_buffer(f"wavelets_{scale}", morlet(scale), persistent=False)
        self.dim = CHANNELS * grid**2
        self.map_dims = (ORIENTATIONS, ORIENTATIONS, ORIENTATIONS**2)
        self.input = Input(mean=(0.0,), std=(1.0,))

    def forward(self, images: Tensor) -> Features:
        """``pooled`` (B, 81 grid^2); maps of fine, coarse and second-order moduli at 1/2, 1/4 and 1/4 of the side."""
        light = images.mean(1, keepdim=True)  # (B, 1, H, W)
        height, width = light.shape[2:]
        fine = modulus(light, self.get_buffer("wavelets_0"))
        coarse = modulus(light, self.get_buffer("wavelets_1"))
        second = modulus(fine, self.get_buffer("wavelets_1"))
        orders = [light, torch.cat([fine, coarse], 1), second]
        zero, one, two = (adaptive_avg_pool2d(maps, self.grid) for maps in orders)
        parts = [LIGHT * zero.flatten(1), standard(one), standard(relative(two, one[:, :ORIENTATIONS]))]
        places = [(max(1, height // part), max(1, width // part)) for part in (2, 4, 4)]
        near, far, turns = (adaptive_avg_pool2d(m, at) for m, at in zip((fine, coarse, second), places, strict=True))
        turns = relative(turns, adaptive_avg_pool2d(fine, places[2]))
        maps = tuple(standard(m).view_as(m) for m in (near, far, turns))
        return Features(torch.cat(parts, 1), maps)
