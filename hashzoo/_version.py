"""The version of hashzoo."""

__version__ = "0.1.0"
