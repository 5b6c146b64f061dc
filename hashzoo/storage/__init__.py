"""Files that are written whole or not at all: atomic replacement, schemas, tensors, the cache folder."""
