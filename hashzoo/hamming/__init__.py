"""Kernels for packed binary codes: pack bits, count items and find neighbors by Hamming distance, ties included."""
