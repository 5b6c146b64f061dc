"""One cell: read the benchmark file, plan its jobs, share the features of frozen backbones, train a method, select by
validation, score.
"""
