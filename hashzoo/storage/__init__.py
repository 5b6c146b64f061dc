"""How files are written and read, whatever they hold: atomic replacement, schema versions, tensors, safe NumPy files,
cache folder.
"""
