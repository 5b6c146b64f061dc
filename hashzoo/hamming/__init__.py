"""Arithmetic of codes: pack bits, count relevant items and find neighbors by distance, and metrics of rankings with
ties from counts.
"""
