"""Search with a trained method: encode images, keep an index, explain what it looks at."""
