"""What methods need of a training set, checked before anything is trained.

The functions are registered beside the methods, in the modules of the hooks: the modules of the methods themselves,
whose digest is part of every key of a cell, do not import them.
"""

from __future__ import annotations

from collections.abc import Callable

from hashzoo import TrainingFacts

Requirement = Callable[[TrainingFacts], str]


def images_for_bits(method: str) -> Requirement:
    """At least as many training images as bits: the method finds one direction per bit in the images."""

    def check(facts: TrainingFacts) -> str:
        if facts.images is None or facts.images >= facts.bits:
            return ""
        return (
            f"{method} needs at least as many training images as bits: {facts.bits} bits, {facts.images} images; "
            "use fewer bits or more training images"
        )

    return check


def features_for_bits(method: str) -> Requirement:
    """At least as many features as bits: a bit is the sign of a feature, or of a direction in their space."""

    def check(facts: TrainingFacts) -> str:
        if facts.features is None or facts.features >= facts.bits:
            return ""
        return (
            f"{method} needs at least as many features as bits: {facts.bits} bits, {facts.features} features; "
            "use fewer bits or a wider backbone"
        )

    return check


def directions_for_bits(method: str) -> Requirement:
    """At least as many training images as bits if there are more features than bits, so that directions are sought."""

    def check(facts: TrainingFacts) -> str:
        if facts.features is not None and facts.features <= facts.bits:
            return ""
        return images_for_bits(method)(facts)

    return check


def bytes_for_parts(method: str) -> Requirement:
    """Bits that are a multiple of 8, and a feature for each byte."""

    def check(facts: TrainingFacts) -> str:
        from hashzoo_plugins.shallow import pq  # the modules of methods import torch

        return pq.refusal(method, facts.bits, facts.features)

    return check


def directions_for_coordinates(method: str) -> Requirement:
    """At least as many training images as coordinates if there are more features than these."""

    def check(facts: TrainingFacts) -> str:
        from hashzoo_plugins.shallow import estimates

        if facts.features is None or facts.images is None:
            return ""
        width = estimates.coordinate_bits(facts.bits, facts.features, facts.options["coordinate_bits"], method)
        count = facts.bits // width
        if count >= facts.features or facts.images >= count:
            return ""
        return (
            f"{method} needs at least as many training images as coordinates: {count} of {width} bits, "
            f"{facts.images} images; use fewer bits or more training images"
        )

    return check


def all_of(*checks: Requirement) -> Requirement:
    """Several requirements; the first that is not met gives the reason."""

    def check(facts: TrainingFacts) -> str:
        return next(filter(None, (one(facts) for one in checks)), "")

    return check


def images(method: str, least: int) -> Requirement:
    """At least so many training images."""

    def check(facts: TrainingFacts) -> str:
        if facts.images is None or facts.images >= least:
            return ""
        return f"{method} needs at least {least} training images, not {facts.images}; use more training images"

    return check


def anchors_for_bits(facts: TrainingFacts) -> str:
    """More anchors than bits for ``imh`` with a Laplacian embedding; there are no more anchors than images."""
    if facts.options.get("embedding") != "laplacian" or facts.images is None or facts.images > facts.bits:
        return images("imh", 2)(facts)
    return (
        f"imh with embedding = 'laplacian' needs more training images than bits: {facts.bits} bits, "
        f"{facts.images} images; use fewer bits or embedding = 'tsne'"
    )
