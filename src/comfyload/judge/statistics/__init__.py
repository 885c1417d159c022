"""Intervals and estimates of samples: pure numbers, no jobs."""
