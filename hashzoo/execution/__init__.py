"""Many cells: schedule jobs, run each in a process of its own, log it, resume."""
