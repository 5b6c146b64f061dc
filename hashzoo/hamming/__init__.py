"""Bits in, counts out: popcount kernels and counts of items by Hamming distance, ties included."""
