"""Search with a trained method: encode images, keep an index, show where the method looks."""
