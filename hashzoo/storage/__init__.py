"""File storage: atomic writes, schema versions, arrays and tensors, the cache folder."""
