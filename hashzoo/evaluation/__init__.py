"""From codes to scores: encode a split, rank the database, compute every metric."""
