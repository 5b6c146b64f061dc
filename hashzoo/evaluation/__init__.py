"""Codes to scores: metrics of rankings and of codes, and the scoring of a whole split."""
