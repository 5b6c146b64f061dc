"""Exports of trained methods and codes to other programs."""
