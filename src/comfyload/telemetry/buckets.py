"""How durations are put into the buckets of a histogram, wherever Prometheus reads one of ours."""

BUCKETS_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 600, 1200, 3600)
"""Upper edges, in seconds: from a cached job to a long video."""
