"""How files are written and read, whatever they hold: atomic replacement, schema versions, tensors, cache folder."""
