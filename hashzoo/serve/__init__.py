"""The local search page of ``hashzoo serve``."""
