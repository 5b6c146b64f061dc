"""What stands behind the ``Run`` of a method: the budget with its schedules, checkpoints, stored features, process
groups, random state.
"""
