"""Processes that nothing outlives. Loads nothing: `bound` is on the way of each start."""
