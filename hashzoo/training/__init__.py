"""What a run stands on: budget, checkpoints, stored features, process groups, process state."""
