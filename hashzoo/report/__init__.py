"""Benchmark results as an HTML page and as figures."""
