"""Learning rate, parameter groups, averaged weights."""
