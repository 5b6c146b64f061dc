"""One cell: read the benchmark file, plan its jobs, train and score a method."""
