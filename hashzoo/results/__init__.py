"""Cells and boards as data: the files of a cell, provenance, CSV files, leaderboards as tables, comparisons,
regressions between boards, significance tests.
"""
