"""After an evaluation: which categories fail, and why."""
