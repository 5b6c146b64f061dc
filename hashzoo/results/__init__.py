"""Cells to boards: the record of a measurement, its files, leaderboards, comparisons, significance."""
