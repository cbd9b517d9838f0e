"""One training: engine, state, callbacks."""
