"""The parts of a run that methods do not see: budget, checkpoints, feature cache, process groups, process state."""
