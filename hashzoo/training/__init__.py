"""What stands behind the ``Run`` of a method: epochs and learning-rate schedules, checkpoints, stored features, process
groups, random state.
"""
