"""What a notebook or a script calls: a benchmark, its board, its progress."""
