"""Results as a page and as figures."""
