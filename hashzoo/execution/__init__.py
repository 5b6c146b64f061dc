"""Many cells: schedule jobs, claim them with leases, start and stop the process of each cell, launchers and trackers,
logs, resume.
"""
