"""From codes to scores: encode a split, rank the database, parse names of metrics, compute the value of each query."""
