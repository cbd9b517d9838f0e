"""Which image comes next, on every rank."""
