"""A trained method and its codes for other tools."""
