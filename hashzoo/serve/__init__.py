"""The local web page that searches an index: its routes, its limits on requests, and the content of its pages."""
