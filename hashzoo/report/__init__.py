"""Results to look at: the HTML report with its sentences, SVG charts, galleries and thumbnails, and figures as PNG, SVG
or PDF files.
"""
