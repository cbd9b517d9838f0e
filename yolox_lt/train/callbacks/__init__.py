"""What a training does beside its steps: log, balance history, trackers, report, checkpoints, users' functions."""
