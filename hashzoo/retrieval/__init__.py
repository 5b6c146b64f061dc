"""Search images with a trained method: encode them, code and index files, search engines and recall, heatmaps."""
