"""One cell: plan it, measure it."""
