"""From cells to boards: the files of a cell, CSV files, leaderboards, comparisons, significance tests."""
