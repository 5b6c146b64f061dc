"""A search page."""
