"""Search image files with a trained method: encode them, code and index files, search engines and their recall,
heatmaps, pages of results.
"""
