"""A trained method, or the codes of an index, for other programs: one module a target, each with a manifest."""
