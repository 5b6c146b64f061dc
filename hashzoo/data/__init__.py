"""Images and splits: find, decode and transform image files, digest them, find damaged ones and duplicates, audit
splits for leaks.
"""
