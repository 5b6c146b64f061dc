"""The local web page that searches an index."""
