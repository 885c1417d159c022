"""Runs against runs: whether they may be compared, what the ratios say, and how a number went through time."""
