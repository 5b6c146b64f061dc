"""Many cells: schedule, isolate, resume."""
