"""Arithmetic of codes: pack bits, which items are relevant by their labels, count items and find neighbors by distance,
metrics with ties from counts.
"""
