"""Processes, ranks, signals, and what ranks exchange."""
