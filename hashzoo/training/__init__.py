"""What a training run uses: budget, checkpoints, stored features, process groups, process state."""
